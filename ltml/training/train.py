"""Train a classifier by a recipe: data, model, step, epoch, checkpoint, from top to bottom."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ltml.core.devices import autocast, choose_device, device_name, kept_memory
from ltml.core.errors import InputError
from ltml.core.files import write_atomically
from ltml.core.heads import PooledLinear
from ltml.core.losses import make_loss
from ltml.core.metrics import average_precision, group_map
from ltml.core.options import Bounds, build, checked, choose
from ltml.core.ranks import Ranks
from ltml.core.sampler import SAMPLERS
from ltml.core.seeding import generator
from ltml.data import leaks
from ltml.data.loader import Loader, not_shown
from ltml.data.splits import LongTailData
from ltml.runs.checkpoint import (
    CHECKPOINT,
    PREVIOUS,
    Divergence,
    load_checkpoint,
    save_checkpoint,
    save_torch,
)
from ltml.runs.logs import make_log
from ltml.runs.recipe import Recipe, from_fit
from ltml.runs.recorder import Recorder, check_folder, claimed
from ltml.runs.run import Run, read_config
from ltml.training.bank import Bank, as_banked, bank
from ltml.training.folding import fold
from ltml.training.network import Classifier, build_model
from ltml.training.passes import evaluate
from ltml.training.refit import interpolate, refit
from ltml.training.setup import (
    completed,
    described,
    differs,
    hardly_grouped,
    held_out,
    load_data,
    lr_factor,
    make_optimizer,
    micro_batch_of,
    passes_of,
    steps_of,
    told,
    training_labels,
)

log = logging.getLogger(__name__)

STATEFUL = ("model", "optimizer", "criterion", "sampler", "recorder")


@checked
def fit(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    data: LongTailData | None = None,
    overwrite: bool = False,
    progress: bool = True,
    on_epoch: Callable[[Run], None] | None = None,
    save_minutes: Annotated[float, Bounds("[0, 1e9]")] = 5.0,
    log: str | None = None,
) -> Run:
    """Train by a recipe, and leave a run in a folder.

    The test split is evaluated once, at the end, unless ``recipe.evaluate_every`` is given; a
    validation split every ``recipe.validate_every`` epochs and at the end. Several processes, as
    ``accelerate launch`` starts them, share every batch and leave one run.

    Args:
        recipe: recipe of the training.
        out: folder to write; default: a new one under ``runs/``.
        data: a data set that is loaded already, which the run's recipe then names in place of
            ``recipe.data``, root, options and splits; or a bank, whose backbone, weights, image
            size and augmentation then are the recipe's, which must leave them out or name the same.
        overwrite: whether to replace the run that ``out`` holds; files that ltml did not write are
            kept.
        progress: whether to show progress bars.
        on_epoch: function called after every epoch with the run so far, whose summary is still
            empty.
        save_minutes: longest time between checkpoints; one is saved after every epoch anyway.
        log: name of a log to write each epoch to as well, tensorboard, wandb or mlflow; see
            :mod:`ltml.runs.logs`.

    Raises:
        InputError: if the recipe or the data cannot be used, or ``out`` holds another run, and
            nothing is written then; or if something fails on the way, and what :func:`resume`
            needs is kept.

    Example:
        >>> import tempfile, ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fit(Recipe(steps=2, batch_size=8, warmup=0), data=data,
        ...               out=f"{folder}/run", progress=False)
        ...     run.metrics.step.tolist()
        [2]
    """
    recipe.check()
    recipe = recipe if data is None else told(recipe, data)
    ranks = Ranks.join(recipe.device)
    if out is None:
        how = f"{recipe.sampler}-{recipe.loss}" if recipe.steps != 0 else recipe.backbone
        stem = f"{recipe.data}-{how}-seed{recipe.seed}".replace("/", "-").replace(" ", "-")
        names = (Path("runs") / (stem + (f"-{n}" if n > 1 else "")) for n in count(1))
        out = ranks.broadcast(next(name for name in names if not name.exists()))
    out = Path(out)
    if ranks.is_main:
        check_folder(out, overwrite=overwrite)
    data = load_data(recipe) if data is None else held_out(recipe, data)
    copies = _copies(recipe, data, ranks)
    recipe, data = _frozen(recipe, data, progress and ranks.is_main)
    training = Training(completed(recipe, data.train), data, out, ranks, progress, copies)
    training.recorder.log = make_log(log) if log and ranks.is_main else None
    with claimed(out) if ranks.is_main else nullcontext():
        if ranks.is_main:
            training.recorder.begin()
        training.run(on_epoch, save_minutes)
    ranks.barrier()
    return Run.load(out)


def probe(
    data: LongTailData | str | Path,
    /,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **changes,
) -> Run:
    """Classify by the features of a frozen backbone, without training: the first thing to try.

    Every image passes the backbone once, training images mirrored as well, and the classifier
    follows in closed form; see :class:`ltml.core.discriminant.SharedCovariance`. The run is like
    any other: it predicts, and can be compared.

    Args:
        data: a data set; or a folder in any layout, as ``ltml.load("auto")`` reads it.
        out: folder to write; see :func:`fit`.
        overwrite: whether to replace the run there; see :func:`fit`.
        progress: whether to show progress bars.
        changes: fields of :meth:`Recipe.probe`, such as ``backbone="mobilenet_v2",
            weights="net.pth"``.

    Raises:
        InputError: as :func:`fit` does.

    Example:
        >>> import tempfile, ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = probe(data, backbone="small", weights=None, out=f"{folder}/run",
        ...                 progress=False)
        ...     run.summary["steps"]
        0
    """
    if isinstance(data, Bank):
        changes = data.settings | changes
    if not isinstance(data, LongTailData):
        changes, data = {"data": "auto", "root": str(data), **changes}, None
    return fit(Recipe.probe(**changes), out=out, data=data, overwrite=overwrite, progress=progress)


@checked
def resume(
    path: str | Path,
    *,
    data: LongTailData | None = None,
    progress: bool = True,
    on_epoch: Callable[[Run], None] | None = None,
    save_minutes: Annotated[float, Bounds("[0, 1e9]")] = 5.0,
) -> Run:
    """Go on with a training that was interrupted, to exactly what it would have become.

    Args:
        path: folder that :func:`fit` was writing.
        data: the data set, if :func:`fit` was given it.
        progress: whether to show progress bars.
        on_epoch: function called after every epoch; see :func:`fit`.
        save_minutes: longest time between checkpoints.

    Returns:
        the finished run; at once, if it was finished.

    Raises:
        InputError: if the folder holds no run, or the data are not those it was trained on.
    """
    out = Path(path)
    config = read_config(out)
    if (out / "summary.json").is_file():
        return Run.load(out)
    if not from_fit(config):
        raise InputError(f"run {str(out)!r} is of a loop of your own; run that loop again")
    recipe = Recipe.from_dict(config["recipe"])
    recipe.check()
    ranks = Ranks.join(recipe.device)
    data = load_data(recipe) if data is None else held_out(recipe, data)
    copies = _copies(recipe, data, ranks)
    _, data = _frozen(recipe, data, progress and ranks.is_main)
    training = Training(recipe, data, out, ranks, progress, copies)
    if (why := differs(config["data"], training.recorder.config["data"])) is not None:
        raise InputError(
            f"run {str(out)!r} was trained on other data than these ({data.name!r}: {why}); give "
            "the data it began with"
        )
    with claimed(out) if ranks.is_main else nullcontext():
        state = load_checkpoint(out)
        if state is not None:
            training.load_state_dict(state)
        training.run(on_epoch, save_minutes)
    ranks.barrier()
    return Run.load(out)


def _copies(recipe: Recipe, data: LongTailData, ranks: Ranks) -> list[leaks.Leak]:
    """Images in two splits, said, or refused, before anything is decoded."""
    found = leaks.find_copies({name: split.files for name, split in data.splits.items()})
    leaks.report(data, found, allow=recipe.allow_leaks, say=ranks.is_main)
    return found


def _frozen(recipe: Recipe, data: LongTailData, progress: bool) -> tuple[Recipe, LongTailData]:
    """Pass images once through a backbone that is frozen whole, and train on its maps."""
    if recipe.freeze == -1 and recipe.steps != 0 and not isinstance(data, Bank):
        whole = completed(recipe, data.train)
        with _fits_together(whole, choose_device(recipe.device)):
            data = bank(whole, data, device=recipe.device, progress=progress)
    return (as_banked(recipe, data) if isinstance(data, Bank) else recipe), data


@contextmanager
def _fits_in_memory(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Say by which options a training would take less memory, where it takes too much."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("out of memory", "allocate memory")):
            raise
        part = recipe.micro_batch or recipe.batch_size
        cut = f"micro_batch={part // 2}, or " if recipe.freeze_norm and part > 1 else ""
        raise InputError(
            f"batch_size={recipe.batch_size} at image_size={recipe.image_size} does not fit in "
            f"the memory of {device_name(device)}; give {cut}a smaller batch_size or image_size"
        ) from error


@contextmanager
def _fits_together(
    recipe: Recipe, device: torch.device, size: str = "image_size"
) -> Iterator[None]:
    """Say which sizes do not fit where torch names those of a layer."""
    try:
        with _fits_in_memory(recipe, device):
            yield
    except InputError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"backbone={recipe.backbone!r} does not take images of {size}={getattr(recipe, size)} "
            f"({why}); give a size that it takes, such as {size}=224"
        ) from error


class Training:
    """Everything that changes while a model is trained by a completed recipe, and the loop."""

    def __init__(
        self,
        recipe: Recipe,
        data: LongTailData,
        out: Path,
        ranks: Ranks,
        progress: bool,
        copies: Sequence[leaks.Leak] = (),
    ):
        self.recipe, self.data, self.out, self.ranks = recipe, data, out, ranks
        self.progress = progress and ranks.is_main
        labels = training_labels(recipe, data.train.labels)
        self.device = ranks.device(choose_device(recipe.device))
        if recipe.keep == "best" and data.val is None:
            raise InputError("keep='best' needs a validation split; give val_split or holdout")
        # Steps are grouped into epochs of as many images as the training split has.
        per_epoch = math.ceil(len(labels) / recipe.batch_size)
        self.steps = steps_of(recipe, data.train)
        self.ends = [*range(per_epoch, self.steps, per_epoch), self.steps]
        if self.steps < recipe.warmup and ranks.is_main:
            log.warning(
                "%d steps end before the warm-up of %d does: give more epochs, or a shorter warmup",
                *(self.steps, recipe.warmup),
            )

        if ranks.is_main and (sentence := hardly_grouped(labels)) is not None:
            log.warning("%s", sentence)
        self.sampler = build(
            choose("sampler", recipe.sampler, SAMPLERS),
            f"sampler {recipe.sampler!r}",
            recipe.sampler_options,
            labels=labels,
            batch_size=recipe.batch_size,
            num_batches=max(self.steps, 1),
            seed=recipe.seed,
            rank=ranks.rank,
            world_size=ranks.size,
        )
        self.criterion = make_loss(recipe.loss, labels, **recipe.loss_options).to(self.device)
        self.bank = data if isinstance(data, Bank) else None
        given = self.bank and self.bank.backbone
        with _fits_together(recipe, self.device):
            self.model = build_model(recipe, labels.counts, len(labels), given).to(self.device)
        backbone = self.model.backbone
        if self.bank:
            # The maps have passed the backbone already; averaged, they are 49 times smaller.
            self.model = Classifier(nn.Identity(), self.model.head)
            if isinstance(self.model.head, PooledLinear):
                self.data = data = data.pooled
        self.start = {}  # of the backbone, to interpolate with
        if recipe.interpolation:
            self.start = {k: v.clone() for k, v in self.model.backbone.state_dict().items()}
        self.optimizer = make_optimizer(recipe, self.model)

        options = {"image_size": recipe.image_size, "device": self.device}
        options |= {"progress": self.progress, "mean": backbone.mean, "std": backbone.std}
        train, passes = replace(data.train, labels=labels), passes_of(recipe, len(self.ends))
        # What passes once or twice is decoded then: to keep it would cost memory for nothing.
        keep = {name: "files" if passes[name] <= 2 else None for name in passes}
        self.train = Loader(train, augment=recipe.augment, keep=keep["train"], **options)
        self.plain = self.train  # as the other splits are passed
        if recipe.test_size not in (None, recipe.image_size):
            options["image_size"] = recipe.test_size
            self.plain = Loader(train, augment=recipe.augment, keep="files", **options)
        self.test = Loader(data.test, keep=keep["test"], **options)
        self.val = None if data.val is None else Loader(data.val, keep=keep["val"], **options)

        options = {"device": self.device, "interference": recipe.interference}
        self.recorder = Recorder(
            out, data.train.labels, name=data.name, settings=asdict(recipe), **options
        )
        self.recorder.config["recorder"] = False
        self.recorder.config["data"] |= described(data)
        loaders = {"train": self.plain, "val": self.val, "test": self.test}
        loaders = {n: x for n, x in loaders.items() if x and x.fits and not x.maps}
        found = leaks.find_near_copies(list(data.splits), loaders, copies)
        leaks.report(data, found, allow=recipe.allow_leaks, say=ranks.is_main)
        if copies or found:
            self.recorder.summary["leaks"] = leaks.summary([*copies, *found])
        self.recorder.images = {n: (split.ids, split.files) for n, split in data.splits.items()}
        self.divergence = Divergence(data.class_names, self.device)
        self.step, self.best, self.kept = 0, -math.inf, {}  # kept: weights of the best epoch
        self.random: list[list[Tensor]] = []  # states of torch's own generators, of each rank
        self._rehearse()

    def _rehearse(self) -> None:
        """Take one image as far as the loss, before anything is written or replaced."""
        self.model.eval()
        self.criterion.eval()
        loaders = {"test_size": self.plain, "image_size": self.train}
        if self.plain is self.train:
            del loaders["test_size"]
        for size, loader in loaders.items():
            images, targets = next(loader.batches([[0]]))
            with _fits_together(self.recipe, self.device, size), torch.no_grad():
                with autocast(self.device, self.recipe.precision):
                    logits = self.model(images)
                self.criterion(logits.float(), targets)
        self.criterion.train()
        if self.steps:
            with _fits_together(self.recipe, self.device):
                # The compiler folds by itself.
                if not (self.recipe.compile or self.model.train().mixes_images):
                    self.model.folded, _ = fold(self.model.backbone.eval(), images)
                self.model.micro_batch = micro_batch_of(self.recipe, self.model, images)

    def run(self, on_epoch: Callable[[Run], None] | None, save_minutes: float) -> None:
        """Train to the end, from wherever we are; the first process writes."""
        ranks, recipe, cuda = self.ranks, self.recipe, self.device.type == "cuda"
        # Torch's own generators, which only dropout inside a backbone draws from.
        with torch.random.fork_rng([self.device] if cuda else []), kept_memory(self.device):
            torch.manual_seed(recipe.seed + ranks.rank)
            for state in self.random[ranks.rank : ranks.rank + 1]:
                torch.set_rng_state(state[0])
                if cuda and len(state) > 1:
                    torch.cuda.set_rng_state(state[1], self.device)
            model = ranks.wrap(self.model)
            if recipe.compile:
                model = torch.compile(model)
            # A batch and its random views are functions of (seed, step, rank) alone.
            index = (self.sampler.indices(step) for step in count(self.step))
            numbers = count(self.step * ranks.size + ranks.rank, ranks.size)
            batches = self.train.batches(index, seed=recipe.seed, numbers=numbers)
            what = f"{self.steps} steps of {recipe.batch_size} images"
            what = what if self.steps else "a classifier in closed form, without training,"
            log.info("%s: %s on %s", self.out.name, what, device_name(self.device))
            saved, hidden = time.monotonic(), not_shown(self.progress and self.steps > 0)
            bar = tqdm(initial=self.step, total=self.steps, desc=self.out.name, disable=hidden)
            with bar:
                for epoch, end in enumerate(self.ends, 1):
                    if epoch <= self.recorder.epochs:
                        continue  # before we resumed
                    model.train()
                    while self.step < end:
                        self.take_step(model, *next(batches))
                        bar.update()
                        # Several processes have several clocks: they save after epochs only.
                        due = time.monotonic() - saved > 60 * save_minutes
                        if due and ranks.size == 1 and self.step < end:
                            self.save()
                            saved = time.monotonic()
                    row = self.end_epoch(epoch)
                    name = "mAP" if math.isnan(row.get("val_mAP", math.nan)) else "val_mAP"
                    bar.set_postfix(
                        {name: f"{100 * row[name]:.1f}", "loss": f"{row['train_loss']:.3g}"}
                    )
                    saved = time.monotonic()
                    self.save()
                    if on_epoch is not None and ranks.is_main:
                        on_epoch(self.recorder.run())
            self.finish()

    def take_step(self, model: nn.Module, images: Tensor, targets: Tensor) -> None:
        """Take one step on this process's images ``(B, 3, S, S)`` and targets ``(B, C)``."""
        recipe, on_cpu = self.recipe, self.device.type == "cpu"
        number = self.step * self.ranks.size + self.ranks.rank
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["scale"] * lr_factor(recipe, self.step, self.steps)
        self.model.head.generator = generator(recipe.seed, "fusion", number, self.device)
        with _fits_in_memory(recipe, self.device):
            with autocast(self.device, recipe.precision):
                logits = model(images)  # (B, C)
            logits = logits.float()
            self.divergence.see(self.step, logits)
            if on_cpu:  # elsewhere at the end of the epoch: checking is waiting
                self.check()
            weight = self.model.head.classifier.weight
            self.recorder.ledger.watch(logits, targets, weight=weight)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.criterion(logits, targets)
            loss.backward()
        if weight.grad is not None:  # a head can be frozen by hand
            self.recorder.ledger.add_weight(weight.grad)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if not on_cpu or norm > recipe.clip:
            nn.utils.clip_grads_with_norm_(parameters, recipe.clip, norm)
        self.divergence.see(self.step, loss, norm)
        if on_cpu:
            self.check()
        self.optimizer.step()
        self.recorder.add_step(loss.detach())
        self.step += 1

    def check(self) -> None:
        """Raise if the training has diverged."""
        self.divergence.check(
            self.sampler.indices,
            f"lower lr={self.recipe.lr}, or lengthen warmup={self.recipe.warmup}; the last "
            "checkpoint is from before",
        )

    def end_epoch(self, epoch: int) -> dict:
        """Evaluate what is due, and record the epoch."""
        self.check()
        recipe, found, last = self.recipe, {}, epoch == len(self.ends)
        # The second stage scores the validation split itself, of all networks in one pass.
        due = not recipe.refit if last else epoch % recipe.validate_every == 0
        if self.val is not None and (due or recipe.keep == "best"):
            (found["val_scores"],) = evaluate(self.model, self.val, ranks=self.ranks)
            if recipe.keep == "best":
                self._keep_if_best(epoch, found["val_scores"])
        if last and self.kept:
            self.model.load_state_dict(self.kept)
            # The row of the last epoch is of the network that is kept, in every column.
            if not recipe.refit and self.recorder.summary["kept_epoch"] != epoch:
                (found["val_scores"],) = evaluate(self.model, self.val, ranks=self.ranks)
        if last and recipe.refit:
            found |= self.second_stage()
        elif last or (recipe.evaluate_every and epoch % recipe.evaluate_every == 0):
            (found["scores"],) = evaluate(self.model, self.test, ranks=self.ranks)
        splits = {"": self.data.test, "val_": self.data.val}
        row = self.recorder.epoch(
            **found,
            **{f"{k}targets": splits[k].labels.dense() for k in splits if f"{k}scores" in found},
            logits=True,
        )
        if recipe.record_scores:
            (own,) = evaluate(self.model, self.plain, ranks=self.ranks)
            self.recorder.add_history("train", own, self.data.train.labels.dense())
            for key, name in (("", "test"), ("val_", "val")):
                if f"{key}scores" in found:
                    scores = found[f"{key}scores"]
                    self.recorder.add_history(name, scores, splits[key].labels.dense())
        return row

    def second_stage(self) -> dict[str, Tensor]:
        """Re-fit and score the head, on the backbone as trained and interpolated (WiSE-FT)."""
        recipe, own, found = self.recipe, self.model.head, {}
        options = {"ranks": self.ranks, "progress": self.progress}
        for name, share in (("refit", 0.0), ("interpolated", recipe.interpolation)):
            if name == "interpolated":
                if not share:
                    continue
                interpolate(self.model.backbone, self.start, share)
            head, shrinkage, left_out = refit(
                self.model, self.plain, shrinkage=recipe.shrinkage, **options
            )
            heads = {"own": own} if self.step and not share else {}  # untrained, it is random
            heads[name] = head
            for key, split, loader in (
                ("", self.data.test, self.test),
                ("val_", self.data.val, self.val),
            ):
                if loader is not None:
                    scores = evaluate(self.model, loader, list(heads.values()), **options)
                    for classifier, each in zip(heads, scores, strict=True):
                        self.recorder.stage(classifier, f"{key}ap", each, split.labels.dense())
                    found[f"{key}scores"] = scores[-1]
        self.recorder.summary["shrinkage"] = shrinkage
        self.recorder.keep_scores("train", left_out, self.data.train.labels.dense())
        self.model.head = head.train()
        return found

    def _keep_if_best(self, epoch: int, scores: Tensor) -> None:
        ap = average_precision(scores, self.data.val.labels.dense())
        mean = group_map(ap, {})["mAP"]
        if mean > self.best:
            self.best, self.recorder.summary["kept_epoch"] = mean, epoch
            self.kept = {k: v.clone() for k, v in self.model.state_dict().items()}

    def finish(self) -> None:
        """Write weights and summary, and drop the checkpoints."""
        if not self.ranks.is_main:
            return
        if self.bank:
            self.model = Classifier(self.bank.backbone, self.model.head)
        weights = {key: value.cpu() for key, value in self.model.state_dict().items()}
        write_atomically(self.out / "model.pt", lambda part: save_torch(weights, part))
        self.recorder.finish()
        for name in (CHECKPOINT, PREVIOUS):
            (self.out / name).unlink(missing_ok=True)

    def save(self) -> None:
        """Write a checkpoint; nothing broken takes the place of what is whole."""
        self.check()
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        random = self.ranks.all_gather([torch.get_rng_state(), *cuda])  # one of each rank
        if self.ranks.is_main:
            save_checkpoint(self.out, {**self.state_dict(), "random": random})

    def state_dict(self) -> dict:
        """Everything but the random states that :meth:`load_state_dict` needs to go on exactly."""
        return {
            **{name: getattr(self, name).state_dict() for name in STATEFUL},
            **{name: getattr(self, name) for name in ("step", "best", "kept")},
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up a saved state."""
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        for name in ("step", "best", "kept", "random"):
            setattr(self, name, state[name])
