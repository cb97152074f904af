from . import frames
from .static import (
    ablation,
    class_ap,
    class_rates,
    feature_diversity,
    gradient_heatmap,
    gradient_imbalance,
    gradient_magnitudes,
    group_balance,
    group_bars,
    label_counts,
    nearest_images,
    reliability,
)
from .style import paper, save, style

__all__ = [
    "ablation",
    "class_ap",
    "class_rates",
    "feature_diversity",
    "frames",
    "gradient_heatmap",
    "gradient_imbalance",
    "gradient_magnitudes",
    "group_balance",
    "group_bars",
    "label_counts",
    "nearest_images",
    "paper",
    "reliability",
    "save",
    "style",
]
