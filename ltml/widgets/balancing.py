"""Explore what gradient balancing would do to recorded gradients."""

from collections.abc import Sequence
from pathlib import Path

import ipywidgets

from ltml import plots
from ltml.errors import InputError
from ltml.gradients import gradient_imbalance
from ltml.plots.balancing import balance
from ltml.runs import Run
from ltml.widgets.base import Explorer, find_runs
from ltml.widgets.gradients import by_name, dropdown

__all__ = ["explore_balancing"]


def explore_balancing(runs: Run | str | Path | Sequence[Run | str | Path]) -> Explorer:
    """Show the weights that gradient balancing gives to a run's gradients, and what they become.

    Its ``controls`` are run, strength and max_weight. Of the gradients summed over the run, as if
    they were the moving averages; no training reacts to the weights, as a real one would.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    found, problems = find_runs(runs)
    named = by_name(found)
    style = {"description_width": "initial"}
    controls = {
        "run": dropdown("run", {name: name for name in named}),
        "strength": ipywidgets.FloatSlider(
            0.5, min=0, max=1, step=0.05, description="strength", style=style
        ),
        "max_weight": ipywidgets.FloatLogSlider(
            100, min=0, max=3, step=0.1, description="largest weight", style=style
        ),
    }

    def draw(above, below, *, run, strength, max_weight):
        if run is None:
            raise InputError("there is no run to explore; train one, and give its folder")
        max_weight = max(max_weight, 1.0)
        options = {"strength": strength, "max_weight": max_weight}
        plots.balancing(named[run], **options, ax=(above, below))
        return _sentence(named[run], **options)

    return Explorer(
        draw, controls, panels=(2, 1), size=(9, 5.8), problems=problems, keep_ticks=True
    )


def _sentence(run: Run, strength: float, max_weight: float) -> str:
    balanced = balance(run, strength=strength, max_weight=max_weight)
    first, then = balanced.ratios
    classes = [gradient_imbalance(entries.sum(0)) for entries in (balanced.before, balanced.after)]
    predicted = first ** (1 - strength)
    said = (
        f"Largest over smallest of the {balanced.before.size} entries: R = {first:.3g} before, "
        f"{then:.3g} after; R^(1 - {strength:g}) predicts {predicted:.3g}"
    )
    said += ", had no weight been clipped. " if then > 1.001 * predicted else ". "
    said += f"Of the classes' totals: {classes[0]:.3g} before, {classes[1]:.3g} after."
    if run.recipe.get("loss", "").startswith("dgb"):
        said += f" The gradients of {run.name} were recorded with balancing already at work."
    return said
