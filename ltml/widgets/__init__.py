"""Interactive explorers of runs and labels: stock ipywidgets over the functions of ``plots``."""

from ltml.widgets.base import Explorer, find_runs
from ltml.widgets.live import LiveView

__all__ = [
    "Explorer",
    "LiveView",
    "find_runs",
]
