"""ltml: a workbench for long-tailed multi-label image recognition."""

from ltml.data import LongTailData, Split, load
from ltml.errors import InputError
from ltml.gradients import GradientLedger
from ltml.labels import LabelMatrix
from ltml.metrics import average_precision, group_map
from ltml.recipe import Recipe
from ltml.runs import Run
from ltml.sampler import ClassAwareSampler, UniformSampler
from ltml.training import fit

__all__ = [
    "ClassAwareSampler",
    "GradientLedger",
    "InputError",
    "LabelMatrix",
    "LongTailData",
    "Recipe",
    "Run",
    "Split",
    "UniformSampler",
    "average_precision",
    "fit",
    "group_map",
    "load",
]
__version__ = "0.1.0"
