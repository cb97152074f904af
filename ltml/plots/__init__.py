"""Figures of runs and labels. Each function takes ``ax=None`` and returns ``(fig, ax)``."""

from ltml.plots.gradients import gradient_heatmap, gradient_magnitudes
from ltml.plots.labels import label_counts
from ltml.plots.results import ablation, class_ap, group_bars
from ltml.plots.style import save, style

__all__ = [
    "ablation",
    "class_ap",
    "gradient_heatmap",
    "gradient_magnitudes",
    "group_bars",
    "label_counts",
    "save",
    "style",
]
