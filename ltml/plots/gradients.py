"""Figures of the gradient that each class receives."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltml.errors import InputError
from ltml.plots.style import (
    NEGATIVE,
    POSITIVE,
    axes_for,
    class_axis,
    group_bands,
    log_axis,
    mark_scale,
    stems,
    style,
)
from ltml.runs import Run

__all__ = ["class_history", "gradient_heatmap", "gradient_magnitudes"]

AP_TOP = 1.05  # AP at the upper end of a history
TOTAL = "#00527A"  # positives and negatives together, or one over the other


def gradient_magnitudes(
    run: Run,
    *,
    epoch: int | None = None,
    show: str = "both",
    order: str | Sequence[str] = "count",
    log: bool = True,
    mark: str | None = None,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    r"""Draw each class's gradient magnitude :math:`\sum |\partial L / \partial z_c|`.

    Args:
        run: a run.
        epoch: one epoch, from 1; default: summed over the run.
        show: ``"both"`` (positives and negatives apart), ``"positive"``, ``"negative"``,
            ``"total"``, or ``"ratio"`` (positive over negative).
        order: ``"count"`` or ``"gradient"`` (total), descending; or the classes, in any order.
        log: logarithmic gradient axis.
        mark: class to point out.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if the epoch, an option or a class is unknown.
    """
    if show not in ("both", "positive", "negative", "total", "ratio"):
        raise InputError(f"show={show!r} is unknown; give both, positive, negative, total or ratio")
    table = epoch_table(run, epoch)
    table["total"] = table.grad_pos + table.grad_neg
    table = _in_order(run, table, order)
    x, size = np.arange(len(table)), mark_scale(len(table))
    with style():
        fig, ax = axes_for(ax)
        group_bands(ax, table)
        if mark is not None:
            ax.axvline(_place(run, table, mark), color="#00527A", lw=12, alpha=0.18, zorder=0.5)
        if show in ("both", "positive"):
            ax.plot(
                x,
                table.grad_pos,
                "o",
                ms=7 * size,
                color=POSITIVE,
                label="positives (label present)",
            )
        if show in ("both", "negative"):
            ax.plot(
                x,
                table.grad_neg,
                "v",
                ms=7 * size,
                mfc="white",
                mew=1.5 * size,
                color=NEGATIVE,
                label="negatives (label absent)",
            )
        if show == "both":
            stems(ax, x, table.grad_pos, table.grad_neg, color="#AAAAAA")
        if show == "total":
            ax.plot(x, table.total, "s", ms=6 * size, color=TOTAL, label="positives + negatives")
        if show == "ratio":
            ax.plot(x, table.grad_pos / table.grad_neg, "D", ms=6 * size, color=TOTAL)
            ax.axhline(1, color="#3B3B3B", lw=1)
        if log:
            plain_log_axis(ax, above=0.05, below=0 if show == "ratio" else 0.13)
        else:
            ax.set_ylim(0, 1.08 * ax.get_ylim()[1])
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
            # Beneath the points, or under the groups' names where the small classes leave room.
            place = {"loc": "lower left"} if log else {"loc": "upper right"}
            ax.legend(ncols=2, bbox_to_anchor=(0, 0) if log else (1, 0.93), **place)
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


def class_history(
    run: Run, class_name: str, *, log: bool = True, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""Draw one class's positive and negative gradient over the training, with its AP.

    Each point is an epoch: its :math:`\sum |\partial L / \partial z_c|` divided by its steps, since
    the last one may have fewer. The AP, on the test split, has its scale at the right.

    Args:
        run: a run.
        class_name: one of its classes.
        log: logarithmic gradient axis.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if the run has no such class.
    """
    classes = epoch_table(run, None)
    of_class = classes.iloc[_place(run, classes, class_name)]
    table = run.per_class[run.per_class["class"] == class_name].merge(
        run.metrics[["epoch", "step"]], on="epoch"
    )
    steps = np.diff(table.step, prepend=0)
    positive, negative = table.grad_pos / steps, table.grad_neg / steps
    with style():
        fig, ax = axes_for(ax, height=3)
        ax.plot(table.step, positive, "o-", ms=6, color=POSITIVE, label="positives")
        ax.plot(
            table.step,
            negative,
            "v--",
            ms=7,
            mfc="white",
            mew=1.5,
            color=NEGATIVE,
            label="negatives",
        )
        # Marks and a scale of its own at the right; a second pair of axes would be slow to draw.
        across = ax.get_xaxis_transform()
        ax.plot(
            table.step,
            table.ap / AP_TOP,
            "D:",
            ms=5,
            color=TOTAL,
            label="AP (right)",
            transform=across,
        )
        for ap in (0, 0.25, 0.5, 0.75, 1):
            ax.text(
                *(1.01, ap / AP_TOP, f"{100 * ap:g}"),
                transform=ax.transAxes,
                va="center",
                color=TOTAL,
            )
        ax.text(
            *(1.07, 0.5, "AP (%)"), transform=ax.transAxes, rotation=90, va="center", color=TOTAL
        )
        if log and (positive.any() or negative.any()):
            plain_log_axis(ax)
        else:
            ax.set_ylim(bottom=0)
        ax.set_xlim(0, 1.03 * table.step.max())
        ax.set_xlabel("training step", loc="left")
        ax.set_ylabel("|dL/dz| a step")
        first, last = table.iloc[0], table.iloc[-1]
        ax.set_title(
            f"{run.name}, {class_name} ({of_class['count']:,} images): "
            f"AP {100 * first.ap:.0f} % to {100 * last.ap:.0f} %"
            + _pull(table.grad_pos.sum(), table.grad_neg.sum())
        )
        ax.legend(
            loc="upper right",  # beneath the axes, beside the name of the x axis
            bbox_to_anchor=(1, 0),
            borderaxespad=1.7,
            ncols=3,
        )
    return fig, ax


def _pull(up: float, down: float) -> str:
    return f", pulled up {up / down:.2g} times as hard as down" if down > 0 else ""


def _place(run: Run, table: pd.DataFrame, class_name: str) -> int:
    """Return the row of a class."""
    found = np.flatnonzero(table["class"] == class_name)
    if not len(found):
        raise InputError(
            f"class {class_name!r} is not in run {run.name!r}; give one of "
            f"{', '.join(table['class'][:4])}, ..."
        )
    return int(found[0])


def _in_order(run: Run, table: pd.DataFrame, order: str | Sequence[str]) -> pd.DataFrame:
    if order == "count":
        return table
    if order == "gradient":
        return table.sort_values("total", ascending=False, ignore_index=True)
    if isinstance(order, str):
        raise InputError(f"order={order!r} is unknown; give count or gradient")
    if set(order) != set(table["class"]):
        raise InputError(
            f"order names other classes than run {run.name!r} has; compare runs of the same data"
        )
    return table.set_index("class").loc[list(order)].reset_index()


def plain_log_axis(ax: Axes, *, above: float = 0.0, below: float = 0.0) -> None:
    """Make the axis logarithmic with plain numbers; leave shares of it free above and below."""
    log_axis(ax)
    low, high = np.log(ax.get_ylim())
    if high - low > np.log(100):
        ax.minorticks_off()  # dozens of marks that tell nothing, and take time
    unit = (high - low) / (1 - above - below)
    ax.set_ylim(np.exp([low - below * unit, high + above * unit]))


def epoch_table(run: Run, epoch: int | None) -> pd.DataFrame:
    """Return ``run.classes``, or the same of one epoch: a row a class, by descending count.

    Raises:
        InputError: if there is no such epoch, or no gradient was recorded.
    """
    if run.per_class[["grad_pos", "grad_neg"]].isna().all(axis=None):
        raise InputError(f"run {run.name!r} holds no record of its gradients; train it again")
    if epoch is None:
        return run.classes
    table = run.per_class[run.per_class.epoch == epoch]
    if table.empty:
        raise InputError(f"epoch={epoch}: run {run.name!r} has 1 to {run.per_class.epoch.max()}")
    return table.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)
