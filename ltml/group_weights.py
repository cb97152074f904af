"""Groups of classes, and the image weights that balance each: what can be done, and what cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.maxent import MaxEnt, Rows, maximum_entropy

__all__ = [
    "Balance",
    "balance_batch",
    "balance_groups",
    "check_groups",
    "group_shares",
    "groups_by_log_count",
]

_GENTLE = 0.01  # ridge of the solve that shows which classes stand in the way
_UNDRAWN = 1e-4  # weight, relative to the mean, below which an image is as good as never drawn


def groups_by_log_count(labels: LabelMatrix, k: int) -> dict[str, np.ndarray]:
    """Group classes by the logarithm of their count, in ``k`` bins of equal width.

    Classes without an image, and bins without a class, are left out.

    Example:
        >>> labels = LabelMatrix.from_lists([[0]] * 90 + [[1]] * 80 + [[2]] * 3, ["a", "b", "c"])
        >>> groups_by_log_count(labels, 2)
        {'80 to 90 images': array([0, 1]), '3 images': array([2])}
    """
    if not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k is {k!r}; give the number of groups, 1 or more")
    present = np.flatnonzero(labels.counts)
    if not len(present):
        raise InputError("labels hold no label on any image, so there is no class to group")
    logs = np.log(labels.counts[present])
    width = (logs.max() - logs.min()) / k or 1.0
    bins = np.minimum(((logs - logs.min()) / width).astype(int), k - 1)
    groups = {}
    for number in np.unique(bins)[::-1]:
        classes = present[bins == number]
        low, high = labels.counts[classes].min(), labels.counts[classes].max()
        groups[f"{high} images" if low == high else f"{low} to {high} images"] = classes
    return groups


def check_groups(
    labels: LabelMatrix, groups: Mapping[str, Sequence[int]] | None
) -> dict[str, np.ndarray]:
    """Return ``groups`` as arrays; by default :meth:`LabelMatrix.groups`, as far as not empty.

    Raises:
        InputError: for a group without a class, a class outside the labels, or one in two groups.
    """
    if groups is None:
        return {name: classes for name, classes in labels.groups().items() if len(classes)}
    if not groups:
        raise InputError("groups is empty; give at least one, or None for head, medium and tail")
    out, home = {}, {}
    for name, classes in groups.items():
        classes = np.atleast_1d(np.asarray(classes))
        if not classes.size:
            raise InputError(f"groups[{name!r}] is empty; leave it out or give it a class")
        if classes.dtype.kind not in "iu":
            raise InputError(f"groups[{name!r}] holds {classes[0]!r}; give integer class indices")
        for c in classes.tolist():
            if not 0 <= c < labels.num_classes:
                raise InputError(
                    f"groups[{name!r}] holds class {c}; give indices 0 to {labels.num_classes - 1}"
                )
            if c in home:
                raise InputError(
                    f"class {c} ({labels.class_names[c]!r}) is in groups {home[c]!r} and {name!r}; "
                    "give each class one group"
                )
            home[c] = name
        out[str(name)] = classes.astype(np.int64)
    return out


def group_shares(
    labels: LabelMatrix, groups: Mapping[str, np.ndarray], share: str | Mapping[str, float]
) -> dict[str, float]:
    """Return each group's share of the draws, sum 1; groups without an image get none.

    Args:
        labels: the labels of the images.
        groups: name -> class indices.
        share: ``"classes"``, ``"equal"``, ``"images"``, or name -> number, scaled to sum 1.
    """
    if isinstance(share, Mapping):
        if set(share) != set(groups):
            raise InputError(
                f"share names {sorted(share)}, the groups are {sorted(groups)}; give each a number"
            )
        for name, value in share.items():
            if not 0 <= value < float("inf"):
                raise InputError(f"share[{name!r}] is {value!r}; give 0 or a positive number")
        raw = {name: float(share[name]) for name in groups}
    elif share == "classes":
        raw = {name: float(np.count_nonzero(labels.counts[c])) for name, c in groups.items()}
    elif share == "equal":
        raw = dict.fromkeys(groups, 1.0)
    elif share == "images":
        raw = {name: float(_holds(labels, c).sum()) for name, c in groups.items()}
    else:
        raise InputError(f'share is {share!r}; give "classes", "equal", "images" or numbers')
    raw = {name: x * bool(labels.counts[groups[name]].any()) for name, x in raw.items()}
    total = sum(raw.values())
    if not total:
        raise InputError("share leaves nothing to draw; give a group with images a positive number")
    return {name: x / total for name, x in raw.items()}


@dataclass
class Balance:
    """Image weights of each group, and what could not be balanced.

    Attributes:
        images: group name -> ``(n,)`` images that hold one of its classes.
        weights: group name -> ``(n,)`` their weights, sum 1.
        report: one sentence for each thing that a user should know, naming classes.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    report: list[str] = field(default_factory=list)


def balance_groups(
    labels: LabelMatrix, groups: Mapping[str, np.ndarray], *, ridge: float = 0.0
) -> Balance:
    r"""Weigh the images of each group by itself, so that its classes are drawn equally often.

    Not every group can be balanced: when `a` stands beside `b` in half the images of the group and
    beside `c` in the other half, it comes up as often as both together. Then the class that is
    drawn too often whatever the weights is left out of the balance, most frequent first, until the
    rest is balanced exactly; it comes up as its companions bring it along, and ``report`` says how
    often. (A positive ridge needs no such choice: every class is drawn towards the mean.)

    When `b` appears only beside `a`, equal rates exist, but they leave the images of `a` alone
    undrawn; ``report`` says so too.
    """
    out = Balance()
    for name, classes in groups.items():
        present = _present(labels, name, classes, out.report)
        if not len(present):
            continue
        kept = present
        while True:
            rows = Rows(labels, kept)
            solution = maximum_entropy([rows], ridge=ridge)
            if solution.status != "impossible":
                break
            gentle = maximum_entropy([rows], ridge=_GENTLE).rates
            # One at a time, or a hundredth at a time where there are many.
            kept = kept[np.sort(np.argsort(-gentle)[1 + len(kept) // 100 :])]
        solution = _settled(solution, [rows], name, out.report)
        out.images[name], out.weights[name] = rows.images, solution.weights[0]
        _report_released(labels, name, present, kept, out)
        if not ridge:
            _report_undrawn(labels, name, kept, out)
    return out


def balance_batch(
    labels: LabelMatrix,
    groups: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    *,
    ridge: float = 0.0,
) -> Balance:
    """Weigh the images of all groups together, so that whole batches are balanced in each group.

    Weights of :func:`balance_groups` balance what is drawn *for* a group. But images drawn for the
    tail bring head classes along, some more than others. Here each group's weights make up for what
    the others bring. That is not always possible; then the groups are balanced one by one.
    """
    out = Balance()
    present = {n: _present(labels, n, c, out.report) for n, c in groups.items()}
    present = {name: classes for name, classes in present.items() if len(classes)}
    everything = np.concatenate(list(present.values()))
    group = np.repeat(np.arange(len(present)), [len(classes) for classes in present.values()])
    parts = [Rows(labels, everything, classes) for classes in present.values()]
    share = np.array([shares[name] for name in present])
    # A group of share 0 is never drawn, so its classes cannot be asked for.
    if (share > 0).all():
        solution = maximum_entropy(parts, share, group, ridge=ridge)
        if solution.status == "converged":
            for name, rows, weights in zip(present, parts, solution.weights, strict=True):
                out.images[name], out.weights[name] = rows.images, weights
            return out
    single = balance_groups(labels, groups, ridge=ridge)
    single.report.append(
        "no weights with these shares balance whole batches, so what is drawn for each group is "
        "balanced by itself; other shares or groups, or a ridge, may do it"
    )
    return single


def _present(labels, name, classes, report):
    present = classes[labels.counts[classes] > 0]
    if len(present) < len(classes):
        absent = _names(labels, classes[labels.counts[classes] == 0])
        report.append(f"{absent} of group {name!r}: no image holds it, so it is never drawn")
    return present


def _settled(solution: MaxEnt, rows, name, report) -> MaxEnt:
    if solution.status == "stalled":
        # Neither solved nor proven impossible within double precision: nearly always within it.
        settled = maximum_entropy(rows, ridge=1e-9)
        solution = min(solution, settled, key=lambda s: s.residual)
        off = solution.rates.max() / solution.rates.min()
        report.append(
            f"group {name!r} is balanced to max/min {off:.4g} only: it is a borderline case"
        )
    return solution


def _report_released(labels, name, present, kept, out):
    released = np.setdiff1d(present, kept)
    if not len(released):
        return
    part = labels.subset(out.images[name])
    weight = out.weights[name][part.image_of_label()]
    rates = np.bincount(part.indices, weight, minlength=labels.num_classes)
    for c in released[np.argsort(-rates[released])]:
        beside = labels.subset(np.flatnonzero(_holds(labels, c))).counts[kept]
        share = beside / labels.counts[kept]
        top = [i for i in np.argsort(-share, kind="stable")[:3] if share[i]]
        where = ", ".join(f"{share[i]:.0%} of {labels.class_names[kept[i]]!r}" for i in top)
        out.report.append(
            f"{labels.class_names[c]!r} cannot be drawn as rarely as the rest of group {name!r}: "
            f"it stands on {where}, and is drawn {rates[c] / rates[kept].mean():.3g} times as often"
        )


def _report_undrawn(labels, name, kept, out):
    weights = out.weights[name]
    undrawn = int((weights * len(weights) < _UNDRAWN).sum())
    rows = Rows(labels, kept)
    pairs = rows.second_moment(rows.count.astype(np.float64))
    count = pairs.diagonal()
    inside = (pairs == count[:, None]) & (count[:, None] < count)
    why = [
        f"{labels.class_names[kept[b]]!r} appears only beside {_names(labels, kept[inside[b]])}"
        for b in np.flatnonzero(inside.any(1))
    ]
    if not undrawn or (undrawn < 0.01 * len(weights) and not why):
        return  # a few images of many labels: the price of exact balance, not a sign of trouble
    out.report.append(
        f"equal rates in group {name!r} leave {undrawn} of its {len(weights)} images undrawn"
        + (f", for {'; '.join(why)}" if why else "")
        + f"; a ridge, such as {_GENTLE}, draws them"
    )


def _holds(labels, classes):
    """``(N,)`` bool: the images that hold at least one of the classes."""
    hits = np.isin(labels.indices, classes)
    return np.bincount(labels.image_of_label(), hits, minlength=len(labels)) > 0


def _names(labels, classes):
    return ", ".join(repr(labels.class_names[c]) for c in classes)
