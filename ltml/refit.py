"""Evaluate a network, and its second stage: backbone part of the way back, head re-fitted."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ltml.backbones import Classifier
from ltml.build import autocast
from ltml.data.loader import Loader, not_shown
from ltml.discriminant import SharedCovariance, fill
from ltml.ranks import Ranks

__all__ = ["evaluate", "interpolate", "pooled_features", "refit"]


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
    return [ranks.interleaved(part, len(loader.split)) for part in parts]


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
    maps = torch.cat([part.to(loader.device) for part in ranks.gathered(torch.cat(maps))])
    return ranks.interleaved(torch.cat(features).cpu(), count), maps


@torch.no_grad()
def refit(
    model: Classifier,
    loader: Loader,
    *,
    shrinkage: float | None = None,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> tuple[nn.Module, float]:
    """Return a copy of a model's head whose classifier is the shared-covariance one.

    Args:
        model: its backbone is taken as it is.
        loader: of the training split.
        shrinkage: of the covariance; None: that of least leave-one-out error.

    Returns:
        the head, in evaluation mode, and the shrinkage.

    Raises:
        InputError: if a feature is infinite or NaN.
    """
    features, maps = pooled_features(model, loader, ranks=ranks, progress=progress)
    targets = loader.split.labels.dense()
    classifier = SharedCovariance(targets.shape[1], features.shape[2])
    for x, y in zip(features.split(4096), targets.split(4096), strict=True):
        classifier.update(x, y)
    if shrinkage is None:
        shrinkage = classifier.choose_shrinkage(features, targets)
    weight, bias = classifier.calibrate(features, targets, shrinkage)
    head = copy.deepcopy(model.head).eval()
    head.normalize = True
    fill(head.classifier, weight, bias)
    if hasattr(head, "attention"):
        # What a class attends to raises its logits; probabilities need them at the scale that was
        # calibrated. Attention depends on the classifier's direction alone, so this can be put
        # right by scaling it.
        maps = maps.float()
        pooled = F.linear(F.normalize(maps.mean((2, 3)), dim=1).cpu().to(weight), weight, bias)
        found = head(maps).cpu().to(weight)
        mean, spread = found.mean(0), found - found.mean(0)
        slope = (spread * (pooled - pooled.mean(0))).sum(0) / spread.square().sum(0).clamp(1e-12)
        bias = pooled.mean(0) + slope * (bias - mean)
        fill(head.classifier, slope.unsqueeze(1) * weight, bias)
    return head, shrinkage


@torch.no_grad()
def interpolate(module: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Move a module's parameters and statistics a share of the way back to a former state."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.lerp_(start[name].to(value), share)
