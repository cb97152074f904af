"""A live figure that a saved notebook keeps without a copy of its library."""

from functools import cache
from pathlib import Path

import plotly
import plotly.graph_objects as go
import traitlets
from IPython import get_ipython


def is_watched() -> bool:
    """Whether somebody may answer to what a cell shows.

    Nobody does where a notebook is executed as a whole, as by nbconvert, which takes no input.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return getattr(kernel, "_allow_stdin", True)


class Figure(go.FigureWidget):
    """A FigureWidget that sends Plotly once a page, and keeps it out of what a notebook saves."""

    _esm = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    _library = traitlets.Unicode().tag(sync=True)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.on_msg(self._answer)

    @traitlets.default("_library")
    def _first(self) -> str:
        return _library() if is_watched() else ""

    def _answer(self, _, content, buffers) -> None:
        if content == "library":
            self._library = ""
            self._library = _library()


@cache
def _library() -> str:
    place = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
    return place.read_text(encoding="utf-8")
