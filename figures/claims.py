"""Do the sentences that compare hold? One row a claim, data set, network and stage.

``python figures/claims.py`` writes ``claims.csv`` beside this file from the tables there; ``make
figures`` runs it. The tables of photos come from one command for each data set, network and stage,
whose finished trainings are not trained again when it is broken off:

    python figures/claims.py measure --data 'VOC-LT proxy' --root voc_lt_proxy --stage frozen \\
        --backbone timm/tf_efficientnet_lite0 --weights efficientnet_lite0.safetensors --out runs/x

Every difference is in points (percent of mAP, F1 or AUROC) and has a 95 % interval: over seeds, by
Student's t, or for classifiers in closed form, which have no seed (``seeds`` is 0), over the test
photos, by the bootstrap. The verdict follows from the interval alone.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

import ltml
from ltml import Recipe, Run
from ltml.core.files import write_csv
from ltml.core.metrics import classification, f1_thresholds
from ltml.runs.recipe import preset
from ltml.training import ablation
from ltml.training.bank import Bank
from ltml.training.setup import load_data

HERE = Path(__file__).resolve().parent
TABLES = HERE / "claims"
COLUMNS = ["claim", "data", "network", "stage", "setting", "against", "metric"]
COLUMNS += ["difference", "low", "high", "seeds", "verdict"]
WHERE = ["data", "network", "stage"]
HOW = ["sampler", "loss", "diversity", "classifier"]
ROWS = {"frozen": ["*/*/off"], "fine-tuned": ["uniform/bce/off", "group-late/dgb/off"]}
RATES = {"frozen": [1e-3, 3e-3, 1e-2], "fine-tuned": [2e-3]}
RESAMPLED = 1000

# A claim pairs rows that differ in these columns alone, first against second; a third entry holds
# what both have in common.
CLAIMS: dict[str, tuple[dict, dict, dict]] = {
    "refit": ({"classifier": "refit"}, {"classifier": "own"}, {"tuned": True}),
    "interpolation": ({"classifier": "interpolated"}, {"classifier": "refit"}, {"tuned": True}),
    "refit-and-interpolation": (
        {"classifier": "interpolated"},
        {"classifier": "own"},
        {"tuned": True},
    ),
    "balanced-sampling": ({"sampler": "class-aware"}, {"sampler": "uniform"}, {}),
    "group-sampling": ({"sampler": "group"}, {"sampler": "uniform"}, {}),
    "group-against-class-aware": ({"sampler": "group"}, {"sampler": "class-aware"}, {}),
    "late-group-sampling": ({"sampler": "group-late"}, {"sampler": "uniform"}, {}),
    "dgb": ({"loss": "dgb"}, {"loss": "bce"}, {}),
    "late-group-sampling-and-dgb": (
        {"sampler": "group-late", "loss": "dgb"},
        {"sampler": "uniform", "loss": "bce"},
        {},
    ),
    "class-attention": ({"diversity": "attention"}, {"diversity": "off"}, {"trained": True}),
    "fusion": ({"diversity": "dem"}, {"diversity": "attention"}, {}),
    "recipe": (
        {"sampler": "group-late", "loss": "dgb", "classifier": "interpolated"},
        {"sampler": "uniform", "loss": "bce", "classifier": "own"},
        {"tuned": True},
    ),
}


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of a difference says of the claim that it is positive.

    Example:
        >>> verdict(0.1, 2), verdict(-1, 2), verdict(-2, -0.1), verdict(float("nan"), 1)
        ('holds', 'not told from chance', 'fails', 'not told from chance')
    """
    if low > 0:
        return "holds"
    return "fails" if high < 0 else "not told from chance"


def over_seeds(differences: Sequence[float]) -> dict[str, float | int | str]:
    """Mean, 95 % interval by Student's t, number of seeds and verdict of paired differences.

    One seed has no interval, and tells nothing from chance.
    """
    x = np.asarray(differences, float)
    margin = np.nan
    if len(x) > 1:
        margin = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    found = {"difference": x.mean(), "low": x.mean() - margin, "high": x.mean() + margin}
    return found | {"seeds": len(x), "verdict": verdict(found["low"], found["high"])}


def over_photos(measure, ours: np.ndarray, theirs: np.ndarray, targets: np.ndarray) -> dict:
    """Difference of two scorings of the same photos, with the bootstrap's 95 % interval over them.

    Args:
        measure: function of scores and targets, in percent.
        ours, theirs: ``(N, C)``.
        targets: ``(N, C)`` of 0 and 1.
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLED):
        some = rng.integers(len(targets), size=len(targets))
        found.append(measure(ours[some], targets[some]) - measure(theirs[some], targets[some]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    difference = measure(ours, targets) - measure(theirs, targets)
    ends = {"low": low, "high": high, "seeds": 0}
    return {"difference": difference} | ends | {"verdict": verdict(low, high)}


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Step-wise average precision of each class, in percent; NaN without a positive."""
    found = ltml.average_precision(torch.from_numpy(scores), torch.from_numpy(targets))
    return 100 * np.asarray(found)


def macro_f1(made: np.ndarray, targets: np.ndarray) -> float:
    """Mean F1 of the classes in percent, of decisions made."""
    p, y = torch.from_numpy(made.astype(np.float32)), torch.from_numpy(targets)
    return 100 * classification(p, y).macro_F1.iloc[0]


# ---- measuring ---------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """Train what is missing of one data set, network and stage, and write its tables."""
    base = preset("photos-frozen" if options.stage == "frozen" else "photos")
    base = Recipe(
        **vars(base)
        | {"root": str(options.root), "backbone": options.backbone, "weights": options.weights}
        | {"val_split": options.val_split, "test_split": options.test_split}
        | ({"image_size": options.size} if options.size else {})
        | {name: value for name, _, value in (field.partition("=") for field in options.fields)}
        | ({"loss_options": {"strength": 0.5}} if options.stage == "frozen" else {})
    )
    data, rows, pairs = load_data(base), [], pd.DataFrame()
    grid = ablation.cells(seeds=options.seeds, only=options.only or ROWS[options.stage])
    if options.stage == "frozen":
        photos, data = data, ltml.bank(base, data)
        closed = [
            closed_form(base, data, options.out, diversity) for diversity in ("attention", "off")
        ]
        larger = replace(base, image_size=9 * base.image_size // 7)  # 288 of 224
        closed.append(closed_form(larger, photos, options.out, "off", f"-{larger.image_size}"))
        rows.append(ablation.tabulate(closed[:2]))
        pairs = of_photos(*closed)
    stage = options.stage + ("" if rows else f" at {base.image_size} px")
    stage += f", tested at {base.test_size}" if base.test_size else ""
    where = dict(zip(WHERE, (options.data, network_of(options.backbone), stage), strict=True))
    if not options.closed_only:
        rates = options.rates or RATES[options.stage]
        rows.append(ablation.ablate(base, grid, options.out / "grid", rates=rates, data=data))
    name = "-".join(where.values()).replace(" ", "-")
    TABLES.mkdir(exist_ok=True)
    write_csv(TABLES / f"{name}.csv", pd.concat(rows).assign(**where))
    if len(pairs):
        write_csv(TABLES / f"{name}.photos.csv", pairs.assign(**where).reindex(columns=COLUMNS))


def network_of(backbone: str) -> str:
    """Short name of a network."""
    return backbone.removeprefix("timm/tf_")


def closed_form(
    base: Recipe, data: ltml.LongTailData, out: Path, diversity: str, size: str = ""
) -> Run:
    """Fit the closed form on a bank, or on photos of another size, unless that is done."""
    path = out / f"closed-{diversity}{size}"
    if (path / "summary.json").is_file():
        return Run.load(path)
    names = ["data", "root", "val_split", "test_split"]
    names += [] if isinstance(data, Bank) else ["backbone", "weights", "image_size"]
    settings = {name: getattr(base, name) for name in names}
    return ltml.probe(data, out=path, overwrite=True, diversity=diversity, **settings)


def of_photos(attended: Run, pooled: Run, larger: Run) -> pd.DataFrame:
    """What the closed forms alone tell: attention, larger images, where thresholds come from."""
    found, ours, theirs = [], attended.scores("test"), pooled.scores("test")
    y = ours.targets
    in_order = attended.classes.set_index("class").group
    tail = np.array([in_order[name] == "tail" for name in ours.class_names])
    large, usual = (f"closed form, {run.recipe['image_size']} px" for run in (larger, pooled))
    for metric, classes in (("mAP", slice(None)), ("tail", tail)):

        def mean(scores, targets, classes=classes):
            return np.nanmean(average_precisions(scores, targets)[classes])

        row = {"claim": "class-attention", "setting": "closed form, attention"}
        row |= {"against": "closed form, off", "metric": metric}
        found.append(row | over_photos(mean, ours.logits, theirs.logits, y))
        row = {"claim": "larger-images", "setting": large, "against": usual}
        more = larger.scores("test").logits
        found.append(row | {"metric": metric} | over_photos(mean, more, theirs.logits, y))
    made = {split: ours.probabilities >= chosen(attended, split) for split in ("train", "val")}
    row = {"claim": "thresholds", "setting": "thresholds by leave-one-out", "metric": "macro F1"}
    row["against"] = "thresholds by validation photos"
    found.append(row | over_photos(macro_f1, made["train"], made["val"], y))
    return pd.DataFrame(found)


def chosen(run: Run, split: str) -> np.ndarray:
    """Threshold of largest F1 of each class on a split; without a positive, of all at once."""
    scores = run.scores(split)
    p, y = torch.from_numpy(scores.probabilities), torch.from_numpy(scores.targets)
    found = f1_thresholds(p, y).numpy()
    return np.where(
        np.isnan(found), f1_thresholds(p.reshape(-1, 1), y.reshape(-1, 1)).numpy(), found
    )


# ---- judging -----------------------------------------------------------------------------------


def measured() -> pd.DataFrame:
    """Every training's row: the tables of photos, and those of figures/."""
    photos = pd.read_csv(HERE / "voc_lt_proxy.csv").assign(network="mobilenet_v2")
    photos = photos[photos.optimizer == "adamw"]
    sizes = " at " + photos["size"].astype(str) + " px"
    photos["stage"] = np.where(photos.backbone == "frozen", "frozen", "fine-tuned" + sizes)
    nothing = {"network": "small", "stage": "from nothing"}
    drawn = pd.read_csv(HERE / "ablation.csv").assign(**nothing)
    again = pd.read_csv(HERE / "refit.csv").assign(network="small")
    again = again[again.data == "pictograms"].assign(stage="from nothing, re-fitted")
    tables = [pd.read_csv(p) for p in sorted(TABLES.glob("*.csv")) if ".photos" not in p.name]
    return pd.concat([photos, drawn, again, *tables], ignore_index=True)


def pairs_of(table: pd.DataFrame) -> Iterator[dict]:
    """Rows of the claims that compare trainings, seed by seed."""
    table = table.assign(trained=table.steps > 0, tuned=table.stage.ne("frozen"))
    for where, part in table.groupby(WHERE, sort=False):
        place = dict(zip(WHERE, where, strict=True))
        yield from _closed_against_trained(part, place)
        for claim, (ours, theirs, common) in CLAIMS.items():
            some = _of(part, common)
            one, other = _of(some, ours), _of(some, theirs)
            on = [name for name in HOW if name not in ours] + ["seed"]
            both = one.merge(other, on=on, suffixes=("", "_other"))
            for _, rows in both.groupby([name for name in on if name != "seed"], sort=False):
                yield from _judged(claim, place, rows)


def _closed_against_trained(part: pd.DataFrame, place: dict) -> Iterator[dict]:
    closed = part[(part.steps == 0) & (part.diversity == "attention")]
    heads = part[(part.steps > 0) & (part.stage == "frozen") & (part.classifier == "own")]
    both = closed.drop(columns="seed").merge(heads, how="cross", suffixes=("", "_other"))
    for _, rows in both.groupby([f"{name}_other" for name in HOW], sort=False):
        yield from _judged("closed-form", place, rows)


def _of(table: pd.DataFrame, values: dict) -> pd.DataFrame:
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def _judged(claim: str, place: dict, rows: pd.DataFrame) -> Iterator[dict]:
    """The rows of mAP and tail of a pair of settings."""
    first = rows.iloc[0]
    names = {"setting": _name(first, ""), "against": _name(first, "_other")}
    for metric in ("mAP", "tail"):
        differences = rows[metric] - rows[f"{metric}_other"]
        if differences.notna().all():
            yield {"claim": claim} | place | names | {"metric": metric} | over_seeds(differences)


def _name(row: pd.Series, suffix: str) -> str:
    def entry(name):
        return row.get(f"{name}{suffix}", row.get(name))

    if entry("steps") == 0:
        return f"closed form, {entry('diversity')}"
    return " / ".join(str(entry(name)) for name in HOW)


def others() -> Iterator[dict]:
    """Rows of the claims whose tables are of other scripts: suspects, and unknown labels."""
    lite0 = {"network": "efficientnet_lite0", "stage": "frozen"}
    suspects = pd.read_csv(HERE / "suspects.csv")
    for data, part in suspects.groupby("data", sort=False):
        by = part.pivot(index="seed", columns="method")
        place = {"data": "VOC-LT proxy" if data == "voc_lt_proxy" else data} | lite0
        for against in [name for name in part.method.unique() if name != "closed form"]:
            for kind in ("missing", "false"):
                scores = 100 * by[f"{kind}_auroc"]
                row = {"claim": "suspects"} | place | {"setting": "closed form", "against": against}
                row["metric"] = f"AUROC of {kind} labels"
                yield row | over_seeds(scores["closed form"] - scores[against])
    unknown = pd.read_csv(HERE / "unknown_labels.csv")
    unknown["data"] = unknown.data.replace("clothes", "fashion")
    cell = ["data", "unknown", "classifier", "treatment"]
    rate = unknown.loc[unknown.groupby(cell).val_mAP.idxmax(), [*cell, "rate"]]
    unknown = unknown.merge(rate, on=[*cell, "rate"])
    for (data, what, classifier), part in unknown.groupby(cell[:3], sort=False):
        by = part.pivot_table(index="seed", columns="treatment", values="mAP")
        if {"ignore", "negative"} <= set(by):
            row = {"claim": "unknown-ignored", "data": data} | lite0
            row |= {"setting": f"{what}: {classifier}, ignored", "metric": "mAP"}
            row["against"] = f"{what}: {classifier}, taken as negative"
            yield row | over_seeds((by["ignore"] - by["negative"]).dropna())


def budgets() -> Iterator[dict]:
    """Rows of balancing against plain BCE on a budget, at one rate for all and each at its own."""
    table = pd.read_csv(HERE / "budget.csv")
    place = {"pictograms": ("small", "from nothing")}
    cell = ["data", "optimizer", "budget", "rate"]
    for (data, optimizer, steps, rate), part in table.groupby(cell, sort=False):
        plain = _of(part, {"sampler": "uniform", "loss": "bce"}).set_index("seed")
        network, stage = place.get(data, ("efficientnet_lite0", "frozen"))
        row = {"claim": f"balancing, {rate}".replace(", ", "-").replace(" ", "-")}
        row |= {"data": data, "network": network, "stage": f"{stage}, {steps} steps of {optimizer}"}
        for (sampler, loss), rows in part.groupby(["sampler", "loss"], sort=False):
            if (sampler, loss) == ("uniform", "bce"):
                continue
            row |= {"setting": f"{sampler} / {loss}", "against": "uniform / bce"}
            for metric in ("mAP", "tail"):
                differences = (rows.set_index("seed")[metric] - plain[metric]).dropna()
                yield row | {"metric": metric} | over_seeds(differences)


def judge() -> pd.DataFrame:
    """Return the table of claims."""
    photos = [pd.read_csv(path) for path in sorted(TABLES.glob("*.photos.csv"))]
    rows = pd.DataFrame([*pairs_of(measured()), *others(), *budgets()])
    table = pd.concat([rows, *photos], ignore_index=True).reindex(columns=COLUMNS)
    numbers = ["difference", "low", "high"]
    table[numbers] = table[numbers].astype(float).round(2)
    return table.sort_values(COLUMNS[:7], ignore_index=True)


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of each claim and metric by verdict: ``holds`` in how many ``of``."""
    found = pd.crosstab([table.claim, table.metric], table.verdict)
    found = found.reindex(columns=["holds", "not told from chance", "fails"], fill_value=0)
    return found.assign(of=found.sum(axis=1)).reset_index()


SENTENCES = {
    "closed-form": "frozen: the closed form, against each trained head",
    "larger-images": "frozen: the closed form on images of 288 px, against 224 px",
    "class-attention": "class attention, against average pooling",
    "fusion": "fusion (DEM), against class attention alone",
    "balanced-sampling": "class-aware sampling, against uniform",
    "group-sampling": "group sampling, against uniform",
    "group-against-class-aware": "group sampling, against class-aware",
    "late-group-sampling": "late group sampling, against uniform",
    "dgb": "gradient balancing (DGB), against BCE",
    "late-group-sampling-and-dgb": "late group sampling and DGB, against uniform and BCE",
    "refit": "the re-fitted classifier, against the trained one",
    "interpolation": "half way back and re-fitted, against re-fitted",
    "refit-and-interpolation": "half way back and re-fitted, against the trained classifier",
    "recipe": "`--recipe photos`, against uniform, BCE and the trained classifier",
    "balancing-one-for-all": "on a budget, DGB, group sampling or both, against BCE: at one rate",
    "balancing-each-its-best": "the same, each at its best rate",
    "thresholds": "thresholds by leave-one-out, against validation photos",
    "suspects": "suspects by the closed form, against cleanlab",
    "unknown-ignored": "unknown labels ignored, against taken as negative",
}


def markdown(table: pd.DataFrame) -> str:
    """Count the verdicts of each claim, as a Markdown table."""
    lines = ["| | metric | comparisons | holds | not told from chance | fails | median |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    middle = table.groupby(["claim", "metric"]).difference.median()
    found = counted(table).set_index(["claim", "metric"])
    for claim, sentence in SENTENCES.items():
        for metric, row in found.loc[claim].iterrows() if claim in found.index.levels[0] else ():
            numbers = [row[name] for name in ("of", "holds", "not told from chance", "fails")]
            cells = [sentence, metric, *map(str, numbers), f"{middle[claim, metric]:+.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or judge what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command = parser.add_subparsers(dest="command").add_parser("measure", help="train and tabulate")
    for name in ("data", "root", "backbone", "weights"):
        command.add_argument(f"--{name}", required=True)
    command.add_argument("--out", type=Path, required=True, help="folder of the runs")
    command.add_argument("--stage", choices=list(ROWS), required=True)
    command.add_argument("--val-split", default="val")
    command.add_argument("--test-split")
    command.add_argument("--size", type=int, help="of the images; default: that of the recipe")
    command.add_argument("--fields", nargs="*", default=[], help="of the recipe: test_size=256")
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--rates", type=float, nargs="*", help="learning rates to choose from")
    command.add_argument("--only", nargs="*", help="patterns of sampler/loss/diversity")
    command.add_argument("--closed-only", action="store_true", help="train no heads")
    options = parser.parse_args()
    if options.command == "measure":
        measure(options)
        return
    table = judge()
    write_csv(HERE / "claims.csv", table)
    print(counted(table).to_string(index=False))


if __name__ == "__main__":
    main()
