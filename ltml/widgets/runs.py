"""Explore runs: their gradients, what they have learned, and the features of their classes."""

from functools import cache
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

from ltml.core.errors import InputError
from ltml.core.labels import GROUPS
from ltml.core.metrics import DIVERSITY
from ltml.plots import captions, frames, live, nearest_images, report
from ltml.runs.features import FeatureRecord
from ltml.runs.run import Run, table_of
from ltml.training.features import FILE, SPLITS
from ltml.widgets.explorer import WIDE, Explorer, dropdown, load_named, pair, run_controls

_SHOW = {
    "positives and negatives": "both",
    "positives": "positive",
    "negatives": "negative",
    "total": "total",
    "positives over negatives": "ratio",
}
_VIEWS = {
    "mAP of head, medium and tail": "groups",
    "average precision of each class": "classes",
    "mAP during training": "curves",
}
_MOST = 7  # runs that differ in colour and mark


def explore_gradients(runs) -> Explorer:
    """Show the gradient of one run's classes, or of two runs', at any step; and a class's history.

    Its ``controls`` are run, against (another run's name, or None), step (0: the whole run), show,
    order, log and class_name. Three more explorers hang below, with controls of the first:
    ``history``, of that class, ``imbalance`` and ``shares``, epoch by epoch.
    """
    named, problems = load_named(runs)
    steps = sorted({int(step) for run in named.values() for step in run.metrics.step})
    shared = run_controls(named)
    controls = shared | {
        "step": ipywidgets.SelectionSlider(
            options=[*((f"until step {step}", step) for step in steps), ("whole run", 0)],
            value=0,
            description="gradients of",
            style=WIDE,
            layout=ipywidgets.Layout(width="32em", min_width="24em"),
        ),
        "_play": ipywidgets.Play(value=len(steps), max=len(steps), interval=700),
        "show": dropdown("show", _SHOW),
        "order": dropdown("order by", {"training images": "count", "what is shown": "gradient"}),
        "log": dropdown("scale", {"logarithmic": True, "linear": False}),
    }
    ipywidgets.link((controls["_play"], "value"), (controls["step"], "index"))

    def draw(*, run, against, step, show, order, log, class_name):
        chosen, tables, said = _trained(pair(named, run, against)), [], []
        for name, each in chosen.items():
            epoch, when = _epoch_at(each, step)
            tables.append(frames.gradients({name: each}, epoch=epoch))
            said.append(captions.gradients(tables[-1], when))
        frame = pd.concat(tables)
        # One axis for all steps and runs, so that it stands still while the step changes.
        span = live.gradient_span(frames.gradient_history(chosen) if step else frame, show, log)
        options = {"show": show, "order": order, "log": log, "span": span, "mark": class_name}
        return live.gradient_magnitudes(frame, **options), " ".join(said)

    def draw_history(*, run, against, class_name):
        frame = frames.gradient_history(_trained(pair(named, run, against)))
        aps = frame[frame["class"] == class_name].groupby("run", sort=False).ap.last().dropna()
        said = [f"{name}: AP {100 * ap:.1f}% at the end." for name, ap in aps.items()]
        return live.class_history(frame, class_name), f"{class_name}. {' '.join(said)}"

    def draw_shares(*, run, against, class_name):
        said = (
            "Orange classes get more than an equal share of an epoch's gradient, purple ones less; "
            "epochs fade with their total, since shares of next to nothing say nothing."
        )
        frame = frames.gradient_history(_trained(pair(named, run, against)))
        return live.gradient_heatmap(frame, mark=class_name), said

    def draw_imbalance(*, run, against, class_name):
        frame = frames.gradient_imbalance(_trained(pair(named, run, against)))
        return live.gradient_imbalance(frame), captions.gradient_imbalance(frame)

    drawn = (draw_history, draw_imbalance, draw_shares)
    below = [Explorer(each, shared, rows=[]) for each in drawn if named]
    rows = [["run", "against"], ["step", "_play"], ["show", "order", "log"], ["class_name"]]
    explorer = Explorer(draw, controls, rows=rows, problems=problems, below=below)
    explorer._page = lambda: report.explorer("gradients", runs=named)
    explorer.history, explorer.imbalance, explorer.shares = below or (None, None, None)
    return explorer


def _trained(chosen: dict[str, Run]) -> dict[str, Run]:
    """Leave out runs that have no gradients where another has: a probe is not trained."""
    kept = {n: run for n, run in chosen.items() if run.per_class.grad_pos.notna().any()}
    kept = {n: run for n, run in kept.items() if run.per_class.grad_neg.sum() > 0}
    return kept or chosen


def _epoch_at(run: Run, step: int) -> tuple[int | None, str]:
    """Return the epoch that a step belongs to, the last for later steps, and its steps in words."""
    if not step:
        return None, "over the whole run"
    ends = [0, *run.metrics.step]
    place = min(np.searchsorted(ends[1:], step), len(run.metrics) - 1)
    epoch = int(run.metrics.epoch.iloc[place])
    return epoch, f"in steps {ends[place] + 1} to {ends[place + 1]} (epoch {epoch})"


def explore_balancing(runs) -> Explorer:
    """Show the weights that gradient balancing gives to a run's gradients, and what they become.

    Its ``controls`` are run, strength, max_weight and class_name. The gradients are those
    summed over the run, as if they were the moving averages; no training reacts to the weights, as
    a real one would. The axes stay as they are while strength and max_weight change.
    """
    named, problems = load_named(runs)
    strength = {"min": 0, "max": 1, "step": 0.05, "description": "strength", "style": WIDE}
    largest = {"min": 0, "max": 3, "step": 0.1, "description": "largest weight", "style": WIDE}
    controls = run_controls(named) | {
        "strength": ipywidgets.FloatSlider(0.5, **strength),
        "max_weight": ipywidgets.FloatLogSlider(100, **largest),
    }
    del controls["against"]

    def draw(*, run, strength, max_weight, class_name):
        chosen = pair(named, run)
        max_weight = max(max_weight, 1.0)  # which the slider may miss by rounding
        frame = frames.balanced(chosen, strength=strength, max_weight=max_weight)
        full = frames.balanced(chosen, strength=1.0, max_weight=1000.0)
        full = full[full.before > 0]
        spans = {"weight": [1.0, *full.weight], "share": [100 / len(frame), *full.before]}
        spans = {axis: (min(values) / 1.4, 1.4 * max(values)) for axis, values in spans.items()}
        said = captions.balancing(frame, chosen[run], strength)
        return live.balancing(frame, spans=spans, mark=class_name), said

    def page():
        return report.explorer("balancing", runs=named, leave_out=["b"])

    rows = [["run"], ["strength", "max_weight"], ["class_name"]]
    return Explorer(draw, controls, rows=rows, problems=problems, page=page)


def explore_interference(runs) -> Explorer:
    """Show the cosine between classes' gradients in the shared features, of one run or two.

    Its ``controls`` are run, against, epoch (None: the last) and class_name. Runs record it if
    their recipe says ``interference=True``.
    """
    named, problems = load_named(runs)
    epochs = sorted({int(epoch) for run in named.values() for epoch in run.metrics.epoch})
    choices = {"last": None} | {str(epoch): epoch for epoch in epochs}
    controls = run_controls(named) | {"epoch": dropdown("epoch", choices)}

    def draw(*, run, against, epoch, class_name):
        frame = frames.interference(pair(named, run, against), epoch=epoch)
        return live.interference(frame, mark=class_name), captions.interference(frame)

    def page():
        return report.explorer("interference", runs=named)

    rows = [["run", "against"], ["epoch", "class_name"]]
    return Explorer(draw, controls, rows=rows, problems=problems, page=page)


def compare_runs(runs) -> Explorer:
    """Compare the mAP, the classes' AP or the training of any runs, with a table of them.

    Its ``controls`` are runs (those shown), show and pool (take runs that differ by their seed
    alone as one).

    Example:
        >>> compare_runs("no/such/folder").said
        'no run is chosen; choose one or several (Ctrl-click, Shift-click)'
    """
    named, problems = load_named(runs)
    table, few = ipywidgets.HTML(), tuple(named)[:_MOST]
    options = {"rows": min(max(len(named), 2), 8), "layout": ipywidgets.Layout(width="26em")}
    pool = "runs that differ by their seed as one"
    controls = {
        "runs": ipywidgets.SelectMultiple(
            options=list(named), value=few, description="runs", **options
        ),
        "show": dropdown("show", _VIEWS),
        "pool": ipywidgets.Checkbox(description=pool, indent=False),
    }

    def draw(*, runs, show, pool):
        chosen = {name: named[name] for name in runs}
        if not chosen:
            table.value = ""
            raise InputError("no run is chosen; choose one or several (Ctrl-click, Shift-click)")
        rows = table_of(list(chosen.values())).assign(run=list(chosen))
        table.value = rows.to_html(index=False, na_rep="-")
        results = frames.group_map(chosen, pool=pool)
        said = captions.group_map(results)
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

    def page():
        return report.explorer("results", "compare", runs=named)

    rows = [["runs"], ["show", "pool"]]
    return Explorer(draw, controls, rows=rows, problems=problems, below=[table], page=page)


def explore_diversity(runs) -> Explorer:
    """Show each class's diversity, of one run or two at one sample size, and its nearest images.

    Its ``controls`` are run, against, split, measure and class_name. It reads each run's
    ``features.npz``, see :func:`ltml.record_features`.
    """
    named, problems = load_named(runs)
    # Those with a record first.
    named = dict(sorted(named.items(), key=lambda item: not (item[1].path / FILE).is_file()))
    controls = run_controls(named) | {
        "split": dropdown("images", SPLITS[::-1]),
        "measure": dropdown("measure", DIVERSITY.keys()),
    }
    nearest = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))

    @cache
    def record(name):
        return FeatureRecord.load(named[name])

    def draw(*, run, against, split, measure, class_name):
        nearest.layout.display = "none"
        records = {name: record(name) for name in pair(named, run, against)}
        frame = frames.diversity(records, measure=measure, split=split)
        out = BytesIO()
        figure, _ = nearest_images(record(run), class_name, split=split, queries=2)
        figure.savefig(out, format="png")
        plt.close(figure)
        nearest.value, nearest.layout.display = out.getvalue(), None
        return live.feature_diversity(frame, mark=class_name), captions.diversity(frame, class_name)

    def page():
        return report.explorer("diversity", runs=named, leave_out=["a", "b"])

    rows = [["run", "against"], ["class_name", "split", "measure"]]
    return Explorer(draw, controls, rows=rows, problems=problems, below=[nearest], page=page)


class LiveView(Explorer):
    """Redraw each class's gradient after every epoch of a training in a notebook.

    Its control epoch goes back to earlier ones; the explorer ``imbalance`` below shows the largest
    over the smallest gradient from the first epoch on, also of the trainings that the same view
    followed before.

    Args:
        against: finished runs, or folders of runs, to show the imbalance of as well.

    Example:
        >>> view = LiveView()  # then: ltml.fit(recipe, on_epoch=view)
    """

    def __init__(self, *, against=()):
        self.run, self._shown = None, False
        self.runs, problems = load_named(against)
        epoch = ipywidgets.SelectionSlider(
            options=[("none yet", 0)],
            description="epoch",
            style=WIDE,
            layout=ipywidgets.Layout(width="32em", min_width="20em"),
        )
        self.imbalance = Explorer(self._history, {}, rows=[])
        below = [self.imbalance]
        super().__init__(
            self._epoch, {"epoch": epoch}, rows=[["epoch"]], problems=problems, below=below
        )
        self._page = lambda: report.explorer("gradients", runs=self.runs)

    def __call__(self, run: Run) -> None:
        """Show the run so far; the first call displays the view."""
        self.run = run
        known = [name for name, each in self.runs.items() if each.path == run.path]
        name, number = run.name, 1
        while not known and name in self.runs:  # another of that name
            number += 1
            name = f"{run.name} ({number})"
        self.runs[known[0] if known else name] = run
        epochs = [int(epoch) for epoch in run.metrics.epoch]
        with self.hold_trait_notifications():
            control = self.controls["epoch"]
            control.unobserve_all("value")
            control.options = [(str(epoch), epoch) for epoch in epochs]
            control.value = epochs[-1]
            control.observe(lambda _: self.redraw(), "value")
        self.imbalance.redraw()
        self.redraw()
        if not self._shown:
            self._shown = True
            display(self)

    def _epoch(self, *, epoch):
        if self.run is None:
            raise InputError("no epoch is over yet")
        last = self.run.metrics.set_index("epoch").loc[epoch]
        means = [f"{name} {100 * last[name]:.1f}" for name in ("mAP", *GROUPS) if last[name] >= 0]
        said = f"epoch {epoch}, loss {last.train_loss:.3f} {', '.join(means)}"
        frame = frames.gradients(self.run, epoch=epoch)
        span = live.gradient_span(frames.gradient_history(self.run), "both", True)
        return live.gradient_magnitudes(frame, span=span), said

    def _history(self):
        if not self.runs:
            raise InputError("the imbalance follows after the first epoch")
        frame = frames.gradient_imbalance(_trained(self.runs))
        return live.gradient_imbalance(frame), captions.gradient_imbalance(frame)
