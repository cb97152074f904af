"""A bank of feature maps: every image passed once through a frozen backbone."""

import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ltml.core.devices import choose_device, free_memory
from ltml.core.errors import InputError
from ltml.data.loader import Loader
from ltml.data.splits import LongTailData
from ltml.runs.recipe import Recipe
from ltml.runs.run import Run
from ltml.training.network import make_backbone
from ltml.training.passes import passed
from ltml.training.setup import completed, told

_MADE_BY = ("backbone", "weights", "image_size", "augment")  # fields of the recipe of a bank


@dataclass(frozen=True, eq=False, repr=False)
class Bank(LongTailData):
    """Hold a data set as the feature maps that a frozen backbone makes of its images.

    Each split's ``images`` are maps ``(N, V, D, h, w)`` in half precision, ``V`` being 2 where a
    training image and its mirror image are kept.

    Args:
        name, train, test, val: as of :class:`~ltml.LongTailData`.
        backbone: frozen network that made the maps.
        settings: fields of a recipe that describe the backbone, and its values.
    """

    backbone: nn.Module | None = None
    settings: dict = field(default_factory=dict)

    @cached_property
    def pooled(self) -> "Bank":
        """The same bank with every map averaged, ``(N, V, D, 1, 1)``: enough for a linear head."""
        means = {
            name: replace(split, images=_averaged(split.images))
            for name, split in self.splits.items()
        }
        return replace(self, **means).from_source(self.source)


@torch.no_grad()
def bank(
    source: Recipe | Run | str | Path,
    data: LongTailData,
    *,
    device: str = "auto",
    progress: bool = True,
) -> Bank:
    """Pass every image once through a frozen backbone, and keep the feature maps.

    :func:`ltml.fit` then trains a head on them, with any sampler and loss, in seconds; its run is
    like any other. Training images are also passed mirrored, where the recipe's augmentation
    mirrors: that is all the augmentation there is. Maps that would take more than half of the free
    memory are kept in a temporary file.

    Retraining a classifier on a backbone from uniform sampling is *decoupled training*.

    Args:
        source: a trained run, or its folder; or a recipe, whose backbone and weights are taken.
        data: data set whose images are passed.
        device: auto (cuda, else mps, else cpu), or a torch device.
        progress: whether to show progress bars.

    Raises:
        InputError: if the run has no weights, or an image cannot be decoded.

    References:
        Decoupling Representation and Classifier for Long-Tailed Recognition (Kang et al., ICLR
        2020), https://arxiv.org/abs/1910.09217

    Example:
        >>> import ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> maps = bank(ltml.Recipe(), data, progress=False)
        >>> maps.train.images.shape
        torch.Size([115, 1, 256, 3, 3])
    """
    if isinstance(source, Recipe):
        recipe, where = completed(told(source, data), data.train), choose_device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)  # of a backbone without weights
            size = recipe.image_size
            backbone = make_backbone(recipe.backbone, weights=recipe.weights, image_size=size)
    else:
        run = source if isinstance(source, Run) else Run.load(source)
        recipe = Recipe.from_dict(run.recipe)
        backbone = run.model(device=device).classifier.backbone
        where = choose_device(device)
    backbone.precision, backbone.engine = recipe.precision, recipe.engine
    backbone = backbone.to(where, memory_format=torch.channels_last).eval().requires_grad_(False)
    splits = {}
    for name, split in data.splits.items():
        loader = Loader(
            split,
            image_size=recipe.image_size,
            device=where,
            augment=recipe.augment if name == "train" else "none",
            mean=backbone.mean,
            std=backbone.std,
            progress=progress,
        )
        maps = _maps(backbone, loader, name, progress)
        splits[name] = replace(split, images=maps, originals=loader.split.images)
    settings = {name: getattr(recipe, name) for name in _MADE_BY} | {"freeze": -1}
    made = Bank(data.name, **splits, backbone=backbone.cpu(), settings=settings)
    return made.from_source(data.source)


def as_banked(recipe: Recipe, made: Bank) -> Recipe:
    """Put what a bank was made by into a recipe that leaves it open.

    Raises:
        InputError: if the recipe names something else.
    """
    for name, value in made.settings.items():
        wanted = getattr(recipe, name)
        if wanted not in (value, getattr(Recipe(), name)):
            raise InputError(
                f"{name} is {wanted!r}, but the bank was made with {name}={value!r}; leave it out "
                "of the recipe, or make another bank: ltml.bank(recipe, data)"
            )
    return replace(recipe, **made.settings)


def _maps(backbone: nn.Module, loader: Loader, name: str, progress: bool) -> Tensor:
    """``(N, V, D, h, w)`` float16, in memory or mapped from a temporary file."""
    maps, done = None, 0
    for part in passed(backbone, loader, views=True, name=name, progress=progress):
        found = part.maps.half().cpu()
        if maps is None:
            maps = _room((len(loader.split), *found.shape[1:]))
        maps[done : done + len(found)] = found
        done += len(found)
    return maps


def _averaged(maps: Tensor) -> Tensor:
    """In single precision; a mapped file is read a part at a time."""
    return torch.cat([part.float().mean((3, 4), keepdim=True) for part in maps.split(512)])


def _room(shape: tuple[int, ...]) -> Tensor:
    if 2 * np.prod(shape, dtype=float) < free_memory() / 2:
        return torch.empty(shape, dtype=torch.float16)
    with tempfile.TemporaryFile() as file:  # without a name, it goes with the last map of it
        return torch.from_numpy(np.memmap(file, np.float16, "w+", shape=shape))
