"""Figures of runs and labels. Each function takes ``ax=None`` and returns ``(fig, ax)``."""

from ltml.plots.balancing import balancing
from ltml.plots.diversity import class_map, feature_diversity
from ltml.plots.gradients import class_history, gradient_heatmap, gradient_magnitudes
from ltml.plots.labels import label_counts
from ltml.plots.nearest import nearest_images
from ltml.plots.results import class_ap, group_bars, group_dots, training_curves
from ltml.plots.sampling import (
    class_rates,
    cooccurrence,
    frontier,
    group_balance,
    rate_sources,
)
from ltml.plots.settings import ablation, differences, imbalance_against_map
from ltml.plots.style import save, style

__all__ = [
    "ablation",
    "balancing",
    "class_ap",
    "class_history",
    "class_map",
    "class_rates",
    "cooccurrence",
    "differences",
    "feature_diversity",
    "frontier",
    "gradient_heatmap",
    "gradient_magnitudes",
    "group_balance",
    "group_bars",
    "group_dots",
    "imbalance_against_map",
    "label_counts",
    "nearest_images",
    "rate_sources",
    "save",
    "style",
    "training_curves",
]
