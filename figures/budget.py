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

import pandas as pd

import ltml
from ltml import Recipe
from ltml.core.files import write_csv
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


if __name__ == "__main__":
    main()
