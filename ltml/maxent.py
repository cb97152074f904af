"""Image weights of largest entropy that balance groups of classes, and what cannot be balanced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.options import choose

__all__ = ["MaxEnt", "Rows", "balance_groups", "check_groups", "group_shares", "maximum_entropy"]

_TOLERANCE = 1e-6  # largest relative deviation of a class rate from what it should be
_MAX_STEPS = 50
_GENTLE = 0.01  # ridge of the solve that shows which classes stand in the way
_NEVER = 1e-4  # weight, relative to the mean, below which an image is as good as never sampled


class Rows:
    """Find the distinct label rows among some images: images with the same labels weigh the same.

    Args:
        labels: the labels of ``N`` images.
        classes: the ``C`` columns to look at.
        holding: only images that hold one of these of the classes. Default: any of them.

    Attributes:
        images, row: ``(n,)`` the images, ascending, and which distinct row each has.
        matrix, count: ``(K, C)`` sparse, the distinct rows; ``(K,)`` images of each.

    Example:
        >>> rows = Rows(LabelMatrix([[1, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]]), [0, 1])
        >>> rows.images, rows.matrix.shape
        (array([0, 2, 3]), (2, 2))
    """

    def __init__(
        self, labels: LabelMatrix, classes: Sequence[int], holding: Sequence[int] | None = None
    ):
        self.num_images, classes = len(labels), np.asarray(classes)
        part = labels.matrix[:, classes]
        held = np.diff(part.indptr) if holding is None else labels.holding(holding)
        self.images = np.flatnonzero(held)
        part = part[self.images]
        # Rows are taken for the same when 64 random bits a class sum to the same number: among a
        # million, wrong with probability 1e-7.
        bits = np.random.default_rng(0).integers(2**64, size=len(classes), dtype=np.uint64)
        _, first, self.row = np.unique(
            part.astype(np.uint64) @ bits, return_index=True, return_inverse=True
        )
        self.count = np.bincount(self.row)
        self.matrix = part[first].astype(np.float64)

    def second_moment(self, p: np.ndarray) -> np.ndarray:
        """``(C, C)``: sum of ``p`` (K,) over the rows that hold both classes."""
        return (self.matrix.T.multiply(p) @ self.matrix).toarray()

    def image_weights(self, p: np.ndarray) -> np.ndarray:
        """``(N,)``: ``p`` (K,) shared among the images of each row."""
        weights = np.zeros(self.num_images)
        weights[self.images] = (p / self.count)[self.row]
        return weights


@dataclass(frozen=True)
class MaxEnt:
    """What :func:`maximum_entropy` found.

    Attributes:
        multipliers: ``(C,)``, the lambda of the formula.
        weights: for each part, ``(N,)`` image weights, sum 1.
        rates: ``(C,)`` class rates over all parts, each part at its share.
        status: why it stopped: ``"converged"``; ``"impossible"``: proven that no weights are
            balanced; ``"rounding"``: float64 allows no better; or ``"iterations"``.
    """

    multipliers: np.ndarray
    weights: list[np.ndarray]
    rates: np.ndarray
    status: str


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
            scores = rows.matrix @ multipliers
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
        eye, scale = np.eye(len(gradient)), np.trace(hessian) / len(gradient)
        damping = ridge + 1e-10 * scale + 1e-16
        hessian = self.centre(self.centre(hessian).T) + damping * eye
        hessian += (scale + damping) * self.mean(eye)  # keeps the directions left out regular
        return self.centre(np.linalg.solve(hessian, -gradient))

    def minimize(self, ridge, start) -> MaxEnt:
        multipliers = self.centre(start)
        value, p = self.value(multipliers)
        status, steps = "", 0
        while True:
            each = [q @ rows.matrix for rows, q in zip(self.parts, p, strict=True)]
            rates = self.shares @ np.stack(each)
            gradient = self.centre(rates) + ridge * multipliers
            if np.abs(gradient / self.mean(rates)).max() <= _TOLERANCE:
                status = "converged"
            elif value < -_TOLERANCE and not ridge:
                status = "impossible"
            elif steps == _MAX_STEPS:
                status = "iterations"
            if status:
                break
            step = self.newton_step(p, each, gradient, ridge)
            length, slope = 1.0, gradient @ step
            before = value + ridge / 2 * (multipliers @ multipliers)
            while length > 1e-9:
                trial = multipliers + length * step
                value_there, p_there = self.value(trial)
                change = value_there + ridge / 2 * (trial @ trial) - before
                if change <= 1e-4 * length * slope + 1e-15 * abs(before):
                    break
                length /= 2
            else:
                status = "rounding"
                break
            multipliers, value, p, steps = trial, value_there, p_there, steps + 1
        weights = [rows.image_weights(q) for rows, q in zip(self.parts, p, strict=True)]
        return MaxEnt(multipliers, weights, rates, status)


def maximum_entropy(
    parts: Sequence[Rows],
    shares: Sequence[float] = (1.0,),
    group: np.ndarray | None = None,
    *,
    ridge: float = 0.0,
) -> MaxEnt:
    r"""Solve for the weights of largest entropy with equal class rates.

    With one part, :math:`w_i \propto \exp(\lambda \cdot Y_i)`, where :math:`\lambda` solves

    .. math:: \min_{\lambda : \sum_c \lambda_c = 0} \; \log \sum_i \exp(\lambda \cdot Y_i)
              + \tfrac{\rho}{2} \lVert \lambda \rVert^2

    With more parts, :math:`\sum_g s_g \log \sum_{i \in g} \exp(\lambda \cdot Y_i)` takes the place
    of the first term, and :math:`\lambda` sums to 0 within each group of classes: the parts keep
    their shares :math:`s_g`, and rates over all parts together are equal within each group.

    The problem is convex and is solved by Newton's method with the exact Hessian, in float64. It
    has no solution where no weights are balanced, and then says so with a proof: the minimum is
    the entropy of the weights, which is never negative, so a value below zero shows that there are
    none. A ridge :math:`\rho > 0` always has a solution; where float64 does not reach it, that of
    a slightly larger ridge is returned, with the status that says so.

    Args:
        parts: the rows to choose from, each part over the same ``C`` classes.
        shares: share of each part, sum 1.
        group: ``(C,)`` group index of each class, 0 to G - 1. Default: all in one.
        ridge: :math:`\rho`; a rate then deviates from the mean of its group by
            :math:`-\rho \lambda_c`.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1]])
        >>> solution = maximum_entropy([Rows(labels, [0, 1])])
        >>> solution.weights[0].round(4), solution.rates.round(4)
        (array([0.1847, 0.1847, 0.2612, 0.3694]), array([0.6306, 0.6306]))
    """
    start = np.zeros(parts[0].matrix.shape[1])
    dual = _Dual(parts, shares, start.astype(np.int64) if group is None else np.asarray(group))
    solution, ridges = dual.minimize(ridge, start), [ridge]
    # Where balance is impossible, lambda grows as 1 / ridge, too far to go at once: climb to a
    # ridge that converges, and come down from there, once.
    while solution.status in ("rounding", "iterations") and ridges[-1] < 1:
        ridges.append(10 * max(ridges[-1], 1e-13))
        solution = dual.minimize(ridges[-1], start)
    for smaller in reversed(ridges[:-1]):
        nearer = dual.minimize(smaller, 10 * solution.multipliers)
        if nearer.status != "converged":
            return replace(solution, status=nearer.status)
        solution = nearer
    return solution


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
    labels: LabelMatrix,
    groups: Mapping[str, np.ndarray],
    together: Mapping[str, float] | None = None,
    *,
    ridge: float = 0.0,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Weigh the images of each group by itself, so that its classes are sampled equally often.

    Where no weights do that (`a` beside `b` in half the images, beside `c` in the others: it comes
    up as often as both together), the most frequent class is left out of the balance, until the
    rest is balanced exactly. A positive ridge leaves none out: every class is pulled towards the
    mean. Where `b` appears only beside `a`, balance never uses the images of `a` alone.

    Args:
        labels: the labels of ``N`` images.
        groups: name -> class indices.
        together: share of each group. Images sampled for the tail bring head classes along; with
            shares given, each group's weights make up for what the others bring, where they can.
        ridge: see :func:`maximum_entropy`.

    Returns:
        Group name -> ``(N,)`` image weights, sum 1, 0 for images without its classes; and a
        sentence for each thing that could not be done.
    """
    weights, report = {}, []
    present = _present(labels, groups, report)
    if together is not None:
        share = np.array([together[name] for name in present])
        everything = np.concatenate(list(present.values()))
        group = np.repeat(np.arange(len(present)), [len(c) for c in present.values()])
        parts = [Rows(labels, everything, classes) for classes in present.values()]
        # A group of share 0 is never sampled, so its classes cannot be asked for.
        solution = maximum_entropy(parts, share, group, ridge=ridge) if share.all() else None
        if solution and solution.status == "converged":
            return dict(zip(present, solution.weights, strict=True)), report
        report.append(
            "no weights with these shares balance whole batches, so each group is balanced by "
            "itself; other shares or groups, or a ridge, may do it"
        )
    for name, classes in present.items():
        kept = classes
        while True:
            rows = Rows(labels, kept)
            solution = maximum_entropy([rows], ridge=ridge)
            if solution.status != "impossible":
                break
            gentle = maximum_entropy([rows], ridge=_GENTLE).rates
            # One at a time, or a hundredth at a time where there are many.
            kept = kept[np.sort(np.argsort(-gentle)[1 + len(kept) // 100 :])]
        if solution.status != "converged":
            report.append(
                f"group {name!r} is balanced only as far as float64 allows (to max/min class rate "
                f"{solution.rates.max() / solution.rates.min():.4g}); a ridge, such as {_GENTLE}, "
                "is solved exactly"
            )
        weights[name] = solution.weights[0]
        report += _left_out(labels, name, np.setdiff1d(classes, kept), kept, weights[name])
        if not ridge:
            report += _unused(labels, name, kept, rows, weights[name])
    return weights, report


def _present(labels, groups, report):
    for name, classes in groups.items():
        if not labels.counts[classes].all():
            names = _names(labels, classes[labels.counts[classes] == 0])
            report.append(f"{names} of group {name!r}: no image holds it, so it is never sampled")
    present = {name: classes[labels.counts[classes] > 0] for name, classes in groups.items()}
    return {name: classes for name, classes in present.items() if len(classes)}


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


def _unused(labels, name, kept, rows, weights):
    unused = np.count_nonzero(weights[rows.images] * len(rows.images) < _NEVER)
    pairs = rows.second_moment(rows.count)
    count = pairs.diagonal()
    inside = (pairs == count[:, None]) & (count[:, None] < count)
    why = [
        f"{labels.class_names[kept[b]]!r} appears only beside {_names(labels, kept[inside[b]])}"
        for b in np.flatnonzero(inside.any(1))
    ]
    # A few images of many labels are the price of exact balance, not a sign of trouble.
    if unused and (why or unused >= 0.01 * len(rows.images)):
        yield (
            f"equal rates in group {name!r} leave {unused} of its {len(rows.images)} images unused"
            + (f", because {'; '.join(why)}" if why else "")
            + f"; a ridge, such as {_GENTLE}, brings them in"
        )


def _names(labels, classes):
    return ", ".join(repr(labels.class_names[c]) for c in classes)
