"""From a recipe's names to its data, its network and its optimiser."""

import ctypes
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ltml import data as datasets
from ltml.backbones import Classifier, feature_channels, make_backbone, own_size
from ltml.data import LongTailData, Split
from ltml.diversity import HEADS
from ltml.errors import InputError
from ltml.options import build, choose
from ltml.recipe import Recipe

__all__ = [
    "autocast",
    "build_model",
    "choose_device",
    "completed",
    "held_out",
    "load_data",
    "lr_factor",
    "make_optimizer",
    "steps_of",
]


def load_data(recipe: Recipe) -> LongTailData:
    """Load the data set that a recipe names, with its held-out validation split."""
    options = {name: getattr(recipe, name) for name in ("train_split", "val_split", "test_split")}
    options = {name: value for name, value in options.items() if value is not None}
    options |= recipe.data_options
    if recipe.data == "pictograms" and recipe.image_size is not None:
        options.setdefault("image_size", recipe.image_size)  # drawn at the size that is wanted
    return held_out(recipe, datasets.load(recipe.data, root=recipe.root, **options))


def held_out(recipe: Recipe, data: LongTailData) -> LongTailData:
    """Cut the recipe's validation split out of the training images, unless there is one."""
    if not recipe.holdout or data.val is not None:
        return data
    from ltml.data.holdout import with_holdout

    return with_holdout(data, recipe.holdout, seed=recipe.seed)


def completed(recipe: Recipe, train: Split) -> Recipe:
    """Fill in what a recipe leaves to the data and the backbone."""
    small, drawn = recipe.backbone == "small", isinstance(train.images, Tensor)
    size = own_size(recipe.backbone) or _suitable_size(train, small)
    fill = {
        "image_size": size,
        "warmup": min(50, steps_of(recipe, train) // 2),
        "augment": "shift" if drawn and recipe.data == "pictograms" else "light",
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


def _suitable_size(split: Split, small: bool) -> int:
    """Choose the image size: the images' own, at most 224 px (64 for the small network)."""
    if isinstance(split.images, Tensor):
        return split.images.shape[-1]
    most, sides = 64 if small else 224, []
    for i in range(0, len(split), max(1, len(split) // 32)):
        item = split.images[i]
        try:
            with nullcontext(item) if isinstance(item, Image.Image) else Image.open(item) as image:
                sides.append(min(image.size))
        except Exception:  # Pillow raises many kinds over damaged files; the loader will name it
            continue
    return int(min(most, np.median(sides))) if sides else most


def build_model(
    recipe: Recipe, counts: np.ndarray, num_images: int, backbone: nn.Module | None = None
) -> Classifier:
    """Build a recipe's network, with initial weights that its seed decides.

    Args:
        recipe: names backbone and head.
        counts: ``(C,)`` training images of each class.
        num_images: training images.
        backbone: that is there already; default: built as the recipe says.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if backbone is None:
            backbone = make_backbone(
                recipe.backbone, weights=recipe.weights, image_size=recipe.image_size
            )
        head = build(
            choose("diversity", recipe.diversity, HEADS),
            f"head {recipe.diversity!r}",
            recipe.head_options,
            in_channels=feature_channels(backbone),
            num_classes=len(counts),
        )
        # Begin by expecting each class as often as the average one: else most of the gradient that
        # rare classes ever get is the first epoch's news that labels are rare.
        prior = min(max(counts.sum() / max(num_images, 1) / len(counts), 1e-3), 0.5)
        nn.init.constant_(head.classifier.bias, math.log(prior / (1 - prior)))
    freeze_norm = bool(recipe.freeze_norm)
    model = Classifier(backbone, head, freeze=recipe.freeze, freeze_norm=freeze_norm)
    return model.to(memory_format=torch.channels_last)


def choose_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"`` into cuda, else mps, else cpu; check any other name.

    Raises:
        InputError: if there is no such device here.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); give auto or cpu"
        ) from error
    if device.type == "cpu":
        _keep_memory()
    return device


@cache
def _keep_memory() -> None:
    """Have the C library reuse large blocks of memory.

    By default glibc gives them back to the system after every operation, and to fetch and clear
    them anew takes as long as the convolutions do.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # not Linux, or another C library
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
    libc.mallopt(-1, 2**29)  # M_TRIM_THRESHOLD: bytes that may lie free at the end


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


def lr_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    warmup = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    if recipe.schedule == "cosine":
        return warmup * (1 + math.cos(math.pi * step / steps)) / 2
    return warmup * 0.1 ** ((step >= steps * 5 / 8) + (step >= steps * 7 / 8))


def autocast(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 where the device does so natively."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=native)
