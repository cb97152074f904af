"""Live figures (Plotly) of the tables in :mod:`ltml.plots.frames`: they hover, zoom and filter.

Each takes the table of its name, where nothing else is said. ``mark`` is a class to point out.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ltml.core.errors import InputError
from ltml.core.labels import GROUPS
from ltml.plots.frames import split
from ltml.plots.style import GREY, GROUP_COLORS, NEGATIVE, POSITIVE, RUN_COLORS

INK, BLUE = NEGATIVE, GROUP_COLORS["head"]
GROUP_INKS = {"head": "#00527A", "medium": "#1F78A8", "tail": "#8A6100"}  # of names in bands
PAPER, CLEAR = "rgba(255,255,255,1)", "rgba(255,255,255,0)"
SYMBOLS = ("circle", "square-open", "diamond", "x", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
FIELDS = {  # of a class's gradient: name, mark, colour
    "positive": ("positives (label present)", "circle", POSITIVE),
    "negative": ("negatives (label absent)", "triangle-down-open", NEGATIVE),
    "total": ("positives + negatives", "square", BLUE),
    "ratio": ("positives / negatives", "diamond", BLUE),
}
SHOW = {"both": ("positive", "negative")} | {name: (name,) for name in FIELDS}
CARD = (  # of a class, from what _card() returns
    "<b>%{x}</b> (%{customdata[0]}, %{customdata[1]:,} images)<br>AP %{customdata[2]}<br>"
    "gradient: positives %{customdata[3]}, negatives %{customdata[4]}<br>"
)
_AXIS = {
    "gridcolor": "rgba(136,136,136,0.16)",
    "linecolor": "rgba(136,136,136,0.6)",
    "showline": True,
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 12}},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": CLEAR,
        "xaxis": _AXIS,
        "yaxis": _AXIS | {"tickformat": "~g"},
        # Beside data and buttons: the legend above them, from whose height the margin follows.
        "legend": {
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 12},
        },
        "margin": {"l": 60, "r": 36, "t": 24, "b": 40},
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
        # Plotly's own default since 6.2: a button that opens a page elsewhere with the chart.
        "modebar": {"remove": ["sendChartToCloud", "sendDataToCloud"], "orientation": "v"},
    }
)
CONFIG = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""}  # of any browser


def gradient_magnitudes(
    frame: pd.DataFrame,
    *,
    show: str = "both",
    order: str = "count",
    log: bool = True,
    span: tuple[float, float] | None = None,
    mark: str | None = None,
) -> go.Figure:
    """Plot a key of SHOW of each class's gradients, a panel for each run.

    Classes are in the order of their count, or of the gradient that is shown of the first run;
    ``span`` are the ends of the gradient axis.
    """
    tables = split(frame.assign(ratio=frame.positive / frame.negative))
    figure = _panels(tables)
    for row, table in enumerate(tables.values()):
        for field, (name, symbol, color) in FIELDS.items():
            look = {"meta": {"row": row, "field": field}, "visible": field in SHOW[show]}
            look |= {"legendgroup": field, "showlegend": row == 0}
            marker = {"symbol": symbol, "color": color}
            _points(figure, table, field, row, name=name, marker=marker, **look)
    title = "positive / negative gradient" if show == "ratio" else "sum of |dL/dz|"
    _value_axis(figure, title, gradient_span(frame, show, log) if span is None else span, log)
    first = next(iter(tables.values()))
    if order == "gradient":
        shown = "total" if show == "both" else show
        first = first.sort_values(shown, ascending=False, kind="stable")
    return _class_axis(figure, first, mark)


def gradient_span(frame: pd.DataFrame, show: str, log: bool) -> tuple[float, float]:
    """Return ends of a gradient axis on which all rows of a frame of gradients compare."""
    frame = frame.assign(ratio=frame.positive / frame.negative)
    values = frame[[*SHOW[show]]].to_numpy(float)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise InputError("no class has gradient here; choose another step or run")
    high = values.max()
    # One silent class must not flatten all others.
    return (max(values.min(), high / 1e5) / 1.4, 1.4 * high) if log else (0.0, 1.08 * high)


def gradient_heatmap(frame: pd.DataFrame, *, mark: str | None = None) -> go.Figure:
    """Plot each class's share of the gradient over an equal share, from the gradients' history.

    Epochs with little gradient in all are faded: shares of next to nothing say nothing.
    """
    ratio = frame.share / frame.equal_share
    frame = frame.assign(ratio=ratio, log=np.log2(ratio.where(ratio > 0)))
    tables = split(frame.assign(fade=0.85 * (1 - frame.of_peak.fillna(0))))
    titles = text(tables) if len(tables) > 1 else None
    figure = make_subplots(1, len(tables), shared_yaxes=True, subplot_titles=titles)
    limit = float(np.clip(np.nanmax(np.abs(frame["log"]), initial=1), 1, 5))  # the same for all
    ticks = np.arange(-5, 6)
    bar = {"title": {"text": "share over<br>an equal one"}, "thickness": 12, "tickvals": ticks}
    bar |= {"ticktext": [f"{2.0**t:.3g}×" for t in ticks], "outlinewidth": 0}
    fades = {"colorscale": [[0, CLEAR], [1, PAPER]], "zmin": 0, "zmax": 1, "showscale": False}
    fades["hoverinfo"] = "skip"
    said = "<b>%{y}</b>, until %{x}<br>%{customdata:.3g} times an equal share<extra></extra>"
    names = next(iter(tables.values()))["class"].unique()
    for row, table in enumerate(tables.values()):
        for field in ("log", "fade"):
            grid = table.pivot(index="class", columns="step", values=field).loc[names]
            shown = fades
            if field == "log":
                shown = _scale("PuOr_r", limit, bar if row == 0 else None)
                shown |= {"customdata": 2 ** grid.to_numpy(), "hovertemplate": said}
            places = {"x": [f"step {step}" for step in grid.columns], "y": text(grid.index)}
            shown = shown | {"meta": {"row": row, "field": field}}
            figure.add_heatmap(z=grid.to_numpy(), row=1, col=row + 1, **places, **shown)
    figure.update_layout(template=TEMPLATE, height=_rows_height(len(names)), margin_t=40)
    figure.update_xaxes(type="category", nticks=12, tickangle=-45)
    few = {"dtick": 1} if len(names) <= 60 else {"nticks": 50}
    figure.update_yaxes(type="category", autorange="reversed", showline=False, **few)
    if mark is not None and (name := escape(mark, quote=False)) in text(names):
        at = text(names).index(name)
        box = {"xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": at - 0.5, "y1": at + 0.5}
        figure.add_shape(line={"color": INK, "width": 1}, **box)
    return figure


def _rows_height(classes: int) -> int:
    """Height of a figure with a row for each class, in pixels."""
    return 130 + min(max(18 * classes, 160), 760)


def gradient_imbalance(frame: pd.DataFrame) -> go.Figure:
    """Plot the largest over the smallest gradient of a class, epoch by epoch, of several runs."""
    figure = go.Figure()
    for i, (name, table) in enumerate(split(frame).items()):
        drawn = {"color": RUN_COLORS[i % 7], "symbol": SYMBOLS[i % 7], "dash": DASHES[i % 6]}
        (name,) = text([name])
        drawn |= {"name": name, "meta": {"row": i, "field": "imbalance"}, "showlegend": True}
        _line(
            figure, table.step, table.imbalance, f"{name}: %{{y:.3g}} times<extra></extra>", **drawn
        )
    figure.update_xaxes(title="training step", rangemode="tozero")
    figure.update_yaxes(title="largest / smallest gradient", type="log", nticks=6)
    return figure.update_layout(template=TEMPLATE, height=380)


def class_history(frame: pd.DataFrame, class_name: str) -> go.Figure:
    """Plot one class's gradient per step and its AP, from the gradients' history."""
    tables = split(frame[frame["class"] == class_name])
    if not tables:
        raise InputError(f"there is no class {class_name!r}; choose one of the list")
    figure = _panels(tables, specs=[[{"secondary_y": True}]] * len(tables))
    looks = {field: FIELDS[field] for field in SHOW["both"]} | {
        "ap": ("AP (right)", "square", BLUE)
    }
    for row, table in enumerate(tables.values()):
        for field, (name, symbol, color) in looks.items():
            ap = field == "ap"
            reading = "AP %{y:.1f}%" if ap else f"{name}: %{{y:.3g}} per step"
            look = {"color": color, "symbol": symbol, "dash": "dot" if ap else "solid"}
            look |= {"legendgroup": field, "showlegend": row == 0, "name": name}
            place = {"row": row + 1, "col": 1, "secondary_y": ap}
            y = 100 * table.ap if ap else table[field] / table.steps
            meta = {"row": row, "field": field}
            _line(figure, table.step, y, f"{reading}<extra></extra>", meta=meta, **look, **place)
    figure.update_yaxes(title="|dL/dz| per step", type="log", nticks=5, secondary_y=False)
    figure.update_yaxes(matches="y", row=2, secondary_y=False)
    percent = {"range": [0, 105], "showgrid": False, "tickmode": "auto"}
    figure.update_yaxes(title="AP (%)", secondary_y=True, **percent)
    figure.update_xaxes(title="training step", rangemode="tozero", row=len(tables))
    return figure.update_layout(template=TEMPLATE, height=130 + 190 * len(tables))


def balancing(
    frame: pd.DataFrame, *, spans: Mapping[str, Sequence[float]], mark: str | None = None
) -> go.Figure:
    """Plot the weights that gradient balancing gives, and each share before and after.

    ``spans`` are the ends of the axes of the two, weight and share.
    """
    tables = split(frame, "side")
    first = next(iter(tables.values()))
    figure = _panels(("weight", "share"), subplot_titles=None)
    for side, table in tables.items():
        for row, field in ((1, "before"), (0, "weight"), (1, "after")):
            name, symbol, color = FIELDS[side]
            if field == "before":
                name, symbol, color = "before", "line-ew-open", GREY
            first_of_name = row == 0 or (field == "before" and side == "positive")
            look = {"name": name, "legendgroup": name, "showlegend": first_of_name}
            look |= {"marker": {"symbol": symbol, "color": color}}
            look |= {"meta": {"row": row, "side": side, "field": field}}
            reading = f"{side}s, {field}: %{{y:.3g}}{'' if field == 'weight' else '%'}"
            _points(figure, table, field, row, reading=reading, **look)
    _value_axis(figure, "weight", spans["weight"], row=1)
    _value_axis(figure, "share of the gradient (%)", spans["share"], row=2)
    for row, level in ((1, 1), (2, 50 / len(first))):  # no change, and equal shares
        line = {"dash": "dash", "color": GREY, "width": 1}
        figure.add_hline(level, row=row, col=1, line=line)
    return _class_axis(figure, first, mark)


def class_rates(frame: pd.DataFrame) -> go.Figure:
    """Plot how often each sampler samples images of each class."""
    figure = _series(frame, "sampler", "rate", "%{y:.4g} per sampled image")
    return _value_axis(figure, "images with the class<br>per sampled image")


def class_ap(frame: pd.DataFrame) -> go.Figure:
    """Plot each class's average precision, of one run or several."""
    figure = _series(frame.assign(percent=100 * frame.ap), "run", "percent", "AP %{y:.1f}%")
    return figure.update_yaxes(title="average precision (%)", range=[-3, 103])


def feature_diversity(frame: pd.DataFrame, *, mark: str | None = None) -> go.Figure:
    """Plot the diversity of each class's features, with standard errors."""
    figure = _series(frame, "run", "value", "%{y:.3g} ± %{error_y.array:.2g}", mark)
    title = f"{frame.measure.iloc[0]} of {frame['size'].iloc[0]} images"
    return figure.update_yaxes(title=title)


def group_map(frame: pd.DataFrame) -> go.Figure:
    """Plot the mAP of head, medium, tail and all classes, a row for each run or setting."""
    best = frame[frame.group == "mAP"].sort_values("mean", kind="stable", na_position="first")
    figure = go.Figure()
    shapes = {"head": "square", "medium": "diamond", "tail": "circle"}
    for group in (*GROUPS, "mAP"):
        rows = frame[frame.group == group].set_index("name").reindex(best["name"])
        mark = {"symbol": "line-ns-open", "line_width": 3} if group == "mAP" else {}
        spread = zip(rows.deviation, rows.seeds, strict=True)
        figure.add_scatter(
            x=rows["mean"],
            y=text(rows.index),
            mode="markers",
            name="all classes" if group == "mAP" else group,
            error_x={"array": rows.deviation, "thickness": 1, "width": 3},
            marker={
                "color": GROUP_COLORS.get(group, INK),
                "size": 11,
                "symbol": shapes.get(group),
                **mark,
            },
            customdata=[f" ± {d:.1f}, {n} seeds" if n > 1 else "" for d, n in spread],
            hovertemplate="%{y}<br>mAP %{x:.1f}%{customdata}",
        )
    figure.update_xaxes(title="mAP (%)")
    figure.update_yaxes(type="category", dtick=1 if len(best) <= 60 else None)
    return figure.update_layout(template=TEMPLATE, height=140 + 24 * max(len(best), 3))


def training_curves(frame: pd.DataFrame) -> go.Figure:
    """Plot the curves of head, medium, tail and all classes over the training steps."""
    figure = go.Figure()
    for i, (name, run) in enumerate(split(frame).items()):
        for (of, group), table in run.groupby(["split", "group"], sort=False):
            color = GROUP_COLORS.get(group, INK)
            what = group if of == "test" else f"{group} ({of})"
            look = {"color": color, "symbol": SYMBOLS[i % 7], "dash": DASHES[i % 6]}
            look |= {"name": f"{escape(str(name))}, {what}", "opacity": 1 if of == "test" else 0.5}
            look["meta"] = {"row": i, "field": group}
            _line(figure, table.step, table.mAP, "mAP %{y:.1f}", **look)
    figure.update_xaxes(title="training step", rangemode="tozero")
    figure.update_yaxes(title="mAP (%)", range=[-3, 103])
    return figure.update_layout(template=TEMPLATE, height=420)


def interference(frame: pd.DataFrame, *, mark: str | None = None) -> go.Figure:
    """Plot the cosine between the gradients that classes send into the shared features.

    Blue pairs pull the backbone the same way, red pairs against one another.
    """
    tables, apart = split(frame), frame.cosine[frame["class"] != frame.other]
    limit = float(np.clip(apart.abs().max(), 0.1, 1))  # the same for all
    titles = text(tables) if len(tables) > 1 else None
    figure = make_subplots(1, len(tables), shared_yaxes=True, subplot_titles=titles)
    said = "<b>%{y}</b> (norm %{customdata:.3g})<br>with %{x}: cosine %{z:.2f}<extra></extra>"
    for row, table in enumerate(tables.values()):
        names = table["class"].unique()
        grid = table.pivot(index="class", columns="other", values="cosine").loc[names, names]
        norm = table.drop_duplicates("class").norm.to_numpy()
        figure.add_heatmap(
            x=text(names),
            y=text(names),
            z=grid.to_numpy(),
            customdata=np.repeat(norm[:, None], len(names), 1),
            hovertemplate=said,
            meta={"row": row, "field": "cosine"},
            row=1,
            col=row + 1,
            **_scale("RdBu", limit, {"title": "cosine", "thickness": 12} if row == 0 else None),
        )
    figure.update_yaxes(type="category", autorange="reversed", nticks=30)
    figure.update_layout(height=600, margin_t=40)
    return _class_axis(figure, pd.DataFrame({"class": names}), mark)


def text(names) -> list[str]:
    """Escape names: Plotly reads some HTML in texts."""
    return [escape(str(name), quote=False) for name in names]


def _card(table: pd.DataFrame) -> list[list]:
    """Return what the hover text of each class says, see CARD; a dash for what is not known."""
    columns = [table.group, table["count"]]
    for name, form in (("ap", "{:.1%}"), ("positive", "{:.3g}"), ("negative", "{:.3g}")):
        values = table.get(name, pd.Series(np.nan, table.index))
        columns.append(["–" if np.isnan(value) else form.format(value) for value in values])
    return [list(row) for row in zip(*columns, strict=True)]


def _scale(colors: str, limit: float, bar: dict | None) -> dict:
    scale = {"colorscale": colors, "zmin": -limit, "zmax": limit}
    return scale | ({"showscale": False} if bar is None else {"colorbar": bar})


def _panels(names, **options) -> go.Figure:
    """Make a panel for each name, one above the other over one class axis."""
    options = {"subplot_titles": text(names) if len(names) > 1 else None} | options
    options |= {"shared_xaxes": True, "vertical_spacing": 0.09}
    figure = make_subplots(len(names), 1, **options)
    above = 44 if options["subplot_titles"] else 22  # pixels that titles and names of groups take
    legend_y = 1 + above / (250 * len(names))
    return figure.update_layout(height=160 + 250 * len(names), legend_y=legend_y)


def _points(figure, table, column, row=0, *, marker, reading="", **look) -> None:
    """Add a mark for each class."""
    size = 9 if len(table) <= 40 else 6 if len(table) <= 200 else 4
    figure.add_scatter(
        x=text(table["class"]),
        y=table[column],
        mode="markers",
        marker={"size": size} | marker,
        customdata=_card(table),
        hovertemplate=f"{CARD}{reading}<extra></extra>",
        row=row + 1,
        col=1,
        **look,
    )


def _line(figure, x, y, reading, *, color, symbol, dash, **look) -> None:
    """Add a value over the training steps."""
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        connectgaps=True,
        line={"color": color, "dash": dash},
        marker={"color": color, "symbol": symbol, "size": 7},
        hovertemplate=f"step %{{x}}<br>{reading}",
        **look,
    )


def _series(frame, by: str, value: str, reading: str, mark: str | None = None) -> go.Figure:
    """Plot a value of each class, for each name in the column ``by``."""
    tables = split(frame, by)
    figure = _panels([""])
    for i, (name, table) in enumerate(tables.items()):
        color, symbol = RUN_COLORS[i % len(RUN_COLORS)], SYMBOLS[i % len(SYMBOLS)]
        look = {"meta": {"row": i, "field": value}, "marker": {"symbol": symbol, "color": color}}
        if "error" in table:
            look["error_y"] = {"array": table.error, "thickness": 1, "width": 0}
        (name,) = text([name])
        _points(figure, table, value, name=name, reading=f"{name}: {reading}", **look)
    return _class_axis(figure, tables[frame[by].iloc[0]], mark)


def _value_axis(figure, title, span=None, log=True, row=None) -> go.Figure:
    kind = {"type": "linear"}
    if log:
        span = None if span is None else np.log10(span)
        dense = span is None or span[1] - span[0] < 3  # decades
        kind = {"type": "log", "dtick": "D2" if dense else 1}
    return figure.update_yaxes(title=title, range=span, row=row, **kind)


def _class_axis(figure: go.Figure, table: pd.DataFrame, mark: str | None) -> go.Figure:
    """Order the class axis, name as many classes as there is room for, shade groups, mark one.

    The table has a row for each class, in order; without a column group nothing is shaded.
    """
    names = text(table["class"])
    if "group" in table:  # whose names stand between panels and their titles
        figure.update_annotations(yshift=17)
    figure.update_layout(template=TEMPLATE).update_xaxes(
        type="category",
        categoryorder="array",
        categoryarray=names,
        range=[-0.6, len(names) - 0.4],
        tickangle=-45,
        **({"dtick": 1} if len(names) <= 40 else {"nticks": 50}),
    )
    for group in GROUPS if "group" in table else ():
        here = np.flatnonzero(table.group == group)
        ends = np.split(here, np.flatnonzero(np.diff(here) > 1) + 1) if len(here) else []
        # One path for each group, whatever the order, is soon drawn and has no seams.
        path = "".join(f"M{e[0] - 0.5},0H{e[-1] + 0.5}V1.07H{e[0] - 0.5}Z" for e in ends) or "M0,0Z"
        for axis in figure.select_yaxes():
            place = axis.plotly_name.replace("axis", "")
            figure.add_shape(
                type="path",
                path=path,
                xref="x",
                yref=f"{place} domain",
                layer="below",
                fillcolor=GROUP_COLORS[group],
                opacity=0.16,
                line_width=0,
                name=f"{group} ({len(here)})",
                legendgroup=group,
                # In one piece a band has its name in it; else the legend has.
                showlegend=place == "y" and len(ends) > 1,
                label={
                    "text": group if len(ends) == 1 and len(here) > 0.04 * len(names) else "",
                    "textposition": "top left",
                    "font": {"size": 11, "color": GROUP_INKS[group]},
                },
            )
    if mark is not None and (name := escape(mark, quote=False)) in names:
        at = {"x0": names.index(name) - 0.5, "x1": names.index(name) + 0.5, "y0": 0, "y1": 1}
        figure.add_shape(xref="x", yref="paper", line={"color": INK, "width": 1}, **at)
    return figure
