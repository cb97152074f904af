"""Record a training as a run: gradients, scores and the result, from any loop."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike
from torch import Tensor

from ltml.core.devices import device_name
from ltml.core.errors import InputError
from ltml.core.files import as_json, write_atomically, write_csv, write_json
from ltml.core.labels import BOUNDS, GROUPS, LabelMatrix
from ltml.core.ledger import GradientLedger, gradient_imbalance
from ltml.core.metrics import auroc, average_precision, check_scores, group_map
from ltml.core.options import fitted
from ltml.core.ranks import Ranks
from ltml.data.splits import is_file
from ltml.runs import scores as kept
from ltml.runs.history import add_epoch
from ltml.runs.logs import FOLDER, make_log
from ltml.runs.run import METRICS, PER_CLASS, SCHEMA, VALIDATION, Run, read_config

LOCK = ".lock"
# Everything that ltml writes into a run's folder; nothing else in it is ever deleted.
WRITTEN = ("config.json", "metrics.csv", "per_class.csv", "summary.json", "model.pt")
WRITTEN += ("stages.csv", "features.npz", "interference.npz", "scores.npz", "thresholds.csv")
WRITTEN += ("score_history.npz",)
WRITTEN += ("checkpoint.pt", "checkpoint.previous.pt")


class Recorder:
    """Record the run of a training loop of your own; plots, reports and comparisons then read it.

    One ``watch`` a step, before ``backward``; one ``epoch`` at the end of each epoch. Under
    ``torch.distributed`` every process calls both, gradients are averaged over the processes (as
    DistributedDataParallel averages them), and the first one writes. Each process passes the scores
    of the whole test split to ``epoch``.

    Args:
        out: folder to write.
        labels: ``(N, C)`` training labels: a LabelMatrix, or what makes one.
        name: name of the data, for tables and reports.
        settings: settings to record in the run's ``config.json`` as its recipe, such as
            ``{"loss": "bce", "seed": 1}``.
        device: device of the logits.
        interference: whether to record also how the classes' gradients meet in the shared features;
            needs ``recorder.ledger.watch_classifier(weight)``.
        overwrite: whether to replace a run that ``out`` holds.
        log: after every epoch also write it to tensorboard (event files in the run's folder),
            wandb or mlflow; see :mod:`ltml.runs.logs`.

    Attributes:
        ledger: the :class:`~ltml.GradientLedger` behind :meth:`watch`; give it the classifier with
            ``recorder.ledger.watch_classifier(weight)`` to record its gradient as well.

    Raises:
        InputError: on entering, if ``out`` holds a run (without ``overwrite``) or other files.

    Example:
        >>> import tempfile
        >>> labels = LabelMatrix([[1, 0], [1, 0], [0, 1], [1, 1]], ["person", "sheep"])
        >>> logits = torch.zeros(4, 2, requires_grad=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Recorder(f"{folder}/mine", labels) as recorder:
        ...         recorder.watch(logits, labels.dense())
        ...         logits.sigmoid().sum().backward()
        ...         row = recorder.epoch(scores=logits, targets=labels.dense())
        ...     run = Run.load(f"{folder}/mine")
        >>> run.classes[["class", "count", "ap", "grad_pos"]]
            class  count    ap  grad_pos
        0  person      3  0.75      0.75
        1   sheep      2  0.50      0.50
    """

    def __init__(
        self,
        out: str | Path,
        labels: LabelMatrix,
        *,
        name: str = "custom",
        settings: dict | None = None,
        device: str | torch.device = "cpu",
        interference: bool = False,
        overwrite: bool = False,
        log: str | None = None,
    ):
        self.out, self.labels, self.overwrite = Path(out), LabelMatrix(labels), overwrite
        self._entered: int | None = None  # process that entered
        self.log = make_log(log) if log else None
        self.ledger = GradientLedger(
            self.labels.num_classes, device=device, interference=interference
        )
        self.config = {
            "schema": SCHEMA,
            "recorder": True,  # else whoever reads it would take the settings for a recipe
            "recipe": as_json("settings", fitted("settings", settings or {}, dict)),
            "data": {
                "name": fitted("name", name, str),
                "train_images": len(self.labels),
                "test_images": 0,
                "labels_per_image": round(self.labels.cardinality, 4),
                "class_names": list(self.labels.class_names),
                **unknown_of(self.labels),
                **groups_of(self.labels),
            },
        }
        self.summary: dict = {}  # what the caller adds to the run's summary
        self.step, self.seconds, self._began = 0, 0.0, time.perf_counter()
        self._ended_at = 0  # step of the last epoch's end
        self._loss: Tensor | float = 0.0  # of the epoch so far
        self._metrics: list[dict] = []  # a row per epoch
        # Per epoch (3, C): AP on test and validation, AUROC on test; and (3, C).
        self._ap, self._gradients = [], []
        self._interference = []  # per epoch norms (C,) and cosines (C, C) of the classes' dL/df
        self._stages: dict[str, dict] = {}  # columns of each network that the training ends with
        self._absent: list[str] = []
        # Names and files of each split's images, where they are known.
        self.images: dict[str, tuple[Sequence[str], Sequence[str]]] = {}

    @property
    def ranks(self) -> Ranks:
        """This process among those that have met by now; they may do so, or be forked, at any time
        after the recorder was made."""
        return Ranks.current()

    def __enter__(self) -> "Recorder":
        met = self.ranks
        # Processes that have yet to meet know by their environment which is the first.
        if (met if met.size > 1 else Ranks.launched()).is_main:
            check_folder(self.out, overwrite=self.overwrite, own=True)
            self._claim = claimed(self.out)
            self._claim.__enter__()
            self._entered = os.getpid()
            self.begin()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._entered != os.getpid():
            return
        try:
            forked = not self._metrics and (self.out / "summary.json").is_file()
            if kind is not None:
                (self.out / "summary.json").unlink(missing_ok=True)
            elif not forked:  # else a process that was forked has finished the run
                self.finish()
        finally:
            self._claim.__exit__(kind, error, traceback)

    def begin(self) -> None:
        """Clear the folder of what ltml wrote there before, and nothing else; write the config."""
        for name in WRITTEN:
            (self.out / name).unlink(missing_ok=True)
        for path in (self.out / FOLDER).glob("events.out.tfevents.*"):
            path.unlink()
        write_json(self.out / "config.json", self.config)

    def watch(
        self, logits: Tensor, targets: Tensor, *, loss: Tensor | None = None, scale=None
    ) -> None:
        """Record the gradient that the next backward pass brings to these logits, and its loss.

        Args:
            logits: ``(B, C)``, part of the graph that the loss is computed from.
            targets: ``(B, C)`` in [0, 1].
            loss: the scalar loss, for the column ``train_loss``.
            scale: a GradScaler, or the factor that the loss is multiplied with before ``backward``.
        """
        self.ledger.watch(logits, targets, scale=scale)
        self.add_step(float("nan") if loss is None else loss.detach())

    def add_step(self, loss: Tensor | float) -> None:
        """Count a step whose gradient the ledger has been given."""
        self._loss = self._loss + loss
        self.step += 1

    def epoch(
        self,
        scores: ArrayLike | None = None,
        targets: ArrayLike | None = None,
        *,
        val_scores: ArrayLike | None = None,
        val_targets: ArrayLike | None = None,
        images: Sequence[str | Path] | None = None,
        val_images: Sequence[str | Path] | None = None,
        logits: bool | None = None,
    ) -> dict:
        """End an epoch: read the ledger, score what was evaluated, and write the tables.

        Args:
            scores: ``(N, C)`` logits or probabilities on the test split; None: not evaluated. The
                run keeps them, for :meth:`ltml.Run.mistakes`.
            targets: ``(N, C)`` of 0 and 1, or NaN where unknown.
            val_scores: logits or probabilities on the validation split, on which thresholds are
                then chosen.
            val_targets: ``(N, C)`` of 0 and 1, or NaN where unknown.
            images: ``N`` names or files of the test images; default: their numbers.
            val_images: names or files of the validation images; default: their numbers.
            logits: whether scores are logits rather than probabilities; default: they are if one
                of the split lies outside [0, 1].

        Returns:
            the epoch's row of ``metrics.csv``.

        Raises:
            InputError: if scores and targets do not fit each other or the classes.
        """
        scores, targets = self._scored("scores", scores, targets)
        val_scores, val_targets = self._scored("val_scores", val_scores, val_targets)
        none = np.full(self.labels.num_classes, np.nan)
        test = none if scores is None else average_precision(scores, targets)
        area = none if scores is None else auroc(scores, targets)
        if scores is not None:
            tested = LabelMatrix(targets, self.labels.class_names)
            self.config["data"] |= {"test_images": len(tested), **counts_of(tested, "test_")}
            names, held = tested.class_names, tested.counts
            self._absent = [name for name, n in zip(names, held, strict=True) if n == 0]
            self.keep_scores("test", scores, targets, images, logits=logits)
        if val_scores is not None:
            self.keep_scores("val", val_scores, val_targets, val_images, logits=logits)
        groups = self.labels.groups()
        steps, device = self.step - self._ended_at, self.ledger.sums.device
        loss = self.ranks.all_reduce_mean(
            torch.as_tensor(self._loss, dtype=torch.float32, device=device)
        ).item()
        loss = loss / steps if steps else math.nan
        row = {"epoch": len(self._metrics) + 1, "step": self.step, "train_loss": loss}
        row |= group_map(test, groups)
        if val_scores is not None:
            val = average_precision(val_scores, val_targets)
            row |= {f"val_{name}": value for name, value in group_map(val, groups).items()}
        self.ranks.all_reduce_mean(self.ledger.sums)
        self.ledger.sums[3:] /= self.ranks.size  # of squares, which DDP's mean makes smaller twice
        record = self.ledger.read()
        self._metrics.append(row)
        self._ap.append(np.stack([test, none if val_scores is None else val, area]))
        gradients = np.stack([record.positive, record.negative, record.weight])
        if not steps:  # nothing was watched, so nothing is known
            gradients[:] = np.nan
        self._gradients.append(gradients)
        if record.interference is not None:
            self._interference.append((record.norms, record.cosines))
        self._loss, self._ended_at = 0.0, self.step
        self.seconds = time.perf_counter() - self._began
        if self.ranks.is_main:
            metrics, per_class = self.tables()
            write_csv(self.out / "metrics.csv", metrics)
            write_csv(self.out / "per_class.csv", per_class)
            if self._interference:
                write_atomically(self.out / "interference.npz", self._write_interference)
            if self.log is not None:
                self.log(self.run())
            if self._entered not in (None, os.getpid()):
                self.finish()  # forked, this process ends without leaving the context
        return row

    def keep_scores(
        self,
        split: str,
        scores: Tensor,
        targets: Tensor,
        images: Sequence[str | Path] | None = None,
        *,
        logits: bool | None = True,
    ) -> None:
        """Keep the scores of a split's images in the run, in place of earlier ones.

        Args:
            split: test, val or train; the latter by classifiers that were fitted without the image.
            scores: logits or probabilities ``(N, C)``.
            targets: ``(N, C)`` of 0 and 1, NaN where unknown.
            images: ``N`` names or files; default: their numbers.
            logits: whether scores are logits; see :meth:`epoch`.

        Raises:
            InputError: if there is not one name an image.
        """
        z, y = (torch.as_tensor(x).detach().cpu().numpy() for x in (scores, targets))
        if images is None:
            names, files = self.images.get(split) or (range(len(z)), [])
        else:
            names, files = images, [str(Path(n).absolute()) if is_file(n) else "" for n in images]
        if len(names) != len(z):
            raise InputError(f"{len(names)} images for {len(z)} rows of scores; give one each")
        if self.ranks.is_main:
            if logits is None:
                logits = z.min(initial=0) < 0 or z.max(initial=0) > 1
            z = z if logits else kept.logit(z)
            kept.add_scores(self.out, self.labels.class_names, split, z, y, names, files)

    def _scored(
        self, name: str, scores: ArrayLike | None, targets: ArrayLike | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Scores and targets as tensors; NaN where a target is unknown."""
        if (scores is None) != (targets is None):
            lacking = name if scores is None else name.replace("scores", "targets")
            raise InputError(f"{lacking} is missing; give scores and targets, or neither")
        if scores is None:
            return None, None
        found, positive, known = check_scores(scores, targets)
        if found.shape[1] != self.labels.num_classes:
            raise InputError(
                f"{name} have {found.shape[1]} columns for {self.labels.num_classes} classes"
            )
        wanted = positive.float()
        return found, wanted if known is None else wanted.masked_fill(~known, math.nan)

    def add_history(self, split: str, logits: ArrayLike, targets: ArrayLike) -> None:
        """Record the logits of a split's images after the last epoch; see Run.score_history.

        Args:
            split: train, val or test.
            logits: logits of the images, ``(N, C)``.
            targets: ``(N, C)`` of 0 and 1, NaN where unknown.
        """
        z, y = (torch.as_tensor(x).detach().cpu().float().numpy() for x in (logits, targets))
        ids = self.images.get(split, (range(len(z)), []))[0]
        if self.ranks.is_main:
            add_epoch(self.out, self.epochs, split, z, y, ids, self.labels.class_names)

    @property
    def epochs(self) -> int:
        """Epochs recorded so far."""
        return len(self._metrics)

    def stage(self, classifier: str, column: str, scores: Tensor, targets: Tensor) -> None:
        """Note the AP of one of the networks that a training ends with, for ``stages.csv``."""
        row = self._stages.setdefault(classifier, {"class": self.labels.class_names})
        row |= {"group": self.labels.group_of_class(), "count": self.labels.counts}
        row[column] = average_precision(scores, targets)
        if self.ranks.is_main:
            tables = {name: pd.DataFrame(row) for name, row in self._stages.items()}
            stages = pd.concat(tables, names=["classifier", None]).reset_index(level=0)
            write_csv(self.out / "stages.csv", stages)

    def _write_interference(self, path: Path) -> None:
        norm, cosine = (np.stack(values) for values in zip(*self._interference, strict=True))
        found = {"epoch": np.arange(1, len(norm) + 1), "class_names": self.labels.class_names}
        with path.open("wb") as file:  # numpy would add .npz to a name
            np.savez_compressed(file, **found, norm=norm, cosine=cosine.astype(np.float32))

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The run's metrics and per-class table so far."""
        metrics = pd.DataFrame(self._metrics)
        validated = "val_mAP" in metrics
        epochs, C = len(metrics), self.labels.num_classes
        ap, gradients = np.stack(self._ap), np.stack(self._gradients)  # (E, 3, C)
        columns = {
            "epoch": np.repeat(metrics.epoch, C),
            "class": np.tile(self.labels.class_names, epochs),
            "group": np.tile(self.labels.group_of_class(), epochs),
            "count": np.tile(self.labels.counts, epochs),
            "ap": ap[:, 0].ravel(),
            **{name: gradients[:, i].ravel() for i, name in enumerate(PER_CLASS[-3:])},
        } | ({"val_ap": ap[:, 1].ravel()} if validated else {})
        columns["auroc"] = ap[:, 2].ravel()
        return metrics[METRICS + VALIDATION * validated], pd.DataFrame(columns)

    def run(self) -> Run:
        """The run so far; its summary is still empty."""
        return Run(self.out, self.config, *self.tables(), summary={})

    def finish(self) -> None:
        """Write the result, ``summary.json``, without which a run is not finished."""
        if not self._metrics:
            raise InputError(f"run {str(self.out)!r} has no epoch; call recorder.epoch(...)")
        write_json(self.out / "config.json", self.config)  # the test split is known by now
        kept.add_thresholds(self.out)
        total = np.stack(self._gradients)[:, :2].sum((0, 1))
        last = self._metrics[-1]
        write_json(
            self.out / "summary.json",
            {
                **{name: last[name] for name in ("mAP", *GROUPS)},
                "AUROC": group_map(self._ap[-1][2], {})["mAP"],
                "gradient_imbalance": gradient_imbalance(total),
                "seconds": round(self.seconds, 2),
                "steps": self.step,
                "torch": torch.__version__,
                "device": device_name(self.ledger.sums.device),
                "classes_without_positives": self._absent,
                **self.summary,
            },
        )

    def state_dict(self) -> dict:
        """Everything that :meth:`load_state_dict` needs to go on exactly."""
        return {
            "step": self.step,
            "ended_at": self._ended_at,
            "seconds": time.perf_counter() - self._began,
            "loss": torch.as_tensor(self._loss),
            "sums": self.ledger.sums,
            "metrics": self._metrics,
            "ap": [torch.from_numpy(ap) for ap in self._ap],
            "gradients": [torch.from_numpy(gradients) for gradients in self._gradients],
            "interference": [tuple(map(torch.from_numpy, pair)) for pair in self._interference],
            "summary": self.summary,
            "absent": self._absent,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved state."""
        self.step, self._ended_at = state["step"], state["ended_at"]
        self._began = time.perf_counter() - state["seconds"]
        self._loss = state["loss"].to(self.ledger.sums.device)
        self.ledger.sums.copy_(state["sums"])
        self._metrics, self.summary = list(state["metrics"]), dict(state["summary"])
        self._absent = list(state.get("absent", []))  # not in a state of before 0.4.0
        none = torch.full((1, self.labels.num_classes), math.nan, dtype=torch.float64)
        # a state of before 0.6 has no AUROC
        self._ap = [torch.cat([ap, none])[:3].numpy() for ap in state["ap"]]
        self._gradients = [gradients.numpy() for gradients in state["gradients"]]
        self._interference = [(norm.numpy(), cos.numpy()) for norm, cos in state["interference"]]


def groups_of(labels: LabelMatrix) -> dict[str, list[int]]:
    """What ``config.json`` says of head, medium and tail, where they are not the usual ones."""
    out = {} if labels.bounds == BOUNDS else {"bounds": list(labels.bounds)}
    whole = labels.group_counts.tolist()
    return out if whole == labels.counts.tolist() else out | {"group_counts": whole}


def counts_of(labels: LabelMatrix, prefix: str = "") -> dict[str, list[int]]:
    """What ``config.json`` says of a split: images of each class; see :func:`unknown_of`."""
    return {f"{prefix}counts": labels.counts.tolist(), **unknown_of(labels, prefix)}


def unknown_of(labels: LabelMatrix, prefix: str = "") -> dict[str, list[int]]:
    """Where labels are unknown, images known to hold each class or not, and known not to."""
    if not labels.has_unknown:
        return {}
    known, negatives = labels.known_counts.tolist(), labels.negative_counts.tolist()
    return {f"{prefix}known": known, f"{prefix}negatives": negatives}


def check_folder(out: Path, *, overwrite: bool, own: bool = False) -> None:
    """Raise unless a run can be written to a folder, by ``fit`` or by a loop of one's own.

    Raises:
        InputError: if it holds another run, and ``overwrite`` is not set; or other files.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"out {str(out)!r} is a file; give a folder")
    held = {path.name for path in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if not held:
        return
    try:
        read_config(out)
    except InputError:
        raise InputError(
            f"out {str(out)!r} holds other files ({sorted(held)[0]}); give a new folder"
        ) from None
    if not overwrite:
        remedy = "resume it (--resume), or replace it (--overwrite)"
        remedy = "or replace it (overwrite=True)" if own else remedy
        raise InputError(f"out {str(out)!r} holds another run; give a new folder, {remedy}")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a run's folder, and keep it to this process; the system lets go of it if we die.

    Raises:
        InputError: if another training writes there, or the folder cannot be made.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"out {str(folder)!r} is being written by another training; give a new folder, "
            "or wait for it to end"
        ) from error
    except OSError as error:
        raise InputError(
            f"out {str(folder)!r} cannot be written ({error.strerror}); give another folder"
        ) from error
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows deletes it on release
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
