from . import frames
from .features import class_map, feature_diversity, nearest_images
from .gradients import (
    balancing,
    class_history,
    gradient_heatmap,
    gradient_magnitudes,
    interference,
)
from .results import (
    ablation,
    class_ap,
    differences,
    group_bars,
    group_dots,
    imbalance_against_map,
    label_counts,
    reliability,
    training_curves,
)
from .sampling import class_rates, cooccurrence, frontier, group_balance, rate_sources
from .style import save, style

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
    "frames",
    "frontier",
    "gradient_heatmap",
    "gradient_magnitudes",
    "group_balance",
    "group_bars",
    "group_dots",
    "imbalance_against_map",
    "interference",
    "label_counts",
    "nearest_images",
    "rate_sources",
    "reliability",
    "save",
    "style",
    "training_curves",
]
