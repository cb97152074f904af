"""ltml: a workbench for long-tailed multi-label image recognition."""

import os

from lazy_loader import attach_stub

from ltml import _moved

# How torch's threads wait for each other, which must be said before torch is imported: asleep. By
# default they wait spinning, and where another program holds a core, a training takes five times
# as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The names are those of __init__.pyi, each imported at its first use: torch and torchvision take
# seconds, for which a table of runs (ltml compare) need not wait.
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
__all__ = [name for name in __all__ if name != "widgets"]  # which need an extra, lab
__version__ = "0.5.0"
_moved.install()
