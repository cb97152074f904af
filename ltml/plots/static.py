"""Static figures (matplotlib, seaborn) of the tables in :mod:`ltml.plots.frames`."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator

from ltml.core.errors import InputError
from ltml.core.labels import GROUPS
from ltml.plots import frames
from ltml.plots.frames import rarest, split
from ltml.plots.layout import Fitted, shorten
from ltml.plots.style import (
    GREY,
    GROUP_COLORS,
    GROUP_HATCHES,
    GROUP_MARKERS,
    NEGATIVE,
    POSITIVE,
    RUN_COLORS,
    RUN_MARKERS,
    look,
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
        bars = {"color": _group_color(group, i), "edgecolor": "white", "lw": 0}
        ax.bar(rows.index, rows["count"], hatch=hatch, **bars)
    if log and table["count"].any():
        _log_axis(ax.yaxis)
    _class_axis(ax, table)
    ax.set_ylabel("training images")
    most, least = table["count"].max(), table["count"].min()
    _title(ax, f"{len(table):,} classes, from {most:,} images down to {least:,}")
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
    frame["label"] = frame.sampler + (": " if look().narrow else "\n") + frame.sampler.map(each)
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
    _legend(ax, "largest / smallest\nrate of each group")
    return fig, ax


@style()
def gradient_magnitudes(runs, *, ax=None):
    r"""Plot each class's gradient magnitude :math:`\sum |\partial L / \partial z_c|`.

    It is summed over the run. Several runs have a panel each, of the same axes; in one given axes,
    or a narrow figure, they have the sum over positives and negatives each.
    """
    tables = split(frames.gradients(runs))
    first = next(iter(tables.values()))
    if len(tables) > 1 and (look().narrow if ax is None else np.size(ax) == 1):
        return _gradient_totals(ax, tables)
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
        _title(
            axes, f"{name}: {_extremes(table)} over the run", kept=name if len(tables) > 1 else ""
        )
        axes.label_outer()
    _legend(np.ravel(ax)[0])
    return fig, ax


def _gradient_totals(ax, tables: dict[str, pd.DataFrame]):
    """Plot the sum over positives and negatives of several runs in one axes."""
    frame = pd.concat(tables.values(), ignore_index=True)
    frame["shown"] = frame.total.where(frame.total > 0)
    ratios = frame.groupby("run", sort=False).total.agg(frames.largest_over_smallest)
    title = f"Largest over smallest gradient of a class: {_listed(ratios)}"
    fig, ax = _plot_classes(ax, frame, "run", "shown", "sum of |dL/dz|", title)
    if frame.shown.notna().any():
        _log_axis(ax.yaxis)
    return fig, ax


def _extremes(table: pd.DataFrame) -> str:
    """Say which class gets most gradient, and which least."""
    total = table.set_index("class").total
    most, least = total.idxmax(), total.idxmin()
    if not total[least] > 0:
        return f"{least} gets no gradient"
    return f"{most} gets {_times(total[most] / total[least])} times the gradient of {least}"


@style()
def gradient_imbalance(runs, *, ax=None):
    """Plot the largest over the smallest gradient of a class, epoch by epoch, of several runs.

    A class without gradient in an epoch is left out of it.
    """
    frame = frames.gradient_imbalance(runs)
    fig, ax = _axes_for(ax, width=7)
    for i, (name, table) in enumerate(split(frame).items()):
        color = RUN_COLORS[i % 7]
        marks = {"color": color, "marker": RUN_MARKERS[i % 7], "mfc": color if i % 2 else "white"}
        ax.plot(table.step, table.imbalance, ms=5, lw=1.4, label=name, **marks)
    if frame.imbalance.notna().any():
        _log_axis(ax.yaxis)
        low, high = frame.imbalance.min(), frame.imbalance.max()
        ax.set_ylim(min(1, low), 1.3 * max(high, 2 * low))
    ax.set(xlabel="training step", ylabel="largest / smallest gradient of a class")
    ends = frame.groupby("run", sort=False).imbalance.last()
    _title(ax, f"Gradient imbalance at the end: {_listed(ends)}")
    _legend(ax)
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
    panels, several = np.ravel(ax), len(tables) > 1
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        classes = table.drop_duplicates("class")
        grid = table.pivot(index="class", columns="epoch", values="log").loc[classes["class"]]
        of_peak = table.groupby("epoch").of_peak.first().fillna(0)
        fade = np.tile(np.sqrt(of_peak), (C, 1))
        colors = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
        mesh = axes.pcolormesh(grid.to_numpy(), alpha=fade, rasterized=True, **colors)
        axes.set_ylim(C, 0)
        epochs = [f"{epoch}\n{100 * peak:.0f} %" for epoch, peak in of_peak.items()]
        _name_places(axes.xaxis, np.arange(len(epochs)) + 0.5, epochs)
        axes.set_facecolor("#BBBBBB")
        groups = classes.group.to_numpy()
        ends = np.flatnonzero(groups[1:] != groups[:-1]) + 1
        axes.hlines(ends, 0, 1, transform=axes.get_yaxis_transform(), color="black", lw=1.2)
        axes.grid(False)
        axes.tick_params(length=0)
        axes.tick_params(axis="x", pad=0.9 * plt.rcParams["font.size"])  # below the last class
        group, total = rarest(classes.group), table.groupby("group").total.sum()
        found = f"the {group} gets {100 * total[group] / total.sum():.0f} % of the gradient"
        equal = f"(equal share: {100 * (classes.group == group).mean():.0f} %)"
        line = "\n" if len(tables) > 2 else " "  # within its own panel
        if look().narrow and several:
            _title(axes, name, kept=name)
        else:
            _title(axes, f"{name}: {found}{line}{equal}", kept=name if several else "")
    names = [_class_label(*row) for row in classes[["class", "count"]].itertuples(index=False)]
    _name_places(panels[0].yaxis, np.arange(C) + 0.5, names)
    xlabel = "epoch, its gradient per step / that of the largest"
    if several and fig.get_layout_engine() is not None:
        fig.supxlabel(xlabel, fontsize=plt.rcParams["font.size"])
    else:
        panels[0].set_xlabel(xlabel)
    bar = fig.colorbar(mesh, ax=list(panels), label="share of the epoch's gradient / equal share")
    ticks = np.arange(-int(limit), int(limit) + 1)
    bar.set_ticks(ticks, labels=[f"{2.0**t:.3g}×" for t in ticks])
    bar.outline.set_visible(False)
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
    few = len(names) <= 3 and not look().narrow
    fig, ax = _axes_for(ax, width=7 if few else 9)
    colors = {"palette": RUN_COLORS[: len(names)], "saturation": 1, "edgecolor": "white"}
    sns.barplot(frame, x="group", y="mean", hue="name", ax=ax, legend=False, lw=0, **colors)
    for i, bars in enumerate(ax.containers):
        bars.set_label(names[i])
        for bar in bars:
            bar.set_hatch(HATCHES[i % 7])
        if len(names) <= (12 if look().narrow else 30):  # else they would stand on one another
            size = min(8, plt.rcParams["font.size"] * (1 if len(names) <= 4 else 0.7))
            ax.bar_label(bars, fmt="%.1f", fontsize=size, padding=2, rotation=0 if few else 90)
    ax.set(xlabel="", ylabel="mAP (%)", ylim=(0, 105 if few else 130), yticks=range(0, 101, 20))
    _name_places(ax.xaxis, range(4), ["all" if look().narrow else "all classes", *GROUPS])
    means = frame.pivot(index="name", columns="group", values="mean").loc[names]
    found = f"{names[0]}: {means['mAP'].iloc[0]:.1f} mAP"
    if len(names) > 1:
        gains = (means - means.iloc[0]).iloc[1:]
        found = f"Tail mAP against {names[0]}: {_listed(gains['tail'], '{:+.1f}'.format)}"
    if len(names) == 2:
        whole, tail = gains["mAP"].iloc[0], gains["tail"].iloc[0]
        but = ", but" if whole * tail < 0 else ","
        found = f"{names[1]}: {whole:+.1f} mAP{but} {tail:+.1f} in the tail against {names[0]}"
    _title(ax, found)
    _legend(ax)
    return fig, ax


@style()
def ablation(table: pd.DataFrame, *, ax=None):
    """Plot the mAP of each setting of :func:`ltml.training.ablation.ablate`, over seeds."""
    frame = frames.ablation(table)
    order = frame[frame.group == "mAP"].sort_values("mean", kind="stable", na_position="first")
    names, y, most = order["name"].tolist(), range(len(order)), frame.seeds.max()
    fig, ax = _axes_for(ax, height=0.27 * len(names) + 1.6)
    mark = {"marker": "|", "color": "black", "ms": 12, "mew": 2.5, "zorder": 3}
    ax.plot(order["mean"], y, ls="", label="all classes", **mark)
    for group in GROUPS:
        rows = frame[frame.group == group].set_index("name").loc[names]
        mark = {"color": GROUP_COLORS[group], "mec": NEGATIVE, "mew": 0.5, "ms": 7, "label": group}
        spread = rows.deviation.fillna(0)
        ax.errorbar(rows["mean"], y, xerr=spread, fmt=GROUP_MARKERS[group], **mark)
    ax.set_ylim(-0.7, len(names) - 0.3)
    _name_places(ax.yaxis, y, [shorten(name, 40) for name in names])
    ax.grid(True, axis="both")
    seeds = f", mean and deviation over up to {most} seeds" if most > 1 else ""
    ax.set(ylabel="sampler · loss · head", xlabel=f"mAP (%){seeds}")
    best = frame[frame["name"] == names[-1]].set_index("group")["mean"].map("{:.1f}".format)
    of = f" (best of {len(names)})" if len(names) > 1 else ""
    _title(ax, f"{names[-1]}: {best['mAP']} mAP, {best['tail']} in the tail{of}")
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
    ax.set(
        xlabel="predicted probability",
        ylabel="fraction present",
        xlim=(-0.04, 1.04),
        ylim=(-0.04, 1.04),
    )
    ax.grid(True, axis="both")
    _title(ax, f"Off by {_listed(error, '{:.1f}'.format)} percentage points")
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
    width, font = look().width or 9, plt.rcParams["font.size"]
    columns = int(np.clip(width / (0.12 * font), 2, 7))  # whose words have room below
    size = {"figsize": (width, (1.9 * len(picked) + 0.4) * width / 9 * 7 / columns)}
    if look().height is not None or look().narrow:
        size["figsize"] = (width, look().height or width / 1.5)
        picked = picked[: max(1, int(size["figsize"][1] / (0.13 * font)))]
    bare = {"xticks": [], "yticks": []}
    fig, axes = _new(len(picked), columns, subplot_kw=bare, squeeze=False, **size)
    small, letters = 0.75 * font, int(72 * width / columns / (0.5 * font))
    for row, line in zip(picked, axes, strict=True):
        images = part.neighbors[row, : columns - 1]
        images = [part.image[row], *images[images >= 0]]  # -1: there are no more
        for k, (ax, image) in enumerate(zip(line, images, strict=False)):
            held = np.flatnonzero(part.labels[image])
            mark, color, dash = ("✓", NEGATIVE, "-") if c in held else ("✗", POSITIVE, "--")
            said = f"{mark} {part.similarity[row, k - 1]:.2f}"
            said = said if k else f"score {part.score[row]:+.1f}"
            others = ", ".join(names[held[held != c]])
            others = fill(others, letters, max_lines=3, placeholder=" …")
            ax.imshow(part.thumbnails[image])
            ax.set_xlabel(f"{said}\n{others}", fontsize=small, color=color)
            ax.spines[:].set(visible=True, color=color, linestyle=dash, linewidth=2)
        for ax in line[len(images) :]:
            ax.axis("off")
    found = f"{class_name}, {split}: an image, and its nearest, with the class (✓) or without (✗)"
    if look().titles:
        fig.suptitle(found, weight="bold", size=plt.rcParams["axes.titlesize"])
    return fig, axes


def _axes_for(
    ax, *, width: float = 9, height: float = 4, rows: int = 1, columns: int = 1, **options
):
    """Return the given axes with their figure, or new ones of a size in inches."""
    if ax is not None:
        if np.size(ax) != rows * columns:
            raise InputError(
                f"ax holds {np.size(ax)} axes, and {rows * columns} runs have one each; give "
                f"plt.subplots({rows}, {columns})[1]"
            )
        return np.ravel(ax)[0].figure, ax
    asked = look()
    if asked.width is not None:
        width, height = asked.width, asked.height or asked.width / 1.5
    elif asked.height is not None:
        height = asked.height
    return _new(rows, columns, figsize=(width, height), **options)


def _new(rows: int, columns: int, **options):
    """Make a figure whose texts will fit into it."""
    fig, ax = plt.subplots(rows, columns, **options)
    fig.set_layout_engine(Fitted())
    return fig, ax


def _title(ax: Axes, text: str, *, kept: str = "") -> None:
    """Set a title that breaks where the figure ends; of figures without titles, what is kept."""
    text = text if look().titles else kept
    ax.set_title(text, wrap=not isinstance(ax.figure.get_layout_engine(), Fitted))


def _legend(ax: Axes, title: str | None = None) -> None:
    """Explain marks and colours beside the axes, or above them, where no data are."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) < 2:
        return
    if not look().narrow:
        options = {"title": title, "alignment": "left" if title else "center"}
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), **options)
        ax.get_legend().set_in_layout(True)
        for text in ax.get_legend().get_texts():
            text.set_text("\n".join(shorten(line, 40) for line in text.get_text().split("\n")))
        return
    for old in ax.figure.legends:
        old.remove()
    labels = [shorten(label, 44) for label in labels]
    font = plt.rcParams["font.size"]
    widest = (0.56 * max(map(len, labels)) + 3.2) * font
    columns = int(np.clip(72 * look().width / widest, 1, min(len(labels), 4)))
    few = {"ncols": columns, "handlelength": 1.4, "columnspacing": 1.0}
    tight = {"borderpad": 0.1, "borderaxespad": 0.2, "labelspacing": 0.25, "handletextpad": 0.4}
    ax.figure.legend(handles, labels, loc="outside upper left", **few, **tight)


def _name_places(axis: Axis, places, names, **options) -> None:
    """Name places on an axis, as many as there is room for once the figure is drawn."""
    engine = axis.axes.figure.get_layout_engine()
    if isinstance(engine, Fitted):
        engine.name(axis, places, names, **options)
    else:
        axis.set_ticks(places, names, **options)


def _class_label(name: str, count: int) -> str:
    """What a class is called on an axis."""
    return shorten(name, 16) if look().narrow else f"{shorten(name, 32)} {count:,}"


def _log_axis(axis) -> None:
    """Write plain numbers on a logarithmic axis, also between the powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter("{x:g}")
    engine = axis.axes.figure.get_layout_engine()
    if isinstance(engine, Fitted):
        engine.log(axis)


def _group_color(group: str, i: int) -> str:
    """Return the colour of a group, also of the ``i``-th of the reader's own."""
    return GROUP_COLORS.get(group, RUN_COLORS[(i + 1) % 7])


def _size_of(classes: int) -> dict[str, float]:
    """Return the size of marks, smaller ones where very many are side by side."""
    ms, mew = (7, 1.5) if classes <= MANY else (4, 1) if classes <= 100 else (2, 0.5)
    small = 0.55 if look().narrow else 1
    return {"ms": small * ms, "mew": small * mew}


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
        mark = {"color": color, "mfc": color if i % 2 else "white", **_size_of(len(table))}
        mark |= {"fmt": RUN_MARKERS[i % 7], "lw": 0.8 if look().narrow else 1.2, "label": name}
        ax.errorbar(x, table[value], table.get("error"), **mark)
    _class_axis(ax, last)
    ax.set_ylabel(ylabel)
    _title(ax, title)
    _legend(ax)
    return fig, ax


def _class_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Name the classes of a table on the x axis, the ``i``-th at ``i``; shade and name groups."""
    groups, C, narrow = table.group.to_numpy(), len(table), look().narrow
    ax.set(xlabel="class" if narrow else "class, training images", xlim=(-0.6, C - 0.4))
    names = [_class_label(*row) for row in table[["class", "count"]].itertuples(index=False)]
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    if narrow:
        turned = {"rotation": 90}
    elif C > MANY:
        turned = {"rotation": 90, "fontsize": 0.55 * plt.rcParams["font.size"]}
    shown = range(0, C, -(-C // 90))  # names that there is room for on a page
    _name_places(ax.xaxis, shown, [names[i] for i in shown], **turned)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    lengths = np.diff(np.r_[starts, C])
    present = list(dict.fromkeys(groups))
    # Where groups are scattered or too narrow for their names, the legend names them.
    together = len(starts) == len(present) and lengths.min() > (0.1 if narrow else 0.06) * C
    for i, group in enumerate(present):
        here = groups[starts] == group
        ax.broken_barh(
            list(zip(starts[here] - 0.5, lengths[here], strict=True)),
            (0, 1),
            transform=ax.get_xaxis_transform(),
            **{"color": _group_color(group, i), "alpha": 0.15, "lw": 0, "zorder": 0},
            label=None if together else group or "no group",
        )
    if together:
        long = [f"{g or 'no group'} ({n})" for g, n in zip(present, lengths, strict=True)]
        top, middles = ax.secondary_xaxis("top"), starts + (lengths - 1) / 2
        top.tick_params(length=0, labelcolor="#555555")
        top.spines["top"].set_visible(False)
        engine = ax.figure.get_layout_engine()
        if isinstance(engine, Fitted):
            short = [f"{g or 'no group'}" for g in present]
            engine.span(top.xaxis, middles, lengths, [long, short, [g[:3] for g in short]])
        else:
            top.set_xticks(middles, long)


def _times(ratio: float) -> str:
    """Write a ratio in three digits."""
    return f"{ratio:.3g}" if ratio < 999.5 else f"{ratio:,.0f}"


def _listed(values: pd.Series, form=_times) -> str:
    """Write up to three values with their names, ``1 (a), 2 (b)``; of more the extremes."""
    extremes = len(values) > 3 and values.notna().any()
    if extremes:
        values = values.loc[[values.idxmin(), values.idxmax()]]
    said = [f"{form(value)} ({name})" for name, value in values.items()]
    return f"from {said[0]} to {said[1]}" if extremes else ", ".join(said)
