"""Figures of what runs learned: average precision of classes and groups."""

import json
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ltml.errors import InputError
from ltml.groups import GROUPS
from ltml.plots.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    RUN_COLORS,
    RUN_MARKERS,
    axes_for,
    class_axis,
    group_bands,
    style,
)
from ltml.runs import Run

__all__ = [
    "class_ap",
    "group_bars",
    "group_dots",
    "training_curves",
]

_SEED = re.compile(r"[+_ -]?seed[ _=-]?\d+$")  # as the ablation names its runs
_UPRIGHT = 4  # runs whose numbers stand side by side over their bars
_TITLE = 85  # characters that one line holds
_HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo"]  # tell bars apart without colour
_LINES = ["-", "--", "-.", ":"]


def class_ap(runs: Run | Sequence[Run], *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw each class's average precision on the test split, classes by descending count.

    Args:
        runs: one run, or several of the same classes.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if the runs have different classes.
    """
    runs = _runs(runs)
    table = runs[0].classes
    with style():
        fig, ax = axes_for(ax)
        group_bands(ax, table)
        spread = np.linspace(-0.15, 0.15, len(runs)) if len(runs) > 1 else [0.0]
        for i, run in enumerate(runs):
            ap = run.classes.set_index("class").ap
            if set(ap.index) != set(table["class"]):
                raise InputError(
                    f"runs {runs[0].name!r} and {run.name!r} have different classes; "
                    "compare runs of the same data"
                )
            ax.plot(
                np.arange(len(table)) + spread[i],
                100 * ap.loc[table["class"]],
                RUN_MARKERS[i % len(RUN_MARKERS)],
                color=RUN_COLORS[i % len(RUN_COLORS)],
                ms=7,
                label=run.name,
            )
        ax.set_ylim(0, 112)  # the groups' names stand above 100
        ax.set_yticks(range(0, 101, 20))
        class_axis(ax, table)
        ax.set_ylabel("average precision (%)")
        rarest = table.group.iloc[-1]
        means = [run.classes.ap[run.classes.group == rarest].mean() for run in runs]
        found = [f"{run.name} {100 * m:.0f} %" for run, m in zip(runs, means, strict=True)]
        title = f"mAP of the {rarest} classes: {', '.join(found)}"
        if len(title) > _TITLE:
            title = (
                f"mAP of the {rarest} classes: {100 * min(means):.0f} to {100 * max(means):.0f} %"
            )
        _title_over_legend(ax, title, runs)
    return fig, ax


def group_bars(runs: Run | Sequence[Run], *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the mAP of all, head, medium and tail classes, a bar a run; see also `group_dots`.

    Args:
        runs: one run or several.
        ax: where to draw; default: a new figure.
    """
    runs = _runs(runs)
    names = ["mAP", *GROUPS]
    values = np.array([[100 * _number(run.summary.get(name)) for name in names] for run in runs])
    with style():
        fig, ax = axes_for(ax, width=7 if len(runs) <= _UPRIGHT else 9)
        width = 0.8 / len(runs)
        for i, run in enumerate(runs):
            x = np.arange(len(names)) + (i - (len(runs) - 1) / 2) * width
            bars = ax.bar(
                x,
                values[i],
                width * 0.92,
                label=run.name,
                color=RUN_COLORS[i % len(RUN_COLORS)],
                alpha=0.9,
                hatch=_HATCHES[i % len(_HATCHES)],
                edgecolor="white",
                linewidth=0,
            )
            upright = len(runs) <= _UPRIGHT
            size = 9 if len(runs) < _UPRIGHT else 7
            angle = 0 if upright else 90
            ax.bar_label(
                bars, fmt="%.1f", fontsize=size, padding=1 if upright else 2, rotation=angle
            )
        ax.set_xticks(range(len(names)), ["all classes", *GROUPS])
        ax.set_ylabel("mAP (%)")
        ax.set_ylim(0, 108 if len(runs) <= _UPRIGHT else 116)  # room for the numbers
        ax.set_yticks(range(0, 101, 20))
        title = f"{runs[0].name}: {values[0][0]:.1f} mAP"
        if len(runs) > 1:
            gain = values[-1] - values[0]
            found = f": {gain[0]:+.1f} mAP, {gain[3]:+.1f} in the tail"
            title = f"{runs[-1].name} against {runs[0].name}{found}"
            if len(title) > _TITLE:
                title = f"Last run against first{found}"
        _title_over_legend(ax, title, runs)
    return fig, ax


def group_dots(
    runs: Run | Sequence[Run], *, pool: bool = False, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw the mAP of all, head, medium and tail classes, a row a run, by ascending mAP.

    Args:
        runs: one run or many.
        pool: draw runs that differ by their seed alone as one, with their sample deviation.
        ax: where to draw; default: a new figure.
    """
    runs = _runs(runs)
    keys = [_without_seed(run) if pool else str(i) for i, run in enumerate(runs)]
    rows = pd.DataFrame(
        [{n: 100 * _number(run.summary.get(n)) for n in ("mAP", *GROUPS)} for run in runs]
    )
    groups = rows.groupby(keys, sort=False)
    first = [keys.index(key) for key in groups.mean().index]
    names = [
        _SEED.sub("", runs[i].name) if keys.count(keys[i]) > 1 else runs[i].name for i in first
    ]
    means, deviations = groups.mean(), groups.std().fillna(0)
    means.index = deviations.index = names
    order = np.argsort(means["mAP"].fillna(-1).to_numpy(), kind="stable")
    means, deviations = means.iloc[order], deviations.iloc[order]
    most = int(groups.size().max())
    with style():
        fig, ax = axes_for(ax, height=dots_height(len(means)))
        group_rows(ax, means, deviations)
        ax.set_ylabel("run" if most == 1 else "runs")
        ax.set_xlabel("mAP (%)" + (f", mean and deviation over up to {most} seeds") * (most > 1))
        best = means.iloc[-1]
        of = f" (best of {len(means)})" if len(means) > 1 else ""
        ax.set_title(
            f"{means.index[-1]}: {best['mAP']:.1f} mAP, {best['tail']:.1f} in the tail{of}"
        )
    return fig, ax


def training_curves(
    runs: Run | Sequence[Run], *, axes: Sequence[Axes] | None = None
) -> tuple[Figure, Sequence[Axes]]:
    """Draw the mAP of head, medium and tail over the training steps, a panel a group.

    Args:
        runs: one run or several.
        axes: three axes to draw on; default: a new figure.

    Raises:
        InputError: if ``axes`` are not three.
    """
    runs = _runs(runs)
    if axes is not None and len(axes) != len(GROUPS):
        raise InputError(f"axes are {len(axes)}; give {len(GROUPS)}, one for each group")
    columns = _legend_columns(runs)
    rows = legend_rows(runs)
    with style():
        if axes is None:
            axes = plt.subplots(1, len(GROUPS), figsize=(9, 3.3 + 0.23 * rows), sharey=True)[1]
        for ax, group in zip(axes, GROUPS, strict=True):
            for i, run in enumerate(runs):
                ax.plot(
                    run.metrics.step,
                    100 * run.metrics[group].astype(float),
                    _LINES[i % len(_LINES)],
                    marker=RUN_MARKERS[i % len(RUN_MARKERS)],
                    color=RUN_COLORS[i % len(RUN_COLORS)],
                    ms=5,
                    label=run.name,
                )
            shade = Rectangle((0, 0), 1, 1, color=GROUP_COLORS[group], alpha=0.13, lw=0, zorder=0)
            ax.add_patch(shade).set_transform(ax.transAxes)
            ax.set_ylim(0, 112)
            ax.set_yticks(range(0, 101, 20))
            ax.set_xlim(left=0)
            ax.text(
                0.5, 0.99, group, transform=ax.transAxes, ha="center", va="top", color="#555555"
            )
            # The legend stands below the panels, since some run's curve may pass everywhere inside.
            # It is wider than its panel, so it takes no part in the layout: empty lines make room.
            ax.set_xlabel("training steps" + "\n" * round(1.4 * rows + 1) * (rows > 0))
        axes[0].set_ylabel("mAP (%)")
        if len(runs) > 1:
            axes[1].legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 0.0),
                bbox_transform=axes[1].get_figure().transFigure,
                ncols=columns,
            ).set_in_layout(False)
        axes[0].set_title(_first_to_half(runs))
    return axes[0].figure, axes


def legend_rows(runs: Sequence[Run], width: float = 9) -> int:
    """Rows that the legend of several runs takes in a figure of a width; one run needs none."""
    return -(-len(runs) // _legend_columns(runs, width)) if len(runs) > 1 else 0


def _title_over_legend(ax: Axes, title: str, runs: list[Run]) -> None:
    """Put the legend between title and axes, where it covers no data."""
    width = ax.get_figure().get_size_inches()[0]
    rows = legend_rows(runs, width)
    ax.set_title(title, pad=6 + 16 * rows)
    if rows:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=_legend_columns(runs, width),
            borderaxespad=0.2,
            columnspacing=1.4,
        ).set_in_layout(False)  # the title's pad is its room


def dots_height(rows: int) -> float:
    """Height in inches of a figure with a row a setting."""
    return 0.27 * rows + 1.6


def group_marks(ax: Axes, group: str, x, y, half) -> None:
    """Mark a group's values in its shape and colour, with a line of ``half`` to either side."""
    ax.errorbar(
        x,
        y,
        xerr=half,
        fmt=GROUP_MARKERS[group],
        color=GROUP_COLORS[group],
        mec="#3B3B3B",
        mew=0.5,
        ms=7,
        label=group,
    )


def group_rows(ax: Axes, means: pd.DataFrame, deviations: pd.DataFrame) -> None:
    """Mark the mAP of each group (columns) in a row a setting (index), the first at the bottom."""
    y = np.arange(len(means))
    for group in GROUPS:
        group_marks(ax, group, means[group], y, deviations[group])
    ax.plot(means["mAP"], y, "|", color="black", ms=12, mew=2.5, label="all classes")
    ax.set_yticks(y, means.index)
    ax.set_ylim(-0.7, len(means) - 0.3)
    ax.grid(True, axis="both")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / (0.27 * len(means) + 1)), ncols=4)


def _legend_columns(runs: Sequence[Run], width: float = 9) -> int:
    longest = max(len(run.name) for run in runs)
    return max(1, min(len(runs), int(11 * width) // (longest + 7)))


def _first_to_half(runs: list[Run]) -> str:
    """Say who reaches half of the best tail mAP of all, and when."""
    goal = max(run.metrics["tail"].max() for run in runs) / 2
    if not goal > 0:
        return "The tail is not learned"
    reached = {}
    for run in runs:
        there = run.metrics.step[run.metrics["tail"] >= goal]
        if len(there):
            reached[run.name] = int(there.iloc[0])
    first = min(reached, key=reached.get)
    what = f"A tail mAP of {100 * goal:.0f} %"
    if len(runs) == 1:
        return f"{what}, half of its best, at step {reached[first]}"
    what += f": {len(reached)} of {len(runs)} runs"
    name = first if len(first) <= 20 else ""  # a title beyond its panel would move the panels apart
    return f"{what}, first{f' {name}' if name else ''} at step {reached[first]}"


def _without_seed(run: Run) -> str:
    return json.dumps({**run.recipe, "seed": None}, sort_keys=True, default=str)


def _runs(runs: Run | Sequence[Run]) -> list[Run]:
    runs = [runs] if isinstance(runs, Run) else list(runs)
    if not runs:
        raise InputError("no run to draw; give at least one")
    return runs


def _number(value) -> float:
    return float("nan") if value is None else float(value)
