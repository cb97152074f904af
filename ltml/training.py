"""Train a classifier by a recipe, and leave a run on disk."""

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ltml.data import LongTailData, Split
from ltml.data.loader import Loader, not_shown
from ltml.errors import InputError
from ltml.gradients import GradientLedger, GradientRecord, gradient_imbalance
from ltml.metrics import average_precision, group_map
from ltml.recipe import (
    Recipe,
    build_loss,
    build_model,
    build_sampler,
    load_data,
    lr_factor,
    make_optimizer,
)
from ltml.runs import (
    METRICS,
    PER_CLASS,
    SCHEMA,
    Run,
    write_atomically,
    write_csv,
    write_json,
)
from ltml.seeding import generator

__all__ = ["evaluate", "fit"]

log = logging.getLogger(__name__)


def fit(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    data: LongTailData | None = None,
    overwrite: bool = False,
    progress: bool = True,
    on_epoch: Callable[[Run], None] | None = None,
) -> Run:
    """Train, evaluate after every epoch, and write the run's folder.

    Args:
        recipe: what to train and how.
        out: folder to write; default: a new one under ``runs/``.
        data: a data set that is loaded already (``recipe.data`` then only names it).
        overwrite: replace a run that ``out`` holds.
        progress: show progress bars.
        on_epoch: called after every epoch with the run so far, whose summary is still empty.

    Raises:
        InputError: if the recipe or the data cannot be used, or ``out`` holds another run. Nothing
            is written then.

    Example:
        >>> import tempfile, ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fit(Recipe(steps=2, batch_size=8), data=data, out=f"{folder}/run",
        ...               progress=False)
        ...     run.metrics.step.tolist()
        [2]
    """
    started = time.perf_counter()
    recipe.check()
    device = choose_device(recipe.device)
    out = _choose_folder(out, recipe, overwrite)
    if data is None:
        data = load_data(recipe)
    recipe = recipe.completed(data.train)
    labels, groups = data.train.labels, data.train.labels.groups()

    # Steps are grouped into epochs of as many images as the training split has.
    per_epoch = math.ceil(len(labels) / recipe.batch_size)
    steps = recipe.steps or per_epoch * (recipe.epochs or 7)
    ends = [*range(per_epoch, steps, per_epoch), steps]

    criterion = build_loss(recipe, labels).to(device)
    sampler = build_sampler(recipe, labels, steps)
    model = build_model(recipe, labels).to(device)
    optimizer = make_optimizer(recipe, model)
    ledger = GradientLedger(labels.num_classes, device=device)
    ledger.watch_classifier(model.head.classifier.weight)

    def loader(split: Split) -> Loader:
        return Loader(
            split,
            image_size=recipe.image_size,
            device=device,
            augment=recipe.augment,
            progress=progress,
        )

    train, test = loader(data.train), loader(data.test)
    if overwrite and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    config = _describe(recipe, data)
    write_json(out / "config.json", config)

    log.info(
        "%s: %d steps of %d images on %s", out.name, steps, recipe.batch_size, _device_name(device)
    )
    batches = train.batches(sampler, seed=recipe.seed)
    metrics, per_class, step = [], [], 0
    with tqdm(total=steps, desc=out.name, unit="step", disable=not_shown(progress)) as bar:
        for epoch, end in enumerate(ends, 1):
            model.train()
            total_loss, began = torch.zeros((), device=device), step
            for _ in range(end - step):
                images, targets = next(batches)  # (B, 3, S, S), (B, C)
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * group["scale"] * lr_factor(recipe, step, steps)
                model.head.generator = generator(recipe.seed, "fusion", step, device)
                with torch.autocast(device.type, torch.bfloat16, enabled=_has_bf16(device)):
                    logits, targets = model.enhance(images, targets)  # (B, C), or (2B, C) paired
                logits = logits.float()
                ledger.watch(logits, targets)
                loss = criterion(logits, targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                optimizer.step()
                total_loss += loss.detach()
                step += 1
                bar.update()
            train_loss = total_loss.item() / (step - began)
            if not math.isfinite(train_loss):
                raise InputError(
                    f"the loss became {train_loss} in epoch {epoch} (steps up to {step}); lower "
                    f"lr={recipe.lr}, or lengthen warmup={recipe.warmup}"
                )
            scores = evaluate(model, test)
            ap = average_precision(scores, data.test.labels.dense())
            row = {"epoch": epoch, "step": step, "train_loss": train_loss, **group_map(ap, groups)}
            metrics.append(row)
            per_class.append(_class_rows(epoch, data, ap, ledger.read()))
            bar.set_postfix(mAP=f"{row['mAP']:.3f}", tail=f"{row['tail']:.3f}")
            tables = pd.DataFrame(metrics)[METRICS], pd.concat(per_class)[PER_CLASS]
            write_csv(out / "metrics.csv", tables[0])
            write_csv(out / "per_class.csv", tables[1])
            if on_epoch is not None:
                on_epoch(Run(out, config, *tables, summary={}))

    weights = {key: value.cpu() for key, value in model.state_dict().items()}
    write_atomically(out / "model.pt", lambda part: torch.save(weights, part))
    totals = tables[1].groupby("class")[["grad_pos", "grad_neg"]].sum().sum(axis=1).to_numpy()
    write_json(
        out / "summary.json",
        {
            **{name: row[name] for name in ("mAP", *groups)},
            "gradient_imbalance": gradient_imbalance(totals),
            "seconds": round(time.perf_counter() - started, 2),
            "steps": steps,
            "torch": torch.__version__,
            "device": _device_name(device),
            "classes_without_positives": [
                name
                for name, n in zip(data.class_names, data.test.labels.counts, strict=True)
                if n == 0
            ],
        },
    )
    return Run.load(out)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, *, batch_size: int = 256) -> Tensor:
    """Score every image of a loader's split.

    Returns:
        ``(N, C)`` logits on the CPU; the model is left in training mode if it was.
    """
    training, device = model.training, loader.device
    model.eval()
    index = torch.arange(len(loader.split)).split(batch_size)
    with torch.autocast(device.type, torch.bfloat16, enabled=_has_bf16(device)):
        scores = [model(images).float() for images, _ in loader.batches(index)]
    model.train(training)
    return torch.cat(scores).cpu()


def choose_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"`` into cuda, else mps, else cpu; check any other name.

    Raises:
        InputError: if there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); give auto or cpu"
        ) from error


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _choose_folder(out: str | Path | None, recipe: Recipe, overwrite: bool) -> Path:
    """Return the folder to write, which holds nothing yet unless it may be overwritten."""
    if out is None:
        stem = f"{recipe.data}-{recipe.sampler}-{recipe.loss}-seed{recipe.seed}"
        names = (Path("runs") / (stem + (f"-{n}" if n > 1 else "")) for n in count(1))
        return next(name for name in names if not name.exists())
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out {str(out)!r} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / "config.json").is_file():
            raise InputError(f"out {str(out)!r} holds other files; give a new folder")
        if not overwrite:
            raise InputError(f"out {str(out)!r} holds another run; give a new folder, or delete it")
    return out


def _class_rows(
    epoch: int, data: LongTailData, ap: np.ndarray, gradient: GradientRecord
) -> pd.DataFrame:
    labels = data.train.labels
    return pd.DataFrame(
        {
            "epoch": epoch,
            "class": labels.class_names,
            "group": labels.group_of_class(),
            "count": labels.counts,
            "ap": ap,
            "grad_pos": gradient.positive,
            "grad_neg": gradient.negative,
            "grad_weight": gradient.weight,
        }
    )


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
