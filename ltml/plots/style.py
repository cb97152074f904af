"""How figures look: type sizes, colours and marks of groups and runs; and how they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from ltml.core.files import write_atomically

# Okabe and Ito's palette, safe for colour-blind readers; dark, middle and light also in greyscale,
# and hatched apart from each other.
GROUP_COLORS = {"head": "#00527A", "medium": "#56B4E9", "tail": "#F0B429"}
GROUP_MARKERS = {"head": "s", "medium": "D", "tail": "o"}
GROUP_HATCHES = {"head": "", "medium": "///", "tail": "..."}
POSITIVE, NEGATIVE, GREY = "#B33F00", "#3B3B3B", "#888888"
RUN_COLORS = ["#3B3B3B", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
RUN_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


@contextmanager
def style() -> Iterator[None]:
    """Set type sizes and lines that stay legible at the width of a page."""
    settings = {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "grid.color": "#DDDDDD",
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "svg.hashsalt": "ltml",  # the same figure gives the same file
    }
    # A notebook's backend turns itself on at the first figure; rc_context would turn it off again,
    # and all later figures would be missing without a word.
    with mpl.rc_context(settings):
        try:
            yield
        finally:
            interactive = mpl.is_interactive()
    mpl.interactive(interactive)


@style()
def save(fig: Figure, stem: str | Path) -> list[Path]:
    """Write ``stem.svg`` and ``stem.png`` (200 dpi), and return the two paths.

    The same figure gives the same bytes.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    for path, metadata in zip(paths, ({"Date": None}, {}), strict=True):
        options = {"format": path.suffix[1:], "dpi": 200, "metadata": metadata}
        write_atomically(path, lambda part, options=options: fig.savefig(part, **options))
    return paths
