"""Explore each class's gradient, step by step; or watch it while a model trains."""

import ipywidgets
import numpy as np
import pandas as pd
from IPython.display import display

from ltml.labels import GROUPS
from ltml.plots import frames, live, readings
from ltml.run import Run
from ltml.widgets.explorer import Explorer, dropdown, load_named, pair, replaced, run_controls

__all__ = ["LiveView", "explore_gradients"]

_SHOW = {
    "positives and negatives": "both",
    "positives": "positive",
    "negatives": "negative",
    "total": "total",
    "positives over negatives": "ratio",
}


def explore_gradients(runs) -> Explorer:
    """Show the gradient of one run's classes, or of two runs', at any step; and a class's history.

    Its ``controls`` are run, against (another run's name, or None), step (0: the whole run), show,
    order, log and class_name. Two more explorers hang below, with controls of the first:
    ``history``, of that class, and ``shares``, epoch by epoch.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    named, problems = load_named(runs)
    steps = sorted({int(step) for run in named.values() for step in run.metrics.step})
    shared = run_controls(named)
    controls = shared | {
        "step": ipywidgets.SelectionSlider(
            options=[("whole run", 0), *((str(step), step) for step in steps)],
            description="training step",
            style={"description_width": "initial"},
            layout=ipywidgets.Layout(width="30em"),
        ),
        "_play": ipywidgets.Play(max=len(steps), interval=700),
        "show": dropdown("show", _SHOW),
        "order": dropdown("order by", {"training images": "count", "what is shown": "gradient"}),
        "log": dropdown("scale", {"logarithmic": True, "linear": False}),
    }
    ipywidgets.link((controls["_play"], "value"), (controls["step"], "index"))

    def draw(*, run, against, step, show, order, log, class_name):
        chosen = pair(named, run, against)
        epochs = {name: _epoch_at(each, step) for name, each in chosen.items()}
        shown = {n: frames.gradients({n: each}, epoch=epochs[n]) for n, each in chosen.items()}
        frame = pd.concat(shown.values())
        # One axis for all steps and runs, so that it stands still while the step changes.
        span = live.gradient_span(frames.gradient_history(chosen) if step else frame, show, log)
        options = {"show": show, "order": order, "log": log, "span": span, "mark": class_name}
        said = [readings.gradients(t, _when(chosen[n], epochs[n])) for n, t in shown.items()]
        return live.gradient_magnitudes(frame, **options), " ".join(said)

    def draw_history(*, run, against, class_name):
        chosen = pair(named, run, against)
        said = []
        for name, each in chosen.items():
            ap = 100 * each.per_class.ap[each.per_class["class"] == class_name].dropna()
            if len(ap):
                said.append(f"{name}: the AP of {class_name} ends at {ap.iloc[-1]:.1f}%.")
        return live.class_history(frames.gradient_history(chosen), class_name), " ".join(said)

    def draw_shares(*, run, against, class_name):
        chosen = pair(named, run, against)
        said = (
            "Orange classes get more than an equal share of an epoch's gradient, purple ones less; "
            "epochs fade with their total, since shares of next to nothing say nothing."
        )
        return live.gradient_heatmap(frames.gradient_history(chosen), mark=class_name), said

    below = [Explorer(each, shared, rows=[]) for each in (draw_history, draw_shares) if named]
    rows = [["run", "against"], ["step", "_play"], ["show", "order", "log"], ["class_name"]]
    explorer = Explorer(draw, controls, rows=rows, problems=problems, below=below)
    explorer.history, explorer.shares = below or (None, None)
    return explorer


def _epoch_at(run: Run, step: int) -> int | None:
    """Return the epoch that a step belongs to, the last for later steps, None for step 0."""
    place = min(np.searchsorted(run.metrics.step, step), len(run.metrics) - 1)
    return int(run.metrics.epoch.iloc[place]) if step else None


def _when(run: Run, epoch: int | None) -> str:
    if epoch is None:
        return "over the whole run"
    place = run.metrics.epoch.tolist().index(epoch)
    ends = [0, *run.metrics.step]
    return f"in steps {ends[place] + 1} to {ends[place + 1]} (epoch {epoch})"


class LiveView(ipywidgets.VBox):
    """Redraw each class's gradient after every epoch of a training in a notebook.

    Example:
        >>> view = LiveView()  # then: ltml.fit(recipe, on_epoch=view)
    """

    def __init__(self):
        self.figure, self.text, self._drawn = None, ipywidgets.HTML(), None
        super().__init__()

    def __call__(self, run: Run) -> None:
        """Show the run so far; the first call displays the view."""
        first, last = not self.children, run.metrics.iloc[-1]
        figure = live.gradient_magnitudes(frames.gradients(run, epoch=int(last.epoch)))
        self.figure, self._drawn = replaced(self.figure, self._drawn, figure), figure
        means = [f"{name} {100 * last[name]:.1f}" for name in ("mAP", *GROUPS) if last[name] >= 0]
        self.text.value = f"epoch {last.epoch:.0f}, loss {last.train_loss:.3f} {', '.join(means)}"
        self.children = (self.figure, self.text)
        if first:
            display(self)
