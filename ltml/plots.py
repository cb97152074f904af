"""Figures of runs and labels. Each function takes ``ax=None`` and returns ``(fig, ax)``."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltml.errors import InputError
from ltml.labels import GROUPS, LabelMatrix
from ltml.runs import Run
from ltml.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    NEGATIVE,
    POSITIVE,
    RUN_COLORS,
    RUN_MARKERS,
    axes_for,
    class_axis,
    count_bars,
    group_bands,
    group_legend,
    log_axis,
    save,
    style,
)

__all__ = [
    "ablation",
    "class_ap",
    "gradient_heatmap",
    "gradient_magnitudes",
    "group_bars",
    "label_counts",
    "save",
    "style",
]


def label_counts(
    labels: LabelMatrix | Run, *, log: bool = True, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw the training images of each class in descending order, coloured by group.

    Args:
        labels: training labels, or a run.
        log: logarithmic count axis.
        ax: where to draw; default: a new figure.
    """
    if isinstance(labels, Run):
        table = labels.classes
    else:
        table = pd.DataFrame(
            {
                "class": labels.class_names,
                "group": labels.group_of_class(),
                "count": labels.counts,
            }
        ).sort_values(["count", "class"], ascending=[False, True], ignore_index=True)
    with style():
        fig, ax = axes_for(ax)
        count_bars(ax, np.arange(len(table)), table["count"], table.group)
        if log and (table["count"] > 0).any():
            log_axis(ax)
        class_axis(ax, table)
        ax.set_ylabel("training images")
        most, least = table["count"].max(), table["count"].min()
        ax.set_title(f"{len(table)} classes, from {most:,} images down to {least:,}")
        group_legend(ax, table.group)
    return fig, ax


def gradient_magnitudes(
    run: Run,
    *,
    epoch: int | None = None,
    show: str = "both",
    order: str = "count",
    log: bool = True,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    r"""Draw each class's gradient magnitude :math:`\sum |\partial L / \partial z_c|`.

    Args:
        run: a run.
        epoch: one epoch, from 1; default: summed over the run.
        show: ``"both"`` (positives and negatives apart), ``"positive"``, ``"negative"``,
            ``"total"``, or ``"ratio"`` (positive over negative).
        order: ``"count"`` or ``"gradient"`` (total), descending.
        log: logarithmic gradient axis.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if the epoch or an option is unknown.
    """
    if show not in ("both", "positive", "negative", "total", "ratio"):
        raise InputError(f"show={show!r} is unknown; give both, positive, negative, total or ratio")
    if order not in ("count", "gradient"):
        raise InputError(f"order={order!r} is unknown; give count or gradient")
    table = run.classes if epoch is None else _epoch_table(run, epoch)
    table["total"] = table.grad_pos + table.grad_neg
    if order == "gradient":
        table = table.sort_values("total", ascending=False, ignore_index=True)
    x = np.arange(len(table))
    with style():
        fig, ax = axes_for(ax)
        group_bands(ax, table)
        if show in ("both", "positive"):
            ax.plot(x, table.grad_pos, "o", ms=7, color=POSITIVE, label="positives (label present)")
        if show in ("both", "negative"):
            ax.plot(
                x,
                table.grad_neg,
                "v",
                ms=7,
                mfc="white",
                mew=1.5,
                color=NEGATIVE,
                label="negatives (label absent)",
            )
        if show == "both":
            ax.vlines(x, table.grad_pos, table.grad_neg, color="#AAAAAA", lw=1, zorder=1)
        if show == "total":
            ax.plot(x, table.total, "s", ms=6, color="#00527A", label="positives + negatives")
        if show == "ratio":
            ax.plot(x, table.grad_pos / table.grad_neg, "D", ms=6, color="#00527A")
            ax.axhline(1, color="#3B3B3B", lw=1)
        if log:
            log_axis(ax)
        else:
            ax.set_ylim(bottom=0)
        class_axis(ax, table)
        ax.set_ylabel("positive / negative gradient" if show == "ratio" else "sum of |dL/dz|")
        when = "over the run" if epoch is None else f"in epoch {epoch}"
        strong, weak = table["class"][table.total.argmax()], table["class"][table.total.argmin()]
        if show == "ratio":
            ax.set_title(
                f"{run.name}: what pulls each class up against what pushes it down, {when}"
            )
        else:
            times = table.total.max() / table.total.min() if table.total.min() > 0 else np.inf
            found = f"{strong} gets {times:.3g} times the gradient of {weak}"
            ax.set_title(
                f"{run.name}: {found if times < np.inf else f'{weak} gets no gradient'} {when}"
            )
        if show != "ratio":
            ax.legend(loc="lower left", ncols=2)
    return fig, ax


def gradient_heatmap(run: Run, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw each class's share of an epoch's gradient, against an equal share, epoch by epoch.

    Args:
        run: a run.
        ax: where to draw; default: a new figure.
    """
    table = run.per_class.assign(total=run.per_class.grad_pos + run.per_class.grad_neg)
    order = run.classes
    grid = table.pivot(index="class", columns="epoch", values="total").loc[order["class"]]
    share = np.log2(grid.where(grid > 0) / grid.mean(axis=0))  # no gradient: left blank
    with style():
        fig, ax = axes_for(ax, height=0.24 * len(order) + 1.6)
        limit = max(1.0, float(np.nanmax(np.abs(share.to_numpy()))))
        limit = min(limit, 5.0)
        sns.heatmap(
            share,
            ax=ax,
            cmap="PuOr_r",
            vmin=-limit,
            vmax=limit,
            cbar_kws={"label": "share of the gradient against an equal share"},
            yticklabels=[
                f"{name} ({n:,})" for name, n in zip(order["class"], order["count"], strict=True)
            ],
        )
        bar = ax.collections[0].colorbar
        ticks = np.arange(-int(limit), int(limit) + 1)
        bar.set_ticks(ticks, labels=[f"{2.0**t:.3g}×" for t in ticks])
        ax.grid(False)
        ax.set_ylabel("class (training images)")
        ax.tick_params(axis="y", rotation=0)
        ends = np.flatnonzero(order.group.to_numpy()[1:] != order.group.to_numpy()[:-1]) + 1
        ax.hlines(ends, *ax.get_xlim(), color="black", lw=1.5)
        first, last = share.iloc[:, 0], share.iloc[:, -1]
        ax.set_title(
            f"{run.name}: gradient shares span {2 ** (first.max() - first.min()):.3g}-fold in "
            f"epoch {grid.columns[0]}, {2 ** (last.max() - last.min()):.3g}-fold in epoch "
            f"{grid.columns[-1]}"
        )
    return fig, ax


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


def _epoch_table(run: Run, epoch: int) -> pd.DataFrame:
    table = run.per_class[run.per_class.epoch == epoch]
    if table.empty:
        raise InputError(f"epoch={epoch}: run {run.name!r} has 1 to {run.per_class.epoch.max()}")
    return table.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)
