"""Compare runs: head, medium and tail mAP, every class's AP, or the training, with a table."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import ipywidgets
import pandas as pd

from ltml import plots
from ltml.errors import InputError
from ltml.groups import GROUPS
from ltml.plots.results import legend_rows
from ltml.runs import Run, table_of
from ltml.widgets.base import Explorer, find_runs

__all__ = ["Comparison", "compare_runs"]

_VIEWS = {
    "mAP of head, medium and tail": "groups",
    "average precision of each class": "classes",
    "mAP during training": "curves",
}
_MOST_BARS = 4  # runs; more are drawn as a row of dots each
_MOST_ROWS = 30  # of dots
_MOST_MARKS = 7  # runs that differ in colour and mark
_SIZE = (9, 4.4)


class Comparison(Explorer):
    """An explorer of several runs with a table of them below; see :func:`compare_runs`."""

    def __init__(self, runs: Sequence[Run], **options):
        self.runs, self.table, self._arrangement = list(runs), ipywidgets.HTML(), None
        super().__init__(self._draw, panels=(1, 3), size=_SIZE, **options)
        self.children = [*self.children, self.table]

    def _draw(self, first, second, third, *, runs, show, pool) -> str:
        chosen = [self.runs[i] for i in runs]
        self.table.value = html_table(table_of(chosen)) if chosen else ""
        if not chosen:
            raise InputError("no run is chosen; choose one or several (Ctrl-click, Shift-click)")
        if show != "groups" and len(chosen) > _MOST_MARKS:
            raise InputError(
                f"{len(chosen)} runs are chosen; this picture tells at most {_MOST_MARKS} apart, "
                "so choose fewer, or show the mAP of head, medium and tail"
            )
        dots = show == "groups" and (pool or len(chosen) > _MOST_BARS)
        if dots and not pool and len(chosen) > _MOST_ROWS:
            raise InputError(
                f"{len(chosen)} runs are chosen; choose at most {_MOST_ROWS}, or take runs that "
                "differ by their seed as one"
            )
        height = _SIZE[1]
        if show == "classes":
            plots.class_ap(chosen, ax=first)
        elif show == "curves":
            plots.training_curves(chosen, axes=(first, second, third))
        elif dots:
            plots.group_dots(chosen, pool=pool, ax=first)
            height = max(2.6, 0.27 * len(first.get_yticks()) + 1.6)
        else:
            plots.group_bars(chosen, ax=first)
        names = [label.get_text() for label in first.get_yticklabels()] if dots else []
        self._arrange(height, (show, dots, names, legend_rows(chosen)))
        return reading(chosen)

    def _arrange(self, height: float, arrangement: tuple) -> None:
        """Give the whole width to the first panel, or a third to each, and lay out anew."""
        if arrangement == self._arrangement:
            return
        self._arrangement, curves = arrangement, arrangement[0] == "curves"
        grid = self.axes[0].get_gridspec()
        self.axes[0].set_subplotspec(grid[0, 0] if curves else grid[0, :])
        for panel in self.axes[1:]:
            panel.set_visible(curves)
        self.figure.set_size_inches(_SIZE[0], height)
        self._ground_for = None  # what was drawn before stands elsewhere now


def compare_runs(runs: Run | str | Path | Sequence[Run | str | Path]) -> Explorer:
    """Compare the mAP, the classes' AP or the training of any runs, with a table of them.

    Args:
        runs: runs, folders of runs, or folders that hold them; one or several.

    Example:
        >>> explorer = compare_runs("no/such/folder")
        >>> explorer.said
        'no run is chosen; choose one or several (Ctrl-click, Shift-click)'
    """
    found, problems = find_runs(runs)
    found = _named_apart(found)
    controls = {
        "runs": ipywidgets.SelectMultiple(
            options=[(run.name, i) for i, run in enumerate(found)],
            value=tuple(range(min(len(found), _MOST_MARKS))),
            rows=min(max(len(found), 2), 8),
            description="runs",
            layout=ipywidgets.Layout(width="26em"),
        ),
        "show": ipywidgets.Dropdown(options=list(_VIEWS.items()), description="show"),
        "pool": ipywidgets.Checkbox(
            value=False,
            indent=False,
            description="runs that differ by their seed as one (head, medium and tail)",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="auto"),
        ),
    }
    return Comparison(found, controls=controls, problems=problems)


def reading(runs: Sequence[Run]) -> str:
    """Say which run is best where, and on what each was trained where they differ."""
    table = table_of(runs)
    if len(runs) == 1:
        row = table.iloc[0]
        numbers = ", ".join(f"{name} {_cell(row[name])}" for name in GROUPS)
        return (
            f"{row.run}: mAP {_cell(row.mAP)} ({numbers}), gradient imbalance "
            f"{_cell(row.gradient_imbalance)}."
        )
    best: dict[str, list[str]] = {}  # run -> what it is best at
    for column, name in zip(("mAP", *GROUPS), ("all classes", *GROUPS), strict=True):
        if table[column].notna().any():
            i = table[column].idxmax()
            best.setdefault(table.run[i], []).append(f"{name} ({_cell(table[column][i])})")
    parts = [f"{run} for {_and(where)}" for run, where in best.items()]
    said = f"Best mAP of {len(runs)} runs, in percent: {'; '.join(parts)}." if parts else ""
    spans = table.gradient_imbalance.astype(float)
    if spans.notna().any():
        said += f" Most equal gradients: {table.run[spans.idxmin()]} ({_cell(spans.min())})."
    else:
        said += " None records a gradient imbalance."
    data = sorted({str(name) for name in table.data})
    if len(data) > 1:
        said += f" They were trained on different data ({', '.join(data)}): compare with care."
    return said.strip()


def html_table(table: pd.DataFrame) -> str:
    """Write a table of runs as HTML, everything escaped, the best of each measure bold."""
    measures = ("mAP", *GROUPS, "gradient_imbalance")
    best = {}
    for name in measures:
        values = table[name].astype(float)
        if len(table) > 1 and values.notna().any():
            best[name] = values.min() if name == "gradient_imbalance" else values.max()
    numeric = {*measures, "seed", "seconds"}
    side = {name: "right" if name in numeric else "left" for name in table}

    def row(tag, cells):
        pad = "padding: 2px 10px 2px 0"
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {side[name]}; {pad}">{text}</{tag}>' for name, text in cells
        )

    lines = [row("th", [(name, escape(name.replace("_", " "))) for name in table])]
    for _, values in table.iterrows():
        cells = []
        for name, value in values.items():
            text = escape(_cell(value, digits=2 if name == "gradient_imbalance" else 1))
            cells.append((name, f"<b>{text}</b>" if name in best and value == best[name] else text))
        lines.append(row("td", cells))
    body = "</tr>\n".join(lines)
    return (
        '<div style="overflow-x: auto"><table style="border-collapse: collapse; '
        f'line-height: 1.4">\n{body}</tr>\n</table></div>'
    )


def _cell(value, digits: int = 1) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Put the folder before the names of runs that would read alike."""
    names = [run.name for run in runs]
    labels = [
        f"{run.path.resolve().parent.name} · {run.name}" if names.count(run.name) > 1 else run.name
        for run in runs
    ]
    seen: dict[str, int] = {}
    for i, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > 1:
            labels[i] = f"{label} ({seen[label]})"
    return [
        run if label == run.name else replace(run, path=Path(label))
        for run, label in zip(runs, labels, strict=True)
    ]
