"""A recipe: everything that decides how a model is trained, and the parts that it names."""

import math
from dataclasses import dataclass, replace
from typing import get_args, get_type_hints

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ltml import data as datasets
from ltml.data import LongTailData, Split
from ltml.data._files import quote
from ltml.diversity import DiversityEnhancement
from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.loss import LOSSES, make_loss
from ltml.model import Classifier, PooledLinear, feature_channels, make_backbone
from ltml.sampler import SAMPLERS, Sampler

__all__ = [
    "HEADS",
    "Recipe",
    "build_loss",
    "build_model",
    "build_sampler",
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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a model is trained; equal recipes give equal runs on one machine.

    Raises:
        InputError: from :func:`fit`, if a value is out of range.
    """

    data: str = "pictograms"
    """Name of the data set."""
    root: str | None = None
    """Folder of the data set; the embedded pictograms need none."""
    train_split: str | None = None
    """Split to train on; default: the data set's own."""
    test_split: str | None = None
    """Split to evaluate on; default: the data set's own."""
    data_seed: int = 0
    """Pictograms: seed of the scenes. Another seed is another data set, to choose settings on."""
    sampler: str = "uniform"
    """Which images are drawn: uniform, class-aware or group."""
    ridge: float = 0.0
    """Group sampling: 0 balances inside groups exactly, more keeps more distinct images."""
    share: str = "classes"
    """Group sampling: each group's share of a batch, by its classes, equal, or by its images."""
    uniform: float = 0.3
    """Group sampling: fraction of every batch that is drawn uniformly instead."""
    loss: str = "bce"
    """bce, weighted-bce, class-balanced, focal, asl, db, eql-v2, dgb, dgb-focal or dgb-asl."""
    strength: float = 0.5
    """Gradient balancing (dgb): 0 is the plain loss, 1 equalises fully."""
    momentum: float = 0.99
    """Gradient balancing: of the moving averages of the gradient."""
    max_weight: float = 100.0
    """Gradient balancing: largest weight of a class, and smallest inverse."""
    diversity: str = "off"
    """Head: off (average pooling), attention (class attention), dem (with fusion)."""
    alpha: float = 0.6
    """Diversity enhancement: strongest fusion with another category."""
    pairs: bool = False
    """Diversity enhancement: also train on pairs of images, rare ones preferred as partners."""
    kappa: float = 1.0
    """Class attention: weight of the attended feature beside the average."""
    tau: float = 1.0
    """Class attention: sharpness."""
    backbone: str = "small"
    """small, or a torchvision classifier such as resnet50."""
    weights: str | None = None
    """A local state_dict file, or torchvision's name of pretrained weights."""
    freeze: int = 0
    """First layers of the backbone that are kept as loaded, batch norm's statistics included."""
    image_size: int | None = None
    """Side of the square input in pixels; default: what suits the images and the backbone."""
    augment: str | None = None
    """Random views: none, shift, light (shift and mirror) or strong (crop, mirror and colour);
    default: light, but shift for pictograms, whose mirror images are never tested."""
    epochs: int | None = None
    """Passes over as many images as the training split has; default 7, unless steps are given."""
    steps: int | None = None
    """Training steps, instead of epochs."""
    batch_size: int = 64
    """Images a step."""
    optimizer: str = "adamw"
    """adamw or sgd (momentum 0.9)."""
    lr: float | None = None
    """Peak learning rate; default: 0.01 for the small network, 0.005 for others."""
    backbone_lr: float | None = None
    """Learning rate of the backbone, as a multiple of lr; default: 0.2 with weights, which it
    spares, else 1."""
    weight_decay: float = 1e-2
    """Weight decay, not applied to biases and normalisation."""
    schedule: str = "cosine"
    """cosine to 0, or step: a tenth after 5/8 and again after 7/8 of the training."""
    warmup: int = 50
    """Steps over which the learning rate rises linearly."""
    clip: float = 35.0
    """Largest norm of the whole gradient."""
    compile: bool = False
    """Have torch.compile build the network first: slow to start, faster from then on."""
    seed: int = 0
    """Seed of the weights, the draws and the augmentation."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device."""

    def check(self) -> None:
        """Raise an InputError that names the first value out of range."""
        if self.steps is not None and self.epochs is not None:
            raise InputError(f"epochs={self.epochs} and steps={self.steps}: give one of them")
        for name in ("epochs", "steps", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} is too small; give at least 1")
        if self.batch_size < 2:
            raise InputError(f"batch_size={self.batch_size}: give at least 2, for batch norm")
        for name in ("lr", "backbone_lr", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}={value} must be positive and finite")
        for name in ("weight_decay", "warmup", "seed", "freeze"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} must not be negative")
        for name, choices in (
            ("sampler", list(SAMPLERS)),
            ("loss", list(LOSSES)),
            ("diversity", list(HEADS)),
            ("optimizer", ["adamw", "sgd"]),
            ("schedule", ["cosine", "step"]),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(choices)}"
                )

    def completed(self, train: Split) -> "Recipe":
        """Fill in what was left to the data and the backbone."""
        small, drawn = self.backbone == "small", isinstance(train.images, Tensor)
        fill = {
            "image_size": _suitable_size(train, small),
            "augment": "shift" if drawn and self.data == "pictograms" else "light",
            "lr": 1e-2 if small else 5e-3,
            "backbone_lr": 0.2 if self.weights else 1.0,
        }
        return replace(self, **{k: v for k, v in fill.items() if getattr(self, k) is None})

    @classmethod
    def baseline(cls, **changes) -> "Recipe":
        """Uniform draws, binary cross-entropy, average pooling."""
        return cls(**changes)

    @classmethod
    def method(cls, **changes) -> "Recipe":
        """Group sampling, dynamic gradient balancing and diversity enhancement.

        Example:
            >>> Recipe.method(steps=500, seed=1).sampler
            'group'
        """
        return cls(**{"sampler": "group", "loss": "dgb", "diversity": "dem"} | changes)

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """Build from the ``recipe`` entry of a run's ``config.json``; others are dropped.

        Raises:
            InputError: if a value is of another type than the field's.
        """
        found = {}
        for name, kind in get_type_hints(cls).items():
            if name not in values:
                continue
            value = values[name]
            if value is None and kind is float:
                value = math.inf  # JSON has no infinity; write_json makes it null
            kinds = get_args(kind) or (kind,)  # of int | None, or of int
            # type(), not isinstance(): true is no number. JSON may write 1.0 as 1.
            if type(value) not in kinds and not (type(value) is int and float in kinds):
                wanted = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
                raise InputError(f"recipe: {name} is {quote(value)}; give {wanted}")
            if type(value) is float and math.isnan(value):
                raise InputError(f"recipe: {name} is not a number; give one")
            found[name] = value
        return cls(**found)


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
