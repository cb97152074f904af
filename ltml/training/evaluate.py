"""Evaluate a run on labelled images: ranking, decisions at its thresholds, calibration."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.labels import GROUPS, LabelMatrix
from ltml.core.metrics import auroc, average_precision, calibration, classification
from ltml.data.plan import ReadingOptions, ReadingPlan
from ltml.data.single import load_table
from ltml.data.splits import LongTailData, Split
from ltml.data.tables import open_table
from ltml.runs import scores as kept
from ltml.runs.run import Run
from ltml.runs.scores import SPLITS, Scores, logit
from ltml.training.setup import data_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What a run's scores on labelled images are worth; fractions in [0, 1].

    Args:
        scores: logits and labels of the images.
        classes: table of a row per class, by descending training count: class, group, count
            (training images), positives (here), ap, auroc, threshold, precision, recall, f1. AP,
            AUROC, recall and F1 are NaN for a class without a positive here.
        groups: table indexed by group (all, head, medium, tail): classes, mAP, AUROC, CP, CR, CF1,
            OP, OR, OF1, macro_F1 (see :func:`ltml.core.metrics.classification`), and
            calibration_error (see :func:`ltml.core.metrics.calibration`).
    """

    scores: Scores
    classes: pd.DataFrame
    groups: pd.DataFrame

    def __repr__(self) -> str:
        whole = self.groups.loc["all"]
        return (
            f"Evaluation({len(self.scores):,} images: mAP {100 * whole.mAP:.1f}, "
            f"AUROC {100 * whole.AUROC:.1f}, CF1 {100 * whole.CF1:.1f}, OF1 {100 * whole.OF1:.1f})"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>" + (100 * self.groups.drop(columns="classes")).round(1).to_html()


def evaluate(
    run: Run | str | Path,
    data: Split | str | Path = "test",
    *,
    root: str | Path | None = None,
    thresholds: float | Mapping | None = None,
    separator: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Evaluate a run on any labelled images, at the thresholds that it chose when it ended.

    Labels that are unknown count nowhere.

    Args:
        run: a run, or its folder.
        data: test, val or train: a split of the run's own, whose scores are kept in the run (and
            made there, if it has none yet); or a table of labels, as
            :func:`ltml.data.folder.read_label_csv` reads it; or a :class:`ltml.Split`, whose
            classes are some or all of the run's.
        root: folder that a table's images are relative to; default: the table's own.
        thresholds: thresholds of the classes; see :meth:`ltml.Run.threshold_of_class`.
        separator: text between the labels of a table's cell; default: as in the run's own tables.
        device: auto (cuda, else mps, else cpu), or a torch device.
        progress: whether to show a progress bar.

    Raises:
        InputError: if the images or labels cannot be read, a class is none of the run's, or the
            run has no weights.

    Example:
        >>> import tempfile, ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = ltml.probe(data, backbone="small", weights=None, out=f"{folder}/run",
        ...                      progress=False)
        ...     found = evaluate(run)
        >>> found.groups.columns.tolist()[:4]
        ['classes', 'mAP', 'AUROC', 'CP']
    """
    run = run if isinstance(run, Run) else Run.load(run)
    options = {"device": device, "progress": progress}
    if isinstance(data, str) and data in SPLITS:
        scores = _own(run, data, options)
    else:
        if isinstance(data, LongTailData):
            raise InputError("data is a whole data set; give one of its splits, such as data.test")
        split = data if isinstance(data, Split) else _of_table(run, Path(data), root, separator)
        scores = _scored(run, "table", split, options)
    return assess(run, scores, thresholds=thresholds)


def assess(run: Run, scores: Scores, *, thresholds: float | Mapping | None = None) -> Evaluation:
    """Evaluate scores that there are already; see :func:`evaluate`."""
    least = run.threshold_of_class(thresholds)
    table = run.classes.set_index("class").loc[list(scores.class_names)]
    p, y = torch.from_numpy(scores.probabilities), torch.from_numpy(scores.targets)
    of_group = {name: np.flatnonzero(table.group == name) for name in GROUPS}
    of_group = {name: classes for name, classes in of_group.items() if len(classes)}
    made, present = scores.probabilities >= least, scores.targets == 1
    known = ~np.isnan(scores.targets)
    hits, predicted, held = ((x & known).sum(0) for x in (made & present, made, present))
    with np.errstate(invalid="ignore"):
        columns = {
            "class": scores.class_names,
            "group": table.group.to_numpy(),
            "count": table["count"].to_numpy(),
            "positives": held,
            "ap": average_precision(p, y),
            "auroc": auroc(p, y),
            "threshold": least,
            "precision": np.where(predicted > 0, hits / predicted, np.nan),
            "recall": np.where(held > 0, hits / held, np.nan),
            "f1": np.where(held > 0, 2 * hits / (predicted + held), np.nan),
        }
    classes = pd.DataFrame(columns)
    groups = classification(p, y, thresholds=torch.from_numpy(least), groups=of_group)
    error = calibration(p, y, groups=of_group).groupby("group").error.first()
    rows = {"all": np.arange(len(classes)), **of_group}
    means = {name: classes.iloc[index][["ap", "auroc"]].mean() for name, index in rows.items()}
    groups.insert(0, "classes", [len(index) for index in rows.values()])
    groups.insert(1, "mAP", [means[name].ap for name in rows])
    groups.insert(2, "AUROC", [means[name].auroc for name in rows])
    groups["calibration_error"] = error.reindex(groups.index)
    groups.index.name = "group"
    by_count = classes.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)
    return Evaluation(scores, by_count, groups)


def _own(run: Run, name: str, options: dict) -> Scores:
    """Scores of a split of the run's own; made, and kept there, if the run has none."""
    try:
        return run.scores(name)
    except InputError:
        if name == "train" or (run.path / kept.FILE).is_file():
            raise  # of the run's training, not of one to come
    data = data_of(run)
    for each, split in data.splits.items():
        if each != "train":
            found = _scored(run, each, split, options)
            arrays = found.logits, found.targets, found.ids, found.paths
            kept.add_scores(run.path, found.class_names, each, *arrays)
    if run.thresholds is None:
        kept.add_thresholds(run.path)
    return run.scores(name)


def _scored(run: Run, name: str, split: Split, options: dict) -> Scores:
    """Score the images of a split by the run's network, those that can be decoded."""
    names = run.config["data"]["class_names"]
    ours = {c: i for i, c in enumerate(split.labels.class_names)}
    if strange := [c for c in ours if c not in set(names)]:
        raise InputError(
            f"class {quote(strange[0])} of the images is none of the {len(names)} classes of run "
            f"{run.name!r}; rename it, or leave it out"
        )
    unlabelled = LabelMatrix.from_lists([[]] * len(split), names)
    probabilities = run.predict(replace(split, labels=unlabelled), **options)
    targets = np.full((len(split), len(names)), np.nan, np.float32)  # unknown, if not annotated
    theirs = split.labels.dense().numpy()
    for c, class_name in enumerate(names):
        if class_name in ours:
            targets[:, c] = theirs[:, ours[class_name]]
    files = split.files or [""] * len(split)
    whole = probabilities.notna().all(axis=1).to_numpy()
    ids, paths = (tuple(np.array(x, dtype=object)[whole]) for x in (list(split.ids), files))
    logits = logit(probabilities.to_numpy()[whole]).astype(np.float32)
    return Scores(name, tuple(names), ids, paths, logits, targets[whole])


def _of_table(run: Run, path: Path, root: str | Path | None, separator: str | None) -> Split:
    if not path.is_file():
        known = ", ".join(SPLITS)
        raise InputError(f"{str(path)!r} is no file; give a table of labels, or one of {known}")
    names = run.config["data"]["class_names"]
    # As the run's own tables were read, but for what is in other columns there.
    known = {field.name for field in fields(ReadingOptions)} - {"split_column"}
    plan = run.config["data"].get("plan")
    said = ReadingPlan.from_dict(plan).options(open_table(path).columns) if plan else {}
    said |= {k: v for k, v in run.recipe.get("data_options", {}).items() if k in known}
    said |= {} if separator is None else {"separator": separator}
    return load_table(path, names, root=root, **said)
