"""Figures of labels, and of what was learned of them: average precision of classes and groups."""

import pandas as pd
import seaborn as sns

from ltml.errors import InputError
from ltml.labels import GROUPS
from ltml.plots import frames, parts
from ltml.plots.style import (
    GREY,
    GROUP_COLORS,
    GROUP_MARKERS,
    NEGATIVE,
    RUN_COLORS,
    RUN_HATCHES,
    RUN_MARKERS,
    style,
)

__all__ = [
    "ablation",
    "class_ap",
    "differences",
    "group_bars",
    "group_dots",
    "imbalance_against_map",
    "label_counts",
    "reliability",
    "training_curves",
]


@style()
def label_counts(labels, *, log: bool = True, ax=None):
    """Plot the training images of each class in descending order, coloured by group.

    Args:
        labels: training labels, or a run.
        log: logarithmic count axis.
    """
    table = frames.counts(labels)
    fig, ax = parts.axes_for(ax)
    for i, (group, rows) in enumerate(table.groupby("group", sort=False)):
        parts.group_bars(ax, group, i, rows.index, rows["count"])
    if log and table["count"].any():
        parts.log_axis(ax.yaxis)
    parts.class_axis(ax, table)
    ax.set_ylabel("training images")
    most, least = table["count"].max(), table["count"].min()
    ax.set_title(f"{len(table):,} classes, from {most:,} images down to {least:,}")
    parts.legend(ax)
    return fig, ax


@style()
def class_ap(runs, *, ax=None):
    """Plot each class's average precision on the test split, of one run or several."""
    frame = frames.class_ap(runs)
    fig, ax = parts.axes_for(ax)
    parts.plot_classes(ax, frame.assign(percent=100 * frame.ap), "run", "percent")
    ax.set(ylabel="average precision (%)", ylim=(-3, 103))
    group = parts.rarest(frame.group)
    means = 100 * frame[frame.group == group].groupby("run", sort=False).ap.mean()
    ax.set_title(f"mAP of the {group} classes: {parts.listed(means, '{:.0f} %'.format)}", wrap=True)
    parts.legend(ax)
    return fig, ax


@style()
def group_bars(runs, *, ax=None):
    """Plot the mAP of all, head, medium and tail classes as bars, a few runs at most."""
    frame = frames.group_map(runs)
    names = frame["name"].unique()
    few = len(names) <= 4
    fig, ax = parts.axes_for(ax, width=7 if few else 9)
    colors = {"palette": RUN_COLORS[: len(names)], "saturation": 1, "edgecolor": "white"}
    sns.barplot(frame, x="group", y="mean", hue="name", ax=ax, legend=False, lw=0, **colors)
    for i, bars in enumerate(ax.containers):
        bars.set_label(names[i])
        for bar in bars:
            bar.set_hatch(RUN_HATCHES[i % 7])
        ax.bar_label(bars, fmt="%.1f", fontsize=8, padding=2, rotation=0 if few else 90)
    ax.set(xlabel="", ylabel="mAP (%)", ylim=(0, 105 if few else 115), yticks=range(0, 101, 20))
    ax.set_xticks(range(4), ["all classes", *GROUPS])
    means = frame.pivot(index="name", columns="group", values="mean").loc[names]
    gain = means.iloc[-1] - means.iloc[0]
    found = f"{names[0]}: {means['mAP'].iloc[0]:.1f} mAP"
    if len(names) > 1:
        found = f"{names[-1]}: {gain['mAP']:+.1f} mAP, {gain['tail']:+.1f} in the tail"
        found += f" against {names[0]}"
    ax.set_title(found, wrap=True)
    parts.legend(ax)
    return fig, ax


@style()
def group_dots(runs, *, pool: bool = False, ax=None):
    """Plot the mAP of all, head, medium and tail classes, a row per run, by ascending mAP.

    Args:
        runs: one run or many.
        pool: plot runs that differ only by their seed as one, with their sample deviation.
    """
    return _dots(frames.group_map(runs, pool=pool), ax, "")


@style()
def ablation(table: pd.DataFrame, *, ax=None):
    """Plot the mAP of head, medium and tail of every setting, with deviations over seeds.

    Args:
        table: a row per run, as :func:`ltml.ablation.ablate` returns it.
    """
    return _dots(frames.ablation(table), ax, "sampler · loss · head")


def _dots(frame: pd.DataFrame, ax, what: str):
    order = frame[frame.group == "mAP"].sort_values("mean", kind="stable", na_position="first")
    names, y, most = order["name"].tolist(), range(len(order)), frame.seeds.max()
    fig, ax = parts.axes_for(ax, height=0.27 * len(names) + 1.6)
    look = {"marker": "|", "color": "black", "ms": 12, "mew": 2.5, "zorder": 3}
    ax.plot(order["mean"], y, ls="", label="all classes", **look)
    for group in GROUPS:
        rows = frame[frame.group == group].set_index("name").loc[names]
        _group_marks(ax, group, rows["mean"], y, rows.deviation.fillna(0))
    ax.set_yticks(y, names)
    ax.set_ylim(-0.7, len(names) - 0.3)
    ax.grid(True, axis="both")
    seeds = f", mean and deviation over up to {most} seeds" if most > 1 else ""
    ax.set(ylabel=what, xlabel=f"mAP (%){seeds}")
    best = frame[frame["name"] == names[-1]].set_index("group")["mean"].map("{:.1f}".format)
    of = f" (best of {len(names)})" if len(names) > 1 else ""
    ax.set_title(f"{names[-1]}: {best['mAP']} mAP, {best['tail']} in the tail{of}", wrap=True)
    parts.legend(ax)
    return fig, ax


def _group_marks(ax, group: str, x, y, half) -> None:
    look = {"color": GROUP_COLORS[group], "mec": NEGATIVE, "mew": 0.5, "ms": 7, "label": group}
    ax.errorbar(x, y, xerr=half, fmt=GROUP_MARKERS[group], **look)


@style()
def training_curves(runs, *, axes=None):
    """Plot the mAP of head, medium and tail over the training steps, a panel per group.

    Args:
        runs: one run or several; the validation split, where there is one, is dotted.
        axes: three axes to plot on; default: a new figure.
    """
    frame = frames.curves(runs)
    runs = parts.split(frame, "run")
    fig, axes = parts.axes_for(axes, height=3.3, columns=len(GROUPS), sharey=True)
    for ax, group in zip(axes, GROUPS, strict=True):
        for i, (name, table) in enumerate(runs.items()):
            look = {"color": RUN_COLORS[i % 7], "marker": RUN_MARKERS[i % 7]}
            for of, rows in parts.split(table[table.group == group], "split").items():
                label = name if of == "test" else f"{name}, {of}"
                ls = "-" if of == "test" else ":"
                ax.plot(rows.step, rows["mAP"], ls=ls, label=label, **look)
        ax.set(ylim=(-3, 103), xlabel="training step")
        ax.set_xlim(left=0)
        ax.set_title(group, loc="center", weight="normal", color="#555555")
    axes[0].set_ylabel("mAP (%)")
    parts.legend(axes[-1])
    tail = frame[(frame.group == "tail") & (frame.split == "test")]
    half = tail["mAP"].max() / 2
    found = "The tail is not learned"
    if half > 0:
        first = tail[tail["mAP"] >= half].sort_values("step", kind="stable").iloc[0]
        found = f"{first.run} reaches half of the best tail mAP ({half:.0f} %) at step {first.step}"
    fig.suptitle(found, x=0.01, ha="left", size=11, weight="bold")
    return fig, axes


@style()
def differences(table: pd.DataFrame, *, quantile: float | None = None, ax=None):
    """Plot what parts add to the mAP of each group: every seed, the mean, and its interval.

    Args:
        table: columns part, group (head, medium, tail), seed, difference (points of mAP).
        quantile: half the interval's width in standard errors; default: Student's 0.975 quantile.
    """
    frame = frames.differences(table, quantile=quantile)
    places = {part: -i for i, part in enumerate(frame.part.unique())}
    shift = dict(zip(GROUPS, (0.25, 0.0, -0.25), strict=True))
    frame["y"] = frame.part.map(places) + frame.group.map(shift)
    fig, ax = parts.axes_for(ax, height=0.62 * len(places) + 1.6)
    means = parts.split(frame.drop_duplicates(["part", "group"]), "group")
    for group, rows in means.items():
        _group_marks(ax, group, rows["mean"], rows.y, rows.half)
    ax.plot(frame.difference, frame.y, "|", color=NEGATIVE, ms=7, label="one seed")
    ax.axvline(0, color=NEGATIVE, lw=1)
    ax.set_yticks(list(places.values()), list(places))
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.set_xlabel("change of mAP (points): every seed, mean and 95 % interval")
    best = means["tail"].loc[means["tail"]["mean"].idxmax()]
    ax.set_title(f"Most in the tail: {best.part} ({best['mean']:+.1f})".replace("\n", ", "))
    parts.legend(ax)
    return fig, ax


@style()
def imbalance_against_map(table: pd.DataFrame, *, group: str = "tail", ax=None):
    """Plot a group's mAP against the gradient imbalance, a mark per setting (mean over seeds).

    Args:
        table: a row per run, as :func:`ltml.ablation.ablate` returns it.
        group: mAP, head, medium or tail.
    """
    if group not in ("mAP", *GROUPS):
        raise InputError(f"group={group!r} is unknown; give mAP, {', '.join(GROUPS)}")
    frame = frames.ablation(table).rename(columns={"diversity": "head"})
    frame = frame[frame.group == group]
    fig, ax = parts.axes_for(ax, height=4.6)
    colors = RUN_COLORS[: frame.sampler.nunique()]
    look = {"hue": "sampler", "style": "loss", "size": "head", "palette": colors, "alpha": 0.8}
    sns.scatterplot(frame, x="imbalance", y="mean", ax=ax, sizes=(170, 70), **look)
    parts.log_axis(ax.xaxis)
    ax.grid(True, axis="both")
    ax.set_xlabel("gradient imbalance: largest over smallest class, over the training")
    of = "mAP" if group == "mAP" else f"{group} mAP"
    ax.set_ylabel(f"{of} (%)")
    rho = frame.imbalance.corr(frame["mean"], method="spearman")
    found = f"{rho:+.2f} ({len(frame)} settings)"
    ax.set_title(f"Rank correlation of gradient imbalance and {of}: {found}")
    parts.legend(ax)
    return fig, ax


@style()
def reliability(frame: pd.DataFrame, *, ax=None):
    """Plot how often a class is present where it is predicted with a probability, by group.

    Args:
        frame: what :func:`ltml.metrics.calibration` returns.
    """
    fig, ax = parts.axes_for(ax, width=6.5, height=5)
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="calibrated")
    for group, rows in parts.split(frame, "group").items():
        color, marker = GROUP_COLORS.get(group, NEGATIVE), GROUP_MARKERS.get(group, "X")
        ax.plot(rows.predicted, rows.observed, color=color, marker=marker, label=group)
    error = 100 * frame.groupby("group", sort=False).error.first().drop("all", errors="ignore")
    ax.set(xlabel="predicted probability", ylabel="fraction present", xlim=(0, 1), ylim=(0, 1))
    ax.grid(True, axis="both")
    ax.set_title(f"Off by {parts.listed(error, '{:.1f}'.format)} percentage points", wrap=True)
    parts.legend(ax)
    return fig, ax
