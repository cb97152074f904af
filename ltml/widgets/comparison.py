"""Compare runs: head, medium and tail mAP, each class's AP, or the training, with a table."""

import ipywidgets

from ltml.errors import InputError
from ltml.plots import frames, live, readings
from ltml.run import table_of
from ltml.widgets.explorer import Explorer, dropdown, load_named

__all__ = ["compare_runs"]

_VIEWS = {
    "mAP of head, medium and tail": "groups",
    "average precision of each class": "classes",
    "mAP during training": "curves",
}
_MOST = 7  # runs that differ in colour and mark


def compare_runs(runs) -> Explorer:
    """Compare the mAP, the classes' AP or the training of any runs, with a table of them.

    Its ``controls`` are runs (those shown), show and pool (take runs that differ by their seed
    alone as one).

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.

    Example:
        >>> compare_runs("no/such/folder").said
        'no run is chosen; choose one or several (Ctrl-click, Shift-click)'
    """
    named, problems = load_named(runs)
    table = ipywidgets.HTML()
    controls = {
        "runs": ipywidgets.SelectMultiple(
            options=list(named),
            value=tuple(named)[:_MOST],
            rows=min(max(len(named), 2), 8),
            description="runs",
            layout=ipywidgets.Layout(width="26em"),
        ),
        "show": dropdown("show", _VIEWS),
        "pool": ipywidgets.Checkbox(
            description="runs that differ by their seed as one", indent=False
        ),
    }

    def draw(*, runs, show, pool):
        chosen = {name: named[name] for name in runs}
        if not chosen:
            table.value = ""
            raise InputError("no run is chosen; choose one or several (Ctrl-click, Shift-click)")
        rows = table_of(list(chosen.values())).assign(run=list(chosen))
        table.value = rows.to_html(index=False, na_rep="-")
        results = frames.group_map(chosen, pool=pool)
        said = readings.group_map(results)
        data = sorted(set(rows.data))
        if len(data) > 1:
            said += f" They were trained on different data ({', '.join(data)}): compare with care."
        if show == "groups":
            return live.group_map(results), said
        if len(chosen) > _MOST:
            raise InputError(
                f"{len(chosen)} runs are chosen; this figure tells at most {_MOST} apart: choose "
                "fewer, or show the mAP of head, medium and tail"
            )
        if show == "curves":
            return live.training_curves(frames.curves(chosen)), said
        return live.class_ap(frames.class_ap(chosen)), said

    rows = [["runs"], ["show", "pool"]]
    return Explorer(draw, controls, rows=rows, problems=problems, below=[table])
