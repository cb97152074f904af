"""ltml: a workbench for long-tailed multi-label image recognition."""

import os

# How torch's threads wait for each other, which must be said before torch is imported: asleep. By
# default they wait spinning, and where another program holds a core, a training takes five times
# as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from ltml.data import LongTailData, Split, load
from ltml.diversity import DiversityEnhancement
from ltml.errors import InputError
from ltml.features import FeatureRecord
from ltml.gradients import GradientLedger
from ltml.labels import LabelMatrix
from ltml.loss import LOSSES, DynamicGradientBalancing, make_loss
from ltml.metrics import average_precision, group_map
from ltml.recipe import Recipe
from ltml.recording import record_features
from ltml.runs import Run
from ltml.sampler import SAMPLERS, ClassAwareSampler, GroupSampler, UniformSampler
from ltml.training import fit, resume

__all__ = [
    "LOSSES",
    "SAMPLERS",
    "ClassAwareSampler",
    "DiversityEnhancement",
    "DynamicGradientBalancing",
    "FeatureRecord",
    "GradientLedger",
    "GroupSampler",
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
    "make_loss",
    "record_features",
    "resume",
]
__version__ = "0.1.0"
