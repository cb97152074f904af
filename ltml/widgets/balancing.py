"""Explore what gradient balancing would do to recorded gradients."""

import ipywidgets

from ltml.plots import frames, live, readings
from ltml.widgets.explorer import Explorer, load_named, pair, run_controls

__all__ = ["explore_balancing"]

_WIDE = {"description_width": "initial"}


def explore_balancing(runs) -> Explorer:
    """Show the weights that gradient balancing gives to a run's gradients, and what they become.

    Its ``controls`` are run, strength, max_weight and class_name. The gradients are those
    summed over the run, as if they were the moving averages; no training reacts to the weights, as
    a real one would. The axes stay as they are while strength and max_weight change.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    named, problems = load_named(runs)
    controls = run_controls(named) | {
        "strength": ipywidgets.FloatSlider(
            0.5, min=0, max=1, step=0.05, description="strength", style=_WIDE
        ),
        "max_weight": ipywidgets.FloatLogSlider(
            100, min=0, max=3, step=0.1, description="largest weight", style=_WIDE
        ),
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
        said = readings.balancing(frame, chosen[run], strength)
        return live.balancing(frame, spans=spans, mark=class_name), said

    rows = [["run"], ["strength", "max_weight"], ["class_name"]]
    return Explorer(draw, controls, rows=rows, problems=problems)
