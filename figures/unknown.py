"""Measure what to do with unknown labels: ignore them, or take them as negatives.

``python figures/unknown.py VOC_LT_PROXY FASHION EFFICIENTNET_LITE0 --features FOLDER`` writes
``unknown_labels.csv`` beside this file, a row for each classifier; rows that are there are not
measured again. Every image passes the frozen backbone once, and the pooled features are kept in
FOLDER.

On the VOC-LT proxy a fraction of all training labels is hidden at random. On photos of clothes
(the folder's ``train.csv``, complete, joined with ``image.csv``, labelled by hand with omissions)
what the latter does not mention is unknown. Scores are mAPs on complete test labels.
"""

import argparse
import logging
import tempfile
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

import ltml
from ltml import LabelMatrix, LongTailData, Recipe, Split
from ltml.core.discriminant import SharedCovariance
from ltml.core.files import write_csv
from ltml.training.bank import Bank
from ltml.training.network import make_backbone

TABLE = Path(__file__).resolve().parent / "unknown_labels.csv"
SEEDS, RATES, STEPS = 3, (3e-4, 1e-3, 3e-3, 1e-2), 300
CELL = ["data", "unknown", "classifier", "treatment"]


def features(name: str, recipe: Recipe, data: LongTailData, folder: Path) -> Bank:
    """The pooled features of a data set, from the folder if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for key, split in data.splits.items():
        path = folder / f"{name}-{key}.pt"
        if not path.exists():
            few = split.subset(
                split.labels.holding(range(split.labels.num_classes)).nonzero()[0][:1]
            )
            part = LongTailData(name, **({"train": few, "test": few} | {key: split}))
            torch.save(getattr(ltml.bank(recipe, part).pooled, key).images, path)
        splits[key] = Split(torch.load(path, weights_only=True), split.labels, split.ids)
    settings = {name: getattr(recipe, name) for name in ("backbone", "weights", "image_size")}
    return Bank(name, **splits, backbone=made(*settings.values()), settings=settings)


@cache
def made(name: str, weights: str, image_size: int) -> torch.nn.Module:
    """The backbone, which trained heads are saved with."""
    return make_backbone(name, weights=weights, image_size=image_size)


def photos(root: str, recipe: Recipe, folder: Path) -> dict[str, Bank]:
    """The VOC-LT proxy with some of its labels unknown, by their fraction and a seed."""
    whole = features(
        "voc_lt_proxy", recipe, ltml.load("folder", root=root, val_split="val"), folder
    )
    Y, found = whole.train.labels, {"0 %": whole}
    for percent, seed in product((50, 70, 90), range(SEEDS)):
        hidden = np.random.default_rng(seed).random(Y.shape) < percent / 100
        labels = np.where(hidden, np.nan, Y.dense().numpy())
        labels = LabelMatrix(labels, Y.class_names)
        found[f"{percent} % at random, {seed}"] = replace(
            whole, train=replace(whole.train, labels=labels)
        )
    return found


def clothes(root: str, recipe: Recipe, folder: Path) -> dict[str, Bank]:
    """Photos of clothes; what was not mentioned of the second half of the training is unknown."""
    recipe = replace(recipe, augment="none")
    whole = features("fashion", recipe, ltml.load("folder", root=root, val_split="val"), folder)
    image = ltml.load("folder", root=root, train_split="image")
    few = image.test.subset(range(8))  # the whole is that of the other half
    more = features("fashion-image", recipe, replace(image, val=None, test=few), folder)
    ours, theirs = whole.train.labels, more.train.labels
    dense = torch.cat([ours.dense(), theirs.dense()]).float().numpy()
    dense[len(ours) :][dense[len(ours) :] == 0] = np.nan
    train = Split(
        torch.cat([whole.train.images, more.train.images]),
        LabelMatrix(dense, ours.class_names),
        [*whole.train.ids, *more.train.ids],
    )
    return {"none: complete half": whole, "what is not mentioned": replace(whole, train=train)}


def closed_form(bank: Bank, labels: LabelMatrix) -> dict[str, float]:
    """Scores of the shared-covariance classifier."""
    x, y = bank.train.images.flatten(2), labels.dense()
    fitted = SharedCovariance(labels.num_classes, x.shape[2])
    fitted.update(x, y)
    weight, bias = fitted.solve(fitted.choose_shrinkage(x, y))
    out = {}
    for prefix, split in (("", bank.test), ("val_", bank.val)):
        seen = F.normalize(split.images[:, 0].flatten(1), dim=1).double()
        out |= {
            f"{prefix}mAP": np.nanmean(ltml.average_precision(seen @ weight.T + bias, split.labels))
        }
    return out


def trained(bank: Bank, loss: str, treatment: str, seed: int, rate: float) -> dict[str, float]:
    """Scores of a linear head trained on the same features."""
    options = {"loss_options": {"strength": 0.5}} if loss == "dgb" else {}
    recipe = Recipe(
        **options,
        data="folder",
        freeze=-1,
        loss=loss,
        unknown=treatment,
        lr=rate,
        steps=STEPS,
        seed=seed,
        device="cpu",
        validate_every=1000,
    )
    with tempfile.TemporaryDirectory() as out:
        run = ltml.fit(recipe, data=bank, out=f"{out}/run", progress=False)
    return {"mAP": run.summary["mAP"], "val_mAP": run.metrics.val_mAP.iloc[-1]}


def main() -> None:
    """Measure what is missing, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("voc", "fashion", "weights"):
        parser.add_argument(name)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--only", default="", help="classifiers to measure, such as bce,dgb")
    parser.add_argument("--data", default="", help="part of the name of the data set to measure")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    options = parser.parse_args()
    logging.getLogger("ltml").setLevel(logging.ERROR)
    recipe = Recipe(
        data="folder",
        backbone="timm/tf_efficientnet_lite0",
        weights=options.weights,
        freeze=-1,
        image_size=224,
        augment="light",
    )
    sets = {
        "VOC-LT proxy": lambda: photos(options.voc, recipe, options.features),
        "clothes": lambda: clothes(options.fashion, recipe, options.features),
    }
    sets = {name: load() for name, load in sets.items() if options.data in name}
    rows = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    done = {tuple(str(row[name]) for name in (*CELL, "seed", "rate")) for row in rows}
    wanted = set(filter(None, options.only.split(","))) or {"closed form", "bce", "dgb"}
    for data, banks in sets.items():
        for unknown, bank in banks.items():
            what, _, number = unknown.partition(", ")
            treatments = ("ignore", "negative") if bank.train.labels.has_unknown else ("ignore",)
            for classifier, treatment in product(("closed form", "bce", "dgb"), treatments):
                if classifier not in wanted:
                    continue
                closed = classifier == "closed form"
                # hidden labels have a seed of their own; a closed form has no other
                seeds = [int(number)] if number else range(1 if closed else SEEDS)
                seeds = [seed for seed in seeds if seed < options.seeds]
                for seed, rate in product(seeds, ["-"] if closed else RATES):
                    key = (data, what, classifier, treatment, str(seed), str(rate))
                    if key in done:
                        continue
                    labels = bank.train.labels
                    labels = labels if treatment == "ignore" else labels.fill_unknown()
                    found = (
                        closed_form(bank, labels)
                        if closed
                        else trained(bank, classifier, treatment, seed, rate)
                    )
                    row = dict(zip((*CELL, "seed", "rate"), key, strict=True))
                    rows.append(row | {name: round(100 * v, 2) for name, v in found.items()})
                    write_csv(TABLE, pd.DataFrame(rows))
    print(summary(pd.read_csv(TABLE)).to_string())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation of the mAP over seeds, each cell at its rate of the best val_mAP."""
    by_rate = table.groupby([*CELL, "rate"], sort=False)
    means = by_rate.mAP.agg(["mean", "std"]).join(by_rate.val_mAP.mean()).reset_index("rate")
    best = means.sort_values("val_mAP").groupby(CELL, sort=False).tail(1)
    text = best["mean"].map("{:.1f}".format) + best["std"].map(" ± {:.1f}".format).where(
        best["std"].notna(), ""
    )
    return text.unstack("treatment").sort_index()


if __name__ == "__main__":
    main()
