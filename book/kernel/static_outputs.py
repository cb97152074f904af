"""Write live figures and explorers as HTML that needs no kernel: what the book's pages show."""

import base64
from html import escape

import comm
from comm.base_comm import BaseComm
from IPython import get_ipython
from IPython.display import HTML, display

__all__ = ["install", "to_html"]

_NOTE = "In a notebook these are sliders and lists; here they stay as they are."


class _Silent(BaseComm):
    """A line to a browser that is not there; what goes over it would only fill the page."""

    def publish_msg(self, *args, **kwargs) -> None:
        """Send nothing."""


def install() -> None:
    """Have this kernel show figures and widgets as HTML, in the state at the end of their cell."""
    comm.create_comm = _Silent
    shell, shown = get_ipython(), []

    def show(obj) -> None:
        if html := to_html(obj):
            shown.append((obj, display(HTML(html), display_id=True)))

    def settle(_=None) -> None:
        for obj, handle in shown:
            handle.update(HTML(to_html(obj)))
        shown.clear()

    formatter = shell.display_formatter.ipython_display_formatter
    formatter.for_type_by_name("plotly.basedatatypes", "BaseFigure", show)
    formatter.for_type_by_name("ipywidgets.widgets.widget", "Widget", show)
    shell.events.register("post_run_cell", settle)


def to_html(obj) -> str:
    """Return an explorer that answers without a kernel, a figure, or all that a widget shows.

    Nothing is shown of a progress bar.
    """
    if hasattr(obj, "to_html") and (alone := getattr(obj, "_page", None) and obj.to_html()):
        pictures = (each for each in obj.below if type(each).__name__ == "Image")
        return alone + "".join(map(to_html, pictures))
    parts, controls = [], {}
    for each in _leaves(obj):
        if hasattr(each, "to_plotly_json"):
            parts.append(_figure(each))
        elif type(each).__name__ == "HTML":
            parts.append(f"<div>{each.value}</div>")
        elif type(each).__name__ == "Image" and each.value:
            data = base64.b64encode(each.value).decode()
            parts.append(f'<img alt="pictures" src="data:image/png;base64,{data}">')
        elif getattr(each, "description", ""):
            controls[each.description] = _label(each)
    if not controls:
        return "".join(parts)
    chosen = "".join(f"<span>{escape(n)} <b>{escape(v)}</b></span>" for n, v in controls.items())
    above = f'<p class="controls">{chosen}</p><p class="note">{_NOTE}</p>'
    return f'<div class="explorer">{above}{"".join(parts)}</div>'


def _leaves(obj):
    if getattr(getattr(obj, "layout", None), "display", None) == "none":
        return
    children = getattr(obj, "children", None)
    if children is None:
        yield obj
    elif not any("Progress" in type(child).__name__ for child in children):
        for child in children:
            yield from _leaves(child)


def _figure(figure) -> str:
    data = figure.to_json().replace("<", "\\u003c")  # which ends no script
    height = figure.layout.height or 450
    script = f'<script type="application/json">{data}</script>'
    return f'<div class="live-figure" style="min-height:{height}px">{script}</div>'


def _label(control) -> str:
    """Return what a control's choice is called in the page."""
    value = control.value
    for option in getattr(control, "options", ()):
        if isinstance(option, tuple) and option[1] == value:
            return option[0]
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
