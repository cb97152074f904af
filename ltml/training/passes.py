"""Every image through a network: the one place where images meet a backbone outside a training."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ltml.core.devices import autocast
from ltml.core.ranks import Ranks
from ltml.data.loader import Loader, not_shown
from ltml.training.network import Classifier


@torch.no_grad()
def evaluate(
    model: Classifier,
    loader: Loader,
    heads: Sequence[nn.Module] | None = None,
    *,
    batch_size: int = 64,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> list[Tensor]:
    """Score every image of a loader's split by each of several heads, in one pass of the backbone.

    Args:
        model: whose backbone is used; left in training mode if it was.
        loader: of the split; processes share its images.
        heads: default: the model's own.

    Returns:
        for each head, logits ``(N, C)`` on the CPU.
    """
    training, ranks, heads = model.training, ranks or Ranks(), heads or [model.head]
    for module in (model, *heads):
        module.eval()
    index = torch.arange(ranks.rank, len(loader.split), ranks.size).split(batch_size)
    scores = []
    bar = tqdm(loader.batches(index), "scores", len(index), disable=not_shown(progress))
    with autocast(loader.device):
        for images, _ in bar:
            feature_map = model.backbone(images)
            with torch.autocast(loader.device.type, enabled=False):  # bfloat16 logits tie
                scores.append([head(feature_map.float()) for head in heads])
    model.train(training)
    parts = [torch.cat(part).cpu() for part in zip(*scores, strict=True)]
    return [ranks.all_gather_rows(part, len(loader.split)) for part in parts]


@torch.no_grad()
def pooled_features(
    model: Classifier,
    loader: Loader,
    *,
    sample: int = 256,
    batch_size: int = 32,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Average the feature maps of every image of a loader's split, in all its plain views.

    Returns:
        ``(N, V, D)`` on the CPU: of each image, and of its mirror image if the loader mirrors; and
        about ``sample`` of the feature maps ``(M, D, h, w)`` themselves, on the model's device.
    """
    training, ranks = model.training, ranks or Ranks()
    model.eval()
    count = len(loader.split)
    index = torch.arange(ranks.rank, count, ranks.size).split(batch_size)
    every, features, maps = math.ceil(count / sample), [], []
    bar = tqdm(loader.views(index), "features", len(index), disable=not_shown(progress))
    with autocast(loader.device):
        for part, views in zip(index, bar, strict=True):
            found = model.backbone(views.flatten(0, 1)).unflatten(0, views.shape[:2])
            features.append(found.float().mean((3, 4)))
            maps.append(found[part % every == 0, 0])  # the same ones for any number of ranks
    model.train(training)
    maps = torch.cat([part.to(loader.device) for part in ranks.all_gather(torch.cat(maps))])
    return ranks.all_gather_rows(torch.cat(features).cpu(), count), maps
