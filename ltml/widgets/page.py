"""All explorers on one page, as ``ltml explore`` serves it."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import ipywidgets

from ltml.build import load_data
from ltml.errors import InputError
from ltml.recipe import Recipe
from ltml.runs import Run
from ltml.widgets.balancing import explore_balancing
from ltml.widgets.base import find_runs
from ltml.widgets.comparison import compare_runs
from ltml.widgets.diversity import explore_diversity
from ltml.widgets.gradients import explore_gradients
from ltml.widgets.sampling import explore_sampler

__all__ = ["explore"]


def explore(runs: Run | str | Path | Sequence[Run | str | Path] = "runs") -> ipywidgets.VBox:
    """Show every explorer of the given runs, a tab each; a tab is filled when it is opened.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    found, problems = find_runs(runs)
    tabs = {
        "Gradients": lambda: explore_gradients(found),
        "Sampling": lambda: explore_sampler(_labels(found)),
        "Gradient balancing": lambda: explore_balancing(found),
        "Feature diversity": lambda: explore_diversity(found),
        "Compare runs": lambda: compare_runs(found),
    }
    page = ipywidgets.Tab([ipywidgets.VBox() for _ in tabs], titles=list(tabs))

    def fill(_=None) -> None:
        box = page.children[page.selected_index]
        if not box.children:
            box.children = [_built(list(tabs.values())[page.selected_index])]

    page.observe(fill, "selected_index")
    page.selected_index = 0
    fill()
    notes = [ipywidgets.HTML(f'<p style="color: #A33C00">{escape(text)}</p>') for text in problems]
    return ipywidgets.VBox([*notes, page])


def _labels(runs: Sequence[Run]) -> dict:
    """The training labels of the runs' data sets, by name; the embedded ones without a run."""
    recipes = [Recipe.from_dict(run.recipe) for run in runs] or [Recipe()]
    keys = ("data", "root", "train_split", "data_seed")
    distinct = {tuple(getattr(recipe, key) for key in keys): recipe for recipe in recipes}
    names = [name for name, *_ in distinct]
    labels = {}
    for (name, *rest), recipe in distinct.items():
        detail = ", ".join(str(value) for value in rest if value is not None)
        which = f" ({detail})" if names.count(name) > 1 else ""
        labels[name + which] = load_data(recipe).train.labels
    return labels


def _built(build: Callable[[], ipywidgets.Widget]) -> ipywidgets.Widget:
    """Build an explorer, or say why it cannot be."""
    try:
        return build()
    except InputError as error:
        return ipywidgets.HTML(f'<p style="color: #A33C00">{escape(str(error))}</p>')
