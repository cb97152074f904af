"""Figures of labels: how many images each class has."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltml.labels import LabelMatrix
from ltml.plots.style import axes_for, class_axis, count_bars, group_legend, log_axis, style
from ltml.runs import Run

__all__ = ["label_counts"]


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
