"""Multi-label annotations: which image has which labels, how often, and together with what."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from scipy.sparse import csr_array, issparse

from ltml.core.errors import InputError
from ltml.core.files import check_class_names

# torch is imported by the methods that return tensors: a table of runs need not wait for it.


GROUPS = ("head", "medium", "tail")


class LabelMatrix:
    r"""Hold the binary label matrix :math:`Y \in \{0, 1\}^{N \times C}` of a data set.

    Args:
        Y: ``(N, C)`` of 0 and 1 (or bool): array, tensor, scipy sparse matrix, or another
            LabelMatrix; row = image, column = class.
        class_names: ``C`` distinct names, in column order. Default: those of ``Y`` if it has any,
            else ``"class 0"``, ``"class 1"``...

    Attributes:
        matrix: ``(N, C)`` :class:`scipy.sparse.csr_array` of int32 ones, with sorted indices.
        counts: ``(C,)`` int64, images of each class.

    Raises:
        InputError: if ``Y`` is not a 0/1 matrix, or the names do not match its columns.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1], [1, 0]], ["person", "sheep"])
        >>> labels.counts
        array([3, 1])
        >>> labels.cooccurrence()  # every sheep appears beside a person
        array([[1.        , 0.33333333],
               [1.        , 1.        ]])
    """

    def __init__(self, Y, class_names: Sequence[str] | None = None):
        if isinstance(Y, LabelMatrix):
            class_names = Y.class_names if class_names is None else class_names
            Y = Y.matrix
        elif not issparse(Y):
            Y = np.asarray(Y.detach().cpu() if hasattr(Y, "detach") else Y)
            if Y.ndim != 2:
                raise InputError(f"Y has shape {Y.shape}; give a matrix (images, classes)")
        matrix = csr_array(Y, copy=True)  # what follows changes it in place
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        matrix.sort_indices()
        wrong = np.flatnonzero(matrix.data != 1)
        if len(wrong):
            image = np.searchsorted(matrix.indptr, wrong[0], side="right") - 1
            raise InputError(
                f"Y holds {matrix.data[wrong[0]]} at image {image}, class "
                f"{matrix.indices[wrong[0]]}; give 0 or 1"
            )
        if class_names is None:
            class_names = [f"class {c}" for c in range(matrix.shape[1])]
        self.class_names = check_class_names(map(str, class_names), where="class_names")
        if len(self.class_names) != matrix.shape[1]:
            raise InputError(
                f"class_names has {len(self.class_names)} names for {matrix.shape[1]} classes; "
                "give one each"
            )
        small = (part.astype(np.int32) for part in (matrix.data, matrix.indices, matrix.indptr))
        self.matrix = csr_array(tuple(small), shape=matrix.shape)
        self.counts = np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int64)
        for array in (self.matrix.data, self.matrix.indices, self.matrix.indptr, self.counts):
            array.setflags(write=False)

    @classmethod
    def from_lists(
        cls, lists: Iterable[Sequence[int]], class_names: Sequence[str]
    ) -> "LabelMatrix":
        """Build from the class indices of each image; a repeated index counts once.

        Args:
            lists: class indices of each image, 0 to ``C - 1``, possibly none.
            class_names: ``C`` distinct names.

        Raises:
            InputError: if an index is outside the names, or not an integer.

        Example:
            >>> LabelMatrix.from_lists([[0, 2], []], ["cat", "dog", "cow"]).dense()
            tensor([[1, 0, 1],
                    [0, 0, 0]], dtype=torch.uint8)
        """
        rows = [np.unique(np.asarray(row)) for row in lists]
        for image, row in enumerate(rows):
            if row.size and row.dtype.kind not in "iu":  # int64 would make 0 of 0.7, and 1 of "1"
                raise InputError(f"image {image} has label {row[0]!r}; give integers")
            wrong = row[(row < 0) | (row >= len(class_names))] if row.size else row
            if wrong.size:
                raise InputError(
                    f"image {image} has label {wrong[0]}, outside 0 to {len(class_names) - 1} "
                    f"({len(class_names)} class names were given)"
                )
        indptr = np.concatenate([[0], np.cumsum([row.size for row in rows], dtype=np.int64)])
        indices = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        shape = (len(rows), len(class_names))
        ones = np.ones(len(indices), np.int32)
        return cls(csr_array((ones, indices, indptr), shape=shape), class_names)

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

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(c)} {name}" for name, c in self.groups().items())
        return f"LabelMatrix({len(self):,} images, {self.num_classes} classes: {sizes})"

    def _repr_html_(self) -> str:
        import pandas as pd

        columns = {"class": self.class_names, "group": self.group_of_class(), "images": self.counts}
        table = pd.DataFrame(columns).sort_values("images", ascending=False, kind="stable")
        return f"<p>{escape(repr(self))}</p>{table.to_html(index=False, max_rows=16, border=0)}"

    def __eq__(self, other) -> bool:
        same = isinstance(other, LabelMatrix) and self.class_names == other.class_names
        return same and self.shape == other.shape and not (self.matrix != other.matrix).nnz

    __hash__ = None

    def __getitem__(self, image: int) -> np.ndarray:
        """Class indices of one image, ascending."""
        image = range(len(self))[image]  # negative as for a list; IndexError beyond
        return self.matrix.indices[slice(*self.matrix.indptr[image : image + 2])]

    def subset(self, images) -> "LabelMatrix":
        """Labels of the given images (indices, which may repeat, or a mask), in that order."""
        images = np.asarray(images)
        images = np.flatnonzero(images) if images.dtype == bool else images.astype(np.int64)
        return LabelMatrix(self.matrix[images], self.class_names)

    def dense(self, images=None):
        """``(N, C)`` uint8 tensor of the given images (default: all)."""
        import torch

        part = self if images is None else self.subset(images)
        return torch.from_numpy(part.matrix.astype(np.uint8).toarray())

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
            ``(C, C)`` float64; row ``i`` = :math:`P(j \mid i)`, the share of images with class
            ``i`` that also hold ``j`` (rows of absent classes are 0). Without
            ``normalize`` int64 image counts, with ``counts`` on the diagonal.
        """
        pairs = (self.matrix.T @ self.matrix).toarray().astype(np.int64)
        return pairs / np.maximum(self.counts, 1)[:, None] if normalize else pairs

    def groups(self, *, head: int = 100, tail: int = 20) -> dict[str, np.ndarray]:
        """Split the classes by count ``n``: head ``n >= head``, tail ``n < tail``, medium between.

        The default bounds are those of VOC-LT and COCO-LT (Wu et al., ECCV 2020,
        https://arxiv.org/abs/2007.09654).

        Returns:
            ``{"head": classes, "medium": classes, "tail": classes}``, index arrays, possibly empty.

        Raises:
            InputError: unless ``0 <= tail <= head``.

        Example:
            >>> labels = LabelMatrix.from_lists([[0]] * 120 + [[1]] * 3, ["person", "sheep"])
            >>> labels.groups()["tail"]
            array([1])
        """
        if not 0 <= tail <= head:
            raise InputError(f"groups(head={head}, tail={tail}): give bounds 0 <= tail <= head")
        n = self.counts
        masks = n >= head, (n >= tail) & (n < head), n < tail
        return {name: np.flatnonzero(mask) for name, mask in zip(GROUPS, masks, strict=True)}

    def group_of_class(self) -> np.ndarray:
        """``(C,)`` array of group names, one for each class; see :meth:`groups`."""
        out = np.empty(self.num_classes, dtype="<U6")
        for name, classes in self.groups().items():
            out[classes] = name
        return out
