"""What a sampler yields, measured: class rates, balance, repetition, and classes dragged along."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.maxent import balance_groups, check_groups

__all__ = ["Audit", "audit", "effective_size", "frontier"]


def effective_size(p: np.ndarray) -> float:
    r"""Kish's effective sample size :math:`1 / \sum_i p_i^2` of probabilities that sum to 1.

    It is the number of images that, sampled equally often, would repeat as much.

    Example:
        >>> effective_size(np.array([0.5, 0.5, 0.0]))
        2.0
    """
    return float(1 / np.sum(np.square(p)))


@dataclass(frozen=True, eq=False)
class Audit:
    """What a sampler yields on average; see :func:`audit`.

    A draw is one sampled image; an epoch is as many draws as there are images. A class rate is the
    share of draws with the class; a ratio is largest over smallest rate, over classes that have an
    image. What is *realised* is counted, and NaN (or None) without draws.

    Attributes:
        sampler: class name of the sampler.
        class_names, group, counts: ``(C,)`` of each class.
        expected, realised: ``(C,)`` rate of each class.
        draws: how many were counted.
        groups: a row a group: ``classes``; ``ratio`` and ``realised`` ratio over all draws;
            ``effective_images`` over all draws with a class of the group; and ``own_share``,
            ``own_ratio``, ``own_realised``, ``own_effective_images`` over those for this group.
        leakage: ``(G, G)``: how often a draw with a class of the row's group holds one of the
            column's too; ``leakage.loc["tail", "head"]``: how often a tail class brings a head one.
        ratio, realised_ratio: over all classes.
        effective_images: of all draws.
        distinct_images: different images expected in an epoch.
        most_repeated, repeats: the image drawn most often, and how often in an epoch.
        cardinality: labels of a draw, on average.
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
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("class_names", "group", "counts", "expected", "realised"):
            del out[name]  # the columns of the table
        tables = {"groups": self.groups, "leakage": self.leakage, "classes": self.table()}
        out |= {name: table.to_dict("index") for name, table in tables.items()}
        return json.loads(pd.Series(out).to_json(double_precision=15))

    def __str__(self) -> str:
        realised = f" (realised {self.realised_ratio:.2f})" if self.draws else ""
        lines = [
            f"{self.sampler}: max/min class rate {self.ratio:.2f}{realised}, "
            f"{self.effective_images:.0f} effective images, {self.cardinality:.2f} labels an image",
            f"in an epoch: {self.distinct_images:.0f} of {self.images} images, "
            f"image {self.most_repeated} {self.repeats:.1f} times",
            *("", _text(self.groups.dropna(axis="columns", how="all")), ""),
            "leakage (rows: drawn, columns: beside it)",
            _text(self.leakage),
        ]
        return "\n".join([*lines, *(f"note: {sentence}" for sentence in self.report)])


def _text(table: pd.DataFrame) -> str:
    return table.to_string(float_format=lambda x: f"{x:.3f}" if x < 10 else f"{x:.0f}")


def audit(sampler, draws: int = 0) -> Audit:
    """Audit any sampler of :mod:`ltml.sampler`; the same as ``sampler.audit(draws)``.

    Args:
        sampler: what to audit, group by group of ``sampler.groups``.
        draws: also sample this many images (rounded up to whole batches) and count their classes.
            The batches are the first ones; the position of the sampler does not move.

    Example:
        >>> from ltml.sampler import ClassAwareSampler
        >>> labels = LabelMatrix.from_lists([[0]] * 150 + [[0, 1]] * 10, ["person", "sheep"])
        >>> found = audit(ClassAwareSampler(labels, batch_size=8))
        >>> found.expected
        array([1.     , 0.53125])
        >>> float(found.leakage.loc["tail", "head"])  # every sheep brings a person
        1.0
    """
    if not isinstance(draws, int | np.integer) or draws < 0:
        raise InputError(f"draws is {draws!r}; give a whole number, 0 or more")
    labels, groups, n = sampler.labels, sampler.groups, len(sampler.labels)
    p, own = sampler.image_probabilities(), sampler.group_probabilities()
    batches = range(-(-draws * sampler.world_size // sampler.batch_size))
    image = np.concatenate([np.empty(0, np.int64), *map(sampler.indices, batches)])
    drawn_for = np.concatenate([np.empty(0, np.int64), *map(sampler.drawn_for, batches)])

    def counted(which):
        return np.bincount(image[which], minlength=n) / which.sum() if which.any() else None

    expected, shown = labels.rates(p), counted(image >= 0)
    holds = np.stack([labels.holding(c) for c in groups.values()], axis=1) * 1.0  # (N, G)
    both = holds.T @ (p[:, None] * holds)
    group, rows = np.full(labels.num_classes, "", dtype=object), {}
    for g, (name, classes) in enumerate(groups.items()):
        group[classes] = name
        rows[name] = {
            "classes": len(classes),
            "ratio": _ratio(labels, p, classes),
            "realised": _ratio(labels, shown, classes),
            "effective_images": effective_size(p * holds[:, g] / both[g, g]) if both[g, g] else 0.0,
            "own_share": sampler.shares[name] if name in own else np.nan,
            "own_ratio": _ratio(labels, own.get(name), classes),
            "own_realised": _ratio(labels, counted(drawn_for == g), classes),
            "own_effective_images": effective_size(own[name]) if name in own else np.nan,
        }
    with np.errstate(invalid="ignore", divide="ignore"):
        leakage = both / both.diagonal()[:, None]
    every, certain = np.arange(labels.num_classes), p >= 1
    distinct = certain.sum() - np.expm1(n * np.log1p(-p[~certain])).sum()
    return Audit(
        sampler=type(sampler).__name__,
        class_names=labels.class_names,
        group=group,
        counts=labels.counts,
        expected=expected,
        realised=None if shown is None else labels.rates(shown),
        draws=len(image),
        groups=pd.DataFrame.from_dict(rows, orient="index"),
        leakage=pd.DataFrame(leakage, index=list(groups), columns=list(groups)),
        ratio=_ratio(labels, p, every),
        realised_ratio=_ratio(labels, shown, every),
        effective_images=effective_size(p),
        distinct_images=float(distinct) if sampler.replacement else float(n),
        most_repeated=int(p.argmax()),
        repeats=float(p.max() * n),
        cardinality=float(expected.sum()),
        images=n,
        report=tuple(sampler.report),
    )


def frontier(
    labels: LabelMatrix,
    ridges: Sequence[float],
    groups: Mapping[str, Sequence[int]] | None = None,
) -> pd.DataFrame:
    """Trace what each ridge buys: balance inside each group against the number of distinct images.

    Args:
        labels: the labels of the images.
        ridges, groups: values of ``ridge``, and ``groups``, of :class:`~ltml.sampler.GroupSampler`.

    Returns:
        A row a ridge and group: ``ridge``, ``group``, ``ratio`` (max/min class rate over the draws
        for the group), ``effective_images`` and ``images`` (all that hold a class of the group).
    """
    groups, rows = check_groups(labels, groups), []
    for ridge in ridges:
        if not 0 <= ridge < float("inf"):
            raise InputError(f"ridges holds {ridge!r}; give 0 or positive numbers")
        for name, p in balance_groups(labels, groups, ridge=float(ridge))[0].items():
            ratio = _ratio(labels, p, groups[name])
            images = np.count_nonzero(labels.holding(groups[name]))
            rows.append((float(ridge), name, ratio, effective_size(p), images))
    return pd.DataFrame(rows, columns=["ridge", "group", "ratio", "effective_images", "images"])


def _ratio(labels, p, classes):
    """Largest over smallest class rate; NaN without images, infinite for a class never sampled."""
    classes = classes[labels.counts[classes] > 0]
    if p is None or not len(classes):
        return float("nan")
    rates = labels.rates(p)[classes]
    return float(rates.max() / rates.min()) if rates.min() else float("inf")
