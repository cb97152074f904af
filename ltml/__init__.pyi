from . import data, plots
from . import widgets as widgets
from .core.dgb import DynamicGradientBalancing
from .core.errors import InputError
from .core.heads import DiversityEnhancement
from .core.labels import LabelMatrix
from .core.ledger import GradientLedger
from .core.losses import LOSSES, make_loss
from .core.metrics import average_precision, group_map
from .core.sampler import SAMPLERS, ClassAwareSampler, GroupSampler, UniformSampler
from .data import LongTailData, Split, load
from .plots.table import table
from .runs.features import FeatureRecord
from .runs.recipe import Recipe
from .runs.recorder import Recorder
from .runs.run import Run
from .training.arrays import features_from
from .training.bank import bank
from .training.evaluate import evaluate
from .training.features import record_features
from .training.suspects import suspects
from .training.train import fit, probe, resume

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
    "evaluate",
    "features_from",
    "fit",
    "group_map",
    "load",
    "make_loss",
    "plots",
    "probe",
    "record_features",
    "resume",
    "suspects",
    "table",
]
