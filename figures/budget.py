"""When does balancing pay? Train BCE, DGB, group sampling and both on budgets of 10 to 1,000 steps.

    python figures/budget.py pictograms --out runs/budget
    python figures/budget.py 'VOC-LT proxy' --root voc_lt_proxy --out runs/budget \\
        --backbone timm/tf_efficientnet_lite0 --weights efficientnet_lite0.safetensors

The small network is trained from nothing, or with a backbone given, a head on its frozen features;
by AdamW and by SGD; at one rate for all, and each row at the rate of its own that is best on the
validation split (seed 0), with three seeds. The rows join ``budget.csv`` beside this file; what is
finished is not trained again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import ltml
from ltml import Recipe
from ltml.core.files import write_csv
from ltml.plots.style import style
from ltml.runs.recipe import preset
from ltml.training import ablation
from ltml.training.setup import load_data

TABLE = Path(__file__).resolve().parent / "budget.csv"
BUDGETS = (10, 30, 100, 300, 1000)
ROWS = ["uniform/bce/off", "uniform/dgb/off", "group/bce/off", "group/dgb/off"]
FIXED = {"adamw": 1e-3, "sgd": 1e-2}  # the rate of all rows, bound by the head
RATES = {"adamw": [1e-3, 3e-3, 1e-2, 3e-2], "sgd": [1e-2, 1e-1, 3e-1, 1.0]}


def main() -> None:
    """Train what is missing, and put the rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="pictograms, or a name for the folder of photos")
    for name in ("root", "backbone", "weights"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--optimizers", nargs="*", default=list(FIXED), choices=list(FIXED))
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS)
    parser.add_argument("--rates", type=float, nargs="*", help="instead of the optimiser's four")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    photos = {name: getattr(options, name) for name in ("root", "backbone", "weights", "val_split")}
    base = Recipe.method(data=options.data, holdout=0.15)  # parts: those of the grid
    if options.backbone is not None:
        base = replace(preset("photos-frozen"), **photos)
    data = load_data(base)
    data = data if options.backbone is None else ltml.bank(base, data).pooled
    for optimizer in options.optimizers:
        for steps in options.budgets:
            recipe = replace(base, optimizer=optimizer, steps=steps)
            out = options.out / f"{options.data}-{optimizer}-{steps}".replace(" ", "-")
            grid, fixed = ablation.cells(seeds=options.seeds, only=ROWS), FIXED[optimizer]
            rates = sorted({fixed, *(options.rates or RATES[optimizer])})
            for rate, searched in (("one for all", [fixed]), ("each its best", rates)):
                rows = ablation.ablate(recipe, grid, out, rates=searched, data=data, progress=False)
                add(rows.assign(data=options.data, budget=steps, rate=rate))


def add(rows: pd.DataFrame) -> None:
    """Put rows into the table, in place of those of the same cells."""
    cell = ["data", "optimizer", "budget", "rate", "sampler", "loss", "seed"]
    rows = rows[[*cell, "lr", "mAP", "head", "medium", "tail", "val_mAP"]]
    if TABLE.exists():
        rows = pd.concat([pd.read_csv(TABLE), rows]).drop_duplicates(cell, keep="last")
    write_csv(TABLE, rows.sort_values(cell, ignore_index=True))


LOOKS = {  # of a sampler and a loss: name, colour, mark
    ("uniform", "bce"): ("BCE", "#3B3B3B", "o"),
    ("uniform", "dgb"): ("DGB", "#D55E00", "s"),
    ("group", "bce"): ("group sampling", "#0072B2", "^"),
    ("group", "dgb"): ("group sampling and DGB", "#009E73", "D"),
}
NAMES = {"adamw": "AdamW", "sgd": "SGD"}


@style()
def draw(table: pd.DataFrame):
    """Plot mAP and tail against the budget: a column for each optimiser and choice of the rate."""
    sets = list(dict.fromkeys(table.data))
    rows = [(data, metric) for data in sets for metric in ("mAP", "tail")]
    there = [name for name in NAMES if name in set(table.optimizer)]
    columns = [(o, rate) for o in there for rate in ("one for all", "each its best")]
    size = {"figsize": (1 + 2.6 * len(columns), 1 + 2.2 * len(rows)), "layout": "constrained"}
    fig, axes = plt.subplots(len(rows), len(columns), sharex=True, sharey="row", **size)
    for (data, metric), line in zip(rows, axes, strict=True):
        for (optimizer, rate), ax in zip(columns, line, strict=True):
            part = table[(table.data == data) & (table.optimizer == optimizer)]
            part = part[part.rate == rate]
            for (sampler, loss), (name, color, marker) in LOOKS.items():
                row = part[(part.sampler == sampler) & (part.loss == loss)]
                found = row.groupby("budget")[metric].agg(["mean", "std"])
                options = {"color": color, "marker": marker, "ms": 4, "lw": 1.3, "label": name}
                ax.errorbar(found.index, found["mean"], yerr=found["std"].fillna(0), **options)
            ax.set_xscale("log")
            if ax in axes[0]:
                fixed = f"all at {FIXED[optimizer]:g}"
                choice = fixed if rate == "one for all" else "each at its best rate"
                ax.set_title(f"{NAMES[optimizer]}, {choice}")
            if ax in axes[-1]:
                ax.set_xlabel("training steps")
        where = "from nothing" if data == "pictograms" else "frozen"
        line[0].set_ylabel(f"{data}, {where}\n{metric} (%)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=len(names))
    return fig, axes


if __name__ == "__main__":
    main()
