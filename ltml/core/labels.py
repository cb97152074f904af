"""Multi-label annotations: which image has which labels, how often, and together with what."""

import operator
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from scipy.sparse import csr_array

from ltml.core.entries import EntrySet, read_lists, read_matrix
from ltml.core.errors import InputError
from ltml.core.files import check_class_names
from ltml.core.options import choose, fitted

# torch is imported by the methods that return tensors: a table of runs need not wait for it.


GROUPS = ("head", "medium", "tail")
BOUNDS = (100, 20)  # of the training counts; those of VOC-LT and COCO-LT


class LabelMatrix:
    r"""Hold the labels of a data set: each class present, absent or unknown on each image.

    An entry is *unknown* where nobody looked: a finding left blank, a category that was not among
    those verified. Unknown entries are kept thin, as a list of themselves or of all others,
    whichever is shorter.

    Args:
        Y: ``(N, C)`` of 0 and 1 (or bool), NaN, None or NA where unknown: array, tensor, frame,
            scipy sparse matrix, or another LabelMatrix; row = image, column = class.
        class_names: ``C`` distinct names, in column order. Default: those of ``Y`` if it has any,
            else ``"class 0"``, ``"class 1"``...
        unknown: ``(N, C)`` of 0 and 1, in any of these forms: which entries are unknown.
        known: the same, the other way round: which are known. Those of 1 in ``Y`` always are.

    Attributes:
        matrix: ``(N, C)`` :class:`scipy.sparse.csr_array` of int32 ones, with sorted indices: the
            entries that are present.
        counts: ``(C,)`` int64, images of each class.
        bounds: smallest count of a head class, and smallest count above the tail.

    Raises:
        InputError: if ``Y`` is not a 0/1 matrix, the names do not match its columns, or an entry is
            both present and unknown.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1], [1, 0]], ["person", "sheep"])
        >>> labels.counts
        array([3, 1])
        >>> labels.cooccurrence()  # every sheep appears beside a person
        array([[1.        , 0.33333333],
               [1.        , 1.        ]])
        >>> LabelMatrix([[1, np.nan], [0, 0]]).negative_counts
        array([1, 1])
    """

    def __init__(self, Y, class_names: Sequence[str] | None = None, *, unknown=None, known=None):
        self.bounds, self._group_counts = BOUNDS, None
        if isinstance(Y, LabelMatrix):
            class_names = Y.class_names if class_names is None else class_names
            ones, blank = Y.matrix, Y._unknown
            self.bounds, self._group_counts = Y.bounds, Y._group_counts
        else:
            ones, blank = read_matrix(Y)
            if class_names is None and hasattr(Y, "columns") and _are_names(Y.columns):
                class_names = Y.columns
        if class_names is None:
            class_names = [f"class {c}" for c in range(ones.shape[1])]
        self.class_names = check_class_names(map(str, class_names), where="class_names")
        if len(self.class_names) != ones.shape[1]:
            raise InputError(
                f"class_names has {len(self.class_names)} names for {ones.shape[1]} classes; "
                "give one each"
            )
        self.matrix = csr_array(
            (ones.data.astype(np.int32, copy=False), ones.indices, ones.indptr), shape=ones.shape
        )
        self.counts = np.bincount(ones.indices, minlength=ones.shape[1]).astype(np.int64)
        for array in (self.matrix.data, self.matrix.indices, self.matrix.indptr, self.counts):
            array.setflags(write=False)
        if unknown is not None or known is not None:
            given = _given(unknown, known, ones)
            blank = given if blank is None else blank | given
        if blank is not None:
            for image, c in np.argwhere(blank.within(ones))[:1]:
                raise InputError(
                    f"image {image} holds class {self.class_names[c]!r}, which is also unknown "
                    "there; give one of both"
                )
        self._unknown = blank if blank is not None and len(blank) else None

    @classmethod
    def from_lists(
        cls,
        lists: Iterable[Sequence[int]],
        class_names: Sequence[str],
        *,
        unknown: Iterable[Sequence[int]] | None = None,
        known: Iterable[Sequence[int]] | None = None,
    ) -> "LabelMatrix":
        """Build from the class indices of each image; a repeated index counts once.

        Args:
            lists: class indices of each image, 0 to ``C - 1``, possibly none.
            class_names: ``C`` distinct names.
            unknown: indices of the unknown classes of each image; all others are known.
            known: indices of the classes that were verified on each image, present or not; all
                others are unknown.

        Raises:
            InputError: if an index is outside the names or not an integer, or an entry is both
                present and unknown.

        Example:
            >>> LabelMatrix.from_lists([[0, 2], []], ["cat", "dog", "cow"]).dense()
            tensor([[1, 0, 1],
                    [0, 0, 0]], dtype=torch.uint8)
            >>> LabelMatrix.from_lists([[0], []], ["cat", "dog"], known=[[0], [1]]).dense()
            tensor([[1., nan],
                    [nan, 0.]])
        """
        class_names = list(class_names)
        ones = read_lists(lists, class_names)
        if unknown is not None:
            unknown = read_lists(unknown, class_names, "unknown label")
        if known is not None:
            known = read_lists(known, class_names, "known label")
        return cls(ones, class_names, unknown=unknown, known=known)

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, C)``: images and classes."""
        return self.matrix.shape

    @property
    def num_classes(self) -> int:
        """``C``."""
        return self.matrix.shape[1]

    @property
    def cardinality(self) -> float:
        """Labels per image, on average; 0 for an empty matrix."""
        return self.matrix.nnz / max(len(self), 1)

    @property
    def has_unknown(self) -> bool:
        """Whether any entry is unknown."""
        return self._unknown is not None

    @property
    def known_counts(self) -> np.ndarray:
        """``(C,)`` int64: images of which it is known whether they hold each class."""
        everywhere = np.full(self.num_classes, len(self))
        return everywhere - self._unknown.per_column() if self.has_unknown else everywhere

    @property
    def negative_counts(self) -> np.ndarray:
        """``(C,)`` int64: images that are known not to hold each class."""
        return self.known_counts - self.counts

    @property
    def unknown(self) -> csr_array:
        """``(N, C)`` pattern of int8 ones at the unknown entries; large where most are unknown."""
        return self._unknown.pattern() if self.has_unknown else csr_array(self.shape, dtype=np.int8)

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(c)} {name}" for name, c in self.groups().items())
        if self.has_unknown:
            sizes += f"; {_percent(len(self._unknown), np.prod(self.shape, dtype=float))} unknown"
        return f"LabelMatrix({len(self):,} images, {self.num_classes} classes: {sizes})"

    def _repr_html_(self) -> str:
        import pandas as pd

        columns = {"class": self.class_names, "group": self.group_of_class(), "images": self.counts}
        if self.has_unknown:
            columns["negatives"] = self.negative_counts
            columns["unknown"] = len(self) - self.known_counts
        table = pd.DataFrame(columns).sort_values("images", ascending=False, kind="stable")
        return f"<p>{escape(repr(self))}</p>{table.to_html(index=False, max_rows=16, border=0)}"

    def __eq__(self, other) -> bool:
        same = isinstance(other, LabelMatrix) and self.class_names == other.class_names
        same = same and self.shape == other.shape and self._unknown == other._unknown
        return same and not (self.matrix != other.matrix).nnz

    __hash__ = None

    def __getitem__(self, image: int) -> np.ndarray:
        """Class indices of one image, ascending."""
        image = range(len(self))[image]  # negative as for a list; IndexError beyond
        return self.matrix.indices[slice(*self.matrix.indptr[image : image + 2])]

    def subset(self, images) -> "LabelMatrix":
        """Labels of the given images (indices, which may repeat, or a mask), in that order."""
        images = np.asarray(images)
        images = np.flatnonzero(images) if images.dtype == bool else images.astype(np.int64)
        part = LabelMatrix(self.matrix[images], self.class_names)
        part.bounds, part._group_counts = self.bounds, self._group_counts
        if self.has_unknown and len(unknown := self._unknown.rows(images)):
            part._unknown = unknown
        return part

    def fill_unknown(self, value: int = 0) -> "LabelMatrix":
        """Take every unknown entry as absent, or with ``value=1`` as present."""
        if value not in (0, 1):
            raise InputError(f"value is {value!r}; give 0 (absent) or 1 (present)")
        if not self.has_unknown:
            return self
        matrix = self.matrix + self._unknown.pattern() if value else self.matrix
        filled = LabelMatrix(matrix, self.class_names)
        filled.bounds, filled._group_counts = self.bounds, self._group_counts
        return filled

    def dense(self, images=None):
        """``(N, C)`` uint8 tensor of the given images (default: all); where any entry is unknown,
        float32 with NaN at those."""
        import torch

        part = self if images is None else self.subset(images)
        Y = torch.from_numpy(part.matrix.astype(np.uint8).toarray())
        if not self.has_unknown:  # of the whole: the type does not change from part to part
            return Y
        return Y.float().masked_fill_(~part.known(), float("nan"))

    def known(self, images=None):
        """``(N, C)`` bool tensor of the given images (default: all): where it is known whether a
        class is present."""
        import torch

        part = self if images is None else self.subset(images)
        if not part.has_unknown:
            return torch.ones(part.shape, dtype=torch.bool)
        return torch.from_numpy(~part._unknown.dense())

    def padded(self):
        """``(N, L)`` int64 class indices, padded with ``C``; L = most labels of an image (>= 1).

        A device turns rows of it into targets with one scatter, at a fixed shape.
        """
        import torch

        lengths = np.diff(self.matrix.indptr)
        out = np.full((len(self), max(1, lengths.max(initial=0))), self.num_classes, np.int64)
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.matrix.indices
        return torch.from_numpy(out)

    def image_of_label(self) -> np.ndarray:
        """Image index of every stored label, parallel to ``matrix.indices``."""
        return np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr))

    def holding(self, classes) -> np.ndarray:
        """``(N,)`` bool: the images that hold at least one of the classes."""
        return self.matrix[:, np.atleast_1d(classes)].sum(axis=1) > 0

    def rates(self, p: np.ndarray) -> np.ndarray:
        """``(C,)``: sum of the image weights ``p`` (N,) over the images of each class."""
        return p @ self.matrix

    def cooccurrence(self, *, normalize: bool = True) -> np.ndarray:
        r"""Count how often classes share an image.

        Args:
            normalize: divide row ``i`` by its count.

        Returns:
            ``(C, C)`` float64; row ``i`` = :math:`P(j \mid i)`, the fraction of images with class
            ``i`` that also hold ``j``, among those where ``j`` is known (0 where there are none).
            Without ``normalize`` int64 image counts, with ``counts`` on the diagonal.
        """
        pairs = (self.matrix.T @ self.matrix).toarray().astype(np.int64)
        of = self.counts[:, None]
        if normalize and self.has_unknown:
            of = of - self._unknown.pairs(self.matrix)
        return pairs / np.maximum(of, 1) if normalize else pairs

    @property
    def group_counts(self) -> np.ndarray:
        """``(C,)`` counts by which classes are grouped: those of the whole table that
        :meth:`grouped` was called on, else :attr:`counts`."""
        return self.counts if self._group_counts is None else self._group_counts

    def grouped(self, bounds: tuple[int, int] | str = BOUNDS) -> "LabelMatrix":
        """Fix the groups by these labels' counts; every subset then has the same groups.

        Args:
            bounds: smallest count of a head class, and smallest count above the tail;
                ``"terciles"`` takes them from the counts, so that about a third of the classes
                with an image is in each group.

        Raises:
            InputError: unless ``0 <= tail <= head``.

        Example:
            >>> labels = LabelMatrix.from_lists([[0]] * 9 + [[1]] * 5 + [[2]] * 2, "abc")
            >>> third = labels.grouped("terciles")
            >>> third.bounds, third.subset([0, 9, 14]).group_of_class().tolist()
            ((7, 4), ['head', 'medium', 'tail'])
        """
        if isinstance(bounds, str):
            choose("groups", bounds, {"terciles": None})
            there = self.group_counts[self.group_counts > 0]
            thirds = np.quantile(there, (2 / 3, 1 / 3)) if len(there) else BOUNDS
            bounds = tuple(int(n) for n in np.ceil(thirds))
        try:
            head, tail = map(operator.index, bounds)
        except (TypeError, ValueError) as error:
            raise InputError(f"groups is {bounds!r}; give two counts, or 'terciles'") from error
        if not 0 <= tail <= head:
            raise InputError(f"groups(head={head}, tail={tail}): give bounds 0 <= tail <= head")
        out = LabelMatrix(self)
        out.bounds, out._group_counts = (head, tail), self.group_counts
        return out

    def groups(self, *, head: int | None = None, tail: int | None = None) -> dict[str, np.ndarray]:
        """Split the classes by count ``n``: head ``n >= head``, tail ``n < tail``, medium between.

        Args:
            head: smallest count of a head class; default: that of :attr:`bounds`, which is 100, as
                of VOC-LT and COCO-LT (Wu et al., ECCV 2020, https://arxiv.org/abs/2007.09654).
            tail: smallest count above the tail; default: that of :attr:`bounds`, which is 20.

        Returns:
            ``{"head": classes, "medium": classes, "tail": classes}``, index arrays, possibly empty.

        Raises:
            InputError: unless ``0 <= tail <= head``.

        Example:
            >>> labels = LabelMatrix.from_lists([[0]] * 120 + [[1]] * 3, ["person", "sheep"])
            >>> labels.groups()["tail"]
            array([1])
        """
        head, tail = (fitted(n, x, int | None) for n, x in (("head", head), ("tail", tail)))
        head = self.bounds[0] if head is None else head
        tail = self.bounds[1] if tail is None else tail
        if not 0 <= tail <= head:
            raise InputError(f"groups(head={head}, tail={tail}): give bounds 0 <= tail <= head")
        n = self.group_counts
        masks = n >= head, (n >= tail) & (n < head), n < tail
        return {name: np.flatnonzero(mask) for name, mask in zip(GROUPS, masks, strict=True)}

    def group_of_class(self) -> np.ndarray:
        """``(C,)`` array of group names, one for each class; see :meth:`groups`."""
        out = np.empty(self.num_classes, dtype="<U6")
        for name, classes in self.groups().items():
            out[classes] = name
        return out


def _given(unknown, known, ones: csr_array) -> EntrySet:
    """Read which entries are unknown, from either argument."""
    if unknown is not None and known is not None:
        raise InputError("unknown and known are both given; give one, the other follows")
    name, flags = ("unknown", unknown) if known is None else ("known", known)
    found, blank = read_matrix(flags, name)
    if blank is not None:
        raise InputError(f"{name} holds NaN; give 0 or 1 for every entry")
    if found.shape != ones.shape:
        raise InputError(f"{name} has shape {found.shape}, the labels {ones.shape}; give the same")
    if known is None:
        return EntrySet(found)
    entries = EntrySet(found, inverted=True)
    verified = entries.within(ones)  # a label that is given is known, whatever the list says
    return EntrySet(((found + verified) > 0).astype(np.int8), True) if verified.nnz else entries


def _are_names(columns) -> bool:
    return all(isinstance(name, str) for name in columns)


def _percent(part: int, whole: float) -> str:
    """A percentage that says 0 or 100 only where it is exact."""
    percent = 100 * part / whole
    return f"{percent:.0f} %" if 1 <= percent <= 99 else f"{percent:.3g} %"
