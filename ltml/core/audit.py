"""What a sampler yields, measured: class rates, balance, repetition, and classes dragged along."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ltml.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Audit:
    r"""What a sampler yields on average; see :func:`audit`.

    A draw is one sampled image; an epoch is as many draws as there are images. A class rate is the
    share of draws with the class; a ratio is largest over smallest rate, over classes that have an
    image. Effective images are Kish's :math:`1 / \sum_i p_i^2` of the shares of the draws: as many
    images, sampled equally often, would repeat as much. What is *realised* is counted, and NaN
    without draws.

    Attributes:
        sampler: class name of the sampler.
        classes: a row a class: ``group``, ``count``, ``expected`` and ``realised`` rate.
        groups: a row a group: ``classes``; ``ratio``, ``realised`` ratio and ``effective_images``
            over all draws (the last: over those with a class of the group); ``own_ratio`` and
            ``own_effective_images`` over the draws for this group.
        leakage: ``(G, G)``: how often a draw with a class of the row's group holds one of the
            column's too; ``leakage.loc["tail", "head"]``: how often a tail class brings a head one.
        draws: how many were counted.
        ratio, realised_ratio: over all classes.
        effective_images: of all draws.
        distinct_images: different images expected in an epoch.
        most_repeated, repeats: the image drawn most often, and how often in an epoch.
        images: images in the data.
        report: what the sampler could not balance, in sentences.
    """

    sampler: str
    classes: pd.DataFrame
    groups: pd.DataFrame
    leakage: pd.DataFrame
    draws: int
    ratio: float
    realised_ratio: float
    effective_images: float
    distinct_images: float
    most_repeated: int
    repeats: float
    images: int
    report: tuple[str, ...]

    @property
    def expected(self) -> np.ndarray:
        """``(C,)`` expected rate of each class."""
        return self.classes.expected.to_numpy()

    @property
    def realised(self) -> np.ndarray:
        """``(C,)`` counted rate of each class."""
        return self.classes.realised.to_numpy()

    def table(self) -> pd.DataFrame:
        """``classes``, without ``realised`` where nothing was counted."""
        return self.classes if self.draws else self.classes.drop(columns="realised")

    def as_dict(self) -> dict:
        """Everything, ready for JSON; numbers that are not finite become None."""
        tables = {"classes": self.table(), "groups": self.groups, "leakage": self.leakage}
        out = vars(self) | {name: table.to_dict("index") for name, table in tables.items()}
        return json.loads(pd.Series(out).to_json(double_precision=15))

    def __str__(self) -> str:
        realised = f" (realised {self.realised_ratio:.2f})" if self.draws else ""
        lines = [
            f"{self.sampler}: max/min class rate {self.ratio:.2f}{realised}, "
            f"{self.effective_images:.0f} effective images",
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
    """Audit a sampler, group by group of ``sampler.groups``; the same as ``sampler.audit(draws)``.

    Args:
        sampler: any of :mod:`ltml.core.sampler`.
        draws: number of images to sample (rounded up to whole batches), to count their classes.
            The position of the sampler does not move.

    Example:
        >>> from ltml.core.labels import LabelMatrix
        >>> from ltml.core.sampler import ClassAwareSampler
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
    batches = sampler.start + np.arange(-(-draws * sampler.world_size // sampler.batch_size))
    image = np.concatenate([np.empty(0, np.int64), *map(sampler.indices, batches)])
    counted = np.bincount(image, minlength=n) / len(image) if draws else np.full(n, np.nan)
    classes = pd.DataFrame({"group": "", "count": labels.counts}, index=labels.class_names)
    classes["expected"] = labels.rates(p)
    classes["realised"] = labels.rates(counted) if draws else np.nan

    holds = np.stack([labels.holding(c) for c in groups.values()], axis=1) * 1.0  # (N, G)
    both, rows = holds.T @ (p[:, None] * holds), {}
    for g, (name, members) in enumerate(groups.items()):
        classes.iloc[members, 0] = name
        rows[name] = {
            "classes": len(members),
            "ratio": _ratio(labels, p, members),
            "realised": _ratio(labels, counted, members),
            "effective_images": _effective(p * holds[:, g] / both[g, g]) if both[g, g] else 0.0,
            "own_ratio": _ratio(labels, own[name], members) if name in own else np.nan,
            "own_effective_images": _effective(own[name]) if name in own else np.nan,
        }
    with np.errstate(invalid="ignore", divide="ignore"):
        leakage = both / both.diagonal()[:, None]
    every, certain = np.arange(labels.num_classes), p >= 1
    distinct = certain.sum() - np.expm1(n * np.log1p(-p[~certain])).sum()
    return Audit(
        sampler=type(sampler).__name__,
        classes=classes.rename_axis("class"),
        groups=pd.DataFrame.from_dict(rows, orient="index"),
        leakage=pd.DataFrame(leakage, index=list(groups), columns=list(groups)),
        draws=len(image),
        ratio=_ratio(labels, p, every),
        realised_ratio=_ratio(labels, counted, every),
        effective_images=_effective(p),
        distinct_images=float(distinct) if sampler.replacement else float(n),
        most_repeated=int(p.argmax()),
        repeats=float(p.max() * n),
        images=n,
        report=tuple(sampler.report),
    )


def _effective(p: np.ndarray) -> float:
    return float(1 / np.sum(np.square(p)))


def _ratio(labels, p, classes) -> float:
    """Largest over smallest class rate; NaN without images, infinite for a class never sampled."""
    rates = labels.rates(p)[classes[labels.counts[classes] > 0]]
    if not len(rates):
        return float("nan")
    return float(rates.max() / rates.min()) if rates.min() else float("inf")
