"""Image weights of largest entropy under which classes are drawn equally often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ltml.labels import LabelMatrix

__all__ = ["MaxEnt", "Rows", "maximum_entropy"]

TOLERANCE = 1e-6  # largest relative deviation of a class rate from what it should be
_PAIRS_AT_ONCE = 2**22  # label pairs in one go: bounds the memory of the Hessian


class Rows:
    """The distinct label rows among some images, with how many images share each.

    Images with the same labels get the same weight, so only distinct rows enter the solver: a
    million images of a long tail often have a few thousand.

    Args:
        labels: the labels of ``N`` images.
        classes: the ``C`` columns to look at; images that hold none of them are left out.

    Attributes:
        images: ``(n,)`` images that hold at least one of the classes.
        row: ``(n,)`` distinct row of each of them.
        count: ``(K,)`` images of each distinct row.
        indptr, indices: the ``K`` rows, compressed; indices count within ``classes``.

    Example:
        >>> rows = Rows(LabelMatrix([[1, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]]), [0, 1])
        >>> rows.images, rows.count
        (array([0, 2, 3]), array([1, 2]))
    """

    def __init__(self, labels: LabelMatrix, classes: Sequence[int]):
        local = np.full(labels.num_classes, -1)
        local[np.asarray(classes, dtype=np.int64)] = np.arange(len(classes))
        column = local[labels.indices]
        image, column = labels.image_of_label()[column >= 0], column[column >= 0]
        lengths = np.bincount(image, minlength=len(labels))
        self.images = np.flatnonzero(lengths)
        lengths = lengths[self.images]
        starts = np.cumsum(lengths) - lengths
        # Two rows are taken for the same when 64 random bits a class sum to the same number: for a
        # million rows wrong with probability 1e-8.
        bits = np.random.default_rng(0).integers(2**63, size=len(classes), dtype=np.uint64)
        sums = np.add.reduceat(bits[column], starts) if len(starts) else bits[:0]
        _, first, self.row, self.count = np.unique(
            sums, return_index=True, return_inverse=True, return_counts=True
        )
        # Distinct rows in order of length, so that rows of one length are one array.
        order = np.argsort(lengths[first], kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        first, self.count, self.row = first[order], self.count[order], position[self.row]
        self.indptr = np.concatenate([[0], np.cumsum(lengths[first])])
        shift = np.repeat(starts[first] - self.indptr[:-1], lengths[first])
        self.indices = column[np.arange(self.indptr[-1]) + shift].astype(np.int32)
        self.num_classes = len(classes)

    def scores(self, values: np.ndarray) -> np.ndarray:
        """``(K,)``: sum of ``values`` (C,) over the classes of each row."""
        return np.add.reduceat(values[self.indices], self.indptr[:-1])

    def rates(self, p: np.ndarray) -> np.ndarray:
        """``(C,)``: sum of ``p`` (K,) over the rows that hold each class."""
        weights = np.repeat(p, np.diff(self.indptr))
        return np.bincount(self.indices, weights, minlength=self.num_classes)

    def second_moment(self, p: np.ndarray) -> np.ndarray:
        """``(C, C)``: sum of ``p`` (K,) over the rows that hold both classes."""
        C = self.num_classes
        upper = np.zeros(C * C)
        for rows, codes in self._pairs():
            upper += np.bincount(codes.ravel(), np.repeat(p[rows], codes.shape[1]), minlength=C * C)
        upper = upper.reshape(C, C)
        return upper + upper.T + np.diag(self.rates(p))

    def _pairs(self) -> Iterator[tuple[slice, np.ndarray]]:
        lengths = np.diff(self.indptr)
        bounds = np.searchsorted(lengths, np.unique(lengths[lengths > 1]))
        for start, stop in zip(bounds, [*bounds[1:], len(lengths)], strict=True):
            a, b = np.triu_indices(lengths[start], 1)
            step = max(1, _PAIRS_AT_ONCE // len(a))
            for low in range(start, stop, step):
                rows = slice(low, min(low + step, stop))
                block = self.indices[self.indptr[low] : self.indptr[rows.stop]]
                block = block.reshape(-1, lengths[start])
                codes = block[:, a].astype(np.int64) * self.num_classes + block[:, b]
                yield rows, codes


@dataclass(frozen=True)
class MaxEnt:
    """What :func:`maximum_entropy` found.

    Attributes:
        multipliers: ``(C,)``, the lambda of the formula.
        weights: for each part, ``(n,)`` image weights, parallel to its ``images``, sum 1.
        rates: ``(C,)`` class rates over all parts, each part at its share.
        residual: largest deviation of a rate from what it should be, relative to the mean rate.
        status: ``"converged"``; ``"impossible"``: proven that no weights are balanced; or
            ``"stalled"``: neither within the iterations.
        iterations: Newton steps.
    """

    multipliers: np.ndarray
    weights: list[np.ndarray]
    rates: np.ndarray
    residual: float
    status: str
    iterations: int


def maximum_entropy(
    parts: Sequence[Rows],
    shares: Sequence[float] = (1.0,),
    group: np.ndarray | None = None,
    *,
    ridge: float = 0.0,
    start: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    max_iterations: int = 200,
) -> MaxEnt:
    r"""Solve for the weights of largest entropy with equal class rates.

    With one part, :math:`w_i \propto \exp(\lambda \cdot Y_i)`, where :math:`\lambda` solves

    .. math:: \min_{\lambda : \sum_c \lambda_c = 0} \; \log \sum_i \exp(\lambda \cdot Y_i)
              + \tfrac{\rho}{2} \lVert \lambda \rVert^2

    With more parts, :math:`\sum_g s_g \log \sum_{i \in g} \exp(\lambda \cdot Y_i)` takes the place
    of the first term, and :math:`\lambda` sums to 0 within each group of classes: the parts keep
    their shares :math:`s_g`, and rates over all draws together are equal within each group.

    The problem is convex and is solved by Newton's method with the exact Hessian, in float64. It
    has no solution where no weights are balanced, and then says so with a proof: the minimum is
    the entropy of the weights, which is never negative, so a value below zero shows that there are
    none. (A ridge :math:`\rho > 0` always has a solution.)

    Args:
        parts: the rows that can be drawn, each part over the same ``C`` classes.
        shares: share of each part in the draws, sum 1.
        group: ``(C,)`` group index of each class, 0 to G - 1. Default: all in one.
        ridge: :math:`\rho`; a rate then deviates from the mean of its group by
            :math:`-\rho \lambda_c`.
        start: ``(C,)`` multipliers to start from.
        tolerance: stop when every rate is within this of what it should be, relative to its mean.
        max_iterations: Newton steps at most.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> solution = maximum_entropy([Rows(labels, [0, 1])])
        >>> solution.weights[0].round(4), solution.rates.round(4)
        (array([0.1847, 0.1847, 0.2612, 0.3694]), array([0.6306, 0.6306]))
    """
    C = parts[0].num_classes
    group = np.zeros(C, dtype=np.int64) if group is None else np.asarray(group)
    size = np.bincount(group)

    def group_mean(v):  # (C, ...) -> (C, ...), the mean of the group in the place of each class
        total = np.zeros((len(size), *v.shape[1:]))
        np.add.at(total, group, v)
        return (total.T / size).T[group]

    def centre(v):
        return v - group_mean(v)

    def dual(multipliers):
        value, p = ridge / 2 * multipliers @ multipliers, []
        for rows, share in zip(parts, shares, strict=True):
            scores = rows.scores(multipliers)
            top = scores.max()
            mass = rows.count * np.exp(scores - top)
            total = mass.sum()
            value += share * (top + np.log(total))
            p.append(mass / total)
        return value, p

    multipliers = np.zeros(C) if start is None else centre(start)
    value, p = dual(multipliers)
    status, iterations = "stalled", 0
    for iterations in range(max_iterations + 1):
        each = [rows.rates(q) for rows, q in zip(parts, p, strict=True)]
        rates = np.einsum("g,gc->c", shares, each)
        gradient = centre(rates) + ridge * multipliers
        residual = float(np.abs(gradient / group_mean(rates)).max())
        if residual <= tolerance:
            status = "converged"
            break
        if value < 0 and not ridge:
            status = "impossible"
            break
        if iterations == max_iterations:
            break
        hessian = np.zeros((C, C))
        for rows, q, share, r in zip(parts, p, shares, each, strict=True):
            hessian += share * (rows.second_moment(q) - np.outer(r, r))
        # Among multipliers that sum to 0: the constant direction is taken out of the Hessian, and
        # filled with the identity to keep it regular. The damping is for classes that always come
        # together, and for directions in which the dual falls for ever.
        damping = 1e-10 * np.trace(hessian) / C + np.finfo(float).tiny
        hessian = centre(centre(hessian).T) + (ridge + damping) * np.eye(C)
        hessian += (group[:, None] == group) / size[group]
        step = centre(np.linalg.solve(hessian, -gradient))
        slope, length = gradient @ step, 1.0
        while True:
            candidate = dual(multipliers + length * step)
            if candidate[0] <= value + 1e-4 * length * slope + 1e-15 * abs(value):
                break
            length /= 2
            if length < 1e-9:  # rounding is all that is left
                break
        if length < 1e-9:
            break
        multipliers, (value, p) = multipliers + length * step, candidate
    if status == "stalled" and 0 < ridge < 1:
        # Where balance is impossible, lambda grows as 1 / ridge: get there through larger ridges.
        options = {"tolerance": tolerance, "max_iterations": max_iterations}
        if start is None or on_path:
            pass
    weights = [(q / rows.count)[rows.row] for rows, q in zip(parts, p, strict=True)]
    return MaxEnt(multipliers, weights, rates, residual, status, iterations)
