from .catalog import DATASETS, load
from .memory import from_dataset, from_frame
from .splits import LongTailData, Split

__all__ = ["DATASETS", "LongTailData", "Split", "from_dataset", "from_frame", "load"]
