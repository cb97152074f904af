from . import data as data
from . import plots as plots

__version__: str
