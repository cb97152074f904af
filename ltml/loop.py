"""The training loop: what changes while a model is trained, and what changes it."""

import io
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ltml.build import build_loss, build_model, build_sampler, lr_factor, make_optimizer
from ltml.checkpoint import remove_checkpoints, save_checkpoint
from ltml.data import LongTailData
from ltml.data.loader import Loader, not_shown
from ltml.devices import device_name, has_bf16
from ltml.errors import InputError
from ltml.faults import Divergence, is_out_of_memory, largest_batch
from ltml.gradients import GradientLedger, gradient_imbalance
from ltml.metrics import average_precision, group_map
from ltml.ranks import Ranks
from ltml.recipe import Recipe
from ltml.runs import METRICS, PER_CLASS, SCHEMA, Run, write_atomically, write_csv, write_json
from ltml.seeding import generator

__all__ = ["Training", "evaluate"]

log = logging.getLogger(__name__)

_STATEFUL = ("model", "optimizer", "criterion", "sampler")
_PLAIN = ("step", "seconds", "total_loss", "metrics", "per_class")


class Training:
    """Everything that changes while a model is trained, and the loop that changes it.

    Args:
        recipe: completed by the data.
        data: training and test split.
        device: where to train.
        ranks: the processes that train together.
        progress: show progress bars.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: LongTailData,
        device: torch.device,
        ranks: Ranks,
        progress: bool,
    ):
        self.recipe, self.data, self.device, self.ranks = recipe, data, device, ranks
        self.progress = progress and ranks.first
        labels = data.train.labels
        # Steps are grouped into epochs of as many images as the training split has.
        per_epoch = math.ceil(len(labels) / recipe.batch_size)
        self.steps = recipe.steps or per_epoch * (recipe.epochs or 7)
        self.ends = [*range(per_epoch, self.steps, per_epoch), self.steps]
        self.config = _describe(recipe, data)

        self.criterion = build_loss(recipe, labels).to(device)
        self.sampler = build_sampler(
            recipe, labels, self.steps, rank=ranks.rank, world_size=ranks.size
        )
        self.model = build_model(recipe, labels).to(device)
        self.optimizer = make_optimizer(recipe, self.model)
        self.ledger = GradientLedger(labels.num_classes, device=device)
        options = {"image_size": recipe.image_size, "device": device, "progress": self.progress}
        self.train = Loader(data.train, augment=recipe.augment, **options)
        self.test = Loader(data.test, **options)

        self._random = None  # states of torch's own generators to go on from
        self.step, self.seconds = 0, 0.0
        self.total_loss = torch.zeros((), device=device)  # of the epoch so far
        self.metrics: list[dict] = []  # a row an epoch
        self.per_class: list[dict] = []  # a table an epoch, by columns
        self.divergence = Divergence(data.class_names, device)

    def state_dict(self) -> dict:
        """Return all that :meth:`load_state_dict` needs to go on exactly."""
        return {
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            **{name: getattr(self, name) for name in _PLAIN},
            "gradients": self.ledger.sums,
            "random": self._random_states(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up a saved state."""
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        for name in _PLAIN:
            setattr(self, name, state[name])
        self.total_loss = self.total_loss.to(self.device)
        self.ledger.sums.copy_(state["gradients"])
        self._random = state["random"]

    def _random_states(self) -> list[Tensor]:
        """Torch's own generators, which only dropout inside a backbone draws from."""
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    def run(self, out: Path, on_epoch: Callable[[Run], None] | None, save_minutes: float) -> None:
        """Train to the end, from wherever we are; the first process writes."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            if self._random is None:
                torch.manual_seed(self.recipe.seed + self.ranks.rank)
            else:
                torch.set_rng_state(self._random[0])
                if self.device.type == "cuda" and len(self._random) > 1:
                    torch.cuda.set_rng_state(self._random[1], self.device)
            self._run(out, on_epoch, save_minutes)

    def _run(self, out: Path, on_epoch: Callable[[Run], None] | None, save_minutes: float) -> None:
        began, saved = time.perf_counter() - self.seconds, time.monotonic()
        ranks, recipe = self.ranks, self.recipe
        model = ranks.shared(self.model)
        if recipe.compile:
            model = torch.compile(model)
        self.sampler.batch = self.step
        numbers = count(self.step * ranks.size + ranks.rank, ranks.size)
        batches = self.train.batches(self.sampler, seed=recipe.seed, numbers=numbers)
        log.info(
            "%s: %d steps of %d images on %s",
            out.name,
            self.steps,
            recipe.batch_size,
            device_name(self.device),
        )
        bar = tqdm(
            total=self.steps,
            initial=self.step,
            desc=out.name,
            unit="step",
            disable=not_shown(self.progress),
        )
        with bar:
            for epoch, end in enumerate(self.ends, 1):
                if self.step >= end:
                    continue  # before we resumed
                model.train()
                while self.step < end:
                    self._step(model, *next(batches))
                    bar.update()
                    due = time.monotonic() - saved > 60 * save_minutes
                    # Several processes have several clocks: they save at the ends of epochs only.
                    if due and ranks.size == 1 and self.step < end:
                        self.seconds = time.perf_counter() - began
                        self._save(out)
                        saved = time.monotonic()
                self._end_epoch(epoch, end)
                bar.set_postfix({k: f"{self.metrics[-1][k]:.3f}" for k in ("mAP", "tail")})
                self.seconds, saved = time.perf_counter() - began, time.monotonic()
                tables = self._write(out)
                self._save(out)
                if on_epoch is not None and ranks.first:
                    on_epoch(Run(out, self.config, *tables, summary={}))
        self._finish(out)

    def _step(self, model: nn.Module, images: Tensor, targets: Tensor) -> None:
        """Take one step on this process's images ``(B, 3, S, S)`` and targets ``(B, C)``."""
        recipe, step = self.recipe, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["scale"] * lr_factor(recipe, step, self.steps)
        try:
            loss = self._backward(model, images, targets)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            loss = None  # handled below, where the failed step's tensors are let go of
        if loss is None:
            self._say_what_fits(model, images, targets)
        weight = self.model.head.classifier.weight
        if weight.grad is not None:  # a head can be frozen by hand
            self.ledger.add_weight(weight.grad)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.divergence.look(step, loss, norm)
        if self.device.type == "cpu":
            self._check()
        self.optimizer.step()
        self.total_loss += loss.detach()
        self.step += 1

    def _backward(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss and its gradients."""
        number = self.step * self.ranks.size + self.ranks.rank
        self.model.head.generator = generator(self.recipe.seed, "fusion", number, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16(self.device)):
            logits, targets = model(images, targets)  # (B, C), or (2B, C) with pairs
        logits = logits.float()
        self.divergence.look(self.step, logits)
        if self.device.type == "cpu":  # elsewhere at the end of the epoch: looking is waiting
            self._check()
        self.ledger.watch(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.criterion(logits, targets)
        loss.backward()
        return loss.detach()

    def _say_what_fits(self, model: nn.Module, images: Tensor, targets: Tensor) -> None:
        """Find the batch size that would have fitted, and stop with it."""
        self.optimizer.zero_grad(set_to_none=True)
        size = largest_batch(lambda n: self._backward(model, images[:n], targets[:n]), len(images))
        whole = (size or 0) * self.ranks.size
        raise InputError(
            f"batch_size={self.recipe.batch_size} at image_size={self.recipe.image_size} does not "
            f"fit in the memory of {device_name(self.device)}; "
            + (
                f"{whole} fits: give batch_size={whole}"
                if size
                else "nor does any other: give a smaller image_size or backbone"
            )
        )

    def _check(self) -> None:
        advice = (
            f"lower lr={self.recipe.lr}, or lengthen warmup={self.recipe.warmup}; the last "
            "checkpoint is from before"
        )
        self.divergence.check(self.sampler.indices, advice)

    def _end_epoch(self, epoch: int, end: int) -> None:
        """Evaluate, and take down what the epoch was."""
        self._check()
        labels, groups = self.data.train.labels, self.data.train.labels.groups()
        began = self.ends[epoch - 2] if epoch > 1 else 0
        train_loss = self.ranks.mean(self.total_loss).item() / (end - began)
        scores = evaluate(self.model, self.test, ranks=self.ranks)
        ap = average_precision(scores, self.data.test.labels.dense())
        self.ranks.mean(self.ledger.sums)
        gradient = self.ledger.read()
        self.total_loss.zero_()
        row = {"epoch": epoch, "step": end, "train_loss": train_loss, **group_map(ap, groups)}
        self.metrics.append(row)
        self.per_class.append(
            {
                "epoch": [epoch] * labels.num_classes,
                "ap": ap.tolist(),
                "grad_pos": gradient.positive.tolist(),
                "grad_neg": gradient.negative.tolist(),
                "grad_weight": gradient.weight.tolist(),
            }
        )

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        labels = self.data.train.labels
        names = {"class": labels.class_names, "group": labels.group_of_class()}
        names["count"] = labels.counts
        per_class = pd.concat([pd.DataFrame(names | columns) for columns in self.per_class])
        return pd.DataFrame(self.metrics)[METRICS], per_class[PER_CLASS]

    def _write(self, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Write the tables as far as they go."""
        tables = self._tables()
        if self.ranks.first:
            write_csv(out / "metrics.csv", tables[0])
            write_csv(out / "per_class.csv", tables[1])
        return tables

    def _save(self, out: Path) -> None:
        self._check()  # nothing broken takes the place of what is whole
        if self.ranks.first:
            save_checkpoint(out, self.state_dict())

    def _finish(self, out: Path) -> None:
        """Write the result, and drop the checkpoints."""
        per_class = self._write(out)[1]
        if not self.ranks.first:
            return
        weights = {key: value.cpu() for key, value in self.model.state_dict().items()}
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        write_atomically(out / "model.pt", lambda part: part.write_bytes(buffer.getvalue()))
        totals = per_class.groupby("class")[["grad_pos", "grad_neg"]].sum().sum(axis=1).to_numpy()
        names, counts = self.data.class_names, self.data.test.labels.counts
        last = self.metrics[-1]
        write_json(
            out / "summary.json",
            {
                **{name: last[name] for name in ("mAP", *self.data.train.labels.groups())},
                "gradient_imbalance": gradient_imbalance(totals),
                "seconds": round(self.seconds, 2),
                "steps": self.steps,
                "torch": torch.__version__,
                "device": device_name(self.device),
                "classes_without_positives": [
                    name for name, n in zip(names, counts, strict=True) if n == 0
                ],
            },
        )
        remove_checkpoints(out)


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Loader, *, batch_size: int = 256, ranks: Ranks | None = None
) -> Tensor:
    """Score every image of a loader's split, each by one of the processes.

    Returns:
        ``(N, C)`` logits on the CPU; the model is left in training mode if it was.
    """
    training, device = model.training, loader.device
    model.eval()
    ranks = ranks or Ranks()
    index = torch.arange(ranks.rank, len(loader.split), ranks.size).split(batch_size)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
        scores = [model(images).float() for images, _ in loader.batches(index)]
    model.train(training)
    return ranks.gathered(torch.cat(scores).cpu(), len(loader.split))


def _describe(recipe: Recipe, data: LongTailData) -> dict:
    return {
        "schema": SCHEMA,
        "recipe": asdict(recipe),
        "data": {
            "name": data.name,
            "train_images": len(data.train),
            "test_images": len(data.test),
            "labels_per_image": round(data.train.labels.cardinality, 4),
            "class_names": list(data.class_names),
            "test_counts": data.test.labels.counts.tolist(),
        },
    }
