"""Figures of the gradient that each class receives."""

import numpy as np
import pandas as pd
import seaborn as sns

from ltml.errors import InputError
from ltml.options import choose
from ltml.plots import frames, parts
from ltml.plots.style import GREY, GROUP_COLORS, NEGATIVE, POSITIVE, style

__all__ = [
    "balancing",
    "class_history",
    "gradient_heatmap",
    "gradient_magnitudes",
    "interference",
]

BLUE = GROUP_COLORS["head"]  # positives and negatives together, or one over the other
HOLLOW = {"marker": "v", "color": NEGATIVE, "mfc": "white"}
FIELDS = {
    "positive": {"marker": "o", "color": POSITIVE, "label": "positives\n(label present)"},
    "negative": {"label": "negatives\n(label absent)", **HOLLOW},
    "total": {"marker": "s", "color": BLUE},
    "ratio": {"marker": "D", "color": BLUE},
}
SIDES = ("positive", "negative")


@style()
def gradient_magnitudes(
    runs, *, epoch=None, show="both", order="count", log=True, mark=None, labels=None, ax=None
):
    r"""Plot each class's gradient magnitude :math:`\sum |\partial L / \partial z_c|`.

    Args:
        runs: a run or a reading of a ledger; or several, each in a panel of the same axes.
        epoch: one epoch, from 1; default: summed over the run.
        show: ``"both"`` (positives and negatives apart), ``"positive"``, ``"negative"``,
            ``"total"`` or ``"ratio"`` (positive over negative).
        order: ``"count"``; or ``"gradient"``: by what is shown of the first run (for both, the
            total), descending.
        log: logarithmic gradient axis.
        mark: class to point out.
        labels: the training labels, which a reading does not know.
    """
    fields = choose("show", show, {"both": SIDES} | {name: (name,) for name in FIELDS})
    if order not in ("count", "gradient"):
        raise InputError(f"order={order!r} is unknown; give count or gradient")
    frame = frames.gradients(runs, epoch=epoch, labels=labels)
    tables = parts.split(frame.assign(ratio=frame.positive / frame.negative), "run")
    first = next(iter(tables.values()))
    if order == "gradient":
        first = first.sort_values("total" if show == "both" else show, ascending=False)
    height = 3.6 * len(tables) + 0.4
    fig, ax = parts.axes_for(ax, height=height, rows=len(tables), sharex=True, sharey=True)
    for axes, (name, table) in zip(np.ravel(ax), tables.items(), strict=True):
        table = first[["class"]].merge(table)
        x = table.index
        if show == "both":
            axes.vlines(x, table.negative, table.positive, color="#AAAAAA", lw=1, zorder=1)
        for field in fields:
            axes.plot(x, table[field], ls="", **parts.size_of(len(x)), **FIELDS[field])
        if show == "ratio":
            axes.axhline(1, color=NEGATIVE, lw=1)
        if log:
            parts.log_axis(axes.yaxis)
        parts.class_axis(axes, table, mark)
        axes.set_ylabel("positive / negative gradient" if show == "ratio" else "sum of |dL/dz|")
        axes.set_title(_finding(name, table, epoch, show), wrap=True)
        axes.label_outer()
    parts.legend(np.ravel(ax)[0])
    if not log:
        axes.set_ylim(bottom=0)
    return fig, ax


def _finding(name: str, table: pd.DataFrame, epoch: int | None, show: str) -> str:
    by = table.set_index("class")["ratio" if show == "ratio" else "total"]
    most, least = by.idxmax(), by.idxmin()
    if show == "ratio":
        found = f"{least} is pulled up {by[least]:.2g} times as hard as it is pushed down"
    elif by[least] > 0:
        found = f"{most} gets {parts.times(by[most] / by[least])} times the gradient of {least}"
    else:
        found = f"{least} gets no gradient"
    when = "over the run" if epoch is None else f"in epoch {epoch}"
    return f"{name}: {found} {when}" if name else found


@style()
def gradient_heatmap(runs, *, ax=None):
    """Plot each class's share of an epoch's gradient against an equal share, epoch by epoch.

    Epochs fade to grey as their gradient gets small against the run's largest: once the classes
    are learned, a share of next to nothing says nothing.

    Args:
        runs: a run; or several, each in a panel with the same scale of colours.
    """
    frame = frames.gradient_history(runs)
    frame["log"] = np.log2((frame.share / frame.equal_share).where(frame.total > 0))
    limit = float(np.clip(frame.log.abs().max(), 1, 5))
    tables, C = parts.split(frame, "run"), frame["class"].nunique()
    size = {"width": 3 + 5.5 * len(tables), "height": min(0.24 * C + 1.6, 12)}
    fig, ax = parts.axes_for(ax, **size, columns=len(tables), sharey=True)
    for axes, (name, table) in zip(np.ravel(ax), tables.items(), strict=True):
        classes = table.drop_duplicates("class")
        grid = table.pivot(index="class", columns="epoch", values="log").loc[classes["class"]]
        grid.index = classes["class"] + classes["count"].map(" {:,}".format)
        of_peak = table.groupby("epoch").of_peak.first()
        grid.columns = [f"{epoch}\n{100 * peak:.0f} %" for epoch, peak in of_peak.items()]
        colors = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
        bar = {"label": "share of the epoch's gradient / equal share"}
        last = axes is np.ravel(ax)[-1]
        fade = np.tile(np.sqrt(of_peak), (C, 1))
        sns.heatmap(grid, ax=axes, alpha=fade, cbar=last, cbar_kws=bar, **colors)
        axes.set_facecolor("#BBBBBB")
        parts.group_lines(axes, classes.group)
        axes.tick_params(axis="both", rotation=0)
        axes.set(xlabel="epoch, its gradient per step / that of the largest", ylabel="")
        group, total = parts.rarest(classes.group), table.groupby("group").total.sum()
        axes.set_title(
            f"{name}: the {group} gets {100 * total[group] / total.sum():.0f} % of the gradient "
            f"(equal share: {100 * (classes.group == group).mean():.0f} %)",
            wrap=True,
        )
    ticks = np.arange(-int(limit), int(limit) + 1)
    axes.collections[0].colorbar.set_ticks(ticks, labels=[f"{2.0**t:.3g}×" for t in ticks])
    return fig, ax


@style()
def class_history(run, class_name: str, *, log: bool = True, ax=None):
    r"""Plot one class's gradient per step and its AP over the training.

    Each point is an epoch: its :math:`\sum |\partial L / \partial z_c|` divided by its steps, since
    the last one may have fewer.
    """
    table = choose("class", class_name, parts.split(frames.gradient_history(run), "class"))
    fig, ax = parts.axes_for(ax, height=3)
    right = ax.twinx()
    for side in SIDES:
        ax.plot(table.step, table[side] / table.steps, ms=7, **FIELDS[side])
    evaluated = table.dropna(subset="ap")
    right.plot(evaluated.step, 100 * evaluated.ap, "s:", color=BLUE)
    ax.plot([], [], "s:", color=BLUE, label="AP (right)")
    right.set(ylim=(0, 105), ylabel="AP (%)")
    right.spines["right"].set_visible(True)
    right.grid(False)
    if log and table.total.any():
        parts.log_axis(ax.yaxis)
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    ax.set(xlabel="training step", ylabel="|dL/dz| per step")
    up, down = table.positive.sum(), table.negative.sum()
    pull = f", pulled up {up / down:.2g} times as hard as down" if down > 0 else ""
    ap = f"AP {100 * evaluated.ap.iloc[-1]:.0f} %" if len(evaluated) else "no AP"
    ax.set_title(f"{run.name}, {class_name} ({table['count'][0]:,} images): {ap}{pull}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return fig, ax


@style()
def balancing(run, *, strength=0.5, max_weight=100.0, epoch=None, labels=None, ax=None):
    """Plot the weights that balancing gives, and each share of the gradient before and after.

    Args:
        run: a run, or a reading of a ledger.
        strength, max_weight: as in :class:`~ltml.DynamicGradientBalancing`.
        epoch, labels: as in :func:`gradient_magnitudes`.
        ax: two axes, for weights and for shares; default: a new figure.
    """
    options = {"strength": strength, "max_weight": max_weight, "epoch": epoch, "labels": labels}
    frame = frames.balanced(run, **options)
    name, C = frame.run[0], frame["class"].nunique()
    fig, ax = parts.axes_for(ax, height=6.4, rows=2, sharex=True)
    above, below = ax
    size = {"ls": "", **parts.size_of(C)}
    # Positives a little to the left, negatives to the right: two columns for each class.
    for shift, (side, table) in zip((-0.17, 0.17), parts.split(frame, "side").items(), strict=True):
        x = table.index + shift
        above.plot(x, table.weight, **size, **FIELDS[side])
        below.vlines(x, table.before, table.after, color=GREY, lw=1, zorder=1)
        label = "before" if side == "positive" else None
        below.plot(x, table.before, marker="_", color=GREY, label=label, **size)
        below.plot(x, table.after, **size, **FIELDS[side])
    above.axhline(1, color=NEGATIVE, lw=1)
    below.axhline(50 / C, color=NEGATIVE, lw=1, ls="--", label="equal share")
    for axes, label in zip(ax, ("weight", "share of the gradient (%)"), strict=True):
        parts.log_axis(axes.yaxis)
        parts.class_axis(axes, table)
        axes.set_ylabel(label)
        axes.label_outer()
    parts.legend(below)
    low, high = frame.weight.min(), frame.weight.max()
    above.set_title(f"{name}, strength {strength:g}: weights from {low:.2g} to {high:.3g}")
    first, then = (frames.largest_over_smallest(frame[when]) for when in ("before", "after"))
    below.set_title(f"{name}: largest over smallest share {first:.3g} before, {then:.3g} after")
    return fig, tuple(ax)


@style()
def interference(frame: pd.DataFrame, *, ax=None):
    """Plot the cosine between the gradients that classes send into the shared features.

    Where it is negative, two classes pull the backbone against one another.

    Args:
        frame: what :func:`ltml.plots.frames.interference` returns.
    """
    classes = frame.drop_duplicates("class")
    names = classes["class"]
    grid = frame.pivot(index="class", columns="other", values="cosine").loc[names, names]
    grid.index = names + classes.norm.map(" ({:.2g})".format)
    side = min(0.26 * len(names) + 2, 11)
    fig, ax = parts.axes_for(ax, width=side + 2, height=side)
    bar = {"label": "cosine between the gradients", "pad": 0.01}
    sns.heatmap(grid, ax=ax, cmap="RdBu", vmin=-1, vmax=1, cbar_kws=bar)
    parts.group_lines(ax, classes.group, both=True)
    ax.set(xlabel="", ylabel="class (norm of its gradient)")
    head, rare = classes.group.iloc[0], parts.rarest(classes.group)
    pairs = frame[(frame.group == head) & (frame.other_group == rare)]
    mean = pairs.cosine[pairs["class"] != pairs.other].mean()
    how = "neither with nor against" if abs(mean) < 0.02 else "with" if mean > 0 else "against"
    ax.set_title(f"{rare} classes pull {how} {head} classes: mean cosine {mean:+.2f}".capitalize())
    return fig, ax
