"""Explore each class's gradient, step by step."""

from collections.abc import Sequence
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ltml import plots
from ltml.errors import InputError
from ltml.gradients import gradient_imbalance
from ltml.plots.gradients import epoch_table
from ltml.runs import Run
from ltml.widgets.base import Explorer, find_runs

__all__ = ["explore_gradients"]

_SHOW = {
    "positives and negatives": "both",
    "positives": "positive",
    "negatives": "negative",
    "total": "total",
    "positives over negatives": "ratio",
}


def explore_gradients(runs: Run | str | Path | Sequence[Run | str | Path]) -> Explorer:
    """Show the gradient of one run's classes, or of two runs', at any step; and a class's history.

    Its ``controls`` are run, against (another run's name, or None), step (0: the whole run),
    play, show, order, log and class_name; the history is an explorer of its own, ``history``,
    which stays as it is while the step changes.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    found, problems = find_runs(runs)
    named = by_name(found)
    steps = sorted({int(step) for run in found for step in run.metrics.step})
    controls = {
        "run": dropdown("run", {name: name for name in named}),
        "against": dropdown("compare with", {"no other": None} | {name: name for name in named}),
        "step": ipywidgets.SelectionSlider(
            options=[("whole run", 0), *((f"{step}", step) for step in steps)],
            description="training step",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="30em"),
        ),
        "play": ipywidgets.Play(max=len(steps), interval=700),
        "show": dropdown("show", _SHOW),
        "order": dropdown("order by", {"training images": "count", "gradient": "gradient"}),
        "log": dropdown("scale", {"logarithmic": True, "linear": False}),
        "class_name": dropdown("history of class", {}),
    }

    def offer_classes(_=None):
        table = named[controls["run"].value].classes
        names = zip(table["class"], table["count"], strict=True)
        options = tuple((f"{name} ({n:,} images)", name) for name, n in names)
        if options != controls["class_name"].options:
            controls["class_name"].options = options
            controls["class_name"].index = 0

    if found:
        offer_classes()
        controls["run"].observe(offer_classes, "value")
    ipywidgets.link((controls["play"], "value"), (controls["step"], "index"))

    def draw(top, bottom, *, run, against, step, show, order, log, class_name):
        shown = pair(named, (top, bottom), run, against)
        epochs = [epoch_at(run, step) for _, run in shown]
        tables = [epoch_table(run, e) for (_, run), e in zip(shown, epochs, strict=True)]
        if order == "gradient":  # the first run's, for both: else no class stands above itself
            total = (tables[0].grad_pos + tables[0].grad_neg).to_numpy()
            order = tables[0]["class"].iloc[np.argsort(-total, kind="stable")].tolist()
        of_all_steps = log and step != 0  # so that the axis stands still while the step changes
        limits = _limits([run.per_class for _, run in shown] if of_all_steps else tables, show, log)
        said = []
        for (ax, run), epoch, table in zip(shown, epochs, tables, strict=True):
            plots.gradient_magnitudes(
                run, epoch=epoch, show=show, order=order, log=log, mark=class_name, ax=ax
            )
            ax.set_ylim(limits)
            if log and limits[1] > 100 * limits[0]:
                ax.minorticks_off()  # making dozens of marks would take a third of the time
            said.append(_sentence(run, epoch, table))
        top.tick_params(axis="x", labelbottom=len(shown) == 1)
        if len(shown) == 2:
            top.set_xlabel("")
            if bottom.get_legend():
                bottom.get_legend().remove()
        return " ".join(said)

    def draw_history(top, bottom, *, class_name, run, against, log):
        shown = pair(named, (top, bottom), run, against)
        said = []
        for ax, run in shown:
            plots.class_history(run, class_name, log=log, ax=ax)
            ap = run.per_class.ap[run.per_class["class"] == class_name]
            best = f"AP of {class_name} ends at {100 * ap.iloc[-1]:.1f} %"
            said.append(f"{run.name}: the {best}, after {100 * ap.iloc[0]:.1f} % at first.")
        if len(shown) == 2:
            top.set_xlabel("")
        return " ".join(said)

    explorer = Explorer(
        draw,
        controls,
        panels=(2, 1),
        size=(9, 5.4),
        problems=problems,
        layout=[["run", "against"], ["step", "play"], ["show", "order", "log"]],
        watch=[name for name in controls if name != "play"],
        keep_ticks=True,
    )
    shared = {name: controls[name] for name in ("class_name", "run", "against", "log")}
    explorer.history = Explorer(
        draw_history,
        shared,
        panels=(2, 1),
        size=(9, 4),
        layout=[["class_name"]],
        keep_ticks=True,
    )
    if found:
        explorer.children = (*explorer.children, explorer.history)
    return explorer


def dropdown(description: str, options: dict) -> ipywidgets.Dropdown:
    """Make a list to choose from, with its whole description in view."""
    return ipywidgets.Dropdown(
        options=list(options.items()),
        description=description,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="auto"),
    )


def by_name(runs: Sequence[Run]) -> dict[str, Run]:
    """Name each run, those of one folder name with the folders that hold them."""
    names = [run.name for run in runs]
    return {
        run.name if names.count(run.name) == 1 else f"{run.name} ({run.path.parent})": run
        for run in runs
    }


def pair(
    named: dict[str, Run], axes: tuple[Axes, Axes], run: str | None, against: str | None
) -> list[tuple[Axes, Run]]:
    """Give each chosen run its axes, one above the other; a single run has all the room.

    Raises:
        InputError: if there is no run, or two runs have different classes.
    """
    if run is None:
        raise InputError("there is no run to explore; train one, and give its folder")
    top, bottom = axes
    chosen = [named[run]] if against in (None, run) else [named[run], named[against]]
    if len({frozenset(one.classes["class"]) for one in chosen}) > 1:
        raise InputError(
            f"runs {run!r} and {against!r} have different classes; compare runs of the same data"
        )
    grid = top.get_subplotspec().get_gridspec()
    place = grid[0, 0] if len(chosen) == 2 else grid[:, 0]
    if top.get_subplotspec() != place:  # a place set anew is laid out anew
        top.set_subplotspec(place)
    bottom.set_visible(len(chosen) == 2)
    return list(zip(axes, chosen, strict=False))


def epoch_at(run: Run, step: int) -> int | None:
    """Return the epoch that a step belongs to, the last for later steps, None for step 0."""
    if step == 0:
        return None
    place = min(np.searchsorted(run.metrics.step, step), len(run.metrics) - 1)
    return int(run.metrics.epoch.iloc[place])


def _limits(tables: list[pd.DataFrame], show: str, log: bool) -> tuple[float, float]:
    """Return the ends of one gradient axis for several tables, to compare them by eye."""
    values = []
    for table in tables:
        up, down = table.grad_pos.to_numpy(), table.grad_neg.to_numpy()
        shown = {"both": [up, down], "positive": [up], "negative": [down], "total": [up + down]}
        with np.errstate(divide="ignore", invalid="ignore"):
            values += shown[show] if show in shown else [up / down]
    values = np.concatenate(values)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise InputError("no class has gradient here; choose another step")
    if not log:
        return 0.0, 1.1 * values.max()
    high = values.max()
    low = max(values.min(), high / 1e4)  # one silent class must not flatten all others
    span = max(np.log(high / low), 0.1)
    return low * np.exp(-0.2 * span), high * np.exp(0.1 * span)


def _sentence(run: Run, epoch: int | None, table: pd.DataFrame) -> str:
    total = (table.grad_pos + table.grad_neg).to_numpy()
    most, least = table["class"][total.argmax()], table["class"][total.argmin()]
    down = int((table.grad_neg > table.grad_pos).sum())
    if epoch is None:
        when = "over the whole run"
    else:
        place = run.metrics.epoch.tolist().index(epoch)
        before = 0 if place == 0 else run.metrics.step.iloc[place - 1]
        when = f"in steps {before + 1} to {run.metrics.step.iloc[place]} (epoch {epoch})"
    return (
        f"{run.name}, {when}: {most} gets most gradient, {least} least, "
        f"{gradient_imbalance(total):.3g} times less; {down} of {len(table)} classes are pushed "
        "down harder than they are pulled up."
    )
