"""What all explorers share: controls over a live figure and a sentence, new at each change."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets
import plotly.graph_objects as go
from IPython.display import HTML, display

from ltml.core.errors import InputError
from ltml.plots import frames, live
from ltml.plots.picture import picture
from ltml.runs.run import Run, find_runs
from ltml.widgets.figure import Figure, is_watched

_ALIVE = """<style>
.jp-OutputArea-child.ltml-alive + .jp-OutputArea-child:has(.ltml-still) { display: none; }
.jp-OutputArea-child:not(.ltml-alive):has(+ .jp-OutputArea-child .ltml-still) { display: none; }
</style>"""
_STILL = """<div class="ltml-still">{still}<p>{said}</p><p><small>A picture of the explorer
as it was first shown; run the cell again to use it.</small></p></div>"""
WIDE = {"description_width": "initial"}  # a control's whole description in view


class Explorer(ipywidgets.VBox):
    """Show a live figure and a sentence that follow a few controls.

    What the data or a choice does not allow stands in place of the figure, and the controls stay
    alive. Everything works without a browser: set ``explorer.controls["step"].value``, then read
    ``explorer.said`` and ``explorer.figure``.

    Args:
        draw: called with the controls' values by name, returns a figure and the sentence that reads
            it; raises an InputError for what cannot be shown.
        controls: name -> stock widget; ``draw`` is not called with those whose name starts with an
            underscore.
        rows: names of the controls, row by row.
        problems: sentences that stay above the figure, such as which runs cannot be read.
        below: more widgets under it.
        said_first: whether the sentence stands above the figure; else below, where it can change
            its length without moving the figure.
        page: returns the explorer as HTML that answers without a kernel, see :meth:`to_html`.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[go.Figure, str]],
        controls: Mapping[str, ipywidgets.Widget],
        *,
        rows: Sequence[Sequence[str]],
        problems: Sequence[str] = (),
        below: Sequence[ipywidgets.Widget] = (),
        said_first: bool = False,
        page: Callable[[], str] | None = None,
    ):
        self._said_first, self._page = said_first, page
        self.draw, self.controls, self.below, self.said = draw, dict(controls), tuple(below), ""
        self.figure, self.text, self._drawn = None, ipywidgets.HTML(), None
        wrap = ipywidgets.Layout(flex_flow="row wrap", grid_gap="4px 16px")
        boxes = [ipywidgets.Box([self.controls[name] for name in row], layout=wrap) for row in rows]
        notes = [ipywidgets.HTML(_paragraph(problem, "#A33C00")) for problem in problems]
        self._above = (*boxes, *notes)
        super().__init__()
        for name, control in self.controls.items():
            if not name.startswith("_"):
                control.observe(lambda _: self.redraw(), "value")
        self.redraw()

    def redraw(self) -> None:
        """Draw with the controls as they are."""
        values = {n: c.value for n, c in self.controls.items() if not n.startswith("_")}
        try:
            figure, self.said = self.draw(**values)
        except InputError as error:
            self.said = str(error)
            self.text.value = _paragraph(self.said, "#A33C00")
            self.children = (*self._above, self.text, *self.below)
            return
        self.text.value = _paragraph(self.said)
        self._show(figure)
        shown = (self.text, self.figure) if self._said_first else (self.figure, self.text)
        self.children = (*self._above, *shown, *self.below)

    def to_html(self) -> str:
        """Return the explorer as HTML that answers without a kernel, as the course's site shows it.

        Some numbers are computed in the page, the others ahead, and what stays as it is has no
        control. The page around it must load Plotly and ltml's ``plots/page/figures.js``.

        Returns:
            HTML; "" for an explorer that needs its kernel, or that has nothing to show.
        """
        try:
            return self._page() if self._page and self.figure is not None else ""
        except InputError:
            return ""

    def _ipython_display_(self, **_) -> None:
        """Show the explorer; and a picture, for a saved notebook that is opened without a kernel.

        Where the explorer is alive (figure.js says so) its picture hides, and where it is not, the
        picture stands in its place. Where a notebook is executed as a whole there is only that.
        """
        still = picture(self.figure) if self.figure is not None else ""
        still = _STILL.format(still=still, said=escape(self.said)) if still else ""
        if is_watched() or not still:
            bundle = self._repr_mimebundle_()
            data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
            display(data, metadata=metadata, raw=True)
            still = still and _ALIVE + still
        if still:
            display(HTML(still))

    def _show(self, figure: go.Figure) -> None:
        """Show a figure in the widget of the last one, whose zoom stays where the axes agree."""

        def parts(fig):
            return [trace.type for trace in fig.data], list(fig.layout.to_plotly_json())

        before, self._drawn, new = self._drawn, figure, figure.layout
        if before is None or parts(before) != parts(figure):
            widget = self.figure = Figure(figure)
            widget._config = live.CONFIG
            # Drawn out of the page, it must be told when it is in it, to take all of the width.
            widget._view_count = 0
            widget.observe(lambda _: widget.update_layout(autosize=True), "_view_count")
            return
        with self.figure.batch_update():
            for old, trace in zip(self.figure.data, figure.data, strict=True):
                old.update(trace, overwrite=True)
            changed = {name: new[name] for name in new if new[name] != before.layout[name]}
            self.figure.update_layout(changed, overwrite=True)


def load_named(runs) -> tuple[dict[str, Run], list[str]]:
    """Load what an explorer was given; runs by distinct names, and what cannot be read."""
    found, problems = find_runs(runs)
    return frames.named(found) if found else {}, problems


def pair(named: Mapping[str, Run], run: str | None, against: str | None = None) -> dict[str, Run]:
    """Return one run, or two, which must be of the same classes."""
    if run is None:
        raise InputError("there is no run to explore; train one, and give its folder")
    chosen = {name: named[name] for name in dict.fromkeys((run, against or run))}
    if len({frozenset(each.classes["class"]) for each in chosen.values()}) > 1:
        raise InputError(
            f"runs {run!r} and {against!r} have different classes; compare runs of the same data"
        )
    return chosen


def dropdown(description: str, options: Mapping[str, object] | Sequence) -> ipywidgets.Dropdown:
    """Make a list to choose from: of values, or of name -> value."""
    options = list(options.items()) if isinstance(options, Mapping) else list(options)
    look = {"style": WIDE, "layout": ipywidgets.Layout(width="auto")}
    first = 0 if options else None  # else a first value of None leaves the list blank
    return ipywidgets.Dropdown(options=options, index=first, description=description, **look)


def run_controls(named: Mapping[str, Run]) -> dict[str, ipywidgets.Widget]:
    """Make lists to choose a run and another from, and a box to search the run's classes in."""
    run, box = dropdown("run", named.keys()), ipywidgets.Combobox(description="class", style=WIDE)
    box.continuous_update = False

    def offer(_=None) -> None:
        classes = named[run.value].classes["class"].tolist() if run.value else []
        box.options = classes
        if classes and box.value not in classes:
            box.value = classes[-1]  # the rarest

    offer()
    run.observe(offer, "value")
    against = dropdown("compare with", {"no other": None} | {name: name for name in named})
    return {"run": run, "against": against, "class_name": box}


def _paragraph(text: str, color: str = "inherit") -> str:
    return f'<p style="color: {color}; line-height: 1.4; max-width: 60em">{escape(text)}</p>'
