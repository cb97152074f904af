"""Explore which classes pull the shared features against one another."""

import pandas as pd

from ltml.plots import live, readings
from ltml.widgets.explorer import Explorer, dropdown, load_named, pair, run_controls

__all__ = ["explore_interference"]


def explore_interference(runs) -> Explorer:
    """Show the cosine between classes' gradients in the shared features, of one run or two.

    Its ``controls`` are run, against, epoch (0: the last) and class_name.

    Args:
        runs: runs that recorded it, folders of runs, or folders that hold folders of runs.
    """
    named, problems = load_named(runs)
    epochs = sorted({int(epoch) for run in named.values() for epoch in run.metrics.epoch})
    choices = {"last": 0} | {str(epoch): epoch for epoch in epochs}
    controls = run_controls(named) | {"epoch": dropdown("epoch", choices)}

    def draw(*, run, against, epoch, class_name):
        chosen = pair(named, run, against)
        parts = [readings.recorded_interference(r, name, epoch) for name, r in chosen.items()]
        said = " ".join(readings.interference(part) for part in parts)
        return live.interference(pd.concat(parts), mark=class_name), said

    rows = [["run", "against"], ["epoch", "class_name"]]
    return Explorer(draw, controls, rows=rows, problems=problems)
