"""What samplers and their audits hold, as tables ready to draw; groups of the reader's own too."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from ltml.audit import Audit
from ltml.batches import Sampler
from ltml.errors import InputError
from ltml.groups import GROUPS
from ltml.labels import LabelMatrix
from ltml.plots.style import (
    GROUP_COLORS,
    GROUP_HATCHES,
    RUN_COLORS,
    RUN_MARKERS,
    group_bands,
    log_axis,
)
from ltml.sampler import SAMPLERS

__all__ = [
    "SAMPLER_NAMES",
    "Drawn",
    "bands",
    "by_count",
    "class_rates_of",
    "group_of",
    "legend_above",
    "log_rates",
    "look",
    "rates_of",
    "ratio_of",
    "samplers_of",
    "series",
    "spans",
    "times",
]

SAMPLER_NAMES = {kind.__name__: name for name, kind in SAMPLERS.items()}

Drawn = LabelMatrix | Sampler | Audit | Sequence[Sampler | Audit] | Mapping[str, Sampler | Audit]


def samplers_of(drawn: Drawn) -> dict[str, Sampler | Audit]:
    """Name what is to be drawn: by key, or by kind of sampler, numbered where one repeats."""
    if isinstance(drawn, LabelMatrix):
        options = dict(batch_size=64, num_batches=1)
        return {name: kind(drawn, **options) for name, kind in SAMPLERS.items()}
    if isinstance(drawn, Mapping):
        each = dict(drawn)
    else:
        each = {}
        for item in [drawn] if isinstance(drawn, Sampler | Audit) else drawn:
            kind = item.sampler if isinstance(item, Audit) else type(item).__name__
            name = SAMPLER_NAMES.get(kind, kind)
            again = sum(key == name or key.startswith(f"{name} ") for key in each)
            each[f"{name} {again + 1}" if again else name] = item
    if not each:
        raise InputError("no sampler to draw; give at least one, or labels")
    for item in each.values():
        if not isinstance(item, Sampler | Audit):
            raise InputError(f"{type(item).__name__} is no sampler, audit or label matrix")
    if len({_names_of(item) for item in each.values()}) > 1:
        raise InputError("the samplers draw different classes; compare samplers of the same data")
    return each


def rates_of(each, draws):
    """The classes in drawing order, and each sampler's expected and counted rates in that order."""
    if draws not in ("all", "own"):
        raise InputError(f"draws={draws!r} is unknown; give all or own")
    first = next(iter(each.values()))
    counts = first.counts if isinstance(first, Audit) else first.labels.counts
    groups = first.group if isinstance(first, Audit) else group_of(first)
    names = list(first.groups.index if isinstance(first, Audit) else first.groups)
    table = by_count(_names_of(first), groups, counts, names)
    order, rates, realised = table.index.to_numpy(), {}, {}
    for name, item in each.items():
        if isinstance(item, Audit):
            if draws == "own":
                raise InputError('an audit holds no rates of draws="own"; give the sampler itself')
            rate = item.expected
            if item.realised is not None:
                realised[name] = _positive(item.realised[order])
        else:
            rate = class_rates_of(item.labels, item.image_probabilities())
            for group, p in item.group_probabilities().items() if draws == "own" else ():
                classes = item.groups[group]
                rate[classes] = class_rates_of(item.labels, p)[classes]
        rates[name] = _positive(rate[order])
    return table, rates, realised


def by_count(class_names, groups, counts, names: Sequence[str] = GROUPS) -> pd.DataFrame:
    """One row a class, group after group, by descending count; the index is the class index."""
    table = pd.DataFrame({"class": class_names, "group": groups, "count": counts})
    place = {name: i for i, name in enumerate(names)}
    table["place"] = [place.get(group, len(place)) for group in table.group]
    return table.sort_values(["place", "count", "class"], ascending=[True, False, True])


def _names_of(item: Sampler | Audit) -> tuple[str, ...]:
    return item.class_names if isinstance(item, Audit) else item.labels.class_names


def group_of(sampler: Sampler) -> np.ndarray:
    """``(C,)`` name of the group that each class is drawn for; empty for none."""
    group = np.full(sampler.labels.num_classes, "", dtype=object)
    for name, classes in sampler.groups.items():
        group[classes] = name
    return group


def class_rates_of(labels: LabelMatrix, p: np.ndarray) -> np.ndarray:
    """``(C,)``: sum of the image probabilities ``p`` (N,) over the images of each class."""
    weights = np.repeat(p, np.diff(labels.indptr))
    return np.bincount(labels.indices, weights, minlength=labels.num_classes)


def _positive(rates):
    """NaN where there is no image, which a logarithmic axis leaves out."""
    return np.where(rates > 0, rates, np.nan)


def ratio_of(rates) -> float:
    """Largest over smallest rate, of those that are not NaN."""
    rates = rates[np.isfinite(rates)]
    return float(rates.max() / rates.min()) if len(rates) else float("nan")


def times(ratio: float) -> str:
    """Write a ratio in three digits."""
    return f"{ratio:.2f}×" if ratio < 9.995 else f"{ratio:.3g}×"


def series(each) -> Iterator[tuple[str, str, str]]:
    """Yield each name with its marker and colour; each kind of sampler always has the same."""
    own = {name: i for i, name in enumerate(SAMPLERS) if name in each}
    free = (i for i in range(len(each) + len(own)) if i not in own.values())
    for name in each:
        i = own[name] if name in own else next(free)
        yield name, RUN_MARKERS[i % len(RUN_MARKERS)], RUN_COLORS[i % len(RUN_COLORS)]


def look(group: str, i: int) -> tuple[str, str]:
    """Colour and hatch of a group, also of one of the reader's own."""
    if group == "uniform":
        return "#AAAAAA", ""
    color = GROUP_COLORS.get(group, RUN_COLORS[(i + 1) % len(RUN_COLORS)])
    return color, GROUP_HATCHES.get(group, ("", "///", "...", "xxx", "\\\\\\")[i % 5])


def spans(groups: pd.Series) -> list[tuple[int, int]]:
    """Start and end of each run of one group."""
    groups = groups.to_numpy()
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(groups)], strict=True))


def bands(ax: Axes, table: pd.DataFrame) -> None:
    """Shade and name the groups; groups of the reader's own in turn grey and white."""
    if set(table.group) <= set(GROUPS):
        group_bands(ax, table)
        return
    for i, (start, end) in enumerate(spans(table.group)):
        color = "#DDDDDD" if i % 2 else "#F4F4F4"
        ax.axvspan(start - 0.5, end - 0.5, color=color, lw=0, zorder=0)
        ax.text(
            (start + end - 1) / 2,
            0.99,
            table.group.iloc[start] or "no group",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            color="#555555",
        )


def log_rates(ax: Axes, *, above: float) -> None:
    """Make the axis logarithmic, with room above the data as a fraction of their height."""
    log_axis(ax)
    low, high = ax.get_ylim()
    if high < 4 * low:  # what is equal should look equal
        low, high = (low * high) ** 0.5 / 2, (low * high) ** 0.5 * 2
    ax.set_ylim(low * (high / low) ** -0.03, high * (high / low) ** above)
    # Few ticks between the powers of ten: they take most of the time of drawing.
    between = (2, 3, 5) if high < 10 * low else (2, 5)
    ax.yaxis.set_minor_locator(LogLocator(subs=between) if high < 300 * low else NullLocator())
    ax.yaxis.set_minor_formatter("{x:g}")


def legend_above(ax: Axes) -> None:
    """Between title and axes, where no data are."""
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=6, borderaxespad=0.2, handletextpad=0.4
    )
