"""Go through the photos that runs get wrong."""

from functools import cache
from html import escape

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from ltml.core.errors import InputError
from ltml.core.labels import GROUPS
from ltml.plots import live
from ltml.plots.photos import differences, thumbnails
from ltml.runs.scores import KINDS
from ltml.widgets.explorer import WIDE, Explorer, dropdown, load_named, pair, run_controls

_ROOM = 12  # photos in view
_DIFFER = "where the two runs differ most"
_SHOW = {"misses": "miss", "false alarms": "false alarm", _DIFFER: "differ"}
_SORT = {"how wrong": "margin", "class": "class", "name of the photo": "image"}


def explore_mistakes(runs) -> Explorer:
    """Show the photos that a run gets wrong, or on which two runs differ, read from their files.

    Its ``controls`` are run, against, kind (miss, false alarm, differ), among (all classes, the
    chosen one, or a group), sort, class_name and first (the photo to begin with). The figure counts
    the mistakes of each class: click a class to see its photos. A button below each photo lists all
    its classes in ``explorer.sheet``; ``explorer.table()`` has the rows in view.

    Raises:
        InputError: in place of the figure, for a run that keeps no scores.

    Example:
        >>> explore_mistakes("no/such/folder").said
        'there is no run to explore; train one, and give its folder'
    """
    named, problems = load_named(runs)
    groups = {"all": "", "the chosen class": "class"} | {group: group for group in GROUPS}
    wide = ipywidgets.Layout(width="28em", min_width="22em")
    controls = run_controls(named) | {
        "kind": dropdown("show", _SHOW),
        "among": dropdown("classes", groups),
        "sort": dropdown("sort by", _SORT),
        "first": ipywidgets.IntSlider(
            1, 1, 1, step=_ROOM, description="from photo", style=WIDE, layout=wide
        ),
    }
    wall = ipywidgets.GridBox(
        layout=ipywidgets.Layout(grid_template_columns="repeat(auto-fill, minmax(11em, 1fr))")
    )
    sheet = ipywidgets.HTML()

    @cache
    def mistakes(name) -> pd.DataFrame:
        return named[name].mistakes()

    def chosen(run, against, kind, among, sort, class_name) -> pd.DataFrame:
        if kind == "differ":
            if against in (None, run):
                raise InputError("choose another run to compare with")
            table = differences(named[run], named[against])
        else:
            table = mistakes(run)
            table = table[table.kind == kind]
        if among == "class":
            table = table[table["class"] == class_name]
        elif among:
            table = table[table.group == among]
        return table.sort_values(sort, ascending=sort != "margin", kind="stable")

    view: dict[str, pd.DataFrame] = {}

    def draw(*, run, against, kind, among, sort, class_name, first):
        pair(named, run, against)
        wall.children, sheet.value = (), ""
        table = chosen(run, against, kind, among, sort, class_name)
        controls["first"].max = max(len(table), 1)
        begin = min(first, max(len(table), 1)) - 1
        view["rows"] = shown = table.iloc[begin : begin + _ROOM]
        wall.children = tuple(card(run, against, row) for row in shown.to_dict("records"))
        what = next(text for text, value in _SHOW.items() if value == kind)
        end = begin + len(shown)
        said = f"{len(table):,} {what}, by {run}" + (f" and {against}" if kind == "differ" else "")
        said += f"; photos {begin + 1} to {end} are below." if len(shown) else "."
        return _counts(named[run], mistakes(run), class_name), said

    def card(run, against, row) -> ipywidgets.Widget:
        (src,) = thumbnails([row["path"]], 10**9)
        picture = f'<img src="{src}" alt="{escape(row["image"])}" style="width:100%">'
        words = [f"<b>{escape(row['class'])}</b> {100 * row['probability']:.1f}%"]
        if "other_probability" in row:
            words[0] += f" | {100 * row['other_probability']:.1f}%"
        words.append(f"threshold {100 * row['threshold']:.1f}%")
        words.append(f"given {escape(', '.join(row['given_labels']) or 'none')}")
        words.append(f"predicted {escape(', '.join(row['predicted_labels']) or 'none')}")
        text = picture if src else "<i>no file</i>"
        button = ipywidgets.Button(description="all its classes", tooltip=row["image"])
        button.on_click(lambda _: sheet.set_trait("value", _sheet(named, run, against, row)))
        html = ipywidgets.HTML(f'{text}<div style="line-height:1.35">{"<br>".join(words)}</div>')
        return ipywidgets.VBox([html, button])

    layout = [["run", "against", "class_name"], ["kind", "among", "sort", "first"]]
    explorer = Explorer(draw, controls, rows=layout, problems=problems, below=[wall, sheet])
    explorer.wall, explorer.sheet = wall, sheet
    explorer.table = lambda: view.get("rows", pd.DataFrame())

    def follow(trace, points, _) -> None:
        if points.point_inds:
            controls["class_name"].value = str(trace.customdata[points.point_inds[0]][0])
            controls["among"].value = "class"

    if explorer.figure is not None:
        for trace in explorer.figure.data:
            trace.on_click(follow)
    return explorer


def _counts(run, table: pd.DataFrame, mark: str) -> go.Figure:
    """Count each class's misses and false alarms."""
    classes = run.classes[["class", "group", "count"]]
    figure = go.Figure()
    colors = dict(zip(KINDS, (live.POSITIVE, live.NEGATIVE), strict=True))
    for kind, color in colors.items():
        counts = table[table.kind == kind]["class"].value_counts()
        figure.add_bar(
            x=live.text(classes["class"]),
            y=classes["class"].map(counts).fillna(0),
            name={"miss": "misses", "false alarm": "false alarms"}[kind],
            marker={"color": color, "pattern": {"shape": "" if kind == "miss" else "/"}},
            customdata=classes[["class"]].to_numpy(),
            hovertemplate="<b>%{x}</b><br>%{y} %{fullData.name}<extra></extra>",
        )
    figure.update_layout(barmode="stack", height=320)
    figure.update_yaxes(title="photos")
    return live._class_axis(figure, classes, mark)


def _sheet(named, run: str, against: str | None, row: dict) -> str:
    """Write every class of one photo, of one run or two."""
    parts = [f"<h4>{escape(row['image'])}</h4>"]
    for name in dict.fromkeys((run, against or run)):
        found = named[name].scores()
        if row["image"] not in found.ids:
            continue
        i = found.ids.index(row["image"])
        table = pd.DataFrame({"class": found.class_names, "probability": found.probabilities[i]})
        table["threshold"] = named[name].threshold_of_class()
        table["given"] = pd.Series(found.targets[i]).map({1.0: "yes", 0.0: "no"}).fillna("unknown")
        table["predicted"] = (table.probability >= table.threshold).map({True: "yes", False: "no"})
        table = table.sort_values("probability", ascending=False).head(30)
        parts.append(f"<b>{escape(name)}</b>{table.round(3).to_html(index=False)}")
    return "".join(parts)
