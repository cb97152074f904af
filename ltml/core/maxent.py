"""Image weights of largest entropy that balance groups of classes, and what cannot be balanced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.options import choose

_TOLERANCE = 1e-6  # largest relative deviation of a class rate from what it should be
_MAX_STEPS = 51
_GENTLE = 0.01  # ridge of the solve that shows which classes stand in the way
_NEVER = 1e-4  # weight, relative to the mean, below which an image is as good as never sampled


@dataclass(frozen=True)
class MaxEnt:
    """What :func:`maximum_entropy` found.

    Attributes:
        multipliers: ``(C,)``, the lambda of the formula.
        weights: ``(N,)`` image weights, sum 1; 0 for images without any of the classes.
        rates: ``(C,)`` class rates.
        status: why it stopped: ``"converged"``; ``"impossible"``: proven that no weights are
            balanced; or ``"inexact"``: float64 allows no better.
    """

    multipliers: np.ndarray
    weights: np.ndarray
    rates: np.ndarray
    status: str


def maximum_entropy(labels: LabelMatrix, classes: Sequence[int], *, ridge: float = 0.0) -> MaxEnt:
    r"""Weight the images that hold some classes: equal class rates, and the largest entropy.

    The weights are :math:`w_i \propto \exp(\lambda \cdot Y_i)`, where :math:`\lambda` solves

    .. math:: \min_{\lambda : \sum_c \lambda_c = 0} \; \log \sum_i \exp(\lambda \cdot Y_i)
              + \tfrac{\rho}{2} \lVert \lambda \rVert^2

    The problem is convex and is solved by Newton's method with the exact Hessian, in float64. It
    has no solution where no weights are balanced, and then says so with a proof: the minimum is
    the entropy of the weights, which is never negative, so a value below zero shows that there are
    none. A ridge :math:`\rho > 0` always has a solution; where float64 does not reach it, that of
    a slightly larger ridge is returned, with the status that says so.

    Args:
        labels: the labels of ``N`` images.
        classes: the ``C`` classes to balance.
        ridge: :math:`\rho`; a rate then deviates from the mean by :math:`-\rho \lambda_c`.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> solution = maximum_entropy(labels, [0, 1])
        >>> solution.weights.round(4), solution.rates.round(4)
        (array([0.1847, 0.1847, 0.2612, 0.3694]), array([0.6306, 0.6306]))
    """
    part = labels.matrix[:, np.asarray(classes)]
    images = np.flatnonzero(np.diff(part.indptr))
    part = part[images]
    # Images with the same labels have the same weight, so rows are enough. They are taken for the
    # same when 64 random bits a class sum to the same number: among a million, wrong with
    # probability 1e-7.
    bits = np.random.default_rng(0).integers(2**64, size=part.shape[1], dtype=np.uint64)
    _, first, row = np.unique(part.astype(np.uint64) @ bits, return_index=True, return_inverse=True)
    matrix, count = part[first].astype(np.float64), np.bincount(row)
    pairs = _pairs(matrix)

    def solve(ridge: float, start: np.ndarray) -> MaxEnt:
        multipliers, p, status = _minimize(matrix, pairs, count, ridge, start)
        weights = np.zeros(len(labels))
        weights[images] = (p / count)[row]
        return MaxEnt(multipliers, weights, p @ matrix, status)

    start = np.zeros(part.shape[1])
    solution, ridges = solve(ridge, start), [ridge]
    # Where balance is impossible, lambda grows as 1 / ridge, too far to go at once: climb to a
    # ridge that converges, and come down from there, once.
    while solution.status == "inexact" and ridges[-1] < 1:
        ridges.append(10 * max(ridges[-1], 1e-13))
        solution = solve(ridges[-1], start)
    for smaller in reversed(ridges[:-1]):
        nearer = solve(smaller, 10 * solution.multipliers)
        if nearer.status != "converged":
            return replace(solution, status=nearer.status)
        solution = nearer
    return solution


def _pairs(matrix: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return row and code ``i * C + j`` of every two classes ``i <= j`` that share a row."""
    # Found once and summed for every Hessian, where a sparse product would find them every time.
    lengths, C = np.diff(matrix.indptr), matrix.shape[1]
    row, column = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), matrix.indices
    rows, codes = [], []
    for apart in range(lengths.max()):
        end = len(row) - apart
        at = np.flatnonzero(row[:end] == row[apart:])
        rows.append(row[at])
        codes.append(column[at].astype(np.int64) * C + column[at + apart])
    return np.concatenate(rows), np.concatenate(codes)


def _minimize(
    matrix: csr_array,
    pairs: tuple[np.ndarray, np.ndarray],
    count: np.ndarray,
    ridge: float,
    start: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the multipliers, the probability of each row, and why it stopped."""

    def dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        """Without its ridge; and the probabilities."""
        scores = matrix @ multipliers
        top = scores.max()
        mass = count * np.exp(scores - top)
        total = mass.sum()
        return top + np.log(total), mass / total

    multipliers = _centred(start)
    value, p = dual(multipliers)
    for _ in range(_MAX_STEPS):
        rates = p @ matrix
        gradient = _centred(rates) + ridge * multipliers
        if np.abs(gradient / rates.mean()).max() <= _TOLERANCE:
            return multipliers, p, "converged"
        if value < -_TOLERANCE and not ridge:
            return multipliers, p, "impossible"
        upper = np.bincount(pairs[1], p[pairs[0]], len(rates) ** 2).reshape(len(rates), -1)
        hessian = upper + np.triu(upper, 1).T - np.outer(rates, rates)
        step = _newton_step(hessian, gradient, ridge)
        length, slope = 1.0, gradient @ step
        before = value + ridge / 2 * (multipliers @ multipliers)
        while length > 1e-9:
            trial = multipliers + length * step
            value_there, p_there = dual(trial)
            change = value_there + ridge / 2 * (trial @ trial) - before
            if change <= 1e-4 * length * slope + 1e-15 * abs(before):
                multipliers, value, p = trial, value_there, p_there
                break
            length /= 2
        else:
            break
    return multipliers, p, "inexact"


def _newton_step(hessian: np.ndarray, gradient: np.ndarray, ridge: float) -> np.ndarray:
    """Among multipliers that sum to 0."""
    # The damping is for classes that always come together, whose multipliers are not unique, and
    # for directions in which the dual falls for ever.
    C = len(gradient)
    scale = np.trace(hessian) / C
    damping = ridge + 1e-10 * scale + 1e-16
    hessian = _centred(_centred(hessian).T) + damping * np.eye(C)
    hessian += (scale + damping) * (1 / C)  # keeps the direction left out regular
    return _centred(np.linalg.solve(hessian, -gradient))


def _centred(v: np.ndarray) -> np.ndarray:
    return v - np.ones(len(v)) @ v / len(v)


def check_groups(
    labels: LabelMatrix, groups: Mapping[str, Sequence[int]] | None
) -> dict[str, np.ndarray]:
    """Return ``groups`` as arrays; by default :meth:`LabelMatrix.groups` without empty ones.

    Raises:
        InputError: for a group without a class, a class outside the labels, or one in two groups.
    """
    if groups is None:
        return {name: classes for name, classes in labels.groups().items() if len(classes)}
    out = {str(name): np.atleast_1d(np.asarray(classes)) for name, classes in groups.items()}
    if not out:
        raise InputError("groups is empty; give at least one, or None for head, medium and tail")
    for name, classes in out.items():
        if not classes.size or classes.dtype.kind not in "iu":
            raise InputError(f"groups[{name!r}] holds no integer; give one or more class indices")
    found, times = np.unique(np.concatenate(list(out.values())), return_counts=True)
    for c in found[(found < 0) | (found >= labels.num_classes)]:
        raise InputError(f"groups hold class {c}; give indices 0 to {labels.num_classes - 1}")
    for c in found[times > 1]:
        raise InputError(f"groups hold class {c} ({labels.class_names[c]!r}) twice; give it once")
    return out


def group_shares(
    labels: LabelMatrix, groups: Mapping[str, np.ndarray], share: str | Mapping[str, float]
) -> dict[str, float]:
    """Return each group's share of a batch, sum 1; groups without an image get none.

    Args:
        labels: the labels of the images.
        groups: name -> class indices.
        share: ``"classes"``, ``"equal"``, ``"images"``, or name -> number, scaled to sum 1.

    Raises:
        InputError: if a share is unknown, negative, or nothing is left to sample.
    """
    if isinstance(share, Mapping):
        if set(share) != set(groups) or not all(0 <= x < float("inf") for x in share.values()):
            raise InputError(f"share is {dict(share)}; give each of {list(groups)} a number >= 0")
        raw = {name: float(share[name]) for name in groups}
    else:
        measures = {
            "classes": lambda classes: np.count_nonzero(labels.counts[classes]),
            "equal": lambda classes: 1,
            "images": lambda classes: np.count_nonzero(labels.holding(classes)),
        }
        measure = choose("share", share, measures)
        raw = {name: measure(classes) for name, classes in groups.items()}
    raw = {name: x * bool(labels.counts[groups[name]].any()) for name, x in raw.items()}
    total = sum(raw.values())
    if not total:
        raise InputError(
            f"share {share!r} leaves nothing to sample; give one to a group with images"
        )
    return {name: float(x / total) for name, x in raw.items()}


def balance_groups(
    labels: LabelMatrix, groups: Mapping[str, np.ndarray], *, ridge: float = 0.0
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Weight the images of each group by itself, so that its classes are sampled equally often.

    Where no weights do that (`a` beside `b` in half the images, beside `c` in the others: it comes
    up as often as both together), the most frequent class is left out of the balance, until the
    rest is balanced exactly. A positive ridge leaves none out: every class is pulled towards the
    mean. Where `b` appears only beside `a`, balance never uses the images of `a` alone.

    Args:
        labels: the labels of ``N`` images.
        groups: name -> class indices.
        ridge: see :func:`maximum_entropy`.

    Returns:
        Group name -> ``(N,)`` image weights, sum 1, 0 for images without its classes; and a
        sentence for each thing that could not be done.
    """
    weights, report = {}, []
    for name, classes in groups.items():
        absent = ", ".join(
            repr(labels.class_names[c]) for c in classes[labels.counts[classes] == 0]
        )
        if absent:
            report.append(f"{absent} of group {name!r}: no image holds it, so it is never sampled")
        classes = kept = classes[labels.counts[classes] > 0]
        if not len(classes):
            continue
        while True:
            solution = maximum_entropy(labels, kept, ridge=ridge)
            if solution.status != "impossible":
                break
            gentle = maximum_entropy(labels, kept, ridge=_GENTLE).rates
            # One at a time, or a hundredth at a time where there are many.
            kept = kept[np.sort(np.argsort(-gentle)[1 + len(kept) // 100 :])]
        if solution.status != "converged":
            report.append(
                f"group {name!r} is balanced only as far as float64 allows (to max/min class rate "
                f"{solution.rates.max() / solution.rates.min():.4g}); a ridge, such as {_GENTLE}, "
                "is solved exactly"
            )
        weights[name] = solution.weights
        report += _left_out(labels, name, np.setdiff1d(classes, kept), kept, solution.weights)
        n = np.count_nonzero(labels.holding(kept))
        unused = n - np.count_nonzero(solution.weights * n >= _NEVER)
        # A few images of many labels are the price of exact balance, not a sign of trouble.
        if not ridge and unused >= max(1, 0.01 * n):
            report.append(
                f"equal rates in group {name!r} leave {unused} of its {n} images unused; a ridge, "
                f"such as {_GENTLE}, brings them in"
            )
    return weights, report


def _left_out(labels, name, left, kept, weights):
    rates = labels.rates(weights)
    beside = (labels.matrix[:, left].T @ labels.matrix[:, kept]).toarray() / labels.counts[kept]
    for i in np.argsort(-rates[left]):
        j = beside[i].argmax()
        yield (
            f"{labels.class_names[left[i]]!r} cannot be sampled as rarely as the rest of group "
            f"{name!r}: it is in {beside[i, j]:.0%} of the images with "
            f"{labels.class_names[kept[j]]!r}, and is sampled "
            f"{rates[left[i]] / rates[kept].mean():.3g} times as often"
        )
