"""Entries of a matrix: read from whatever holds them, and kept as the shorter of two lists."""

import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from scipy.sparse import csr_array, issparse, vstack

from ltml.core.errors import InputError

_BLOCK = 2**22  # entries looked at in one go, so that a dense matrix needs no dense copy


class EntrySet:
    """A set of entries of an ``(N, C)`` matrix: itself or its complement, whichever is shorter.

    Args:
        listed: pattern of the entries listed, ``(N, C)``.
        inverted: whether the set is all other entries.
    """

    def __init__(self, listed: csr_array, inverted: bool = False):
        spare = listed.nnz - listed.shape[0] * listed.shape[1] / 2
        if spare > 0 or (spare == 0 and inverted):  # one form for one set
            listed, inverted = _complement(listed), not inverted
        self.listed, self.inverted = listed, inverted
        for array in (listed.data, listed.indices, listed.indptr):
            array.setflags(write=False)

    def __len__(self) -> int:
        N, C = self.listed.shape
        return N * C - self.listed.nnz if self.inverted else self.listed.nnz

    def __eq__(self, other) -> bool:
        same = isinstance(other, EntrySet) and self.inverted == other.inverted
        return same and not (self.listed != other.listed).nnz

    __hash__ = None

    def __or__(self, other: "EntrySet") -> "EntrySet":
        a, b = self.listed, other.listed
        if self.inverted and other.inverted:
            return EntrySet(a * b, True)
        if self.inverted or other.inverted:
            a, b = (a, b) if self.inverted else (b, a)
            return EntrySet(_ones(a - a * b), True)
        return EntrySet(_ones(a + b))

    def rows(self, rows) -> "EntrySet":
        """Entries of some rows, in that order."""
        return EntrySet(self.listed[rows], self.inverted)

    def within(self, pattern: csr_array) -> csr_array:
        """Entries of a pattern that are in the set."""
        parts = []
        for rows in _blocks(pattern.shape, 2**26):  # scipy makes room for both operands whole
            part = pattern[rows]
            inside = part * self.listed[rows]
            parts.append(_ones(part - inside if self.inverted else inside))
        return vstack(parts, format="csr")

    def per_column(self) -> np.ndarray:
        """``(C,)`` int64: entries of each column."""
        N, C = self.listed.shape
        count = np.zeros(C, np.int64)
        for first in range(0, self.listed.nnz, _BLOCK):  # numpy takes them as int64
            count += np.bincount(self.listed.indices[first : first + _BLOCK], minlength=C)
        return N - count if self.inverted else count

    def pairs(self, pattern: csr_array) -> np.ndarray:
        """``(C, C)`` int64: rows in which ``i`` is in the pattern and ``j`` in the set."""
        both = (pattern.T @ self.listed).toarray().astype(np.int64)
        return pattern.sum(axis=0)[:, None] - both if self.inverted else both

    def dense(self) -> np.ndarray:
        """``(N, C)`` bool."""
        return self.listed.toarray().astype(bool) != self.inverted

    def pattern(self) -> csr_array:
        """``(N, C)`` int8 ones at the entries, however many there are."""
        return _complement(self.listed) if self.inverted else self.listed


def _ones(matrix: csr_array) -> csr_array:
    """Pattern of a matrix's nonzero entries."""
    matrix = csr_array(matrix)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return _pattern(matrix.indices, matrix.indptr, matrix.shape)


def _pattern(indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> csr_array:
    small = np.int32 if len(indices) < 2**31 else np.int64  # scipy would take the larger of both
    indices, indptr = indices.astype(small, copy=False), indptr.astype(small, copy=False)
    return csr_array((np.ones(len(indices), np.int8), indices, indptr), shape=shape)


def _blocks(shape: tuple[int, int], entries: int = _BLOCK) -> Iterator[slice]:
    step = max(1, entries // max(shape[1], 1))
    return (slice(first, first + step) for first in range(0, max(shape[0], 1), step))


def _from_blocks(flags: Callable[[slice], np.ndarray], shape: tuple[int, int]) -> csr_array:
    """Pattern of the entries at which ``flags`` of a slice of rows is true."""
    indices, lengths = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    for rows in _blocks(shape):
        found = flags(rows)
        indices.append(found.nonzero()[1].astype(np.int32))
        lengths.append(found.sum(1, dtype=np.int64))
    indices = np.concatenate(indices)
    return _pattern(indices, np.concatenate(lengths).cumsum(), shape)


def _complement(listed: csr_array) -> csr_array:
    return _from_blocks(lambda rows: listed[rows].toarray() == 0, listed.shape)


def read_matrix(Y, name: str = "Y") -> tuple[csr_array, EntrySet | None]:
    """Read the ones of a 0/1 matrix, and its blank entries (NaN, None, NA, masked) if any.

    Args:
        Y: ``(N, C)`` of 0, 1 and blanks: array, tensor, frame, nested list, or sparse matrix.
        name: name of the matrix in messages.

    Raises:
        InputError: if it is no matrix, or naming an entry that is neither 0, 1 nor blank.
    """
    Y = _plain(Y, name)
    if issparse(Y):
        return _read_sparse(Y, name)
    shape = tuple(Y.shape)
    if len(shape) != 2:
        raise InputError(f"{name} has shape {shape}; give a matrix (images, classes)")
    # Two looks, since only the number of blanks says which of both lists is the shorter.
    blanks = sum(int(_blank(part).sum()) for part in (_numpy(Y, rows) for rows in _blocks(shape)))
    ones = _from_blocks(lambda rows: _checked(_numpy(Y, rows), rows, name), shape)
    if not blanks:
        return ones, None
    inverted = 2 * blanks > shape[0] * shape[1]
    listed = _from_blocks(lambda rows: _blank(_numpy(Y, rows)) != inverted, shape)
    return ones, EntrySet(listed, inverted)


def zeros_and_ones(Y, name: str) -> np.ndarray:
    """Read a 0/1 matrix whole: bool, or float32 with NaN at its blank entries.

    Raises:
        InputError: naming an entry that is neither 0, 1 nor blank.
    """
    if hasattr(Y, "class_names") and hasattr(Y, "dense"):  # a LabelMatrix
        Y = Y.dense()
    Y = _plain(Y, name)
    Y = Y.toarray() if issparse(Y) else Y
    if len(Y.shape) != 2:
        raise InputError(f"{name} have shape {tuple(Y.shape)}; give (images, classes)")
    part = _numpy(Y, slice(0, None))
    blank = _blank(part)
    ones = _checked(part, slice(0, None), name)
    return np.where(blank, np.float32(np.nan), ones.astype(np.float32)) if blank.any() else ones


def to_numpy(x, name: str) -> np.ndarray:
    """Numbers of any container as an array, NaN where blank.

    Raises:
        InputError: if there is something else among them.
    """
    x = _plain(x, name)
    x = x.toarray() if issparse(x) else x
    if hasattr(x, "iloc"):
        x = _numpy(x if hasattr(x, "columns") else x.to_frame(), slice(0, None)).reshape(x.shape)
    x = x.filled(np.nan) if np.ma.isMaskedArray(x) else x
    if x.dtype.kind in "biuf":
        return x
    try:
        return np.where(_blank(x.astype(object)), np.nan, x).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} hold something that is no number ({error}); give numbers"
        ) from error


def _plain(Y, name: str):
    """An array, frame, dense tensor or scipy matrix of what was given."""
    if "sparse" in str(getattr(Y, "layout", "")):  # a tensor
        Y = Y.detach().cpu().to_sparse_coo().coalesce()
        return csr_array((Y.values().numpy(), Y.indices().numpy()), shape=tuple(Y.shape))
    if issparse(Y) or hasattr(Y, "iloc") or hasattr(Y, "detach") or np.ma.isMaskedArray(Y):
        return Y
    try:
        return np.asarray(Y)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: rows of different lengths; give a matrix") from error


def _read_sparse(Y, name: str) -> tuple[csr_array, EntrySet | None]:
    matrix = csr_array(Y, copy=True)  # what follows changes it in place
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    blank, unknown = _blank(matrix.data), None
    if blank.any():
        unknown = matrix.copy()
        unknown.data = blank.astype(np.int8)
        unknown, matrix.data = EntrySet(_ones(unknown)), np.where(blank, 0, matrix.data)
        matrix.eliminate_zeros()
    wrong = np.flatnonzero(matrix.data != 1)
    if len(wrong):
        image = np.searchsorted(matrix.indptr, wrong[0], side="right") - 1
        raise _neither(matrix.data[wrong[0]], image, matrix.indices[wrong[0]], name)
    return _pattern(matrix.indices, matrix.indptr, matrix.shape), unknown


def _numpy(Y, rows: slice) -> np.ndarray:
    """Some rows of a dense matrix, as numbers or objects."""
    if hasattr(Y, "iloc"):
        from pandas.api.types import is_numeric_dtype

        part, numeric = Y.iloc[rows], all(map(is_numeric_dtype, Y.dtypes))
        return part.to_numpy(np.float64, na_value=np.nan) if numeric else part.to_numpy(object)
    part = Y[rows]
    if hasattr(part, "detach"):
        part = part.detach().cpu()
        part = (part.float() if part.is_floating_point() else part).numpy()  # of bfloat16 too
    return part if part.dtype.kind in "biuf" else part.astype(object)


def _blank(part: np.ndarray) -> np.ndarray:
    masked = np.ma.getmaskarray(part)
    part = np.ma.getdata(part)
    if part.dtype.kind == "f":
        return np.isnan(part) | masked
    if part.dtype.kind == "O":
        import pandas as pd

        return pd.isna(part) | masked
    return masked


def _checked(part: np.ndarray, rows: slice, name: str) -> np.ndarray:
    """Whether each entry is 1; all others must be 0 or blank."""
    blank, part = _blank(part), np.ma.getdata(part)
    if part.dtype.kind == "O":
        numeric = np.array([isinstance(v, numbers.Real | np.bool_) for v in part.flat], bool)
        wrong = ~numeric.reshape(part.shape) & ~blank
        values = np.where(wrong | blank, 0, part).astype(np.float64)
    else:
        wrong, values = np.zeros(1, bool), part
    one = (values == 1) & ~blank
    wrong = wrong | ~(one | (values == 0) | blank)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise _neither(part[row, column], rows.start + row, column, name)
    return one


def _neither(value, image: int, column: int, name: str) -> InputError:
    value = value.item() if isinstance(value, np.generic) else value
    blank = ", or NaN for unknown" if name == "Y" else ""
    return InputError(
        f"{name} holds {value!r} at image {image}, class {column}; give 0 or 1{blank}"
    )


def read_lists(
    lists: Iterable[Sequence[int]], class_names: Sequence[str], what: str = "label"
) -> csr_array:
    """Pattern of the class indices of each image; a repeated index counts once.

    Raises:
        InputError: naming an image whose indices are no integers, or outside the names.
    """
    parts, C = [csr_array((0, len(class_names)), dtype=np.int8)], len(class_names)
    lists, image = iter(lists), 0
    while block := [_indices(row, image + i, what) for i, row in enumerate(islice(lists, 10_000))]:
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in block])])
        indices = np.concatenate([row.astype(np.int64) for row in block])
        for at in np.flatnonzero((indices < 0) | (indices >= C))[:1]:
            raise InputError(
                f"image {image + np.searchsorted(indptr, at, side='right') - 1} has {what} "
                f"{indices[at]}, outside 0 to {C - 1} ({C} class names were given)"
            )
        ones = np.ones(len(indices), np.int32)
        parts.append(_ones(csr_array((ones, indices.astype(np.int32), indptr), (len(block), C))))
        image += len(block)
    return vstack(parts, format="csr")


def _indices(row, image: int, what: str) -> np.ndarray:
    try:
        found = np.asarray(
            row if hasattr(row, "__len__") and hasattr(row, "__getitem__") else [*row]
        )
    except (TypeError, ValueError):
        found = np.asarray(row, object)
    # int64 would make 0 of 0.7, and 1 of "1"
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        shown = found.reshape(-1)[0] if found.size else row
        raise InputError(f"image {image} has {what} {shown!r}; give integers")
    return found
