from .catalog import DATASETS, load
from .memory import from_dataset, from_frame
from .plan import ReadingPlan
from .reader import read_plan
from .splits import LongTailData, Split

__all__ = [
    "DATASETS",
    "LongTailData",
    "ReadingPlan",
    "Split",
    "from_dataset",
    "from_frame",
    "load",
    "read_plan",
]
