"""Explorers of runs and labels for notebooks: live figures under stock ipywidgets controls.

Those of runs take runs, folders of runs, or folders that hold folders of runs; one or several.
"""

from ltml.runs.run import find_runs
from ltml.widgets.explorer import Explorer
from ltml.widgets.heads import explore_heads, explore_shrinkage
from ltml.widgets.mistakes import explore_mistakes
from ltml.widgets.prediction import predict
from ltml.widgets.runs import (
    LiveView,
    compare_runs,
    explore_balancing,
    explore_diversity,
    explore_gradients,
    explore_interference,
)
from ltml.widgets.sampling import explore_sampler

__all__ = [
    "Explorer",
    "LiveView",
    "compare_runs",
    "explore_balancing",
    "explore_diversity",
    "explore_gradients",
    "explore_heads",
    "explore_interference",
    "explore_mistakes",
    "explore_sampler",
    "explore_shrinkage",
    "find_runs",
    "predict",
]
