"""Figures of labels side by side, and of how often samplers draw each class."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ltml.audit import Audit
from ltml.batches import Sampler
from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.plots.drawn import (
    SAMPLER_NAMES,
    Drawn,
    bands,
    by_count,
    class_rates_of,
    group_of,
    legend_above,
    log_rates,
    look,
    rates_of,
    ratio_of,
    samplers_of,
    series,
    spans,
    times,
)
from ltml.plots.style import GROUP_MARKERS, RUN_MARKERS, axes_for, class_axis, style

__all__ = ["class_rates", "cooccurrence", "frontier", "group_balance", "rate_sources"]

_GLYPHS = dict(zip(RUN_MARKERS, "●■▲◆▼✚✖", strict=True))  # the markers, as text
_GREY = "#555555"


def cooccurrence(labels: LabelMatrix, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    r"""Draw :math:`P(j \mid i)`: of the images with class ``i`` (row), the share that holds ``j``.

    Classes stand by descending count; lines part head, medium and tail.

    Args:
        labels: training labels.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if no class has an image.
    """
    if not labels.counts.any():
        raise InputError("labels hold no label on any image, so nothing stands beside anything")
    table = by_count(labels.class_names, labels.group_of_class(), labels.counts)
    order = table.index.to_numpy()
    share = labels.cooccurrence()[np.ix_(order, order)]
    C, few = len(order), len(order) <= 40
    with style():
        fig, ax = axes_for(ax, height=0.26 * C + 2.4 if few else 7.5)
        picture = ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        fig.colorbar(
            picture, ax=ax, label="share of the row's images", format=PercentFormatter(1), pad=0.01
        )
        ax.grid(False)
        if C <= 25:
            for i, j in np.argwhere((share >= 0.05) & ~np.eye(C, dtype=bool)):
                color = "white" if share[i, j] > 0.6 else "#3B3B3B"
                ax.text(
                    j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", size=7, color=color
                )
        if few:
            names = table["class"]
            ax.set_xticks(range(C), names, rotation=45, ha="right", rotation_mode="anchor")
            ax.set_yticks(
                range(C), [f"{name} {n:,}" for name, n in zip(names, table["count"], strict=True)]
            )
        for start, end in spans(table.group):
            if end < C:
                ax.axhline(end - 0.5, color="black", lw=1.2)
                ax.axvline(end - 0.5, color="black", lw=1.2)
            ax.text(
                (start + end - 1) / 2, -0.7, table.group[order[start]], ha="center", color=_GREY
            )
        by = "" if few else ", by descending training images"
        ax.set_xlabel(f"also holds the class{by}")
        ax.set_ylabel(f"of the images with the class, training images{'' if few else by[1:]}")
        beside = np.where(np.eye(C, dtype=bool) | (table["count"].to_numpy()[:, None] == 0), 0, 1)
        mean = (share * beside).sum(0) / np.maximum(beside.sum(0), 1)
        top = mean.argmax()
        ax.set_title(
            f"An image of another class brings {table['class'][order[top]]} along in "
            f"{100 * mean[top]:.0f} % of the cases",
            pad=20,
        )
    return fig, ax


def class_rates(drawn: Drawn, *, draws: str = "all", ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw how often samplers draw each class: images with the class per drawn image.

    Args:
        drawn: samplers or their audits, one or several, or name -> sampler or audit; or labels,
            from which uniform, class-aware and group sampling then draw. What an audit counted is
            drawn beside what was expected.
        draws: ``"all"``; or ``"own"``, only what is drawn for the group of the class (where a
            sampler draws for groups; this needs samplers).
        ax: where to draw; default: a new figure.

    Raises:
        InputError: for data without a sampler, samplers of different classes, or unknown draws.
    """
    each = samplers_of(drawn)
    table, rates, realised = rates_of(each, draws)
    x, size = np.arange(len(table)), 7 if len(table) <= 40 else 5
    with style():
        fig, ax = axes_for(ax)
        bands(ax, table)
        for name, marker, color in series(each):
            ax.plot(
                x,
                rates[name],
                marker,
                ms=size,
                mec=color,
                mfc="white" if marker == "o" and len(each) > 1 else color,
                mew=1.5,
                label=name,
            )
            if name in realised:
                label = f"counted over {each[name].draws:,} draws"
                ax.plot(x, realised[name], "_", ms=13, mew=1.2, color="black", label=label)
        log_rates(ax, above=0.08)  # the groups' names stand there
        class_axis(ax, table)
        own = draws == "own"
        ax.set_ylabel(f"images with the class\nper image drawn{' for its group' if own else ''}")
        found = [f"{times(ratio_of(rates[name]))} ({name})" for name in each]
        ax.set_title(
            ("Over the draws for each group" if own else "Over all draws")
            + f", max/min class rate {', '.join(found)}",
            pad=26 if len(each) > 1 or realised else 6,
        )
        if len(each) > 1 or realised:
            legend_above(ax)
    return fig, ax


def group_balance(
    drawn: Drawn, *, draws: str = "own", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw how evenly the classes of each group are drawn: class rates, relative to their group's.

    Args:
        drawn: as in :func:`class_rates`.
        draws: ``"own"``: what is drawn for the group of the class (a sampler that does not draw for
            groups draws every image for all of them); ``"all"``: whole batches.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: as in :func:`class_rates`.
    """
    each = samplers_of(drawn)
    table, rates, _ = rates_of(each, draws)
    parts = [(start, end) for start, end in spans(table.group) if table.group.iloc[start]]
    worst = dict.fromkeys(each, 0.0)
    with style():
        fig, ax = axes_for(ax, height=4.6)
        bands(ax, table)
        ax.axhline(1, color="#888888", lw=1, zorder=1)
        for i, (name, marker, color) in enumerate(series(each)):
            for start, end in parts:
                here = rates[name][start:end]
                if not np.isfinite(here).any():
                    continue
                worst[name] = max(worst[name], ratio_of(here))
                ax.plot(
                    np.arange(start, end),
                    here / np.exp(np.nanmean(np.log(here))),
                    marker=marker,
                    ms=7 if len(table) <= 40 else 5,
                    lw=1.2,
                    color=color,
                    mfc="white" if marker == "o" else color,
                    mew=1.5,
                    label=name if start == 0 else None,
                )
                ax.text(
                    (start + end - 1) / 2,
                    0.87 - 0.065 * i,
                    f"{_GLYPHS[marker]} {times(ratio_of(here))}",
                    transform=ax.get_xaxis_transform(),
                    ha="center",
                    va="top",
                    color=color,
                    weight="bold",
                )
        for start, end in parts:
            ax.text(
                (start + end - 1) / 2,
                0.93,
                "max/min",
                transform=ax.get_xaxis_transform(),
                ha="center",
                va="top",
                size=9,
                color=_GREY,
            )
        log_rates(ax, above=0.35 + 0.1 * len(each))  # the ratios stand there
        class_axis(ax, table)
        where = "draws for the group" if draws == "own" else "whole batches"
        ax.set_ylabel(f"class rate / mean of its group\n({where})")
        found = [f"{times(worst[name])} ({name})" for name in each]
        ax.set_title(
            ("Inside groups, rates differ" if draws == "own" else "Whole batches: inside groups")
            + f" up to {', '.join(found)}",
            pad=26,
        )
        legend_above(ax)
    return fig, ax


def rate_sources(sampler: Sampler, *, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw for which group the images with a class are drawn: what one group brings to another.

    Args:
        sampler: one that draws for groups: class-aware or group.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: for a sampler that draws for no group.
    """
    own = sampler.group_probabilities()
    if not own:
        raise InputError(
            f"a {type(sampler).__name__} draws for no group; give a class-aware or group sampler"
        )
    labels = sampler.labels
    table = by_count(labels.class_names, group_of(sampler), labels.counts, list(sampler.groups))
    order = table.index.to_numpy()
    parts = {
        name: sampler.shares[name] * class_rates_of(labels, p)[order] for name, p in own.items()
    }
    rest = 1 - sum(sampler.shares[name] for name in own)
    if rest > 1e-9:
        parts["uniform"] = rest * labels.counts[order] / len(labels)
    total, below, x = sum(parts.values()), np.zeros(len(order)), np.arange(len(order))
    with style():
        fig, ax = axes_for(ax)
        for i, (name, part) in enumerate(parts.items()):
            color, hatch = look(name, i)
            label = "drawn uniformly" if name == "uniform" else f"drawn for {name}"
            bars = ax.bar(x, part, 0.8, bottom=below, color=color, label=label)
            for bar in bars:
                bar.set(hatch=hatch, edgecolor="white", linewidth=0)
            below = below + part
        class_axis(ax, table)
        ax.set_ylabel("images with the class\nper drawn image")
        same = np.array([parts[g][i] if g in parts else 0.0 for i, g in enumerate(table.group)])
        brought = np.divide(total - same, total, out=np.zeros_like(total), where=total > 0)
        top = total.argmax()
        other = "other groups" if rest <= 1e-9 else "other groups, or uniformly"
        ax.set_title(
            f"{100 * brought[top]:.0f} % of the {table['class'][order[top]]} images are drawn for "
            + other,
            pad=26,
        )
        legend_above(ax)
    return fig, ax


def frontier(
    table: pd.DataFrame, *, compare: Audit | None = None, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw what each ridge buys: balance inside each group against the number of distinct images.

    Args:
        table: what :func:`ltml.audit.frontier` returns.
        compare: the audit of another sampler that draws for the same groups, drawn as crosses.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: for an empty table.
    """
    if table.empty:
        raise InputError("the table of the frontier is empty; give it at least one ridge")
    paid = {}
    with style():
        fig, ax = axes_for(ax, height=4.6)
        for i, (name, rows) in enumerate(table.groupby("group", sort=False)):
            rows = rows.sort_values("ridge")
            images = rows.images.iloc[0]
            share = 100 * rows.effective_images / images
            paid[name] = share.iloc[0]
            color, _ = look(name, i)
            ax.plot(
                share,
                rows.ratio,
                marker=GROUP_MARKERS.get(name, RUN_MARKERS[i % len(RUN_MARKERS)]),
                ms=7,
                lw=1.5,
                color=color,
                mec="#3B3B3B",
                mew=0.6,
                label=f"{name} ({images:,} images)",
            )
            last = (-np.inf, 0.0)
            for ridge, at, ratio in zip(rows.ridge, share, rows.ratio, strict=True):
                here = (at / 4, np.log(ratio) / 0.15)  # about one label apart
                if share.max() - share.min() > 40 and np.hypot(*np.subtract(here, last)) > 1:
                    last = here
                    text = f"ridge {ridge:g}" if ridge == rows.ridge.iloc[0] else f"{ridge:g}"
                    ax.annotate(
                        text,
                        (at, ratio),
                        (7, -1),
                        textcoords="offset points",
                        size=9,
                        va="top",
                        color=_GREY,
                    )
            if compare is not None and name in compare.groups.index:
                other = compare.groups.loc[name]
                ax.plot(
                    100 * other.own_effective_images / images,
                    other.own_ratio,
                    "X",
                    ms=10,
                    color=color,
                    mec="black",
                )
        log_rates(ax, above=0.03)
        ax.set_ylim(bottom=0.85)
        ax.set_xlim(0, 103)
        ax.xaxis.set_major_formatter(PercentFormatter())
        ax.grid(True, axis="both")
        ax.set_xlabel("effective images, of all images that hold a class of the group")
        ax.set_ylabel("max/min class rate\nof the draws for the group")
        ridge = table.ridge.min()
        cost = ", ".join(f"{share:.0f} % ({name})" for name, share in paid.items())
        how = f"A ridge of {ridge:g}" if ridge else "Exact balance"
        ax.set_title(f"{how} leaves {cost} of the images effective", pad=26)
        if compare is not None:
            name = SAMPLER_NAMES.get(compare.sampler, compare.sampler)
            ax.plot([], [], "X", ms=10, color="white", mec="black", label=name)
        legend_above(ax)
    return fig, ax
