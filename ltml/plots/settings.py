"""Figures of many trainings at once, from the table that an ablation leaves."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ltml.errors import InputError
from ltml.groups import GROUPS
from ltml.plots.results import dots_height, group_marks, group_rows
from ltml.plots.style import RUN_COLORS, axes_for, style

__all__ = ["ablation", "differences", "imbalance_against_map"]

_HEAD_MARKERS = {"off": "o", "attention": "^", "dem": "D"}


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
    with style():
        fig, ax = axes_for(ax, height=dots_height(len(order)))
        group_rows(ax, means.loc[order], deviations.loc[order])
        ax.set_ylabel("sampler · loss · head")
        ax.set_xlabel(f"mAP (%), mean and deviation over {int(groups.size().max())} seeds")
        best = means.loc[order[-1]]
        ax.set_title(
            f"{order[-1]}: {best['mAP']:.1f} mAP, {best['tail']:.1f} in the tail (best of "
            f"{len(order)})"
        )
    return fig, ax


def differences(
    table: pd.DataFrame, *, quantile: float = 4.303, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""Draw what parts add to the mAP of each group: every seed, the mean, and its interval.

    The bars are :math:`\bar d \pm q\, s / \sqrt{n}` of the :math:`n` differences of a part.

    Args:
        table: columns part, group (head, medium, tail), seed, difference (points of mAP).
        quantile: :math:`q`; the default is Student's 0.975 quantile for three seeds.
        ax: where to draw; default: a new figure.
    """
    parts = list(dict.fromkeys(table.part))
    y = {part: len(parts) - 1 - i for i, part in enumerate(parts)}
    shift = dict(zip(GROUPS, (0.25, 0.0, -0.25), strict=True))
    with style():
        fig, ax = axes_for(ax, height=0.62 * len(parts) + 1.6)
        for group in GROUPS:
            rows = table[table.group == group]
            per_part = rows.groupby("part", sort=False).difference
            means = per_part.mean()
            half = (quantile * per_part.std() / np.sqrt(per_part.size())).fillna(0)
            heights = [y[part] + shift[group] for part in means.index]
            group_marks(ax, group, means, heights, half)
            ax.plot(
                rows.difference,
                [y[part] + shift[group] for part in rows.part],
                "|",
                color="#3B3B3B",
                ms=7,
            )
        ax.axvline(0, color="#3B3B3B", lw=1)
        ax.set_yticks(list(y.values()), list(y))
        ax.set_ylim(-0.6, len(parts) - 0.4)
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
        ax.set_xlabel("change of mAP (points): every seed, mean and 95 % interval")
        tail = table[table.group == "tail"].groupby("part", sort=False).difference.mean()
        found = tail.idxmax().replace("\n", ", ")
        ax.set_title(f"Most in the tail: {found} ({tail.max():+.1f})")
        ax.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.7 / (0.62 * len(parts) + 0.6)), ncols=3
        )
    return fig, ax


def imbalance_against_map(
    table: pd.DataFrame, *, group: str = "tail", ax: Axes | None = None
) -> tuple[Figure, Axes]:
    """Draw a group's mAP against the gradient imbalance, a mark a setting (mean over its seeds).

    Args:
        table: a row a run, as :func:`ltml.ablation.ablate` returns it.
        group: mAP, head, medium or tail.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if the group is unknown.
    """
    if group not in ("mAP", *GROUPS):
        raise InputError(f"group={group!r} is unknown; give mAP, {', '.join(GROUPS)}")
    means = table.groupby(["sampler", "loss", "diversity"], sort=False)[
        ["gradient_imbalance", group]
    ].mean()
    with style():
        fig, ax = axes_for(ax, height=4.6)
        heads = means.index.get_level_values("diversity")
        samplers = list(dict.fromkeys(means.index.get_level_values("sampler")))
        for (head, sampler), rows in means.groupby(level=["diversity", "sampler"]):
            color = RUN_COLORS[samplers.index(sampler) % len(RUN_COLORS)]
            ax.plot(
                rows.gradient_imbalance,
                rows[group],
                _HEAD_MARKERS.get(head, "o"),
                color=color,
                mfc="white" if head == "off" else color,
                mew=1.5,
                ms=7,
                label=f"{sampler} · {head}",
            )
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        ax.grid(True, axis="both")
        ax.set_xlabel("gradient imbalance: largest over smallest class, over the training")
        ax.set_ylabel(f"{group} mAP (%)" if group != "mAP" else "mAP (%)")
        rho = means.rank().corr().iloc[0, 1]
        ax.set_title(
            f"Rank correlation of gradient imbalance and {group} mAP: {rho:+.2f} "
            f"({len(means)} settings)"
        )
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="sampler · head")
        plain = means.xs("off", level="diversity") if "off" in heads else means.iloc[:0]
        _name_points(ax, plain, means)
    return fig, ax


def _name_points(ax: Axes, named: pd.DataFrame, every: pd.DataFrame) -> None:
    """Write the loss beside each named point, on a side where nothing stands yet."""
    size = 72 * ax.figure.get_size_inches() * (0.7, 0.8)  # of the axes, about, in points

    def place(rows):  # where points stand, in points
        x, y = np.log(rows.iloc[:, 0].to_numpy()), rows.iloc[:, 1].to_numpy()
        low, high = (np.log(every.iloc[:, 0].min()), every.iloc[:, 1].min()), ax.get_ylim()
        span = np.log(every.iloc[:, 0].max()) - low[0], high[1] - high[0]
        return np.c_[(x - low[0]) / max(span[0], 1e-9), (y - high[0]) / span[1]] * size

    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in place(every)]
    for loss, (x, y), (at_x, at_y) in zip(
        named.index.get_level_values("loss"), place(named), named.to_numpy(), strict=True
    ):
        width = 4.4 * len(loss)
        left = -7 - width
        sides = [(7, -4), (left, -4), (7, 5), (7, -13), (left, 5), (left, -13)]
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + 8) for dx, dy in sides]
        free = [b[0] > 0 and not any(_overlap(b, other) for other in taken) for b in boxes]
        side = free.index(True) if any(free) else 0
        taken.append(boxes[side])
        ax.annotate(
            loss,
            (at_x, at_y),
            xytext=(sides[side][0], sides[side][1] + 1),
            textcoords="offset points",
            fontsize=7.5,
            color="#444444",
        )


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
