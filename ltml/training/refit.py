"""Evaluate a network, and its second stage: backbone interpolated with its start, head
re-fitted."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltml.core.discriminant import SharedCovariance, fill
from ltml.core.ranks import Ranks
from ltml.data.loader import Loader
from ltml.training.network import Classifier
from ltml.training.passes import pooled_features


class Refit(NamedTuple):
    """A re-fitted head, in evaluation mode, and what it was fitted with.

    Args:
        head: copy of the model's head, with the shared-covariance classifier.
        shrinkage: shrinkage of the covariance.
        left_out: ``(N, C)`` logits of each training image, by a classifier of pooled features that
            was fitted without it.
    """

    head: nn.Module
    shrinkage: float
    left_out: Tensor


@torch.no_grad()
def refit(
    model: Classifier,
    loader: Loader,
    *,
    shrinkage: float | None = None,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> Refit:
    """Return a copy of a model's head whose classifier is the shared-covariance one.

    Args:
        model: classifier whose backbone is taken as it is.
        loader: loader of the training split.
        shrinkage: shrinkage of the covariance; None: that of least leave-one-out error.

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
    return Refit(head, shrinkage, classifier.left_out.mean(1).float())


@torch.no_grad()
def interpolate(module: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    r"""Interpolate parameters and buffers towards an earlier state_dict, in place: WiSE-FT.

    .. math:: \theta \leftarrow (1 - s) \, \theta + s \, \theta_0

    Args:
        module: module to change.
        start: earlier ``state_dict`` :math:`\theta_0` of the module, such as pretrained weights.
        share: fraction :math:`s` of the way back, in [0, 1].

    References:
        Robust fine-tuning of zero-shot models (Wortsman et al., CVPR 2022),
        https://arxiv.org/abs/2109.01903

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> start = {name: torch.zeros_like(x) for name, x in layer.state_dict().items()}
        >>> before = layer.weight.clone()
        >>> interpolate(layer, start, 0.5)
        >>> torch.equal(layer.weight, before / 2)
        True
    """
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.lerp_(start[name].to(value), share)
