"""A results card: what must be known of a result before it is compared with another."""

from collections.abc import Sequence

import numpy as np

from ltml.errors import InputError
from ltml.groups import GROUPS
from ltml.runs import Run

__all__ = ["results_card"]

# What may differ between runs that are seeds of one result.
_FREE = {"seed", "device", "compile"}


def results_card(runs: Sequence[Run]) -> str:
    """Describe a result, one run or several seeds of one recipe, as Markdown.

    Args:
        runs: one run, or runs whose recipes differ by their seed only.

    Raises:
        InputError: without a run, or for runs of different recipes or data.
    """
    if not runs:
        raise InputError("no run was given; give folders of runs of one recipe")
    first = runs[0]
    for run in runs[1:]:
        differs = [
            name
            for name in first.recipe.keys() | run.recipe.keys()
            if name not in _FREE and first.recipe.get(name) != run.recipe.get(name)
        ]
        if differs or run.config["data"] != first.config["data"]:
            raise InputError(
                f"runs {first.name!r} and {run.name!r} differ in {', '.join(differs) or 'data'}; "
                "a card is of seeds of one recipe"
            )
    recipe, data = first.recipe, first.config["data"]
    seeds = sorted(run.recipe["seed"] for run in runs)
    absent = first.summary.get("classes_without_positives", [])
    rows = {
        "mAP": _mean(runs, "mAP"),
        **{f"{group} mAP": _mean(runs, group) for group in GROUPS},
        "gradient imbalance": _mean(runs, "gradient_imbalance", percent=False),
        "seeds": f"{', '.join(map(str, seeds))} (mean ± sample deviation)"
        if len(runs) > 1
        else f"{seeds[0]} (one run: no deviation)",
        "data": f"{data['name']}: {data['train_images']:,} training, {data['test_images']:,} test "
        f"images, {len(data['class_names'])} classes",
        "average precision": "step-wise, without interpolation (scikit-learn's definition), "
        "unweighted mean over classes",
        "classes without a test positive": f"left out of the means: {', '.join(absent)}"
        if absent
        else "none",
        "classes without a training image": "scored by chance, in the means: "
        + ", ".join(first.scored_by_chance)
        if first.scored_by_chance
        else "none, or none that is scored",
        "difficult objects": "count as present, in training and test"
        if data["name"].startswith("voc")
        else "not marked in this data",
        "images without a label": "kept, as negatives of every class",
        "method": f"{recipe['sampler']} draws, {recipe['loss']} loss, head: {recipe['diversity']}",
        "backbone": recipe["backbone"],
        "pretraining": recipe["weights"] or "none",
        "image size": f"{recipe['image_size']} px, squeezed to a square",
        "training": f"{first.summary['steps']} steps of {recipe['batch_size']}, "
        f"{recipe['optimizer']}, lr {recipe['lr']:g}, {recipe['schedule']} schedule",
        "checkpoint": "the last one; none is chosen by its test score",
        "software": "torch {torch} on {device}".format_map(
            {"torch": "?", "device": "?"} | first.summary
        ),
    }
    lines = [f"# {data['name']}: {', '.join(run.name for run in runs)}", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def _mean(runs: Sequence[Run], name: str, percent: bool = True) -> str:
    values = [run.summary.get(name) for run in runs]
    if any(value is None for value in values):
        return "-"
    values = np.array(values, float) * (100 if percent else 1)
    return f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else "")


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
