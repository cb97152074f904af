"""Interactive explorers of runs and labels: stock ipywidgets over the functions of ``plots``."""

from ltml.widgets.balancing import explore_balancing
from ltml.widgets.base import Explorer, find_runs
from ltml.widgets.comparison import compare_runs
from ltml.widgets.diversity import explore_diversity
from ltml.widgets.gradients import explore_gradients
from ltml.widgets.live import LiveView
from ltml.widgets.page import explore
from ltml.widgets.sampling import explore_sampler

__all__ = [
    "Explorer",
    "LiveView",
    "compare_runs",
    "explore",
    "explore_balancing",
    "explore_diversity",
    "explore_gradients",
    "explore_sampler",
    "find_runs",
]
