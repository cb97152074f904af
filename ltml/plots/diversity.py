"""Figures of features: how diverse each class's are, and where they lie."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ltml.errors import InputError
from ltml.features import FeatureRecord
from ltml.groups import GROUPS
from ltml.plots.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    NAMED,
    RUN_COLORS,
    RUN_MARKERS,
    axes_for,
    class_axis,
    group_bands,
    stems,
    style,
)

__all__ = ["class_map", "feature_diversity"]

Drawn = FeatureRecord | pd.DataFrame | Sequence[FeatureRecord]
Drawn = Drawn | Mapping[str, FeatureRecord | pd.DataFrame]

_MEASURES = {
    "vendi": "Vendi score of {m} images",
    "effective-rank": "effective rank of {m} images",
    "cosine-distance": "cosine distance of pairs",
}


def feature_diversity(
    drawn: Drawn,
    *,
    measure: str = "vendi",
    split: str = "test",
    size: int | None = None,
    highlight: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw the diversity of each class's features at one sample size, with standard errors.

    Short lines are the means of the groups.

    Args:
        drawn: a record or several, or tables of :meth:`ltml.FeatureRecord.diversity`, by name.
        measure: a name of :data:`ltml.metrics.DIVERSITY`; tables have their own.
        split: ``"train"`` or ``"test"``; tables have their own.
        size: samples a subset; default: what the smallest class of all records allows.
        highlight: name of a class to mark.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if an option is unknown, or what is drawn does not compare.
    """
    tables = _tables(drawn, measure, split, size)
    first = next(iter(tables.values()))
    m, label = int(first["size"].iloc[0]), _MEASURES.get(first.measure.iloc[0], "{m} images")
    groups = first.group.to_numpy()
    with style():
        fig, ax = axes_for(ax)
        x, means = np.arange(len(first)), {}
        spread = np.linspace(-0.2, 0.2, len(tables)) if len(tables) > 1 else [0.0]
        for i, (name, table) in enumerate(tables.items()):
            color = RUN_COLORS[i % len(RUN_COLORS)]
            few = len(x) <= NAMED
            if not few:
                low, high = table.value - table.error, table.value + table.error
                stems(ax, x + spread[i], low, high, color=color)
            ax.errorbar(
                x + spread[i],
                table.value,
                table.error if few else None,
                fmt=RUN_MARKERS[i % len(RUN_MARKERS)],
                color=color,
                mfc=color if i % 2 == 0 else "white",
                ms=6,
                capsize=2,
                lw=1.2,
                label=name,
            )
            means[name] = table.groupby("group").value.mean()
            for group in means[name].index:
                at = x[groups == group]
                ends = [at.min() - 0.45, at.max() + 0.45]
                ax.plot(ends, [means[name][group]] * 2, color=color, lw=1.2, ls=["-", "--"][i % 2])
        # last: on axes that were cleared, bands drawn first would keep the old limits
        group_bands(ax, first)
        if highlight is not None:
            _mark(ax, first, highlight)
        low, high = ax.get_ylim()
        # the groups' names stand above the bars, and the legend between
        ax.set_ylim(low, high + (0.1 if len(tables) == 1 else 0.24) * (high - low))
        class_axis(ax, first)
        ax.set_ylabel(f"{label.format(m=m)}\n(mean ± standard error)")
        ax.set_title(_found(means, label.format(m=m)))
        if len(tables) > 1:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.94), ncols=min(len(tables), 4))
    return fig, ax


def _found(means: Mapping[str, pd.Series], label: str) -> str:
    """The groups' means of one table, or the rarest group's mean of each."""
    if len(means) == 1:
        ((name, mean),) = means.items()
        values = ", ".join(f"{g} {mean[g]:.2f}" for g in GROUPS if g in mean)
        return _short(f"{name}: " if name else "", f"{label}, {values}", f"{label}, {values}")
    rarest = [g for g in GROUPS if g in next(iter(means.values()))][-1]
    shown = [f"{name} {mean[rarest]:.2f}" for name, mean in means.items()]
    values = [mean[rarest] for mean in means.values()]
    instead = f"{label} in the {rarest}: from {min(values):.2f} to {max(values):.2f}"
    return _short(f"{label} in the {rarest}: ", ", ".join(shown), instead=instead)


def _short(first: str, then: str, instead: str, most: int = 92) -> str:
    """Join two parts of a title, or give another where one line has no room for both."""
    return first + then if len(first + then) <= most else instead


def _mark(ax: Axes, table: pd.DataFrame, name: str) -> None:
    at = np.flatnonzero(table["class"] == name)
    if not at.size:
        raise InputError(f"class {name!r} is unknown; choose from {', '.join(table['class'])}")
    ax.axvspan(at[0] - 0.5, at[0] + 0.5, fill=False, ec="black", lw=1.5, zorder=3)


def _tables(drawn: Drawn, measure, split, size) -> dict[str, pd.DataFrame]:
    if isinstance(drawn, FeatureRecord):
        drawn = {drawn.name: drawn}
    elif isinstance(drawn, pd.DataFrame):
        drawn = {"": drawn}
    elif not isinstance(drawn, Mapping):
        drawn = {
            f"{r.name} ({i})" if r.name in [q.name for q in drawn[:i]] else r.name: r
            for i, r in enumerate(drawn)
        }
    if not drawn:
        raise InputError("no record of features to draw; give at least one")
    if size is None:
        size = min(
            (r.common_size for r in drawn.values() if isinstance(r, FeatureRecord)), default=None
        )
    tables = {
        name: r.diversity(measure=measure, split=split, size=size)
        if isinstance(r, FeatureRecord)
        else r
        for name, r in drawn.items()
    }
    first_name, first = next(iter(tables.items()))
    for name, table in tables.items():
        if table["class"].tolist() != first["class"].tolist():
            raise InputError(
                f"{first_name!r} and {name!r} have different classes; compare runs of the same data"
            )
        for column in ("measure", "size"):
            if table[column].iloc[0] != first[column].iloc[0]:
                raise InputError(
                    f"{first_name!r} has {column} {first[column].iloc[0]} and {name!r} "
                    f"{table[column].iloc[0]}; they do not compare, give one {column} for both"
                )
    return tables


def class_map(
    record: FeatureRecord,
    *,
    split: str = "test",
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw the features of all classes on their two principal directions, each at unit length.

    The title tells how many images lie nearest their own class's mean in all dimensions, each image
    left out of the mean that it is compared with.

    Args:
        record: of a run.
        split: ``"train"`` or ``"test"``.
        classes: up to seven names to tell apart; default: all, coloured by group.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if a class or the split is unknown, or there are more than seven classes.
    """
    part, names = record.split(split), record.classes["class"].tolist()
    chosen = [record.index(name) for name in classes or ()]
    if len(chosen) > len(RUN_COLORS):
        raise InputError(f"{len(chosen)} classes cannot be told apart; give up to 7, or none")
    if len(part.cls) < 3:
        raise InputError(f"the {split} split has {len(part.cls)} positives on record; too few")
    x = part.features.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    at, explained = _principal(x)
    own = _nearest_own(x, part.cls, len(names))
    groups = record.classes.group.to_numpy()
    with style():
        fig, ax = axes_for(ax, width=8.5, height=6)
        if chosen:
            rest = ~np.isin(part.cls, chosen)
            ax.plot(*at[rest].T, ".", color="#CCCCCC", ms=3, zorder=1)
            for i, c in enumerate(chosen):
                rows = part.cls == c
                options = dict(color=RUN_COLORS[i], ms=5, alpha=0.8, label=names[c])
                ax.plot(*at[rows].T, RUN_MARKERS[i], **options)
        else:
            for group in GROUPS:
                rows = groups[part.cls] == group
                if rows.any():
                    ax.plot(
                        *at[rows].T,
                        GROUP_MARKERS[group],
                        color=GROUP_COLORS[group],
                        mec="#3B3B3B",
                        mew=0.3,
                        ms=4,
                        alpha=0.7,
                        label=group,
                    )
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4)
        ax.grid(True, axis="both")
        for set_label, share, which in zip(
            (ax.set_xlabel, ax.set_ylabel), explained, ("first", "second"), strict=True
        ):
            set_label(f"{which} principal direction ({100 * share:.0f} % of the variance)")
        shown = [c for c in chosen or range(len(names)) if (part.cls == c).any()]
        means = np.stack([at[part.cls == c].mean(0) for c in shown])
        _name(ax, [names[c] for c in shown], means)
        right = [
            f"{g} {100 * own[groups[part.cls] == g].mean():.0f} %"
            for g in GROUPS
            if (groups[part.cls] == g).any()
        ]
        found = f"images nearest their own class's mean: {', '.join(right)}"
        brief = f"{split}: nearest own class's mean: {', '.join([right[0], right[-1]])}"
        room = 12.5 * ax.get_position().width * fig.get_figwidth()  # letters
        longest = [f"{record.name}, {split} {found}", f"{split} {found}", brief]
        ax.set_title(next((title for title in longest if len(title) <= room), brief))
    return fig, ax


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the two principal directions, and their shares of the variance."""
    u, sigma, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
    largest = np.abs(directions[:2]).argmax(1)
    sign = np.sign(directions[[0, 1], largest])  # the SVD leaves it open
    variance = sigma**2
    return u[:, :2] * sigma[:2] * sign, variance[:2] / max(variance.sum(), 1e-300)


def _nearest_own(x: np.ndarray, cls: np.ndarray, C: int) -> np.ndarray:
    """Whether each row is nearer to the mean of its class's other rows than to other means."""
    n = np.bincount(cls, minlength=C)
    sums = np.zeros((C, x.shape[1]))
    np.add.at(sums, cls, x)
    means = sums / np.maximum(n, 1)[:, None]
    square = (x**2).sum(1)[:, None] - 2 * x @ means.T + (means**2).sum(1)
    square[:, n == 0] = np.inf
    rest = (sums[cls] - x) / np.maximum(n[cls] - 1, 1)[:, None]
    square[np.arange(len(x)), cls] = np.where(n[cls] > 1, ((x - rest) ** 2).sum(1), np.inf)
    return square.argmin(1) == cls


def _name(ax: Axes, names: Sequence[str], at: np.ndarray) -> None:
    """Write names at their points, or as near as they do not cover another."""
    fig = ax.figure
    inches = ax.get_position().size * fig.get_size_inches()
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    box = np.array([[0.09 * len(name) + 0.05, 0.19] for name in names])  # of 9 pt, in inches
    start = (at - low) / (high - low) * inches
    turns = np.arange(2000)  # a spiral
    spiral = 0.005 * turns[:, None] * np.stack([np.cos(turns / 2), np.sin(turns / 2)], 1)
    place = start.copy()
    for i in range(len(names)):
        tried = (start[i] + spiral).clip(box[i] / 2, inches - box[i] / 2)
        over = (box[i] + box[:i]) / 2 - np.abs(tried[:, None] - place[:i])  # (tried, placed, 2)
        place[i] = tried[(over > 0).all(2).any(1).argmin()]  # the first that covers none
    for name, mean, point, to in zip(names, at, start, place, strict=True):
        text = to / inches * (high - low) + low
        far = np.abs(to - point).max() > 0.12
        ax.annotate(
            name,
            mean,
            text,
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            arrowprops=dict(arrowstyle="-", color="#3B3B3B", lw=0.8) if far else None,
            zorder=5,
        )
