"""Figures of what was learned: average precision of classes, groups and settings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltml.errors import InputError
from ltml.labels import GROUPS
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

__all__ = ["ablation", "class_ap", "group_bars"]


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
        shown = runs if len(runs) <= 3 else [runs[0], runs[-1]]  # a title has one line
        means = [run.classes.ap[run.classes.group == rarest].mean() for run in shown]
        found = [f"{run.name} {100 * m:.0f} %" for run, m in zip(shown, means, strict=True)]
        ax.set_title(f"mAP of the {rarest} classes: {', '.join(found)}")
        if len(runs) > 1:
            ax.legend(loc="lower left")
    return fig, ax


def group_bars(runs: Run | Sequence[Run], *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the mAP of all, head, medium and tail classes, a bar a run.

    Args:
        runs: one run or several.
        ax: where to draw; default: a new figure.
    """
    runs = _runs(runs)
    names = ["mAP", *GROUPS]
    values = np.array([[100 * _number(run.summary.get(name)) for name in names] for run in runs])
    with style():
        fig, ax = axes_for(ax, width=7)
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
            )
            ax.bar_label(bars, fmt="%.1f", fontsize=9 if len(runs) < 4 else 7, padding=1)
        ax.set_xticks(range(len(names)), ["all classes", *GROUPS])
        ax.set_ylabel("mAP (%)")
        ax.set_ylim(0, 120 if len(runs) > 1 else 108)  # room for the legend
        ax.set_yticks(range(0, 101, 20))
        if len(runs) > 1:
            gain = values[-1] - values[0]
            ax.set_title(
                f"{runs[-1].name} against {runs[0].name}: {gain[0]:+.1f} mAP, {gain[3]:+.1f} "
                "in the tail"
            )
            ax.legend(loc="upper center", ncols=4)
        else:
            ax.set_title(f"{runs[0].name}: {values[0][0]:.1f} mAP")
    return fig, ax


def ablation(table: pd.DataFrame, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the mAP of head, medium and tail of every setting, with deviations over seeds.

    Args:
        table: a row a run, as :func:`ltml.ablation.ablate` returns it.
        ax: where to draw; default: a new figure.
    """
    names = table.sampler + " · " + table.loss + " · " + table.diversity
    groups = table.assign(name=names).groupby("name")
    means, deviations = groups[["mAP", *GROUPS]].mean(), groups[["mAP", *GROUPS]].std().fillna(0)
    order = means.sort_values("mAP").index
    y = np.arange(len(order))
    with style():
        fig, ax = axes_for(ax, height=0.27 * len(order) + 1.6)
        for group in GROUPS:
            ax.errorbar(
                means.loc[order, group],
                y,
                xerr=deviations.loc[order, group],
                fmt=GROUP_MARKERS[group],
                color=GROUP_COLORS[group],
                mec="#3B3B3B",
                mew=0.5,
                ms=7,
                label=group,
            )
        ax.plot(means.loc[order, "mAP"], y, "|", color="black", ms=12, mew=2.5, label="all classes")
        ax.set_yticks(y, order)
        ax.set_ylabel("sampler · loss · head")
        ax.set_ylim(-0.7, len(order) - 0.3)
        ax.grid(True, axis="both")
        ax.set_xlabel(f"mAP (%), mean and deviation over {int(groups.size().max())} seeds")
        best = means.loc[order[-1]]
        ax.set_title(
            f"{order[-1]}: {best['mAP']:.1f} mAP, {best['tail']:.1f} in the tail (best of "
            f"{len(order)})"
        )
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / (0.27 * len(order) + 1)), ncols=4)
    return fig, ax


def _runs(runs: Run | Sequence[Run]) -> list[Run]:
    runs = [runs] if isinstance(runs, Run) else list(runs)
    if not runs:
        raise InputError("no run to draw; give at least one")
    return runs


def _number(value) -> float:
    return float("nan") if value is None else float(value)
