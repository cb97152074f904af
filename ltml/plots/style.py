"""How figures look: colours and marks of the groups, type sizes, class axes, saving."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import LogFormatter

from ltml.groups import GROUPS
from ltml.runs import write_atomically

__all__ = [
    "axes_for",
    "class_axis",
    "count_bars",
    "group_bands",
    "group_legend",
    "log_axis",
    "mark_scale",
    "save",
    "stems",
    "style",
]

# Okabe and Ito's palette, safe for colour-blind readers; dark, middle and light also in greyscale,
# and hatched apart from each other.
GROUP_COLORS = {"head": "#00527A", "medium": "#56B4E9", "tail": "#F0B429"}
GROUP_MARKERS = {"head": "s", "medium": "D", "tail": "o"}
GROUP_HATCHES = {"head": "", "medium": "///", "tail": "..."}
POSITIVE, NEGATIVE = "#B33F00", "#3B3B3B"
NAMED = 40  # classes; of more, neither names nor single lines can be told apart
RUN_COLORS = ["#3B3B3B", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
RUN_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


@contextmanager
def style() -> Iterator[None]:
    """Set type sizes and lines that stay legible at the width of a page."""
    settings = {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "grid.color": "#DDDDDD",
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "svg.hashsalt": "ltml",  # the same figure gives the same file
    }
    # A notebook's backend turns itself on at the first figure; rc_context would turn it off again,
    # and all later figures would be missing without a word.
    with mpl.rc_context(settings):
        try:
            yield
        finally:
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)


def save(fig: Figure, stem: str | Path) -> list[Path]:
    """Write ``stem.svg`` and ``stem.png`` (200 dpi), the same bytes for the same figure.

    Returns:
        the two paths.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    with style():
        for path in paths:
            kind, metadata = path.suffix[1:], {"Date": None} if path.suffix == ".svg" else {}
            write_atomically(
                path, lambda p, k=kind, m=metadata: fig.savefig(p, format=k, dpi=200, metadata=m)
            )
    return paths


def axes_for(ax: Axes | None, *, width: float = 9, height: float = 4) -> tuple[Figure, Axes]:
    """Return the given axes with their figure, or new ones of a size in inches."""
    if ax is None:
        return plt.subplots(figsize=(width, height))
    return ax.figure, ax


def count_bars(ax: Axes, x, height, groups) -> None:
    """Draw bars in the colours and hatches of their groups."""
    bars = ax.bar(x, height, width=0.8, color=[GROUP_COLORS[g] for g in groups])
    for bar, group in zip(bars, groups, strict=True):
        bar.set(hatch=GROUP_HATCHES[group], edgecolor="white", linewidth=0)


def group_legend(ax: Axes, groups) -> None:
    """Explain the groups that occur, with their numbers of classes."""
    present = [group for group in GROUPS if group in set(groups)]
    ax.legend(
        handles=[
            Patch(
                facecolor=GROUP_COLORS[group],
                hatch=GROUP_HATCHES[group],
                edgecolor="white",
                label=f"{group} ({(groups == group).sum()})",
            )
            for group in present
        ]
    )


def group_bands(ax: Axes, table: pd.DataFrame) -> None:
    """Shade runs of neighbouring classes of one group, and name each group at the top."""
    groups = table.group.to_numpy()
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    ends = np.r_[starts[1:], len(groups)]
    look = {"alpha": 0.13, "lw": 0, "zorder": 0}
    if scattered := len(starts) > NAMED:  # as by gradient: one path a group is much sooner drawn
        for group, color in GROUP_COLORS.items():
            here = groups[starts] == group
            left, right = starts[here] - 0.5, ends[here] - 0.5
            corners = np.stack([left, left, right, right, left], 1)
            corners = np.stack([corners, np.tile([0, 1, 1, 0, 0], (len(left), 1))], 2)
            codes = [Outline.MOVETO, *3 * [Outline.LINETO], Outline.CLOSEPOLY]
            outline = Outline(corners.reshape(-1, 2), np.tile(codes, len(left)))
            patch = PathPatch(outline, color=color, transform=ax.get_xaxis_transform(), **look)
            ax.add_artist(patch)
    room = 1 if len(groups) <= NAMED else len(groups) // 12  # that a name takes, about
    for start, end in zip(starts, ends, strict=True):
        group = groups[start]
        if not scattered:
            ax.axvspan(start - 0.5, end - 0.5, color=GROUP_COLORS[group], **look)
        if end - start > room or len(starts) <= 3:
            ax.text(
                (start + end - 1) / 2,
                0.99,
                group,
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="top",
                color="#555555",
            )


def log_axis(ax: Axes) -> None:
    """Make the axis logarithmic, with plain numbers also between the powers of ten."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(1, 0.5)))


class _PlainLogFormatter(LogFormatter):
    """Write 0.6 and not 6e-01, where LogFormatter would write anything."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def mark_scale(classes: int) -> float:
    """Factor for the size of marks: small ones where very many stand side by side."""
    return 1.0 if classes <= NAMED else 0.4


def stems(ax: Axes, x, low, high, *, color: str) -> None:
    """Draw a thin line from ``low`` to ``high`` at each class, behind marks that stand at both."""
    if len(x) <= NAMED:
        ax.vlines(x, low, high, color=color, lw=1, zorder=1)
        return
    # One path for all: a path a class would take longer than all the rest of the figure.
    ends = np.stack([np.repeat(x, 2), np.stack([low, high], 1).ravel()], 1)
    codes = np.tile([Outline.MOVETO, Outline.LINETO], len(x))
    look = {"fill": False, "ec": color, "lw": 1, "zorder": 1, "snap": True}
    ax.add_artist(PathPatch(Outline(ends, codes), transform=ax.transData, **look))
    ax.update_datalim(ends)
    ax.autoscale_view()


def class_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Name the classes and their counts where there is room, else say how they are ordered."""
    ax.set_xlim(-0.6, len(table) - 0.4)
    if len(table) <= NAMED:
        ax.set_xticks(
            range(len(table)),
            [f"{name} {n:,}" for name, n in zip(table["class"], table["count"], strict=True)],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
        )
        ax.set_xlabel("class, training images")
    else:
        ax.set_xlabel("classes, by descending training images")
