"""Figures of runs, labels, samplers and features, each from a tidy table of :mod:`.frames`.

Each function takes ``ax=None``, where to plot (default: a new figure), and returns ``(fig, ax)``.
What it cannot plot, such as an unknown class or epoch, raises :class:`~ltml.InputError`.
"""

from lazy_loader import attach_stub

# Not lazily: a later import of the module of that name would hide the function.
from ltml.plots.style import style  # noqa: F401

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
