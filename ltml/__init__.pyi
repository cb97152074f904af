from . import data, plots
from .data import LongTailData, Split, load
from .diversity import DiversityEnhancement
from .errors import InputError
from .features import FeatureRecord
from .gradients import GradientLedger
from .labels import LabelMatrix
from .loss import LOSSES, DynamicGradientBalancing, make_loss
from .metrics import average_precision, group_map
from .recipe import Recipe
from .recording import record_features
from .runs import Run
from .sampler import SAMPLERS, ClassAwareSampler, GroupSampler, UniformSampler
from .training import fit, resume

__version__: str
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
    "data",
    "fit",
    "group_map",
    "load",
    "make_loss",
    "plots",
    "record_features",
    "resume",
]
