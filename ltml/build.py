"""Build what a recipe names: data, network, sampler, loss and optimiser."""

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ltml import data as datasets
from ltml.data import LongTailData, Split
from ltml.diversity import DiversityEnhancement
from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.loss import LOSSES, make_loss
from ltml.model import Classifier, PooledLinear, feature_channels, make_backbone
from ltml.recipe import Recipe
from ltml.sampler import SAMPLERS, Sampler

__all__ = [
    "HEADS",
    "build_loss",
    "build_model",
    "build_sampler",
    "check_recipe",
    "completed",
    "load_data",
    "lr_factor",
    "make_optimizer",
]

# diversity -> the head that turns a feature map into logits
HEADS = {
    "off": lambda channels, labels, recipe: PooledLinear(channels, labels.num_classes),
    "attention": lambda channels, labels, recipe: DiversityEnhancement(
        channels, labels.num_classes, alpha=0.0, kappa=recipe.kappa, tau=recipe.tau
    ),
    "dem": lambda channels, labels, recipe: DiversityEnhancement(
        channels,
        labels.num_classes,
        alpha=recipe.alpha,
        pairs=recipe.pairs,
        counts=labels.counts,
        kappa=recipe.kappa,
        tau=recipe.tau,
    ),
}


def check_recipe(recipe: Recipe) -> None:
    """Raise an InputError that names the first value out of range."""
    if recipe.steps is not None and recipe.epochs is not None:
        raise InputError(f"epochs={recipe.epochs} and steps={recipe.steps}: give one of them")
    for name in ("epochs", "steps", "image_size"):
        value = getattr(recipe, name)
        if value is not None and value < 1:
            raise InputError(f"{name}={value} is too small; give at least 1")
    if recipe.batch_size < 2:
        raise InputError(f"batch_size={recipe.batch_size}: give at least 2, for batch norm")
    for name in ("lr", "backbone_lr", "clip"):
        value = getattr(recipe, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name}={value} must be positive and finite")
    for name in ("weight_decay", "warmup", "seed", "freeze"):
        if not getattr(recipe, name) >= 0:
            raise InputError(f"{name}={getattr(recipe, name)} must not be negative")
    for name, choices in (
        ("sampler", list(SAMPLERS)),
        ("loss", list(LOSSES)),
        ("diversity", list(HEADS)),
        ("optimizer", ["adamw", "sgd"]),
        ("schedule", ["cosine", "step"]),
    ):
        if getattr(recipe, name) not in choices:
            raise InputError(
                f"{name} {getattr(recipe, name)!r} is unknown; choose from {', '.join(choices)}"
            )


def load_data(recipe: Recipe) -> LongTailData:
    """Load the data set that a recipe names."""
    options = {"train_split": recipe.train_split, "test_split": recipe.test_split}
    options = {name: value for name, value in options.items() if value is not None}
    if recipe.data == "pictograms" and options:
        raise InputError(
            "data 'pictograms' has its own splits; leave train_split and test_split out"
        )
    if recipe.data == "pictograms":
        options["seed"] = recipe.data_seed
        if recipe.image_size is not None:
            options["image_size"] = recipe.image_size  # drawn at the size that is wanted
    return datasets.load(recipe.data, root=recipe.root, **options)


def completed(recipe: Recipe, train: Split) -> Recipe:
    """Fill in what a recipe leaves to the data and the backbone."""
    small, drawn = recipe.backbone == "small", isinstance(train.images, Tensor)
    fill = {
        "image_size": _suitable_size(train, small),
        "augment": "shift" if drawn and recipe.data == "pictograms" else "light",
        "lr": 1e-2 if small else 5e-3,
        "backbone_lr": 0.2 if recipe.weights else 1.0,
    }
    return replace(recipe, **{k: v for k, v in fill.items() if getattr(recipe, k) is None})


def _suitable_size(split: Split, small: bool) -> int:
    """Choose the image size: the images' own, at most 224 px (64 for the small network)."""
    if isinstance(split.images, Tensor):
        return split.images.shape[-1]
    sides = []
    for path in split.images[:: max(1, len(split) // 32)]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except Exception:  # Pillow raises many kinds over damaged files; the loader will name it
            continue
    most = 64 if small else 224
    return int(min(most, np.median(sides))) if sides else most


def build_model(recipe: Recipe, labels: LabelMatrix) -> Classifier:
    """Build the recipe's network, with initial weights that its seed decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = make_backbone(recipe.backbone, weights=recipe.weights)
        head = HEADS[recipe.diversity](feature_channels(backbone), labels, recipe)
        # Begin by expecting each class as often as the average one: else most of the gradient that
        # rare classes ever get is the first epoch's news that labels are rare.
        prior = min(max(labels.cardinality / labels.num_classes, 1e-3), 0.5)
        nn.init.constant_(head.classifier.bias, math.log(prior / (1 - prior)))
    model = Classifier(backbone, head, freeze=recipe.freeze)
    return model.to(memory_format=torch.channels_last)


def build_sampler(
    recipe: Recipe, labels: LabelMatrix, num_batches: int, *, rank: int = 0, world_size: int = 1
) -> Sampler:
    """Build the recipe's sampler, or one process's share of it."""
    options = {"batch_size": recipe.batch_size, "num_batches": num_batches, "seed": recipe.seed}
    options |= {"rank": rank, "world_size": world_size}
    if recipe.sampler == "group":
        options |= {name: getattr(recipe, name) for name in ("ridge", "share", "uniform")}
    return SAMPLERS[recipe.sampler](labels, **options)


def build_loss(recipe: Recipe, labels: LabelMatrix) -> nn.Module:
    """Build the recipe's loss."""
    options = {}
    if recipe.loss.startswith("dgb"):
        options = {name: getattr(recipe, name) for name in ("strength", "momentum", "max_weight")}
    return make_loss(recipe.loss, labels, **options)


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
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, fused=fused, **options)
    return torch.optim.AdamW(groups, fused=fused, **options)


def lr_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step."""
    warmup = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    if recipe.schedule == "cosine":
        return warmup * (1 + math.cos(math.pi * step / steps)) / 2
    return warmup * 0.1 ** ((step >= steps * 5 / 8) + (step >= steps * 7 / 8))
