"""Explore how diverse each class's features are, and which images they find alike."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import ipywidgets
import pandas as pd
from matplotlib.axes import Axes

from ltml.errors import InputError
from ltml.features import SPLITS, FeatureRecord
from ltml.metrics import DIVERSITY
from ltml.plots import feature_diversity, nearest_images
from ltml.runs import Run
from ltml.widgets.base import Explorer, find_runs

__all__ = ["explore_diversity"]

_NONE = "no other"
_REMEDY = "give runs, and record their features with ltml.record_features(run)"


def explore_diversity(runs: Run | str | Path | Sequence[Run | str | Path]) -> Explorer:
    """Choose a run, a measure and a class: see the scores with their errors, and nearest images.

    Draws from each run's ``features.npz``, see :func:`ltml.record_features`. Another run can be
    drawn beside the first, at the same sample size.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    found, problems = find_runs(runs)
    if not found:

        def nothing(ax: Axes, **values) -> str:
            raise InputError(f"no run to explore; {_REMEDY}")

        return Explorer(nothing, {}, problems=problems)

    @cache
    def record(i: int) -> FeatureRecord:
        return FeatureRecord.load(found[i])

    @cache
    def table(i: int, measure: str, split: str, size: int) -> pd.DataFrame:
        return record(i).diversity(measure=measure, split=split, size=size)

    def draw(scores: Axes, images: Axes, **values) -> str:
        i, other = values["run"], values["beside"]
        chosen = [i] if other in (None, i) else [i, other]
        size = min(record(j).common_size for j in chosen)
        measure, split, name = values["measure"], values["split"], values["name"]
        tables = [table(j, measure, split, size) for j in chosen]
        named = {_name(found, j): t for j, t in zip(chosen, tables, strict=True)}
        feature_diversity(named, highlight=name, ax=scores)
        nearest_images(record(i), name, split=split, queries=2, neighbors=6, ax=images)
        row = [t.set_index("class").loc[name] for t in tables]
        said = [
            f"{_name(found, j)} {r.value:.2f} ± {r.error:.2f}"
            for j, r in zip(chosen, row, strict=True)
        ]
        part, c = record(i).split(split), record(i).index(name)
        near = part.neighbors[part.rows(c)[:, None], range(min(6, part.neighbors.shape[1]))]
        held = part.labels[near, c][near >= 0].mean()
        return (
            f"{name} ({row[0]['count']:,} training images): {measure} of {size} of its "
            f"{row[0].recorded} recorded {split} images, {', '.join(said)}. Below, in "
            f"{_name(found, i)}: the image it is surest of and the one it is least sure of, each "
            f"with its nearest; of the nearest of all, {100 * held:.0f} % hold {name} too (✓)."
        )

    names = [(_name(found, i), i) for i in range(len(found))]
    first = next((i for i in range(len(found)) if _readable(record, i)), 0)
    wide = {"description_width": "initial"}
    controls = {
        "run": ipywidgets.Dropdown(options=names, value=first, description="Run", style=wide),
        "beside": ipywidgets.Dropdown(
            options=[(_NONE, None), *names], value=None, description="Beside it", style=wide
        ),
        "split": ipywidgets.ToggleButtons(
            options=SPLITS, value="test", description="Images", style={"button_width": "4em"}
        ),
        "measure": ipywidgets.Dropdown(
            options=list(DIVERSITY), value="vendi", description="Measure", style=wide
        ),
        "name": ipywidgets.Dropdown(
            options=found[first].classes["class"].tolist(),
            value=found[first].classes["class"].iloc[-1],
            description="Class",
            style=wide,
        ),
    }

    def follow(change) -> None:
        classes = found[change["new"]].classes["class"].tolist()
        if list(controls["name"].options) != classes:
            controls["name"].options = classes  # of other data

    controls["run"].observe(follow, "value")
    return Explorer(
        draw,
        controls,
        panels=(2, 1),
        size=(9, 7),
        problems=problems,
        layout=[["run", "beside"], ["name", "split", "measure"]],
    )


def _name(runs: Sequence[Run], i: int) -> str:
    """A run's name, with its parent where another has the same."""
    names = [run.name for run in runs]
    if names.count(names[i]) == 1:
        return names[i]
    return f"{runs[i].path.parent.name}/{names[i]} ({i + 1})"


def _readable(record, i: int) -> bool:
    try:
        record(i)
    except InputError:
        return False
    return True
