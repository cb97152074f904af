"""A recipe: everything that decides how a model is trained. It is built by :mod:`ltml.build`."""

import math
from dataclasses import dataclass
from typing import get_args, get_type_hints

from ltml.errors import InputError
from ltml.files import quote

__all__ = ["Recipe"]


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
