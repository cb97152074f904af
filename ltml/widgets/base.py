"""What all explorers share: controls over a picture and a sentence, drawn anew at each change."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import ipywidgets
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from PIL import Image

from ltml.errors import InputError
from ltml.plots import style
from ltml.runs import Run

__all__ = ["Explorer", "as_png", "find_runs"]

_DPI = 90  # a picture 9 inches wide fills the width of a notebook page


class Explorer(ipywidgets.VBox):
    """Show a picture and a sentence that follow a few controls.

    ``draw(*axes, **values)`` draws on the axes, emptied before each call, and returns the sentence
    that reads the picture. ``values`` are the controls' values by name. What the data or a choice
    does not allow, it says by raising an InputError: its text then stands in place of the picture,
    and the controls stay alive.

    The picture is an image, not captured output, so no error can hide in it, and everything works
    without a kernel: set ``explorer.controls["epoch"].value = 3`` and read ``explorer.said``.

    Args:
        draw: as above.
        controls: name -> stock widget with a ``value``.
        panels: rows and columns of axes.
        size: of the picture, in inches.
        problems: sentences that stay above the picture, such as which runs could not be read.
        layout: rows of names of controls, where one row is too long; ``controls`` may hold widgets
            without a value, such as a play button, if ``watch`` leaves them out.
        watch: names of the controls that have a value; default: all.
        keep_ticks: use the marks on the axes again, which saves a third of the time, where they
            look alike in all pictures: only their places and names may differ, and names of classes
            be turned.
    """

    def __init__(
        self,
        draw: Callable[..., str],
        controls: Mapping[str, ipywidgets.Widget],
        *,
        panels: tuple[int, int] = (1, 1),
        size: tuple[float, float] = (9, 4.4),
        problems: Sequence[str] = (),
        layout: Sequence[Sequence[str]] | None = None,
        watch: Sequence[str] | None = None,
        keep_ticks: bool = False,
    ):
        self.draw, self.controls = draw, dict(controls)
        self.watched = tuple(self.controls if watch is None else watch)
        self.said, self.keep_ticks = "", keep_ticks
        with style():
            self.figure = Figure(figsize=size, dpi=_DPI)
            self.axes = self.figure.subplots(*panels, squeeze=False).ravel()
        self.canvas = FigureCanvasAgg(self.figure)
        self._ground_for = self._ground = None
        self.picture = ipywidgets.Image(
            format="png", layout=ipywidgets.Layout(max_width="100%", width=f"{size[0] * _DPI}px")
        )
        self.text = ipywidgets.HTML()
        rows = [list(self.controls)] if layout is None else layout
        wrap = ipywidgets.Layout(flex_flow="row wrap", grid_gap="4px 16px")
        boxes = [ipywidgets.Box([self.controls[n] for n in row], layout=wrap) for row in rows]
        notes = [ipywidgets.HTML(_paragraph(text, "#A33C00")) for text in problems]
        for name in self.watched:
            self.controls[name].observe(lambda _: self.redraw(), "value")
        super().__init__([*boxes, *notes, self.picture, self.text])
        self.redraw()

    @property
    def values(self) -> dict:
        """The controls' values by name."""
        return {name: self.controls[name].value for name in self.watched}

    def redraw(self) -> None:
        """Draw with the controls as they are."""
        with style(), mpl.rc_context({"axes.titley": 1.0}):  # finding its place would take time
            for ax in self.axes:
                _empty(ax) if self.keep_ticks else ax.clear()
                ax.relim()  # clear() keeps the old data's limits, which bands that span an axis use
            try:
                self.said = self.draw(*self.axes, **self.values)
                for ax in self.axes:
                    _turn_numbers_back(ax)
            except InputError as error:
                self.said = str(error)
                self.picture.layout.display = "none"
                self.text.value = _paragraph(self.said, "#A33C00")
                return
            self.picture.value = self._render()
        self.picture.layout.display = None
        self.picture.alt = self.said  # read aloud where the picture cannot be seen
        self.text.value = _paragraph(self.said)

    def _render(self) -> bytes:
        """Draw the figure; lay it out, and draw the names on its x axes, only if they changed.

        Both take longer than all the rest, and most changes of a control leave them as they are.
        """
        axes = [ax for ax in self.axes if ax.get_visible() and ax.axison]
        ground_for = [_frame(ax) for ax in axes]
        renderer = self.canvas.get_renderer()
        renderer.clear()
        hidden = [self.figure.patch, *(ax.patch for ax in axes), *(ax.xaxis for ax in axes)]
        if ground_for != self._ground_for:
            for ax in self.axes:  # from the same start each time, to the last pixel
                ax.set_subplotspec(ax.get_subplotspec())
            self.figure.set_layout_engine("constrained")
            self.figure.get_layout_engine().execute(self.figure)
            self.figure.set_layout_engine("none")
            for ax in axes:
                ax.apply_aspect()
            for part in hidden:
                part.draw(renderer)
            self._ground = self.canvas.copy_from_bbox(self.figure.bbox)
            self._ground_for = ground_for
        else:
            self.canvas.restore_region(self._ground)
        for part in hidden:
            part.set_visible(False)
        self.figure.draw(renderer)
        for part in hidden:
            part.set_visible(True)
        return _encode(self.canvas)


def as_png(figure: Figure) -> bytes:
    """Draw a figure into the bytes of a PNG file, quickly rather than small."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # savefig would draw twice
    return _encode(canvas)


def _encode(canvas: FigureCanvasAgg) -> bytes:
    out = BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).save(out, "png", compress_level=1)
    return out.getvalue()


def _frame(ax: Axes) -> tuple:
    """What decides the place of the axes and how their x axis looks."""
    places = ax.get_xticks(), ax.get_yticks()
    # Of the formatters, since asking for the labels would make every mark anew.
    names, heights = (
        axis.get_major_formatter().format_ticks(at)
        for axis, at in zip((ax.xaxis, ax.yaxis), places, strict=True)
    )
    place = ax.get_subplotspec()
    return (
        *(place.num1, place.num2, ax.get_xlabel(), ax.get_ylabel()),
        ax.get_aspect() == "auto" or ax.get_ylim(),  # with an aspect, limits decide the place
        *(ax.get_xlim(), tuple(places[0]), names, max(map(len, heights), default=0)),
    )


def _empty(ax: Axes) -> None:
    """Take everything off the axes but the marks, which ``clear`` would make anew."""
    legend = [ax.get_legend()] if ax.get_legend() else []
    for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.texts, *legend]:
        artist.remove()
    ax.set(xlabel="", ylabel="", title="", xscale="linear", yscale="linear", autoscale_on=True)


def _turn_numbers_back(ax: Axes) -> None:
    """Numbers stand upright, also on marks that names, written at a slant, had before."""
    numbers = not isinstance(ax.xaxis.get_major_locator(), FixedLocator)
    if numbers and any(mark.label1.get_rotation() for mark in ax.xaxis.majorTicks):
        ax.xaxis.reset_ticks()


def find_runs(
    runs: Run | str | Path | Sequence[Run | str | Path],
) -> tuple[list[Run], list[str]]:
    """Load runs, and say which could not be.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.

    Returns:
        the runs, and a sentence for each that cannot be read.
    """
    found, problems = [], []
    for item in [runs] if isinstance(runs, Run | str | Path) else runs:
        if isinstance(item, Run):
            found.append(item)
            continue
        path = Path(item)
        inside = sorted(p.parent for p in path.glob("*/config.json"))
        for folder in inside or [path]:
            try:
                found.append(Run.load(folder))
            except InputError as error:
                problems.append(str(error))
    return found, problems


def _paragraph(text: str, color: str = "inherit") -> str:
    return f'<p style="color: {color}; line-height: 1.4; max-width: 60em">{escape(text)}</p>'
