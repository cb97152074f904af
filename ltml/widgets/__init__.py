"""Explorers of runs and labels for notebooks: live figures under stock ipywidgets controls."""

from ltml.run import find_runs
from ltml.widgets.balancing import explore_balancing
from ltml.widgets.comparison import compare_runs
from ltml.widgets.diversity import explore_diversity
from ltml.widgets.explorer import Explorer
from ltml.widgets.gradients import LiveView, explore_gradients
from ltml.widgets.interference import explore_interference
from ltml.widgets.sampling import explore_sampler

__all__ = [
    "Explorer",
    "LiveView",
    "compare_runs",
    "explore_balancing",
    "explore_diversity",
    "explore_gradients",
    "explore_interference",
    "explore_sampler",
    "find_runs",
]
