"""A still picture of a live figure, for where no script runs."""

import base64
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go

from ltml.plots.layout import Fitted
from ltml.plots.style import style

_MARKS = {"circle": "o", "square": "s", "diamond": "D", "x": "x", "triangle-up": "^"}
_MARKS |= {"triangle-down": "v", "cross": "P", "star": "*", "line-ew": "_", "line-ns": "|"}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


@style()
def picture(figure: go.Figure) -> str:
    """Return an ``<img>`` of the points, lines, bars and maps of a figure; "" for another kind.

    Axes, scales and names are those of the figure; what only hovering tells is not in it.
    """
    panels: dict[str, list] = {}
    for trace in figure.data:
        if trace.visible in (None, True):
            panels.setdefault(trace.yaxis or "y", []).append(trace)
    if not panels or any(t.type not in ("scatter", "bar", "heatmap") for t in figure.data):
        return ""
    beside = any(t.type == "heatmap" for t in figure.data) and len(panels) > 1
    shape = (1, len(panels)) if beside else (len(panels), 1)
    height = min(max((figure.layout.height or 450) / 100, 2.4), 9)
    fig, axes = plt.subplots(*shape, figsize=(9, height), squeeze=False)
    fig.set_layout_engine(Fitted())
    for ax, (name, traces) in zip(axes.flat, panels.items(), strict=True):
        _panel(fig, ax, figure.layout[f"yaxis{name[1:]}"], traces, figure)
    for ax, note in zip(axes.flat, figure.layout.annotations, strict=False):
        ax.set_title(note.text)
    out = BytesIO()
    fig.savefig(out, format="png", dpi=90)
    plt.close(fig)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return f'<img alt="figure" src="data:image/png;base64,{data}">'


def _panel(fig, ax, axis, traces: list, figure: go.Figure) -> None:
    order = figure.layout.xaxis.categoryarray
    place = {name: i for i, name in enumerate(order)} if order is not None else {}
    stacked = 0.0  # how high the bars are so far
    for trace in traces:
        if trace.type == "heatmap":
            z = np.asarray(trace.z, dtype=float)
            if trace.showscale is False and trace.hoverinfo == "skip":
                continue  # a veil over another
            mesh = ax.pcolormesh(z, cmap="PuOr_r", vmin=trace.zmin, vmax=trace.zmax)
            ax.set_ylim(len(z), 0)
            ax.grid(False)
            for each, names in ((ax.xaxis, trace.x), (ax.yaxis, trace.y)):
                places = np.arange(len(names)) + 0.5
                turned = {"rotation": 90} if each is ax.xaxis else {}
                fig.get_layout_engine().name(each, places, list(map(str, names)), **turned)
            fig.colorbar(mesh, ax=ax)
            continue
        x = [place.get(value, value) for value in trace.x]
        if trace.type == "bar":
            height = np.asarray(trace.y, dtype=float)
            ax.bar(x, height, bottom=stacked, label=trace.name, color=trace.marker.color)
            stacked = stacked + height * (figure.layout.barmode == "stack")
            continue
        symbol = str(trace.marker.symbol or "circle")
        shown = {"color": trace.marker.color or trace.line.color, "label": trace.name}
        shown |= {"marker": _MARKS.get(symbol.removesuffix("-open"), "o"), "ms": 5}
        shown["mfc"] = "white" if symbol.endswith("-open") else shown["color"]
        shown["ls"] = "" if trace.mode == "markers" else _DASHES.get(trace.line.dash, "-")
        ax.plot(x, trace.y, **shown)
    if order is not None and traces[0].type != "heatmap":
        turned = {"rotation": 90, "fontsize": 8}
        fig.get_layout_engine().name(ax.xaxis, range(len(order)), list(order), **turned)
        ax.set_xlim(-0.6, len(order) - 0.4)
    if axis.type == "log":
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
    ax.set(ylabel=(axis.title.text or "").replace("<br>", " "))
    ax.set(xlabel=figure.layout.xaxis.title.text or "")
    if 1 < len({t.name for t in traces}) <= 12:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
