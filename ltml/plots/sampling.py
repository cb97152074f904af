"""Figures of which labels appear together, and of how often samplers sample each class."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import PercentFormatter

from ltml.plots import frames, parts
from ltml.plots.style import GREY, GROUP_MARKERS, style

__all__ = ["class_rates", "cooccurrence", "frontier", "group_balance", "rate_sources"]


@style()
def cooccurrence(labels, *, ax=None):
    r"""Plot :math:`P(j \mid i)`: of the images with class ``i`` (row), the share that holds ``j``.

    Args:
        labels: training labels.
    """
    frame = frames.cooccurrence(labels)
    classes = frame.drop_duplicates("class")
    names, C = classes["class"], len(classes)
    grid = frame.pivot(index="class", columns="other", values="share").loc[names, names]
    beside = grid.where(~np.eye(C, dtype=bool))
    grid.index = names + classes["count"].map(" {:,}".format)
    fig, ax = parts.axes_for(ax, width=min(0.3 * C + 3, 12), height=min(0.26 * C + 2.4, 11))
    text = (100 * beside).map(lambda share: f"{share:.0f}" if share >= 5 else "")
    options = {"annot": text.to_numpy(), "fmt": "", "annot_kws": {"size": 7}} if C <= 25 else {}
    bar = {"label": "share of the row's images", "format": PercentFormatter(1), "pad": 0.01}
    sns.heatmap(grid, ax=ax, cmap="Blues", vmin=0, vmax=1, cbar_kws=bar, **options)
    parts.group_lines(ax, classes.group, both=True)
    ax.set(xlabel="also holds the class", ylabel="of the images with the class, training images")
    mean = 100 * beside[(classes["count"] > 0).to_numpy()].mean()
    ax.set_title(
        f"{mean.idxmax()} is on {mean.max():.0f} % of the images of another class, on average"
    )
    return fig, ax


@style()
def class_rates(samplers, *, draws: str = "all", ax=None):
    """Plot how often samplers sample each class: images with the class per sampled image.

    Args:
        samplers: samplers or their audits, one or several, or name -> sampler or audit; or labels,
            which uniform, class-aware and group sampling then sample. What an audit counted is
            plotted beside what was expected.
        draws: ``"all"``; or ``"own"``, only what is sampled for the group of the class (where a
            sampler samples for groups; this needs samplers).
    """
    frame = frames.class_rates(samplers, draws=draws)
    fig, ax = parts.axes_for(ax)
    parts.plot_classes(ax, frame, "sampler", "rate")
    for table in parts.split(frame[frame.draws > 0], "sampler").values():
        label = f"counted over\n{table.draws[0]:,} draws"
        ax.plot(table.realised, "_", ms=13, color="black", label=label)
    parts.log_axis(ax.yaxis)
    where = " for its group" if draws == "own" else ""
    ax.set_ylabel(f"images with the class\nper image sampled{where}")
    ratios = frame.groupby("sampler", sort=False).rate.agg(frames.largest_over_smallest)
    ax.set_title(f"Largest over smallest class rate: {parts.listed(ratios)}", wrap=True)
    parts.legend(ax)
    return fig, ax


@style()
def group_balance(samplers, *, draws: str = "own", ax=None):
    """Plot how evenly the classes of each group are sampled: rates relative to their group's mean.

    Args:
        samplers: as in :func:`class_rates`.
        draws: ``"own"``: what is sampled for the group of the class (a sampler that does not sample
            for groups samples every image for all of them); ``"all"``: whole batches.
    """
    frame = frames.class_rates(samplers, draws=draws)
    frame = frame[frame.group != ""]
    ratios = frame.groupby(["sampler", "group"], sort=False).ratio.first()
    each = ratios.map("{:.2f}×".format).groupby(level=0).agg(", ".join)
    fig, ax = parts.axes_for(ax, height=4.6)
    ax.axhline(1, color=GREY, lw=1, zorder=1)
    labels = frame.sampler + "\n" + frame.sampler.map(each)
    parts.plot_classes(ax, frame.assign(label=labels), "label", "relative")
    low, high = frame.relative.min(), frame.relative.max()
    ax.set_ylim(min(low / 1.2, 0.5), max(high * 1.2, 2))  # what is equal should look equal
    parts.log_axis(ax.yaxis)
    where = "draws for the group" if draws == "own" else "whole batches"
    ax.set_ylabel(f"class rate / mean of its group\n({where})")
    worst = ratios.groupby(level=0, sort=False).max()
    ax.set_title(f"Largest over smallest rate in a group: {parts.listed(worst)}", wrap=True)
    parts.legend(ax, title="largest / smallest\nrate of each group", alignment="left")
    return fig, ax


@style()
def rate_sources(sampler, *, ax=None):
    """Plot for which group the images with a class are sampled: what one group brings to another.

    Args:
        sampler: one that samples for groups: class-aware or group.
    """
    frame = frames.rate_sources(sampler)
    fig, ax = parts.axes_for(ax)
    total = 0.0
    for i, (source, rows) in enumerate(parts.split(frame, "source").items()):
        label = "sampled uniformly" if source == "uniform" else f"sampled for {source}"
        parts.group_bars(ax, source, i, rows.index, rows.rate, bottom=total, label=label)
        total = total + rows.rate
    parts.class_axis(ax, rows)
    ax.set_ylabel("images with the class\nper sampled image")
    top = frame[frame["class"] == rows["class"][total.idxmax()]]
    other = 100 * top.rate[top.source != top.group].sum() / total.max()
    ax.set_title(
        f"{other:.0f} % of the {top['class'].iloc[0]} images are not sampled for its group"
    )
    parts.legend(ax)
    return fig, ax


@style()
def frontier(table: pd.DataFrame, *, compare=None, ax=None):
    """Plot what each ridge buys: balance inside each group against the number of distinct images.

    Args:
        table: what :func:`ltml.audit.frontier` returns.
        compare: the audit of another sampler with the same groups, plotted as crosses.
    """
    frame = frames.frontier(table, compare=compare)
    fig, ax = parts.axes_for(ax, height=4.6)
    found = []
    for i, (group, rows) in enumerate(parts.split(frame, "group").items()):
        other, rows = rows[rows.ridge.isna()], rows[rows.ridge.notna()]
        look = {"color": parts.group_color(group, i), "mec": "#3B3B3B", "mew": 0.6}
        label, marker = f"{group} ({rows.images[0]:,} images)", GROUP_MARKERS.get(group, "^")
        ax.plot(rows.effective, rows.ratio, marker=marker, ms=7, label=label, **look)
        ax.plot(other.effective, other.ratio, "X", ms=10, **look)
        for end in (rows.iloc[0], rows.iloc[-1]):
            place = {"xytext": (6, 5), "textcoords": "offset points", "size": 8}
            ax.annotate(f"ridge {end.ridge:g}", (end.effective, end.ratio), **place)
        found.append(f"{rows.effective[0]:.0f} % ({group})")
    if compare is not None:
        ax.plot([], [], "X", ms=10, color="white", mec="black", label=frame.sampler.iloc[-1])
    parts.log_axis(ax.yaxis)
    ax.set(xlim=(0, 103), ylim=(0.9, None))
    ax.xaxis.set_major_formatter(PercentFormatter())
    ax.grid(True, axis="both")
    ax.set_xlabel("effective images, of all images that hold a class of the group")
    ax.set_ylabel("largest / smallest class rate\nof the draws for the group")
    how = f"A ridge of {least:g}" if (least := frame.ridge.min()) else "Exact balance"
    ax.set_title(f"{how} leaves {', '.join(found)} of the images effective")
    parts.legend(ax)
    return fig, ax
