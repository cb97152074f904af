"""From a recipe's names to its data, its network and its optimiser."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ltml import data as datasets
from ltml.core.devices import autocast
from ltml.core.errors import InputError
from ltml.core.labels import GROUPS, LabelMatrix
from ltml.data.catalog import DATASETS, source_of
from ltml.data.image import size_of
from ltml.data.splits import LongTailData, Split
from ltml.runs.recipe import Recipe, from_fit
from ltml.runs.recorder import counts_of
from ltml.runs.run import Run
from ltml.training.network import Classifier, own_size

_ACTIVATIONS = 0.625 * 2**30  # bytes that are held for backward at most, on a CPU

_OWN = "own "  # before the name of data that a training was given, in the record of its recipe


def load_data(recipe: Recipe) -> LongTailData:
    """Load the data set that a recipe names, with its held-out validation split.

    Raises:
        InputError: if it cannot be loaded, or the recipe is of data that its training was given.
    """
    if recipe.data.startswith(_OWN):
        raise InputError(
            f"data {recipe.data!r} were given to the training, and no recipe can load them; give "
            "them once more, as data="
        )
    options = _options(recipe)
    return held_out(recipe, datasets.load(recipe.data, root=recipe.root, **options))


def _options(recipe: Recipe) -> dict:
    """Options by which a recipe's data set is loaded."""
    options = {name: getattr(recipe, name) for name in ("train_split", "val_split", "test_split")}
    options = {name: value for name, value in options.items() if value is not None}
    options |= recipe.data_options
    if recipe.data == "pictograms" and recipe.image_size is not None:
        options.setdefault("image_size", recipe.image_size)  # drawn at the size that is wanted
    return options


def held_out(recipe: Recipe, data: LongTailData) -> LongTailData:
    """Group the classes as the recipe says, and cut its validation split out of the training images
    unless there is one."""
    made = data.source
    if recipe.groups is not None:
        labels = data.train.labels.grouped(recipe.groups)
        data = replace(data, train=replace(data.train, labels=labels))
        made = made and made | {"groups": recipe.groups}
    if recipe.holdout and data.val is None:
        from ltml.data.holdout import with_holdout

        data = with_holdout(data, recipe.holdout, seed=recipe.holdout_seed)
        made = made and made | {"holdout": recipe.holdout, "holdout_seed": recipe.holdout_seed}
    return data.from_source(made)


def told(recipe: Recipe, data: LongTailData) -> Recipe:
    """Have a recipe say what the data are that its training is given, in place of what it named.

    Data of one's own, which no recipe can load, are called so.
    """
    cut = {"holdout": 0.0} if data.val is not None else {}
    if data.source is None:
        name = data.name if recipe.data in (*DATASETS, "auto") else recipe.data
        blank = {"root": None, "train_split": None, "val_split": None, "test_split": None}
        return replace(recipe, data=_OWN + name.removeprefix(_OWN), data_options={}, **blank, **cut)
    made, options = data.source, _options(recipe)
    if recipe.groups is not None:  # by which they are grouped anew
        made = made | {"groups": recipe.groups}
    if recipe.data in (made["data"], "auto"):
        named = source_of(made["data"], recipe.root, options) or {"data": None}
        if named.items() <= made.items():  # the recipe's own spelling stays
            made = {key: value for key, value in made.items() if key not in named}
    return replace(recipe, **cut | made)


def data_of(run: Run, data: LongTailData | None = None) -> LongTailData:
    """Return a run's data set: as given, or as its recipe says.

    Raises:
        InputError: if they are not what the run was trained on, or its loop was somebody's own.
    """
    if data is None and not from_fit(run.config):
        raise InputError(f"run {run.name!r} is of a loop of your own; give its data")
    if from_fit(run.config):
        recipe = Recipe.from_dict(run.recipe)
        data = _read_again(recipe, run) if data is None else held_out(recipe, data)
    given = dict(zip(data.class_names, data.train.labels.counts.tolist(), strict=True))
    before = run.config["data"]
    digest = (before.get("digest") or {}).get("train")
    other = digest not in (None, data.train.digest)
    if other or given != run.classes.set_index("class")["count"].to_dict():
        raise InputError(
            f"data {data.name!r} are not those of run {run.name!r}; give what it was trained on"
        )
    if (why := _other_images(before, described(data))) is not None:
        raise InputError(
            f"data {data.name!r} are no longer those of run {run.name!r}: {why}; give what it was "
            "trained on"
        )
    return data


def _read_again(recipe: Recipe, run: Run) -> LongTailData:
    """Load a run's data by the layout, splits and plan that it was read by."""
    before = run.config["data"]
    if recipe.data == "auto" and before.get("name") in DATASETS:
        recipe = replace(recipe, data=before["name"])
    for role, split in ((before.get("layout") or {}).get("splits") or {}).items():
        if getattr(recipe, f"{role}_split") is None:
            recipe = replace(recipe, **{f"{role}_split": split})
    plan = before.get("plan")
    if plan is not None and recipe.data == "folder" and "plan" not in recipe.data_options:
        try:
            return load_data(replace(recipe, data_options={**recipe.data_options, "plan": plan}))
        except InputError:  # a table to test on has other columns, and is read by itself
            pass
    return load_data(recipe)


def described(data: LongTailData) -> dict:
    """What ``config.json`` says of a data set, beside what a recorder knows of it."""
    out = {"test_images": len(data.test), **counts_of(data.test.labels, "test_")}
    out["digest"] = {name: split.digest for name, split in data.splits.items()}
    out["content"] = {name: split.content for name, split in data.splits.items()}
    out |= {} if data.layout is None else {"layout": data.layout}
    return out if data.plan is None else out | {"plan": data.plan.as_dict()}


def differs(before: dict, now: dict) -> str | None:
    """Say in what a run's data are others than these, if they are; both as in ``config.json``.

    What one of them does not say, such as the digests of a run of before 0.6, is not compared.
    """
    apart = ("name", "plan", "layout", "digest", "content")
    for name in [name for name in now if name in before and name not in apart]:
        if before[name] != now[name]:
            return f"other {name.replace('_', ' ')}"
    ours, theirs = before.get("digest") or now["digest"], now["digest"]
    for split in sorted(ours.keys() | theirs.keys()):
        if ours.get(split) != theirs.get(split):
            return f"other images or labels in the {split} split"
    return _other_images(before, now)


def _other_images(before: dict, now: dict) -> str | None:
    """Say in which split images were replaced under the same names and labels, if in one."""
    for split, digest in now["digest"].items():
        then, content = (each.get("content", {}).get(split, "") for each in (before, now))
        alike = then.partition(":")[0] == content.partition(":")[0]
        same = (before.get("digest") or {}).get(split) == digest
        if same and alike and then != content:
            return f"images in the {split} split were replaced, under the same names and labels"
    return None


def hardly_grouped(labels: LabelMatrix) -> str | None:
    """Say in a line that nearly all classes are in one group, if they are."""
    there = labels.group_of_class()[labels.group_counts > 0]
    for name in GROUPS:
        inside = np.count_nonzero(there == name)
        if len(there) >= 6 and inside >= 0.9 * len(there):
            head, tail = labels.bounds
            return (
                f"{inside} of {len(there)} classes are {name} by the bounds of {head} and {tail} "
                "images; groups='terciles' (--groups terciles) makes three groups of a size"
            )
    return None


def training_labels(recipe: Recipe, labels: LabelMatrix) -> LabelMatrix:
    """Labels as a training takes them; scores are always those over known labels."""
    return labels.fill_unknown() if recipe.unknown == "negative" else labels


def completed(recipe: Recipe, train: Split) -> Recipe:
    """Fill in what a recipe leaves to the data and the backbone."""
    small, drawn = recipe.backbone == "small", isinstance(train.images, Tensor)
    size = own_size(recipe.backbone) or _suitable_size(train, small)
    fill = {
        "image_size": size,
        "warmup": min(50, steps_of(recipe, train) // 2),
        "augment": "shift" if drawn and recipe.data.removeprefix(_OWN) == "pictograms" else "light",
        "lr": 1e-2 if small else 5e-3,
        "backbone_lr": 0.2 if recipe.weights else 1.0,
        "freeze_norm": recipe.weights is not None,
    }
    return replace(recipe, **{k: v for k, v in fill.items() if getattr(recipe, k) is None})


def steps_of(recipe: Recipe, train: Split) -> int:
    """Count a training's steps; an epoch has as many images as the training split."""
    if recipe.steps is not None:
        return recipe.steps
    return math.ceil(len(train) / recipe.batch_size) * (recipe.epochs or 7)


def passes_of(recipe: Recipe, epochs: int) -> dict[str, int]:
    """Count how often the images of each split are needed, in steps and in whole passes.

    Args:
        epochs: number of epochs that the training has.
    """
    stages = (1 + bool(recipe.interpolation)) if recipe.refit else 1
    tests = epochs // recipe.evaluate_every if recipe.evaluate_every else 0
    validations = epochs if recipe.keep == "best" else epochs // recipe.validate_every
    return {
        "train": stages + epochs * (recipe.record_scores + (recipe.steps != 0)),
        "val": validations + stages,
        "test": tests + stages,
    }


def _suitable_size(split: Split, small: bool) -> int:
    """Choose the image size: the images' own, at most 224 px (64 for the small network)."""
    if getattr(split.images, "ndim", 1) == 4:  # all of one size
        return size_of(split.images[0])[0]
    most, sides = 64 if small else 224, []
    for i in range(0, len(split), max(1, len(split) // 32)):
        try:
            sides.append(min(size_of(split.images[i])))
        except Exception:  # Pillow raises many kinds over damaged files; the loader will name it
            continue
    return int(min(most, np.median(sides))) if sides else most


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Decay matrices and kernels, not biases and normalisation."""
    groups = []
    for module, scale in ((model.backbone, recipe.backbone_lr), (model.head, 1.0)):
        trained = [p for p in module.parameters() if p.requires_grad]
        for matrices, decay in ((True, recipe.weight_decay), (False, 0.0)):
            params = [p for p in trained if (p.ndim > 1) == matrices]
            groups.append({"params": params, "weight_decay": decay, "scale": scale})
    groups = [group for group in groups if group["params"]]  # a frozen backbone has none
    options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    options["fused"] = next(model.parameters()).device.type in ("cpu", "cuda")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, **options)
    return torch.optim.AdamW(groups, **options)


def micro_batch_of(recipe: Recipe, model: Classifier, images: Tensor) -> int | None:
    """Choose how many images pass the backbone at a time in a step; None: the whole batch.

    Args:
        images: ``(1, 3, S, S)`` an example, on the model's device.

    Raises:
        InputError: if the recipe wants fewer than the batch, and images depend on one another.
    """
    mixes = model.train().mixes_images
    if recipe.micro_batch is not None:
        if mixes and recipe.micro_batch < recipe.batch_size:
            raise InputError(
                f"micro_batch={recipe.micro_batch}: batch norm takes its statistics of the whole "
                "batch; give freeze_norm=True, or leave micro_batch out"
            )
        return recipe.micro_batch if recipe.micro_batch < recipe.batch_size else None
    if mixes or images.device.type != "cpu":
        return None
    held: dict[int, int] = {}

    def see(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    holding = torch.autograd.graph.saved_tensors_hooks(see, lambda x: x)
    with holding, autocast(images.device, recipe.precision):
        maps = (model.folded or model.backbone)(images)
    size = sum(nbytes for at, nbytes in held.items() if at not in known)
    del maps  # until here, no memory was given to another activation
    most = max(1, int(_ACTIVATIONS / max(size, 1)))
    if most >= recipe.batch_size:
        return None
    return math.ceil(recipe.batch_size / math.ceil(recipe.batch_size / most))


def lr_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    warmup = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    if recipe.schedule == "cosine":
        return warmup * (1 + math.cos(math.pi * step / steps)) / 2
    return warmup * 0.1 ** ((step >= steps * 5 / 8) + (step >= steps * 7 / 8))
