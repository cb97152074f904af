"""What a sampler draws, measured: class rates, balance, repetition, and classes dragged along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ltml.errors import InputError
from ltml.group_weights import balance_groups, check_groups
from ltml.labels import LabelMatrix

__all__ = ["Audit", "audit", "effective_size", "frontier"]


def effective_size(p: np.ndarray) -> float:
    r"""Kish's effective sample size :math:`1 / \sum_i p_i^2` of probabilities that sum to 1.

    It is the number of images that, drawn equally often, would repeat as much.

    Example:
        >>> effective_size(np.array([0.5, 0.5, 0.0]))
        2.0
    """
    return float(1 / np.sum(np.square(p)))


@dataclass(frozen=True, eq=False)
class Audit:
    """What one draw of a sampler holds, on average; see :func:`audit`.

    Rates are images with a class per drawn image, so they sum to ``cardinality`` rather than 1.
    Ratios are largest over smallest rate, over classes that have an image. An epoch is as many
    draws as there are images.

    Attributes:
        sampler: class name of the sampler.
        class_names, group, counts: ``(C,)`` of each class.
        expected: ``(C,)`` rate of each class.
        realised: ``(C,)`` the same, counted over ``draws`` draws; None without draws.
        draws: how many draws were made.
        groups: table, a row a group: ``classes``; ``ratio``, over all draws; ``realised``, the
            same, counted; ``effective_images``, over all draws that hold a class of the group; and
            for a sampler that draws for groups ``own_share``, ``own_ratio``, ``own_realised`` and
            ``own_effective_images``, over the draws made for this group.
        leakage: ``(G, G)`` table: the probability that a drawn image with a class of the row's
            group holds one of the column's too. ``leakage.loc["tail", "head"]``: how often
            drawing a tail class drags a head class along.
        ratio: over all classes; ``realised_ratio`` the same, counted (NaN without draws).
        effective_images: of all draws.
        distinct_images: different images expected in an epoch.
        most_repeated: index of the image drawn most often; ``repeats``: how often in an epoch.
        cardinality: labels on a drawn image, on average.
        images: images in the data.
        report: what the sampler could not balance, in sentences.
    """

    sampler: str
    class_names: tuple[str, ...]
    group: np.ndarray
    counts: np.ndarray
    expected: np.ndarray
    realised: np.ndarray | None
    draws: int
    groups: pd.DataFrame
    leakage: pd.DataFrame
    ratio: float
    realised_ratio: float
    effective_images: float
    distinct_images: float
    most_repeated: int
    repeats: float
    cardinality: float
    images: int
    report: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row a class: ``group``, ``count``, ``expected``, and ``realised`` after draws."""
        columns = {"group": self.group, "count": self.counts, "expected": self.expected}
        if self.realised is not None:
            columns["realised"] = self.realised
        return pd.DataFrame(columns, index=pd.Index(self.class_names, name="class"))

    def as_dict(self) -> dict:
        """Everything, ready for JSON; numbers that are not finite become None."""
        numbers = ("ratio", "realised_ratio", "effective_images", "distinct_images")
        return _jsonable(
            {
                "sampler": self.sampler,
                "draws": self.draws,
                **{name: getattr(self, name) for name in (*numbers, "most_repeated", "repeats")},
                "cardinality": self.cardinality,
                "images": self.images,
                "groups": self.groups.to_dict("index"),
                "leakage": self.leakage.to_dict("index"),
                "classes": self.table().to_dict("index"),
                "report": list(self.report),
            }
        )

    def __str__(self) -> str:
        realised = f" (realised {self.realised_ratio:.2f})" if self.draws else ""
        lines = [
            f"{self.sampler}: max/min class rate {self.ratio:.2f}{realised}, "
            f"{self.effective_images:.0f} effective images, {self.cardinality:.2f} labels an image",
            f"in an epoch: {self.distinct_images:.0f} of {self.images} images, "
            f"image {self.most_repeated} {self.repeats:.1f} times",
            "",
            _text(self.groups.dropna(axis="columns", how="all")),
            "",
            "leakage (rows: drawn, columns: beside it)",
            _text(self.leakage),
        ]
        return "\n".join([*lines, *(f"note: {sentence}" for sentence in self.report)])


def _text(table: pd.DataFrame) -> str:
    return table.to_string(float_format=lambda x: f"{x:.3f}" if x < 10 else f"{x:.0f}")


def _jsonable(x):
    if isinstance(x, dict):
        return {str(key): _jsonable(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_jsonable(value) for value in x]
    if isinstance(x, np.generic):
        x = x.item()
    return None if isinstance(x, float) and not np.isfinite(x) else x


def audit(sampler, draws: int = 0) -> Audit:
    """Audit any sampler of :mod:`ltml.sampler`; the same as ``sampler.audit(draws)``.

    Args:
        sampler: what to audit. By default its groups are those of ``labels.groups()``.
        draws: also make this many draws (rounded up to whole batches) and count their classes. The
            batches are the first ones; the position of the sampler does not move.

    Example:
        >>> from ltml.sampler import ClassAwareSampler
        >>> labels = LabelMatrix.from_lists([[0]] * 150 + [[0, 1]] * 10, ["person", "sheep"])
        >>> found = audit(ClassAwareSampler(labels, batch_size=8, num_batches=1))
        >>> found.expected
        array([1.     , 0.53125])
        >>> float(found.leakage.loc["tail", "head"])  # every sheep brings a person
        1.0
    """
    if not isinstance(draws, int | np.integer) or draws < 0:
        raise InputError(f"draws is {draws!r}; give a whole number, 0 or more")
    labels: LabelMatrix = sampler.labels
    p, own = sampler.image_probabilities(), sampler.group_probabilities()
    groups = sampler.groups
    group = np.full(labels.num_classes, "", dtype=object)
    for name, classes in groups.items():
        group[classes] = name
    expected = _rates(labels, p)
    realised, own_realised, draws = _realise(sampler, draws, len(own))

    holds = _holds(labels, groups)  # (N, G)
    rows = {}
    for g, (name, classes) in enumerate(groups.items()):
        here = p * holds[:, g]
        q = own.get(name)
        rows[name] = {
            "classes": len(classes),
            "ratio": _ratio(labels, expected, classes),
            "realised": _ratio(labels, realised, classes),
            "effective_images": effective_size(here / here.sum()) if here.any() else 0.0,
            "own_share": np.nan if q is None else sampler.shares[name],
            "own_ratio": np.nan if q is None else _ratio(labels, _rates(labels, q), classes),
            "own_realised": np.nan if q is None else _ratio(labels, own_realised[g], classes),
            "own_effective_images": np.nan if q is None else effective_size(q),
        }
    both = holds.T @ (p[:, None] * holds)
    with np.errstate(invalid="ignore", divide="ignore"):
        leakage = both / both.diagonal()[:, None]
    every = np.arange(labels.num_classes)
    n = len(labels)
    return Audit(
        sampler=type(sampler).__name__,
        class_names=labels.class_names,
        group=group,
        counts=labels.counts,
        expected=expected,
        realised=realised,
        draws=draws,
        groups=pd.DataFrame.from_dict(rows, orient="index"),
        leakage=pd.DataFrame(leakage, index=list(groups), columns=list(groups)),
        ratio=_ratio(labels, expected, every),
        realised_ratio=_ratio(labels, realised, every),
        effective_images=effective_size(p),
        distinct_images=_distinct(p) if sampler.replacement else float(n),
        most_repeated=int(p.argmax()),
        repeats=float(p.max() * n),
        cardinality=float(expected.sum()),
        images=n,
        report=tuple(getattr(sampler, "report", ())),
    )


def frontier(
    labels: LabelMatrix,
    ridges: Sequence[float],
    groups: Mapping[str, Sequence[int]] | None = None,
) -> pd.DataFrame:
    """Trace what each ridge buys: balance inside each group against the number of distinct images.

    Args:
        labels: the labels of the images.
        ridges: values of ``ridge`` for :class:`~ltml.sampler.GroupSampler`.
        groups: as there.

    Returns:
        A row a ridge and group: ``ridge``, ``group``, ``ratio`` (max/min class rate of the draws
        for the group), ``effective_images`` and ``images`` (all that hold a class of the group).
    """
    groups, rows = check_groups(labels, groups), []
    for ridge in ridges:
        if not 0 <= ridge < float("inf"):
            raise InputError(f"ridges holds {ridge!r}; give 0 or positive numbers")
        solved = balance_groups(labels, groups, ridge=float(ridge))
        for name, weights in solved.weights.items():
            p = np.zeros(len(labels))
            p[solved.images[name]] = weights
            ratio = _ratio(labels, _rates(labels, p), groups[name])
            rows.append((float(ridge), name, ratio, effective_size(weights), len(weights)))
    return pd.DataFrame(rows, columns=["ridge", "group", "ratio", "effective_images", "images"])


def _rates(labels, p):
    """``(C,)``: sum of ``p`` (N,) over the images of each class."""
    weights = np.repeat(p, np.diff(labels.indptr))
    return np.bincount(labels.indices, weights, minlength=labels.num_classes)


def _ratio(labels, rates, classes):
    """Largest over smallest rate; NaN without rates or images, infinite for one never drawn."""
    classes = classes[labels.counts[classes] > 0]
    if rates is None or not len(classes):
        return float("nan")
    low, high = rates[classes].min(), rates[classes].max()
    return float(high / low) if low else float("inf")


def _holds(labels, groups):
    """``(N, G)`` of 0.0 and 1.0: which images hold a class of which group."""
    image, columns = labels.image_of_label(), []
    for classes in groups.values():
        hits = np.isin(labels.indices, classes)
        columns.append(np.bincount(image, hits, minlength=len(labels)) > 0)
    return np.stack(columns, axis=1).astype(np.float64)


def _distinct(p):
    n, sure = len(p), p >= 1
    return float(sure.sum() - np.expm1(n * np.log1p(-p[~sure])).sum())


def _realise(sampler, draws, num_groups):
    """Class rates over draws, the same for each group's own, and how many draws there were."""
    if not draws:
        return None, [None] * num_groups, 0
    n = len(sampler.labels)
    counts = np.zeros((num_groups + 1, n))  # the last row: draws for no group
    batches = -(-draws * sampler.world_size // sampler.batch_size)
    for batch in range(batches):
        index = sampler.indices(batch).cpu().numpy()
        if num_groups:
            np.add.at(counts, (sampler.drawn_for(batch).cpu().numpy(), index), 1)
        else:
            np.add.at(counts[0], index, 1)
    own = [_rates(sampler.labels, row / max(row.sum(), 1)) for row in counts[:-1]]
    return _rates(sampler.labels, counts.sum(0) / counts.sum()), own, int(counts.sum())
