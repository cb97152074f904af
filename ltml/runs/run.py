"""What a training leaves on disk. Everything that is plotted is plotted from it."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_json
from ltml.core.labels import BOUNDS, GROUPS
from ltml.core.options import choose, fitted
from ltml.runs.history import ScoreHistory, read_history
from ltml.runs.recipe import Recipe, from_fit
from ltml.runs.scores import SPLITS, Scores, find_mistakes, read_scores

if TYPE_CHECKING:
    import torch

    from ltml.training.predict import ImageModel

# torch is imported by the methods that use a model: a table of runs need not wait for it.


_LOG = logging.getLogger(__name__)

SCHEMA = 3  # version of the files below; raised when a reader of the old ones would be misled
METRICS = ["epoch", "step", "train_loss", "mAP", *GROUPS]
VALIDATION = [f"val_{name}" for name in ("mAP", *GROUPS)]  # with a validation split
PER_CLASS = ["epoch", "class", "group", "count", "ap", "grad_pos", "grad_neg", "grad_weight"]
UNKNOWN = ["known", "negatives", "test_known", "test_negatives"]  # of each class; in config.json
_TYPES = {"epoch": int, "step": int, "count": int, "class": str, "group": str}
_TYPES |= {"chosen_on": str, "positives": int}
_DATA = {"name": str, "train_images": int, "test_images": int, "class_names": list}


@dataclass(frozen=True, repr=False)
class Run:
    """A finished training, read from its folder.

    ``config.json`` holds the recipe and a description of the data, ``metrics.csv`` a row per epoch,
    ``per_class.csv`` a row per epoch and class, ``summary.json`` the result, ``model.pt`` the
    weights, ``scores.npz`` each image's logits and ``thresholds.csv`` what is predicted from them.
    APs and mAPs are fractions in [0, 1]; they are NaN in epochs that were not evaluated.

    Args:
        path: folder of the run.
        config: ``{"schema": ..., "recipe": {...}, "data": {...}}``.
        metrics: columns epoch, step, train_loss, mAP, head, medium, tail; with a validation split
            also val_mAP, val_head, val_medium, val_tail. The scores in the last row are those of
            the network that the run ended with: of its re-fitted head, or of the best epoch
            (``kept_epoch`` of the summary) with ``keep="best"``. Until version 0.5 the validation
            scores there were the last epoch's own with ``keep="best"``.
        per_class: columns epoch, class, group, count, ap, grad_pos, grad_neg, grad_weight, and
            val_ap with a validation split; auroc, since version 0.6; epochs count from 1, and
            gradients are summed over the epoch.
        summary: mAP, head, medium, tail, AUROC, gradient_imbalance, seconds, steps, torch, device,
            ...

    Example:
        >>> run = Run.load("figures/records/method")  # doctest: +SKIP
        >>> run.classes[["class", "count", "ap"]]  # doctest: +SKIP
        >>> run.predict("photos/")  # doctest: +SKIP
    """

    path: Path
    config: dict
    metrics: pd.DataFrame
    per_class: pd.DataFrame
    summary: dict

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run's folder.

        Raises:
            InputError: if it is missing, holds no finished run or one of a later schema, or if a
                file in it is damaged.
        """
        path = Path(path)
        config = read_config(path)
        if not (path / "metrics.csv").exists():  # before its first epoch, without a summary either
            _read_json(path / "summary.json", _going_on(config))
        metrics = _read_table(path / "metrics.csv", METRICS)
        per_class = _read_table(path / "per_class.csv", PER_CLASS)
        sizes = per_class.groupby("epoch").size()
        if metrics.empty or sizes.nunique() != 1 or sizes.index.tolist() != metrics.epoch.tolist():
            raise InputError(
                f"{str(path / 'metrics.csv')!r} and per_class.csv beside it hold different epochs "
                "or classes; train again"
            )
        summary = _read_json(path / "summary.json", _going_on(config))
        for name in ("mAP", *GROUPS, "AUROC", "gradient_imbalance", "seconds", "steps"):
            if not isinstance(summary.get(name), int | float | None):
                raise InputError(
                    f"{str(path / 'summary.json')!r}: {name} is {quote(summary[name])}; train again"
                )
        return cls(path, config, metrics, per_class, summary)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def recipe(self) -> dict:
        """The recipe's fields; empty for a loop of one's own, see :class:`ltml.Recorder`."""
        return self.config["recipe"]

    @property
    def setting(self) -> str:
        """The data, and the recipe but for seeds, device, compile and allow_leaks, as JSON: runs
        that share it are seeds of one result. A loop of your own without settings shares it with no
        other."""
        apart = ("seed", "device", "compile", "holdout_seed", "allow_leaks")
        recipe = {k: v for k, v in self.recipe.items() if k not in apart}
        data = {
            k: v for k, v in self.config["data"].items() if k not in ("layout", "digest", "content")
        }
        if recipe.get("holdout"):  # cut by the seed, so of nearly the same size
            cut = ("train_images", "labels_per_image", *UNKNOWN[:2])
            data |= dict.fromkeys(cut)
        whole = [recipe or str(self.path), data]
        return json.dumps(whole, sort_keys=True, default=str)

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest training count of a head class, and smallest above the tail."""
        return tuple(self.config["data"].get("bounds", BOUNDS))

    @property
    def classes(self) -> pd.DataFrame:
        """A row per class, by descending count: class, group, count, ap (last epoch), the
        gradients grad_pos, grad_neg, grad_weight summed over the run, and where the run has them
        auroc (last epoch) and threshold (see :attr:`thresholds`). Where labels are unknown also
        known and negatives, the training images known to hold the class or not, and known not to,
        and test_known and test_negatives."""
        return self._classes.copy()  # the caller's own

    @cached_property
    def _classes(self) -> pd.DataFrame:
        table = self.per_class
        last = table[table.epoch == table.epoch.max()]
        sums = table.groupby("class", sort=False)[["grad_pos", "grad_neg", "grad_weight"]]
        out = last[["class", "group", "count", "ap"]].merge(
            sums.sum(min_count=1), left_on="class", right_index=True
        )
        if "auroc" in last:
            out["auroc"] = out["class"].map(last.set_index("class").auroc)
        data = self.config["data"]
        for name in UNKNOWN:
            if isinstance(data.get(name), list) and len(data[name]) == len(data["class_names"]):
                by_class = dict(zip(data["class_names"], data[name], strict=True))
                out[name] = out["class"].map(by_class)
        if (thresholds := self.thresholds) is not None:
            out["threshold"] = out["class"].map(thresholds.threshold)
        return out.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)

    @property
    def stages(self) -> pd.DataFrame:
        """With a refit, a row per network that the training ended with and class: classifier (own,
        refit, interpolated), class, group, count, ap, and val_ap with a validation split."""
        path = self.path / "stages.csv"
        if not path.is_file():
            return pd.DataFrame(columns=["classifier", "class", "group", "count", "ap"])
        return pd.read_csv(path, keep_default_na=False, na_values={"ap": [""], "val_ap": [""]})

    @property
    def thresholds(self) -> pd.DataFrame | None:
        """The probability from which each class is predicted, chosen when the run ended as that of
        largest F1: indexed by class, with threshold, chosen_on (``val``; ``train``, by scores of
        images left out; or ``all classes`` at once, where the class has no positive there) and
        positives. None if the run has neither a validation split nor a refit."""
        path = self.path / "thresholds.csv"
        if not path.is_file():
            return None
        table = _read_table(path, ["class", "threshold", "chosen_on", "positives"])
        return table.set_index("class")

    def threshold_of_class(self, thresholds: float | Mapping | None = None) -> np.ndarray:
        """Thresholds ``(C,)``, classes in the model's order.

        Args:
            thresholds: one threshold for all, or class name -> threshold; default: the run's own,
                0.5 for a class that has none.

        Raises:
            InputError: if a class is unknown, or a threshold is not in [0, 1].
        """
        names = self.config["data"]["class_names"]
        if thresholds is None:
            thresholds = {} if self.thresholds is None else self.thresholds.threshold.to_dict()
        if isinstance(thresholds, Mapping | pd.Series):
            thresholds = dict(thresholds)
            for name in thresholds:
                choose("class", name, dict.fromkeys(names))
            thresholds = [thresholds.get(name, 0.5) for name in names]
        try:
            if np.asarray(thresholds).dtype == bool:
                raise TypeError
            found = np.broadcast_to(np.asarray(thresholds, dtype=float), len(names)).copy()
        except (TypeError, ValueError):
            raise InputError(
                f"thresholds is {quote(thresholds)}; give one number in [0, 1], one for each of "
                f"the {len(names)} classes, or class name -> number"
            ) from None
        for name, value in zip(names, found, strict=True):
            if not 0 <= value <= 1:
                raise InputError(f"threshold {value} of class {quote(name)}: give one in [0, 1]")
        return found

    def scores(self, split: str = "test") -> Scores:
        """Return the scores that the run keeps of the images of a split, beside their labels.

        Args:
            split: test; val; or train, whose images are scored by closed forms without them (runs
                with a refit).

        Raises:
            InputError: if the run keeps none of that split.
        """
        choose("split", split, dict.fromkeys(SPLITS))
        if from_fit(self.config):
            remedy = f"make them with: ltml evaluate {self.path}"
        else:
            remedy = "train again, with scores= and targets= in the last recorder.epoch"
        return read_scores(self.path, split, remedy=remedy)

    def score_history(self, split: str = "train") -> ScoreHistory:
        """Return each image's logits after every epoch, of a run with ``record_scores``.

        Args:
            split: train, val or test; the latter two in the epochs that scored them.

        Raises:
            InputError: if the run has none of that split.
        """
        return read_history(self.path, split)

    def mistakes(
        self,
        split: str = "test",
        *,
        kind: str | None = None,
        classes: Sequence[str] | None = None,
        group: str | None = None,
        thresholds: float | Mapping | None = None,
        per_class: int | None = None,
    ) -> pd.DataFrame:
        """Tabulate the labels that the model gets wrong, the worst first; unknown ones are neither.

        Args:
            split: name of the split; see :meth:`scores`.
            kind: miss (a label that is given and not predicted) or false alarm; default: both.
            classes: names of the classes to look at; default: all.
            group: head, medium or tail; default: all.
            thresholds: thresholds of the classes; see :meth:`threshold_of_class`.
            per_class: number of the worst rows kept of each class and kind; default: all.

        Returns:
            a row per image and class: image, path, index (in the split), class, group, kind, given
            (1 or 0), score (logit), probability, threshold, margin (how far the logit is on the
            wrong side of the threshold's), rank (of the image among all by this class, from 1),
            given_labels and predicted_labels (tuples of all).

        Raises:
            InputError: if the run keeps no scores, or an argument is unknown.
        """
        found = self.scores(split)
        of_class = self._classes.set_index("class").group.loc[list(found.class_names)]
        classes = fitted("classes", classes, list[str] | None)
        if group is not None:
            choose("group", group, dict.fromkeys(GROUPS))
            names = of_class.index[of_class == group]
            classes = [n for n in names if classes is None or n in classes]
        return find_mistakes(
            found,
            self.threshold_of_class(thresholds),
            of_class.tolist(),
            kind=kind,
            classes=classes,
            per_class=per_class,
        )

    def labels(
        self, probabilities: pd.DataFrame, thresholds: float | Mapping | None = None
    ) -> pd.Series:
        """Say which labels follow from probabilities, as :meth:`predict` returns them.

        Args:
            probabilities: a row per image and a column per class.
            thresholds: thresholds of the classes; see :meth:`threshold_of_class`.

        Returns:
            for each image the names of its labels, joined by ``"; "``; NaN where it has no
            probabilities.
        """
        names = self.config["data"]["class_names"]
        made = probabilities[names].to_numpy() >= self.threshold_of_class(thresholds)
        texts = ["; ".join(n for n, hit in zip(names, row, strict=True) if hit) for row in made]
        found = pd.Series(texts, index=probabilities.index, name="labels", dtype=object)
        return found.where(probabilities[names].notna().all(axis=1))

    @property
    def scored_by_chance(self) -> list[str]:
        """Classes that have an AP, and count in the means, but no training image."""
        table = self._classes
        return table["class"][(table["count"] == 0) & table.ap.notna()].tolist()

    def __repr__(self) -> str:
        found = ", ".join(
            f"{name} {100 * self.summary[name]:.1f}"
            for name in ("mAP", *GROUPS)
            if self.summary.get(name) is not None
        )
        return f"Run({str(self.path)!r}, {len(self.metrics)} epochs{': ' * bool(found)}{found})"

    def _repr_html_(self) -> str:
        return table_of([self]).to_html(index=False, na_rep="-")

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """The model's weights, on the CPU."""
        import torch

        if not (self.path / "model.pt").is_file():
            raise InputError(f"run {self.name!r} has no model.pt; train it again")
        return torch.load(self.path / "model.pt", map_location="cpu", weights_only=True)

    def model(self, *, device: str = "cpu") -> "ImageModel":
        """Return the trained network, ready for images as people have them.

        It takes tensors ``(B, 3, H, W)``, uint8 or float in [0, 1], of any size, and images of
        any other kind (:mod:`ltml.data.image`). It resizes and normalises them as in training, and
        returns logits ``(B, C)``, classes in the order of ``config["data"]["class_names"]``.

        Raises:
            InputError: if the weights are missing, damaged or of another network.
        """
        from ltml.training.predict import load_model

        return load_model(self, device=device)

    def predict(
        self,
        images,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        progress: bool = True,
        precision: str | None = None,
        engine: str = "torch",
    ) -> pd.DataFrame:
        """Return each image's probability of each class.

        Args:
            images: a path, a folder (its image files, in sorted order), a PIL image, an array or
                tensor (see :mod:`ltml.data.image`); or several of them; or a
                :class:`~ltml.Split`.
            device: auto (cuda, else mps, else cpu), or a torch device.
            batch_size: number of images at a time. Default: by the memory that they take in the
                network.
            progress: whether to show a progress bar.
            precision: auto, float32 or bfloat16; default: the recipe's.
            engine: torch or openvino, which is faster on CPUs; see :mod:`ltml.training.engine`.

        Returns:
            a row per image, named by its path or number, and a column per class; NaN for an image
            that cannot be decoded, which is logged.

        Raises:
            InputError: if a file is missing, none can be decoded, or the run has no weights.
        """
        from ltml.training.predict import predict

        options = {"device": device, "batch_size": batch_size, "progress": progress}
        return predict(self, images, precision=precision, engine=engine, **options)

    def export(self, path: str | Path) -> Path:
        """Write the model for use without ltml, and check what was written against it.

        Args:
            path: ``*.onnx`` for ONNX (needs the onnx package), ``*.pt2`` for
                :func:`torch.export.save`. The program takes float images in [0, 1],
                ``(B, 3, S, S)`` of the run's image size, and returns logits ``(B, C)``.

        Raises:
            InputError: for another ending, or a package that is missing.
        """
        from ltml.training.predict import export

        return export(self, Path(path))


def grouped_otherwise(runs: Sequence[Run]) -> str | None:
    """Say in a line why head, medium and tail of these runs cannot be lined up, if they cannot."""
    for run in runs[1:]:
        first, pair = runs[0], f"{runs[0].name!r} and {run.name!r}"
        if run.bounds != first.bounds:
            return (
                f"{pair} group classes by other counts ({first.bounds[0]} and {first.bounds[1]}, "
                f"{run.bounds[0]} and {run.bounds[1]}): compare their mAP alone, or train with one "
                "groups="
            )
        ours, theirs = (r.classes.set_index("class")["group"].to_dict() for r in (first, run))
        moved = [name for name in ours if theirs.get(name, ours[name]) != ours[name]]
        if moved:
            name = moved[0]
            return (
                f"{pair} have {len(moved)} classes in other groups, such as {name!r} ({ours[name]} "
                f"and {theirs[name]}), since their training images number otherwise: compare their "
                "mAP alone"
            )
    return None


def table_of(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate runs, a row each: what was trained, mAPs in percent, gradient imbalance, seconds.

    With validation splits, ``val_mAP`` is that of the epoch that was kept. What a run does not hold
    is NaN. A warning says so where head, medium and tail do not mean the same in every row.
    """
    if (sentence := grouped_otherwise(runs)) is not None:
        _LOG.warning("%s", sentence)
    rows = []
    for run in runs:
        row = {"run": run.name, "data": run.config["data"]["name"]}
        row |= {name: run.recipe.get(name) for name in ("sampler", "loss", "diversity", "seed")}
        for name in ("mAP", *GROUPS):
            share = run.summary.get(name)
            row[name] = float("nan") if share is None else round(100 * share, 2)
        if "val_mAP" in run.metrics:
            kept = None if run.recipe.get("refit") else run.summary.get("kept_epoch")
            kept = kept or run.metrics.epoch.iloc[-1]  # a refit is scored in the last
            val = run.metrics.set_index("epoch").val_mAP[kept]
            row["val_mAP"] = round(100 * val, 2)
        if run.summary.get("AUROC") is not None:
            row["AUROC"] = round(100 * run.summary["AUROC"], 2)
        row |= {name: run.summary.get(name) for name in ("gradient_imbalance", "seconds")}
        rows.append(row)
    return pd.DataFrame(rows).round({"gradient_imbalance": 2, "seconds": 1})


def find_runs(
    runs: Run | str | Path | Iterable[Run | str | Path],
) -> tuple[list[Run], list[str]]:
    """Load runs, and say which cannot be read.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.

    Returns:
        the runs, and a sentence for each that cannot be read.
    """
    found, problems = [], []
    for item in [runs] if isinstance(runs, Run | str | os.PathLike) else runs:
        if isinstance(item, Run):
            found.append(item)
            continue
        path = Path(item)
        folders = sorted(p.parent for p in path.glob("*/config.json"))
        for folder in folders if folders and not (path / "config.json").exists() else [path]:
            try:
                found.append(Run.load(folder))
            except InputError as error:
                problems.append(str(error))
    return found, problems


def read_config(path: Path) -> dict:
    """Read ``config.json`` of a run, finished or not.

    Raises:
        InputError: if the folder is missing, holds no run or one of a later schema, or a value is
            not of the type that training writes.
    """
    if not path.is_dir():
        raise InputError(f"run {str(path)!r} is not a folder; give a folder that training wrote")
    where = repr(str(path / "config.json"))
    config = _read_json(path / "config.json")
    recipe, data, schema = config.get("recipe"), config.get("data"), config.get("schema")
    if type(schema) is not int or schema < 1 or not isinstance(recipe, dict):
        raise InputError(f"{where} was not written by ltml; give a run")
    if schema > SCHEMA:
        raise InputError(
            f"{where} has schema {quote(schema)}, this ltml reads up to {SCHEMA}; update ltml"
        )
    try:
        read = from_fit(config) and Recipe.from_dict(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error}, or train again") from None
    if read:  # whatever the version, one form for all readers
        config["recipe"] = asdict(read)
    for name, kind in _DATA.items():
        if not isinstance(data, dict) or type(data.get(name)) is not kind:
            raise InputError(f"{where}: data has no {name} of type {kind.__name__}; train again")
    check_class_names(data["class_names"], where=f"{where}: data")
    return config


def _going_on(config: dict) -> str:
    """What to do about a run that has not finished."""
    return "ltml train --resume goes on with it" if from_fit(config) else "run its loop again"


def _read_json(path: Path, remedy: str = "give a run's folder") -> dict:
    if not path.is_file():
        raise InputError(
            f"run {str(path.parent)!r} has no {path.name}; it is not a run, or has not finished "
            f"({remedy})"
        )
    try:
        content = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; train again") from None
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no JSON object; train again")
    return content


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a table that training wrote; every number must be one, and no row may be cut off."""
    if not path.is_file():
        raise InputError(f"run {str(path.parent)!r} has no {path.name}; it is not a whole run")
    numbers = [name for name in (*columns, *VALIDATION, "val_ap", "auroc") if name not in _TYPES]
    try:
        table = pd.read_csv(
            path,
            dtype=_TYPES | dict.fromkeys(numbers, float),
            keep_default_na=False,
            na_values={name: [""] for name in numbers},
        )
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() not in (b"\n", b"\r"):
                raise ValueError("its last line is cut off")
        if lacking := [name for name in columns if name not in table]:
            raise ValueError(f"it lacks the column {lacking[0]!r}")
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({str(error).splitlines()[0]}); train again"
        ) from error
    return table
