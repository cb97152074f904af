"""Figures of the gradient that each class receives."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltml.errors import InputError
from ltml.plots.style import NEGATIVE, POSITIVE, axes_for, class_axis, group_bands, log_axis, style
from ltml.runs import Run

__all__ = ["gradient_heatmap", "gradient_magnitudes"]


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


def _epoch_table(run: Run, epoch: int) -> pd.DataFrame:
    table = run.per_class[run.per_class.epoch == epoch]
    if table.empty:
        raise InputError(f"epoch={epoch}: run {run.name!r} has 1 to {run.per_class.epoch.max()}")
    return table.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)
