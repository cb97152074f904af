"""Parts that figures share: axes of classes, groups in heatmaps, legends, wording."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ltml.errors import InputError
from ltml.labels import GROUPS
from ltml.options import choose
from ltml.plots.style import GREY, GROUP_COLORS, GROUP_HATCHES, RUN_COLORS, RUN_MARKERS

__all__ = [
    "axes_for",
    "class_axis",
    "group_bars",
    "group_color",
    "group_lines",
    "legend",
    "listed",
    "log_axis",
    "plot_classes",
    "rarest",
    "size_of",
    "split",
    "times",
]

MANY = 40  # classes, whose names and marks are smaller beyond


def axes_for(
    ax, *, width: float = 9, height: float = 4, rows: int = 1, columns: int = 1, **options
):
    """Return the given axes with their figure, or new ones of a size in inches."""
    if ax is None:
        return plt.subplots(rows, columns, figsize=(width, height), **options)
    if np.size(ax) != rows * columns:
        raise InputError(f"ax holds {np.size(ax)} axes; give {rows * columns}")
    return np.ravel(ax)[0].figure, ax


def split(frame: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """Split a frame by a column, in the order in which its values come."""
    return {name: part.reset_index(drop=True) for name, part in frame.groupby(column, sort=False)}


def legend(ax: Axes, **options) -> None:
    """Explain marks and colours at the right of the axes, where no data are."""
    if len(ax.get_legend_handles_labels()[0]) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def log_axis(axis) -> None:
    """Write plain numbers on a logarithmic axis, also between the powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter("{x:g}")


def group_color(group: str, i: int) -> str:
    """Return the colour of a group, also of the ``i``-th of the reader's own."""
    return GROUP_COLORS.get(group, GREY if group == "uniform" else RUN_COLORS[(i + 1) % 7])


def group_bars(ax: Axes, group: str, i: int, x, height, **options) -> None:
    """Plot bars in the look of a group; very many are not hatched."""
    hatch = GROUP_HATCHES.get(group, "") if len(x) <= 100 else ""
    color = group_color(group, i)
    ax.bar(x, height, color=color, hatch=hatch, edgecolor="white", lw=0, **options)


def size_of(classes: int) -> dict[str, float]:
    """Return the size of marks, smaller ones where very many are side by side."""
    ms, mew = (7, 1.5) if classes <= MANY else (4, 1) if classes <= 100 else (2, 0.5)
    return {"ms": ms, "mew": mew}


def plot_classes(ax: Axes, frame: pd.DataFrame, column: str, value: str, *, mark=None) -> None:
    """Plot a value of each class, for every name in a column, with errors where the frame has them.

    Classes and groups are those of the last name, in its order.
    """
    tables = split(frame, column)
    last = next(reversed(tables.values()))
    for i, (name, table) in enumerate(tables.items()):
        table = table.set_index("class").loc[last["class"]]
        x = np.arange(len(table)) + (0.3 * i / (len(tables) - 1) - 0.15 if len(tables) > 1 else 0)
        color = RUN_COLORS[i % 7]
        look = {"color": color, "mfc": color if i % 2 else "white", **size_of(len(table))}
        look |= {"fmt": RUN_MARKERS[i % 7], "lw": 1.2, "label": name}
        ax.errorbar(x, table[value], table.get("error"), **look)
    class_axis(ax, last, mark)


def class_axis(ax: Axes, table: pd.DataFrame, mark: str | None = None) -> None:
    """Name the classes, shade and name their groups, and point out one class.

    Args:
        ax: whose x axis has class ``i`` at ``i``.
        table: a row per class: class, group, count.
        mark: class to point out.
    """
    names, groups, C = table["class"].tolist(), table.group.to_numpy(), len(table)
    shown = range(0, C, -(-C // 90))  # names that there is room for
    look = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    look = {"rotation": 90, "fontsize": 5.5} if C > MANY else look
    ax.set_xticks(shown, [f"{names[i]} {table['count'].iloc[i]:,}" for i in shown], **look)
    ax.set(xlabel="class, training images", xlim=(-0.6, C - 0.4))
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[starts, C])
    present = list(dict.fromkeys(groups))
    # Where groups are scattered or too narrow for their names, the legend names them.
    together = len(starts) == len(present) and lengths.min() > 0.06 * C
    for i, group in enumerate(present):
        here = groups[starts] == group
        ax.broken_barh(
            list(zip(starts[here] - 0.5, lengths[here], strict=True)),
            (0, 1),
            transform=ax.get_xaxis_transform(),
            **{"color": group_color(group, i), "alpha": 0.15, "lw": 0, "zorder": 0},
            label=None if together else group,
        )
    if together:
        each = zip(present, lengths, strict=True)
        _name_above(ax, starts + (lengths - 1) / 2, [f"{g or 'no group'} ({n})" for g, n in each])
    if mark is not None:
        at = choose("class", mark, {name: i for i, name in enumerate(names)})
        ax.axvspan(at - 0.5, at + 0.5, fill=False, ec="black", lw=1.5, zorder=3)


def group_lines(ax: Axes, groups, *, both: bool = False) -> None:
    """Part the groups in a heatmap whose rows are classes; with ``both`` its columns are, too."""
    groups = np.asarray(groups)
    ends = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    ax.hlines(ends, 0, 1, transform=ax.get_yaxis_transform(), color="black", lw=1.2)
    if both:
        ax.vlines(ends, 0, 1, transform=ax.get_xaxis_transform(), color="black", lw=1.2)
        middles = (np.r_[0, ends] + np.r_[ends, len(groups)]) / 2
        wide = np.diff(np.r_[0, ends, len(groups)]) > 0.06 * len(groups)
        _name_above(ax, middles[wide], groups[middles.astype(int)][wide])
    ax.grid(False)


def _name_above(ax: Axes, places, names) -> None:
    top = ax.secondary_xaxis("top")
    top.set_xticks(places, names, color="#555555")
    top.tick_params(length=0)
    top.spines["top"].set_visible(False)


def rarest(groups) -> str:
    """Return the rarest of head, medium and tail that occurs."""
    return [group for group in GROUPS if group in set(groups)][-1]


def times(ratio: float) -> str:
    """Write a ratio in three digits."""
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:,.0f}"


def listed(values: pd.Series, form=times) -> str:
    """Write up to three values with their names, of more the extremes: ``1 (a), 2 (b)``."""
    if len(values) > 3:
        values = values.loc[[values.idxmin(), values.idxmax()]]
    return ", ".join(f"{form(value)} ({name})" for name, value in values.items())
