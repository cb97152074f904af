"""Image weights of largest entropy under which classes are drawn equally often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
        classes: the ``C`` columns to look at.
        holding: only images that hold at least one of these of the classes. Default: any of them.

    Attributes:
        images: ``(n,)`` the images, ascending.
        row: ``(n,)`` distinct row of each of them.
        count: ``(K,)`` images of each distinct row.
        indptr, indices: the ``K`` rows, compressed; indices count within ``classes``.

    Example:
        >>> rows = Rows(LabelMatrix([[1, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]]), [0, 1])
        >>> rows.images, rows.count
        (array([0, 2, 3]), array([1, 2]))
    """

    def __init__(
        self,
        labels: LabelMatrix,
        classes: Sequence[int],
        holding: Sequence[int] | None = None,
    ):
        local = np.full(labels.num_classes, -1)
        local[np.asarray(classes, dtype=np.int64)] = np.arange(len(classes))
        column = local[labels.indices]
        keep, image = column >= 0, labels.image_of_label()
        if holding is not None:
            wanted = np.bincount(image, np.isin(labels.indices, holding), minlength=len(labels))
            keep &= wanted[image] > 0
        image, column = image[keep], column[keep]
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
        edges = [*np.searchsorted(lengths, np.unique(lengths[lengths > 1])), len(lengths)]
        for start, stop in pairwise(edges):
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


class _Dual:
    """The convex dual of the problem; see :func:`maximum_entropy`."""

    def __init__(self, parts: Sequence[Rows], shares: Sequence[float], group: np.ndarray):
        self.parts, self.shares = parts, np.asarray(shares, dtype=np.float64)
        self.member = np.eye(group.max() + 1)[group]  # (C, G)

    def mean(self, v: np.ndarray) -> np.ndarray:
        """Put the mean of its group in the place of each entry (row)."""
        return self.member @ ((self.member.T @ v).T / self.member.sum(0)).T

    def centre(self, v: np.ndarray) -> np.ndarray:
        return v - self.mean(v)

    def value(self, multipliers: np.ndarray) -> tuple[float, list[np.ndarray]]:
        """The dual without its ridge, and the probabilities of the rows of each part."""
        value, p = 0.0, []
        for rows, share in zip(self.parts, self.shares, strict=True):
            scores = rows.scores(multipliers)
            top = scores.max()
            mass = rows.count * np.exp(scores - top)
            total = mass.sum()
            value += share * (top + np.log(total))
            p.append(mass / total)
        return value, p

    def newton_step(self, p, rates, gradient, ridge):
        """Among multipliers that sum to 0 in each group."""
        hessian = np.zeros((len(gradient), len(gradient)))
        for rows, q, share, r in zip(self.parts, p, self.shares, rates, strict=True):
            hessian += share * (rows.second_moment(q) - np.outer(r, r))
        # The damping is for classes that always come together, whose multipliers are not unique,
        # and for directions in which the dual falls for ever.
        damping = 1e-10 * np.trace(hessian) / len(gradient) + np.finfo(float).tiny
        hessian = self.centre(self.centre(hessian).T) + (ridge + damping) * np.eye(len(gradient))
        hessian += self.mean(np.eye(len(gradient)))  # keeps the directions left out regular
        return self.centre(np.linalg.solve(hessian, -gradient))

    def minimize(self, ridge, start, tolerance, max_iterations) -> MaxEnt:
        def penalty(v):
            return ridge / 2 * (v @ v)

        multipliers = self.centre(start)
        value, p = self.value(multipliers)
        status, iterations = "stalled", 0
        while True:
            each = [rows.rates(q) for rows, q in zip(self.parts, p, strict=True)]
            rates = self.shares @ np.stack(each)
            gradient = self.centre(rates) + ridge * multipliers
            residual = float(np.abs(gradient / self.mean(rates)).max())
            if residual <= tolerance:
                status = "converged"
            elif value < -TOLERANCE and not ridge:
                status = "impossible"
            if status != "stalled" or iterations == max_iterations:
                break
            step = self.newton_step(p, each, gradient, ridge)
            length, slope, before = 1.0, gradient @ step, value + penalty(multipliers)
            while length > 1e-9:
                trial = multipliers + length * step
                value_there, p_there = self.value(trial)
                change = value_there + penalty(trial) - before
                if change <= 1e-4 * length * slope + 1e-15 * abs(before):
                    break
                length /= 2
            else:  # rounding is all that is left
                break
            multipliers, value, p, iterations = trial, value_there, p_there, iterations + 1
        weights = [(q / rows.count)[rows.row] for rows, q in zip(self.parts, p, strict=True)]
        return MaxEnt(multipliers, weights, rates, residual, status, iterations)


def maximum_entropy(
    parts: Sequence[Rows],
    shares: Sequence[float] = (1.0,),
    group: np.ndarray | None = None,
    *,
    ridge: float = 0.0,
    tolerance: float = TOLERANCE,
    max_iterations: int = 50,
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
        tolerance: stop when every rate is within this of what it should be, relative to its mean.
        max_iterations: Newton steps at most.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> solution = maximum_entropy([Rows(labels, [0, 1])])
        >>> solution.weights[0].round(4), solution.rates.round(4)
        (array([0.1847, 0.1847, 0.2612, 0.3694]), array([0.6306, 0.6306]))
    """
    start = np.zeros(parts[0].num_classes)
    group = start.astype(np.int64) if group is None else np.asarray(group)
    dual = _Dual(parts, shares, group)
    # Where balance is impossible, lambda grows as 1 / ridge, too far to go at once: if so, get
    # there through larger ridges.
    ridges = [ridge]
    while True:
        solution = dual.minimize(ridges[-1], start, tolerance, max_iterations)
        if solution.status == "converged":
            ridges.pop()
            start = 10 * solution.multipliers
        elif solution.status == "stalled" and 0 < ridges[-1] < 1:
            ridges.append(10 * ridges[-1])
        else:
            return solution
        if not ridges:
            return solution
