"""Every image through a network: the one place where images meet a backbone outside a training.

On a CPU, memory costs more than arithmetic: a batch whose maps do not fit into the caches is slow,
and maps that are given back to the system after every layer cost as much again. So batches are as
large as a few of the network's largest maps, memory is kept for as long as a pass lasts, and batch
norm is folded into the convolutions of a copy of the network.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ltml.core.devices import autocast, kept_memory
from ltml.core.errors import InputError
from ltml.core.ranks import Ranks
from ltml.data.loader import Loader, not_shown
from ltml.training.folding import fold
from ltml.training.network import Classifier

_MOST = 64  # views at a time
_LARGEST = 80 * 2**20  # bytes of a batch's largest map, on a CPU: measured as the fastest
_TRIED = 4  # images of the first batch


class Passed(NamedTuple):
    """A batch that went through a backbone.

    Args:
        index: ``(B,)`` images of the split.
        images: ``(B, V, 3, S, S)``, normalised, in their views.
        maps: ``(B, V, D, h, w)``.
    """

    index: Tensor
    images: Tensor
    maps: Tensor


def passed(
    backbone: nn.Module,
    loader: Loader,
    index: Tensor | None = None,
    *,
    views: bool = False,
    batch_size: int | None = None,
    name: str = "images",
    progress: bool = False,
) -> Iterator[Passed]:
    """Pass images of a loader's split once through a backbone, in evaluation mode.

    Args:
        backbone: network to pass images through; not changed; what it holds is copied where folding
            makes that faster. Its ``precision`` and ``engine``, where it has them, are a recipe's.
        loader: loader of the split.
        index: images to pass, in this order. Default: all.
        views: whether to pass each image in all its plain views; else ``V`` is 1.
        batch_size: number of images at a time. Default: by the memory that the network's largest
            map takes.
        name: label of the progress bar.
        progress: whether to show the bar.
    """
    index = torch.arange(len(loader.split)) if index is None else index
    batches = loader.views if views else _plain_views(loader)
    training, precision = backbone.training, getattr(backbone, "precision", "auto")
    backbone.eval()
    bar = tqdm(total=len(index), desc=name, unit="img", disable=not_shown(progress))
    try:
        with bar, kept_memory(loader.device):
            network = None
            for part in (index[:_TRIED], index[_TRIED:]):
                sizes = [some for some in part.split(batch_size or _TRIED) if len(some)]
                with closing(batches(sizes)) as source:
                    for some, images in zip(sizes, source, strict=False):
                        if network is None:
                            network, at_once = _fastest(backbone, images.flatten(0, 1), precision)
                            batch_size = batch_size or max(1, at_once // images.shape[1])
                        with torch.inference_mode(), autocast(loader.device, precision):
                            maps = network(images.flatten(0, 1)).unflatten(0, images.shape[:2])
                        yield Passed(some, images, maps)
                        bar.update(len(some))
    finally:
        backbone.train(training)


def _plain_views(loader: Loader):
    def batches(indices):
        for images, _ in loader.batches(indices):
            yield images.unsqueeze(1)

    return batches


def _fitting(largest: float, device: torch.device) -> int:
    """Choose how many views pass at a time.

    Args:
        largest: number of bytes of one view's largest map.
    """
    if device.type != "cpu":
        return _MOST
    return int(min(_MOST, max(1, _LARGEST / max(largest, 1))))


@torch.no_grad()
def _fastest(backbone: nn.Module, images: Tensor, precision: str) -> tuple[nn.Module, int]:
    """What computes the backbone fastest here, and how many views at a time; by its ``engine``."""
    folded, largest = fold(backbone, images)
    network, device = folded.frozen() if folded else backbone, images.device
    engine = getattr(backbone, "engine", "torch")
    if engine == "torch" or not any(True for _ in backbone.parameters()):  # of a bank
        return network, _fitting(largest, device)
    if device.type != "cpu":
        raise InputError(
            f"engine={engine!r} computes on CPUs, and the device is {device.type}; give "
            "engine='torch', or device='cpu'"
        )
    from ltml.training.engine import compiled  # an extra

    precision = "float32" if precision == "auto" else precision
    return compiled(backbone, network, images, precision), _TRIED  # measured as the fastest


@torch.no_grad()
def evaluate(
    model: Classifier,
    loader: Loader,
    heads: Sequence[nn.Module] | None = None,
    *,
    batch_size: int | None = None,
    ranks: Ranks | None = None,
    progress: bool = False,
    name: str = "scores",
) -> list[Tensor]:
    """Score every image of a loader's split by each of several heads, in one pass of the backbone.

    Args:
        model: classifier whose backbone is used; left in training mode if it was.
        loader: loader of the split; processes share its images.
        heads: heads to score by; default: the model's own.
        batch_size: number of images at a time; default: by memory.
        name: label of the progress bar.

    Returns:
        for each head, logits ``(N, C)`` on the CPU.
    """
    training, ranks, heads = model.training, ranks or Ranks(), heads or [model.head]
    for module in (model, *heads):
        module.eval()
    index, scores = torch.arange(ranks.rank, len(loader.split), ranks.size), []
    options = {"batch_size": batch_size, "name": name, "progress": progress}
    for _, _, maps in passed(model.backbone, loader, index, **options):
        scores.append([head(maps[:, 0].float()) for head in heads])  # bfloat16 logits tie
    model.train(training)
    parts = [torch.cat(part).cpu() for part in zip(*scores, strict=True)]
    return [ranks.all_gather_rows(part, len(loader.split)) for part in parts]


@torch.no_grad()
def pooled_features(
    model: Classifier,
    loader: Loader,
    *,
    sample: int = 256,
    batch_size: int | None = None,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Average the feature maps of every image of a loader's split, in all its plain views.

    Returns:
        ``(N, V, D)`` on the CPU: of each image, and of its mirror image if the loader mirrors; and
        about ``sample`` of the feature maps ``(M, D, h, w)`` themselves, on the model's device.
    """
    ranks, count = ranks or Ranks(), len(loader.split)
    index = torch.arange(ranks.rank, count, ranks.size)
    every, features, kept, done = math.ceil(count / sample), None, None, 0
    rows = (index % every == 0).cumsum(0) - 1  # of an image among those whose maps are kept
    options = {"views": True, "batch_size": batch_size, "name": "features", "progress": progress}
    for part, _, maps in passed(model.backbone, loader, index, **options):
        if features is None:  # in one piece: many small ones would lie between freed large ones
            features = torch.empty(len(index), *maps.shape[1:3])
            kept = maps.new_empty(int(rows[-1]) + 1, *maps.shape[2:])
        now = slice(done, done + len(part))
        features[now] = maps.float().mean((3, 4))
        chosen = part % every == 0  # the same ones for any number of ranks
        kept[rows[now][chosen]] = maps[chosen, 0]
        done += len(part)
    kept = torch.cat([part.to(loader.device) for part in ranks.all_gather(kept)])
    return ranks.all_gather_rows(features, count), kept
