"""Static figures (matplotlib, seaborn) of the tables in :mod:`ltml.plots.frames`."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ltml.core.errors import InputError
from ltml.core.labels import GROUPS
from ltml.plots import frames
from ltml.plots.frames import rarest, split
from ltml.plots.style import (
    GREY,
    GROUP_COLORS,
    GROUP_HATCHES,
    GROUP_MARKERS,
    NEGATIVE,
    POSITIVE,
    RUN_COLORS,
    RUN_MARKERS,
    style,
)

MANY = 40  # classes, whose names and marks are smaller beyond
UP = {"marker": "o", "color": POSITIVE, "label": "positives\n(label present)"}
DOWN = {"marker": "v", "color": NEGATIVE, "mfc": "white", "label": "negatives\n(label absent)"}
HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo"]  # of runs


@style()
def label_counts(labels, *, log: bool = True, ax=None):
    """Plot the training images of each class of labels, or of a run, in descending order."""
    table = frames.counts(labels)
    fig, ax = _axes_for(ax)
    for i, (group, rows) in enumerate(table.groupby("group", sort=False)):
        hatch = GROUP_HATCHES.get(group, "") if len(rows) <= 100 else ""
        look = {"color": _group_color(group, i), "edgecolor": "white", "lw": 0}
        ax.bar(rows.index, rows["count"], hatch=hatch, **look)
    if log and table["count"].any():
        _log_axis(ax.yaxis)
    _class_axis(ax, table)
    ax.set_ylabel("training images")
    most, least = table["count"].max(), table["count"].min()
    ax.set_title(f"{len(table):,} classes, from {most:,} images down to {least:,}")
    _legend(ax)
    return fig, ax


@style()
def class_rates(samplers, *, draws: str = "all", ax=None):
    """Plot how often samplers sample each class, as :func:`.frames.class_rates` tabulates it."""
    frame = frames.class_rates(samplers, draws=draws)
    ratios = frame.groupby("sampler", sort=False).rate.agg(frames.largest_over_smallest)
    title = f"Largest over smallest class rate: {_listed(ratios)}"
    label = f"images with the class\nper image sampled{' for its group' if draws == 'own' else ''}"
    fig, ax = _plot_classes(ax, frame, "sampler", "rate", label, title)
    _log_axis(ax.yaxis)
    return fig, ax


@style()
def group_balance(samplers, *, draws: str = "own", ax=None):
    """Plot the rates of :func:`.frames.class_rates`, relative to the mean of their group.

    A sampler that does not sample for groups samples every image for all of them.
    """
    frame = frames.class_rates(samplers, draws=draws)
    frame = frame[frame.group != ""].copy()
    ratios = frame.groupby(["sampler", "group"], sort=False).ratio.first()
    each = ratios.map("{:.2f}×".format).groupby(level=0).agg(", ".join)
    frame["label"] = frame.sampler + "\n" + frame.sampler.map(each)
    worst = ratios.groupby(level=0, sort=False).max()
    title = f"Largest over smallest rate in a group: {_listed(worst)}"
    where = "draws for the group" if draws == "own" else "whole batches"
    ylabel = f"class rate / mean of its group\n({where})"
    _, ax = _axes_for(ax, height=4.6)
    ax.axhline(1, color=GREY, lw=1, zorder=1)
    fig, ax = _plot_classes(ax, frame, "label", "relative", ylabel, title)
    low, high = frame.relative.min(), frame.relative.max()
    ax.set_ylim(min(low / 1.2, 0.5), max(high * 1.2, 2))  # what is equal should look equal
    _log_axis(ax.yaxis)
    _legend(ax, title="largest / smallest\nrate of each group", alignment="left")
    return fig, ax


@style()
def gradient_magnitudes(runs, *, ax=None):
    r"""Plot each class's gradient magnitude :math:`\sum |\partial L / \partial z_c|`.

    It is summed over the run; several runs have a panel each, of the same axes.
    """
    tables = split(frames.gradients(runs))
    first = next(iter(tables.values()))
    height = 3.6 * len(tables) + 0.4
    fig, ax = _axes_for(ax, height=height, rows=len(tables), sharex=True, sharey=True)
    for axes, (name, table) in zip(np.ravel(ax), tables.items(), strict=True):
        table = first[["class"]].merge(table)
        x, size = table.index, _size_of(len(table))
        axes.vlines(x, table.negative, table.positive, color="#AAAAAA", lw=1, zorder=1)
        axes.plot(x, table.positive, ls="", **size, **UP)
        axes.plot(x, table.negative, ls="", **size, **DOWN)
        _log_axis(axes.yaxis)
        _class_axis(axes, table)
        axes.set_ylabel("sum of |dL/dz|")
        total = table.set_index("class").total
        most, least = total.idxmax(), total.idxmin()
        found = f"{least} gets no gradient"
        if total[least] > 0:
            ratio = _times(total[most] / total[least])
            found = f"{most} gets {ratio} times the gradient of {least}"
        axes.set_title(f"{name}: {found} over the run", wrap=True)
        axes.label_outer()
    _legend(np.ravel(ax)[0])
    return fig, ax


@style()
def gradient_heatmap(runs, *, ax=None):
    """Plot each class's share of an epoch's gradient against an equal share, epoch by epoch.

    Epochs fade to grey as their gradient gets small against the run's largest: once the classes
    are learned, a share of next to nothing says nothing. Several runs have a panel each, with the
    same scale of colours.
    """
    frame = frames.gradient_history(runs)
    frame["log"] = np.log2((frame.share / frame.equal_share).where(frame.total > 0))
    limit = float(np.clip(frame.log.abs().max(), 1, 5))
    tables, C = split(frame), frame["class"].nunique()
    size = {"width": 3 + 5.5 * len(tables), "height": min(0.24 * C + 1.6, 12)}
    fig, ax = _axes_for(ax, **size, columns=len(tables), sharey=True)
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
        groups = classes.group.to_numpy()
        ends = np.flatnonzero(groups[1:] != groups[:-1]) + 1
        axes.hlines(ends, 0, 1, transform=axes.get_yaxis_transform(), color="black", lw=1.2)
        axes.grid(False)
        axes.tick_params(axis="both", rotation=0)
        axes.set(xlabel="epoch, its gradient per step / that of the largest", ylabel="")
        group, total = rarest(classes.group), table.groupby("group").total.sum()
        axes.set_title(
            f"{name}: the {group} gets {100 * total[group] / total.sum():.0f} % of the gradient"
            f"{chr(10) if len(tables) > 2 else ' '}"  # within its own panel
            f"(equal share: {100 * (classes.group == group).mean():.0f} %)",
            wrap=True,
        )
    ticks = np.arange(-int(limit), int(limit) + 1)
    axes.collections[0].colorbar.set_ticks(ticks, labels=[f"{2.0**t:.3g}×" for t in ticks])
    return fig, ax


@style()
def class_ap(runs, *, ax=None):
    """Plot each class's average precision on the test split, of one run or several."""
    frame = frames.class_ap(runs)
    frame["percent"], group = 100 * frame.ap, rarest(frame.group)
    means = frame[frame.group == group].groupby("run", sort=False).percent.mean()
    title = f"mAP of the {group} classes: {_listed(means, '{:.0f} %'.format)}"
    label = "average precision (%)"
    fig, ax = _plot_classes(ax, frame, "run", "percent", label, title)
    ax.set_ylim(-3, 103)
    return fig, ax


@style()
def group_bars(runs, *, ax=None):
    """Plot the mAP of all, head, medium and tail classes as bars, a few runs at most.

    The title compares the runs with the first: up and down alike.
    """
    frame = frames.group_map(runs)
    names = frame["name"].unique()
    few = len(names) <= 4
    fig, ax = _axes_for(ax, width=7 if few else 9)
    colors = {"palette": RUN_COLORS[: len(names)], "saturation": 1, "edgecolor": "white"}
    sns.barplot(frame, x="group", y="mean", hue="name", ax=ax, legend=False, lw=0, **colors)
    for i, bars in enumerate(ax.containers):
        bars.set_label(names[i])
        for bar in bars:
            bar.set_hatch(HATCHES[i % 7])
        ax.bar_label(bars, fmt="%.1f", fontsize=8, padding=2, rotation=0 if few else 90)
    ax.set(xlabel="", ylabel="mAP (%)", ylim=(0, 105 if few else 115), yticks=range(0, 101, 20))
    ax.set_xticks(range(4), ["all classes", *GROUPS])
    means = frame.pivot(index="name", columns="group", values="mean").loc[names]
    found = f"{names[0]}: {means['mAP'].iloc[0]:.1f} mAP"
    if len(names) > 1:
        gains = (means - means.iloc[0]).iloc[1:]
        found = f"Tail mAP against {names[0]}: {_listed(gains['tail'], '{:+.1f}'.format)}"
    if len(names) == 2:
        whole, tail = gains["mAP"].iloc[0], gains["tail"].iloc[0]
        but = ", but" if whole * tail < 0 else ","
        found = f"{names[1]}: {whole:+.1f} mAP{but} {tail:+.1f} in the tail against {names[0]}"
    ax.set_title(found, wrap=True)
    _legend(ax)
    return fig, ax


@style()
def ablation(table: pd.DataFrame, *, ax=None):
    """Plot the mAP of each setting of :func:`ltml.training.ablation.ablate`, over seeds."""
    frame = frames.ablation(table)
    order = frame[frame.group == "mAP"].sort_values("mean", kind="stable", na_position="first")
    names, y, most = order["name"].tolist(), range(len(order)), frame.seeds.max()
    fig, ax = _axes_for(ax, height=0.27 * len(names) + 1.6)
    look = {"marker": "|", "color": "black", "ms": 12, "mew": 2.5, "zorder": 3}
    ax.plot(order["mean"], y, ls="", label="all classes", **look)
    for group in GROUPS:
        rows = frame[frame.group == group].set_index("name").loc[names]
        look = {"color": GROUP_COLORS[group], "mec": NEGATIVE, "mew": 0.5, "ms": 7, "label": group}
        spread = rows.deviation.fillna(0)
        ax.errorbar(rows["mean"], y, xerr=spread, fmt=GROUP_MARKERS[group], **look)
    ax.set_yticks(y, names)
    ax.set_ylim(-0.7, len(names) - 0.3)
    ax.grid(True, axis="both")
    seeds = f", mean and deviation over up to {most} seeds" if most > 1 else ""
    ax.set(ylabel="sampler · loss · head", xlabel=f"mAP (%){seeds}")
    best = frame[frame["name"] == names[-1]].set_index("group")["mean"].map("{:.1f}".format)
    of = f" (best of {len(names)})" if len(names) > 1 else ""
    ax.set_title(f"{names[-1]}: {best['mAP']} mAP, {best['tail']} in the tail{of}", wrap=True)
    _legend(ax)
    return fig, ax


@style()
def reliability(frame: pd.DataFrame, *, ax=None):
    """Plot how often what is predicted with a probability is present: a :func:`.calibration`."""
    fig, ax = _axes_for(ax, width=6.5, height=5)
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1, label="calibrated")
    for group, rows in split(frame, "group").items():
        color, marker = GROUP_COLORS.get(group, NEGATIVE), GROUP_MARKERS.get(group, "X")
        ax.plot(rows.predicted, rows.observed, color=color, marker=marker, label=group)
    error = 100 * frame.groupby("group", sort=False).error.first().drop("all", errors="ignore")
    ax.set(xlabel="predicted probability", ylabel="fraction present", xlim=(0, 1), ylim=(0, 1))
    ax.grid(True, axis="both")
    ax.set_title(f"Off by {_listed(error, '{:.1f}'.format)} percentage points", wrap=True)
    _legend(ax)
    return fig, ax


@style()
def feature_diversity(records, *, measure="vendi", split="test", size: int | None = None, ax=None):
    """Plot the diversity of each class's features, as :func:`.frames.diversity` tabulates it."""
    frame = frames.diversity(records, measure=measure, split=split, size=size)
    label = f"{frame.measure[0]} of {frame['size'][0]} images"
    ylabel, by, rows = f"{label}\n(mean ± standard error)", "group", frame
    if frame.run.nunique() > 1:
        by, group = "run", rarest(frame.group)
        rows, label = frame[frame.group == group], f"{label} in the {group}"
    means = rows.groupby(by, sort=False).value.mean()
    title = f"{label}: {_listed(means, '{:.2f}'.format)}"
    return _plot_classes(ax, frame, "run", "value", ylabel, title)


@style()
def nearest_images(record, class_name: str, *, split: str = "test", queries: int = 3):
    """Show images of a class, from the surest to the least sure, and what the class finds similar.

    A row (of ``queries``) begins with an image that holds the class; the six most similar images
    follow, as the class sees them, with a tick and a solid frame if they hold it too, else with a
    cross and a dashed frame. Other labels are below.

    Raises:
        InputError: if the class is unknown, or has no positive on record.
    """
    part, c, names = record.split(split), record.index(class_name), record.classes["class"]
    ranked = part.rows(c)[np.argsort(-part.score[part.rows(c)], kind="stable")]
    if not ranked.size:
        raise InputError(f"class {class_name!r} has no positive in the {split} split")
    picked = ranked[np.linspace(0, len(ranked) - 1, min(queries, len(ranked))).astype(int)]
    size = {"figsize": (9, 1.9 * len(picked) + 0.4), "squeeze": False}
    fig, axes = plt.subplots(len(picked), 7, subplot_kw={"xticks": [], "yticks": []}, **size)
    for row, line in zip(picked, axes, strict=True):
        images = part.neighbors[row, :6]
        images = [part.image[row], *images[images >= 0]]  # -1: there are no more
        for k, (ax, image) in enumerate(zip(line, images, strict=False)):
            held = np.flatnonzero(part.labels[image])
            mark, color, dash = ("✓", NEGATIVE, "-") if c in held else ("✗", POSITIVE, "--")
            said = f"{mark} {part.similarity[row, k - 1]:.2f}"
            said = said if k else f"score {part.score[row]:+.1f}"
            others = fill(", ".join(names[held[held != c]]), 16, max_lines=3, placeholder=" …")
            ax.imshow(part.thumbnails[image])
            ax.set_xlabel(f"{said}\n{others}", fontsize=7.5, color=color)
            ax.spines[:].set(visible=True, color=color, linestyle=dash, linewidth=2)
        for ax in line[len(images) :]:
            ax.axis("off")
    found = f"{class_name}, {split}: an image, and its nearest, with the class (✓) or without (✗)"
    fig.suptitle(found, weight="bold", size=11)
    return fig, axes


def _axes_for(
    ax, *, width: float = 9, height: float = 4, rows: int = 1, columns: int = 1, **options
):
    """Return the given axes with their figure, or new ones of a size in inches."""
    if ax is None:
        return plt.subplots(rows, columns, figsize=(width, height), **options)
    return np.ravel(ax)[0].figure, ax


def _legend(ax: Axes, **options) -> None:
    """Explain marks and colours at the right of the axes, where no data are."""
    if len(ax.get_legend_handles_labels()[0]) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)


def _log_axis(axis) -> None:
    """Write plain numbers on a logarithmic axis, also between the powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter("{x:g}")


def _group_color(group: str, i: int) -> str:
    """Return the colour of a group, also of the ``i``-th of the reader's own."""
    return GROUP_COLORS.get(group, RUN_COLORS[(i + 1) % 7])


def _size_of(classes: int) -> dict[str, float]:
    """Return the size of marks, smaller ones where very many are side by side."""
    ms, mew = (7, 1.5) if classes <= MANY else (4, 1) if classes <= 100 else (2, 0.5)
    return {"ms": ms, "mew": mew}


def _plot_classes(ax, frame: pd.DataFrame, column: str, value: str, ylabel: str, title: str):
    """Plot a value of each class, for every name in a column, with errors where the frame has them.

    Classes and groups are those of the last name, in its order.
    """
    fig, ax = _axes_for(ax)
    tables = split(frame, column)
    last = next(reversed(tables.values()))
    for i, (name, table) in enumerate(tables.items()):
        table = table.set_index("class").loc[last["class"]]
        x = np.arange(len(table)) + (0.3 * i / (len(tables) - 1) - 0.15 if len(tables) > 1 else 0)
        color = RUN_COLORS[i % 7]
        look = {"color": color, "mfc": color if i % 2 else "white", **_size_of(len(table))}
        look |= {"fmt": RUN_MARKERS[i % 7], "lw": 1.2, "label": name}
        ax.errorbar(x, table[value], table.get("error"), **look)
    _class_axis(ax, last)
    ax.set_ylabel(ylabel)
    ax.set_title(title, wrap=True)
    _legend(ax)
    return fig, ax


def _class_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Name the classes of a table on the x axis, the ``i``-th at ``i``; shade and name groups."""
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
            **{"color": _group_color(group, i), "alpha": 0.15, "lw": 0, "zorder": 0},
            label=None if together else group,
        )
    if together:
        names = [f"{g or 'no group'} ({n})" for g, n in zip(present, lengths, strict=True)]
        top = ax.secondary_xaxis("top")
        top.set_xticks(starts + (lengths - 1) / 2, names, color="#555555")
        top.tick_params(length=0)
        top.spines["top"].set_visible(False)


def _times(ratio: float) -> str:
    """Write a ratio in three digits."""
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:,.0f}"


def _listed(values: pd.Series, form=_times) -> str:
    """Write up to three values with their names, of more the extremes: ``1 (a), 2 (b)``."""
    if len(values) > 3 and values.notna().any():
        values = values.loc[[values.idxmin(), values.idxmax()]]
    return ", ".join(f"{form(value)} ({name})" for name, value in values.items())
