from . import data, plots
from .data import LongTailData, Split, load
from .dgb import DynamicGradientBalancing
from .diversity import DiversityEnhancement
from .errors import InputError
from .features import FeatureRecord, record_features
from .frozen import bank
from .labels import LabelMatrix
from .ledger import GradientLedger
from .losses import LOSSES, make_loss
from .metrics import average_precision, group_map
from .recipe import Recipe
from .recorder import Recorder
from .run import Run
from .sampler import SAMPLERS, ClassAwareSampler, GroupSampler, UniformSampler
from .train import fit, probe, resume

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
    "Recorder",
    "Run",
    "Split",
    "UniformSampler",
    "average_precision",
    "bank",
    "data",
    "fit",
    "group_map",
    "load",
    "make_loss",
    "plots",
    "probe",
    "record_features",
    "resume",
]
