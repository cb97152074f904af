"""How figures look: type sizes, colours and marks of groups and runs; and how they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ltml.core.errors import InputError
from ltml.core.files import check_replaceable, make_parent, write_atomically
from ltml.core.options import choose, fitted

# Okabe and Ito's palette, safe for colour-blind readers; dark, middle and light also in greyscale,
# and hatched apart from each other.
GROUP_COLORS = {"head": "#00527A", "medium": "#56B4E9", "tail": "#F0B429"}
GROUP_MARKERS = {"head": "s", "medium": "D", "tail": "o"}
GROUP_HATCHES = {"head": "", "medium": "///", "tail": "..."}
POSITIVE, NEGATIVE, GREY = "#B33F00", "#3B3B3B", "#888888"
RUN_COLORS = ["#3B3B3B", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
RUN_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]

NARROW = 5  # inches, below which a legend stands above the plot and names are short
PAPERS = {  # width in inches and type size in points of a figure in a column or across the page
    "cvpr column": (3.25, 7.0),
    "cvpr page": (6.875, 8.0),
    "icml column": (3.25, 7.0),
    "icml page": (6.75, 8.0),
    "ieee column": (3.5, 7.0),
    "ieee page": (7.16, 8.0),
    "neurips page": (5.5, 8.0),
    "elsevier column": (3.54, 7.0),
    "elsevier page": (7.48, 8.0),
    "springer page": (4.8, 7.0),
}
_MARK = "ltml"  # in the metadata of every file that save() writes
_FORMATS = ("svg", "png", "pdf")
_OTHERS = {".bmp", ".eps", ".gif", ".jpeg", ".jpg", ".ps", ".svgz", ".tif", ".tiff", ".webp"}
_SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "grid.color": "#E4E4E4",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # fonts embedded as TrueType, which journals ask for
    "ps.fonttype": 42,
    "svg.hashsalt": "ltml",  # the same figure gives the same file
    "xtick.color": "#555555",
    "xtick.labelcolor": "black",
    "ytick.color": "#555555",
    "ytick.labelcolor": "black",
}


@dataclass(frozen=True)
class Look:
    """What :func:`style` was asked for; None where a figure decides."""

    width: float | None = None
    height: float | None = None
    titles: bool = True

    @property
    def narrow(self) -> bool:
        """Whether figures are made for a column."""
        return self.width is not None and self.width < NARROW


_LOOK: ContextVar[Look | None] = ContextVar("look", default=None)


def look() -> Look:
    """What figures that are made now should be like."""
    return _LOOK.get() or Look()


@contextmanager
def style(
    *,
    width: float | None = None,
    height: float | None = None,
    font: float | None = None,
    titles: bool = True,
) -> Iterator[None]:
    """Set size and type of the figures that are made inside, such as for a column of a paper.

    What you have changed in matplotlib's ``rcParams`` stays as it is, but for a ``font`` given
    here. Nothing is cut off and no two texts overlap: titles break, and names of classes are
    shortened, turned or left out where there is no room for all.

    Args:
        width: width of new figures in inches; default: what suits each figure.
        height: their height in inches; default: two thirds of a given width.
        font: type size in points; default: 10, titles 11.
        titles: whether figures have a title, which a caption may replace.

    Raises:
        InputError: if a number is not positive.

    Example:
        >>> with style(width=3.3, font=7, titles=False):
        ...     import matplotlib.pyplot as plt
        ...     plt.rcParams["font.size"]
        7.0
    """
    given = {"width": width, "height": height, "font": font}
    sizes = {name: fitted(name, value, float | None) for name, value in given.items()}
    for name, value in sizes.items():
        if value is not None and not 0 < value < 1000:
            raise InputError(f"{name}={given[name]!r}: give a number above 0")
    width, height, font = sizes.values()
    settings = {
        name: value
        for name, value in _SETTINGS.items()
        if mpl.rcParams[name] == mpl.rcParamsDefault[name]
    }
    if font is not None:
        sizes = ("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize")
        settings |= dict.fromkeys((*sizes, "xtick.labelsize", "ytick.labelsize"), font)
        settings |= {"axes.linewidth": 0.6, "xtick.major.size": 2, "ytick.major.size": 2}
        settings |= {"xtick.major.pad": 1.5, "ytick.major.pad": 1.5, "axes.titlepad": 3}
        settings |= {"axes.labelpad": 2}
    outer = look()
    asked = Look(width or outer.width, height or outer.height, titles and outer.titles)
    token = _LOOK.set(asked)
    # A notebook's backend turns itself on at the first figure; rc_context would turn it off again,
    # and all later figures would be missing without a word.
    with mpl.rc_context(settings):
        try:
            yield
        finally:
            _LOOK.reset(token)
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)


def paper(name: str, *, height: float | None = None, titles: bool = True):
    """Return the :func:`style` of a figure for a column, or the whole width, of a paper.

    Args:
        name: such as ``"cvpr column"`` or ``"neurips page"``; a wrong one lists all.
        height: height in inches; default: two thirds of the width.
        titles: whether figures have a title.

    Raises:
        InputError: for an unknown name.
    """
    width, font = choose("paper", name, PAPERS)
    return style(width=width, font=font, height=height, titles=titles)


@style()
def save(fig: Figure, path: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write a figure as ``.svg``, ``.png`` (200 dpi) or ``.pdf`` (fonts embedded), and return what
    was written.

    The same figure gives the same bytes.

    Args:
        fig: the figure.
        path: file to write; without one of these endings, ``path.svg`` and ``path.png``.
        overwrite: replace a file that :func:`save` did not write.

    Raises:
        InputError: if there is such a file already.
    """
    paths = check_figure(path, overwrite=overwrite)
    make_parent(paths[0])
    marks = {
        "svg": {"Creator": _MARK, "Date": None},
        "png": {"Software": _MARK},
        "pdf": {"Creator": _MARK, "CreationDate": None},
    }
    for each in paths:
        kind = each.suffix[1:].lower()
        options = {"format": kind, "dpi": 200, "metadata": marks[kind]}
        write_atomically(each, lambda part, options=options: fig.savefig(part, **options))
    return paths


def check_figure(path: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Return the files that :func:`save` would write.

    Raises:
        InputError: if one of them is a figure of somebody else's.
    """
    path = Path(path)
    known = path.suffix[1:].lower() in _FORMATS
    if path.suffix.lower() in _OTHERS:
        raise InputError(
            f"{str(path)!r}: figures are written as .svg, .png or .pdf; give one of these endings"
        )
    paths = [path] if known else [path.with_name(f"{path.name}.{k}") for k in ("svg", "png")]
    marks = {"svg": f"<dc:title>{_MARK}</dc:title>", "png": f"Software\0{_MARK}"}
    for each in paths:
        if not overwrite:
            mark = marks.get(each.suffix[1:].lower(), f"/Creator ({_MARK})")
            check_replaceable(each, mark, within=None)
    return paths
