"""Multi-label annotations: who has which label, how often, and beside what."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ltml.errors import InputError
from ltml.groups import class_groups

__all__ = ["LabelMatrix"]

_PAIRS_AT_ONCE = 2**24  # label pairs counted in one go: bounds the memory of co-occurrence


class LabelMatrix:
    r"""Hold the binary label matrix :math:`Y \in \{0, 1\}^{N \times C}` of a data set.

    The matrix is kept as compressed sparse rows, so 1.7 million images of 600 classes take tens of
    megabytes rather than a gigabyte. It is immutable.

    Args:
        Y: ``(N, C)`` of 0 and 1 (or bool), array or tensor, row = image, column = class.
        class_names: ``C`` distinct names, in column order. Default: ``"class 0"``, ``"class 1"``...

    Raises:
        InputError: if ``Y`` is not a 0/1 matrix, or the names do not match its columns.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1], [1, 0]], ["person", "sheep"])
        >>> labels.counts
        array([3, 1])
        >>> labels.cooccurrence()  # every sheep stands beside a person
        array([[1.        , 0.33333333],
               [1.        , 1.        ]])
    """

    def __init__(self, Y, class_names: Sequence[str] | None = None):
        Y = Y.detach().cpu().numpy() if isinstance(Y, Tensor) else np.asarray(Y)
        if Y.ndim != 2:
            raise InputError(f"Y has shape {Y.shape}; give a matrix (images, classes)")
        wrong = (Y != 0) & (Y != 1)
        if wrong.any():
            image, label = np.argwhere(wrong)[0]
            raise InputError(
                f"Y holds {Y[image, label]!r} at image {image}, class {label}; give 0 or 1"
            )
        image, label = np.nonzero(Y)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(image, minlength=len(Y)))])
        self._set(indptr, label, Y.shape[1], class_names)

    @classmethod
    def from_lists(
        cls, lists: Iterable[Sequence[int]], class_names: Sequence[str]
    ) -> "LabelMatrix":
        """Build from the class indices of each image; a repeated index counts once.

        Args:
            lists: one sequence of class indices for each image, possibly empty.
            class_names: ``C`` distinct names; indices run from 0 to ``C - 1``.

        Raises:
            InputError: if an index is outside the names, or no integer.

        Example:
            >>> LabelMatrix.from_lists([[0, 2], []], ["cat", "dog", "cow"]).dense()
            tensor([[1, 0, 1],
                    [0, 0, 0]], dtype=torch.uint8)
        """
        rows = [np.unique(np.asarray(row)) for row in lists]
        for image, row in enumerate(rows):
            if row.size and row.dtype.kind not in "iu":  # int64 would make 0 of 0.7, and 1 of "1"
                raise InputError(f"image {image} has label {row[0]!r}; give integers")
            if row.size and (row[0] < 0 or row[-1] >= len(class_names)):
                bad = row[0] if row[0] < 0 else row[-1]
                raise InputError(
                    f"image {image} has label {bad}, outside 0 to {len(class_names) - 1} "
                    f"({len(class_names)} class names were given)"
                )
        indptr = np.concatenate([[0], np.cumsum([row.size for row in rows])])
        indices = np.concatenate(rows) if rows else np.empty(0)
        return cls._from_csr(indptr, indices, len(class_names), class_names)

    @classmethod
    def _from_csr(cls, indptr, indices, num_classes, class_names) -> "LabelMatrix":
        self = cls.__new__(cls)
        self._set(indptr, indices, num_classes, class_names)
        return self

    def _set(self, indptr, indices, num_classes, class_names):
        if class_names is None:
            class_names = [f"class {c}" for c in range(num_classes)]
        names = tuple(str(name) for name in class_names)
        if len(names) != num_classes:
            raise InputError(
                f"class_names has {len(names)} names for {num_classes} classes; give one each"
            )
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"class_names holds {twice!r} twice; give distinct names")
        self.indptr = np.asarray(indptr, dtype=np.int64)
        self.indices = np.asarray(indices, dtype=np.int32)
        self.class_names = names
        self.counts = np.bincount(self.indices, minlength=num_classes).astype(np.int64)
        for array in (self.indptr, self.indices, self.counts):
            array.setflags(write=False)

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, C)``: images and classes."""
        return len(self.indptr) - 1, len(self.class_names)

    @property
    def num_classes(self) -> int:
        """``C``."""
        return len(self.class_names)

    @property
    def cardinality(self) -> float:
        """Labels an image, on average; 0 for an empty matrix."""
        return len(self.indices) / max(len(self), 1)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(c)} {name}" for name, c in self.groups().items())
        return f"LabelMatrix({len(self)} images, {self.num_classes} classes: {sizes})"

    def __eq__(self, other) -> bool:
        return (
            isinstance(other, LabelMatrix)
            and self.class_names == other.class_names
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
        )

    __hash__ = None

    def __getitem__(self, image: int) -> np.ndarray:
        """Class indices of one image, ascending."""
        return self.indices[self.indptr[image] : self.indptr[image + 1]]

    def subset(self, images) -> "LabelMatrix":
        """Labels of the given images, in the given order; an index may repeat.

        Args:
            images: integer indices or a boolean mask over the ``N`` images.
        """
        images = np.asarray(images)
        images = np.flatnonzero(images) if images.dtype == bool else images.astype(np.int64)
        starts, lengths = self.indptr[images], np.diff(self.indptr)[images]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)
        indices = self.indices[np.repeat(starts, lengths) + within]
        return self._from_csr(indptr, indices, self.num_classes, self.class_names)

    def dense(self, images=None) -> Tensor:
        """``(N, C)`` uint8 tensor of the given images (default: all)."""
        part = self if images is None else self.subset(images)
        out = torch.zeros(part.shape, dtype=torch.uint8)
        out[part.image_of_label(), torch.from_numpy(part.indices.astype(np.int64))] = 1
        return out

    def padded(self) -> Tensor:
        """``(N, L)`` int64 class indices, padded with ``C``; L = most labels on one image (>= 1).

        A device can turn rows of it into targets with one scatter, at a fixed shape.
        """
        lengths = np.diff(self.indptr)
        out = np.full((len(self), max(1, lengths.max(initial=0))), self.num_classes, np.int64)
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.indices
        return torch.from_numpy(out)

    def image_of_label(self) -> np.ndarray:
        """Image index of every stored label, parallel to ``indices``."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def cooccurrence(self, *, normalize: bool = True) -> np.ndarray:
        r"""Count how often classes share an image.

        Args:
            normalize: divide row ``i`` by its count.

        Returns:
            ``(C, C)`` float64; row ``i`` = :math:`P(j \mid i)`, the share of images with class
            ``i`` that also hold ``j`` (rows of absent classes are 0). Without
            ``normalize`` int64 image counts, with ``counts`` on the diagonal.
        """
        C, lengths = self.num_classes, np.diff(self.indptr)
        pairs = np.zeros(C * C, np.int64)
        # Enumerate the label pairs of each image, a bounded number of pairs at a time.
        blocks = np.searchsorted(
            np.cumsum(lengths**2), np.arange(_PAIRS_AT_ONCE, (lengths**2).sum(), _PAIRS_AT_ONCE)
        )
        for start, stop in zip([0, *blocks], [*blocks, len(self)], strict=True):
            size = lengths[start:stop]
            labels = self.indices[self.indptr[start] : self.indptr[stop]].astype(np.int64)
            repeats = np.repeat(size, size)  # each label meets all labels of its image
            first = np.repeat(labels, repeats)
            offset = np.repeat(self.indptr[start:stop] - self.indptr[start], size)
            ends = np.cumsum(repeats)
            within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - repeats, repeats)
            second = labels[np.repeat(offset, repeats) + within]
            pairs += np.bincount(first * C + second, minlength=C * C)
        pairs = pairs.reshape(C, C)
        return pairs / np.maximum(self.counts, 1)[:, None] if normalize else pairs

    def groups(self, *, head: int = 100, tail: int = 20) -> dict[str, np.ndarray]:
        """Split the classes by their counts; see :func:`ltml.groups.class_groups`.

        Raises:
            InputError: unless ``0 <= tail <= head``.
        """
        return class_groups(self.counts, head=head, tail=tail)

    def group_of_class(self, *, head: int = 100, tail: int = 20) -> np.ndarray:
        """``(C,)`` array of group names, one for each class; see :meth:`groups`."""
        out = np.empty(self.num_classes, dtype=object)
        for name, classes in self.groups(head=head, tail=tail).items():
            out[classes] = name
        return out.astype(str)
