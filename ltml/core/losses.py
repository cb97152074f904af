"""Losses for long-tailed multi-label recognition, by name."""
# ruff: noqa: D102 (reduced is documented once, by MultiLabelLoss)

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ltml.core.dgb import DynamicGradientBalancing
from ltml.core.elementwise import (
    MultiLabelLoss,
    Reduction,
    asymmetric,
    class_totals,
    focal,
    over_ranks,
    reduced,
)
from ltml.core.labels import LabelMatrix
from ltml.core.options import Bounds, build, checked, choose

# Beyond 1000, all but the hardest elements are 0 in single precision.
Exponent = Annotated[float, Bounds("[0, 1000]")]


class BinaryCrossEntropy(MultiLabelLoss):
    r"""Average the binary cross-entropy of every image and class.

    .. math::
        \ell = -y \log p - (1 - y) \log(1 - p), \qquad p = \sigma(z)

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, as of
            :class:`~ltml.core.elementwise.MultiLabelLoss`; so of all losses here.

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(2, 3), torch.eye(2, 3))
        tensor(0.6931)
    """

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        return bce(z, y, reduction=reduction)


class WeightedBCE(MultiLabelLoss):
    r"""Weight the positives of each class by its inverse frequency.

    .. math::
        \ell = -\frac{N - n_c}{n_c} \, y \log p - (1 - y) \log(1 - p)

    so that the positives of a class count as much as its negatives. Both counts are at least 1.

    Args:
        counts: ``(C,)`` images of each class.
        num_images: number of images ``N``.

    References:
        | Logistic Regression in Rare Events Data (King & Zeng, Political Analysis 2001)
        | https://doi.org/10.1093/oxfordjournals.pan.a004868
    """

    def __init__(self, counts, num_images: int, *, reduction: Reduction = "mean"):
        present, absent = _images(counts, num_images)
        super().__init__(len(present), reduction=reduction)
        self.register_buffer("positive_weight", (absent / present).float())

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        return bce(z, y, pos_weight=self.positive_weight.to(z), reduction=reduction)


class ClassBalancedLoss(MultiLabelLoss):
    r"""Weight each class by the inverse of its effective number of images.

    .. math::
        \ell = w_c \, \mathrm{BCE}(z, y), \qquad
        w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \qquad \tfrac{1}{C} \sum_c w_c = 1

    The paper weights an image by its only class; with several, each class weights its own element.

    Args:
        counts: ``(C,)`` images of each class, taken as at least 1.
        num_images: number of images ``N``.
        beta: base of the effective number, in [0, 1): 0 weights all classes alike; towards 1, by
            inverse frequency.

    Raises:
        InputError: if an option is out of range.

    References:
        | Class-Balanced Loss Based on Effective Number of Samples (Cui et al., CVPR 2019)
        | https://arxiv.org/abs/1901.05555
    """

    @checked
    def __init__(
        self,
        counts,
        num_images: int,
        *,
        beta: Annotated[float, Bounds("[0, 1)")] = 0.999,
        reduction: Reduction = "mean",
    ):
        present, _ = _images(counts, num_images)
        super().__init__(len(present), reduction=reduction)
        weight = (1 - beta) / (1 - beta**present)
        self.register_buffer("class_weight", (weight / weight.mean()).float())

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        return bce(z, y, weight=self.class_weight.to(z), reduction=reduction)


class FocalLoss(MultiLabelLoss):
    r"""Reduce the loss of elements that are already classified correctly.

    .. math::
        \ell = -y (1 - p)^\gamma \log p - (1 - y) p^\gamma \log(1 - p)

    Args:
        gamma: focusing exponent, 0 or more; 0 is binary cross-entropy.

    References:
        | Focal Loss for Dense Object Detection (Lin et al., ICCV 2017)
        | https://arxiv.org/abs/1708.02002
    """

    @checked
    def __init__(self, *, gamma: Exponent = 2.0, reduction: Reduction = "mean"):
        super().__init__(reduction=reduction)
        self.gamma = gamma

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduced(focal, z, y, reduction, gamma=self.gamma)


class AsymmetricLoss(MultiLabelLoss):
    r"""Reduce the loss of easy negatives faster than that of easy positives, and drop the easiest.

    .. math::
        \ell = -y (1 - p)^{\gamma_+} \log p - (1 - y) \, p_m^{\gamma_-} \log(1 - p_m), \qquad
        p_m = \max(p - \text{clip}, 0)

    Args:
        gamma_neg, gamma_pos: exponents of negatives and positives; the paper uses 4, and 0 or 1.
        clip: probability, in [0, 1), below which a negative costs nothing.

    Raises:
        InputError: if an option is out of range.

    References:
        | Asymmetric Loss For Multi-Label Classification (Ridnik et al., ICCV 2021)
        | https://arxiv.org/abs/2009.14119
    """

    @checked
    def __init__(
        self,
        *,
        gamma_neg: Exponent = 4.0,
        gamma_pos: Exponent = 0.0,
        clip: Annotated[float, Bounds("[0, 1)")] = 0.05,
        reduction: Reduction = "mean",
    ):
        super().__init__(reduction=reduction)
        self.options = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduced(asymmetric, z, y, reduction, **self.options)


class DistributionBalancedLoss(MultiLabelLoss):
    r"""Correct for labels that occur together, and tolerate negatives.

    Class-aware sampling picks an image for any of its labels, so it also repeats the other labels
    of that image. The share of an image's picks that are for class :math:`c` weights each element,

    .. math::
        w_{ic} = \alpha + \sigma(\beta (r_{ic} - \mu)), \qquad
        r_{ic} = \frac{1 / n_c}{\sum_{j : y_{ij} = 1} 1 / n_j}

    (:math:`w = \alpha + 1` in an image without labels). Logits are shifted towards the prior of
    each class, and negatives tolerated by a factor :math:`\lambda`:

    .. math::
        \ell = w \left[y \log(1 + e^{-z'}) + \tfrac{1 - y}{\lambda} \log(1 + e^{\lambda z'})\right],
        \qquad z' = z - \tfrac{\kappa}{\lambda} \log(N / n_c - 1)

    Args:
        counts: ``(C,)`` images of each class; the number with and without it is taken as >= 1.
        num_images: number of images ``N``.
        alpha, beta, mu: shape of the smooth weights; in the paper mu is 0.3 on VOC-LT, 0.2 on
            COCO-LT.
        kappa: scale of the shift of the logits by the prior.
        lam: :math:`\lambda`, tolerance of negatives: 5 on VOC-LT, 2 on COCO-LT.

    Raises:
        InputError: if an option is out of range.

    References:
        | Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets (Wu et
          al., ECCV 2020)
        | https://arxiv.org/abs/2007.09654
    """

    @checked
    def __init__(
        self,
        counts,
        num_images: int,
        *,
        alpha: Annotated[float, Bounds("[0, 1000]")] = 0.1,
        beta: Annotated[float, Bounds("[0.001, 1000]")] = 10.0,
        mu: Annotated[float, Bounds("[0, 1]")] = 0.3,
        kappa: Annotated[float, Bounds("[0, 1000]")] = 0.05,
        lam: Annotated[float, Bounds("[0.001, 1000]")] = 5.0,
        reduction: Reduction = "mean",
    ):
        present, absent = _images(counts, num_images)
        super().__init__(len(present), reduction=reduction)
        self.alpha, self.beta, self.mu, self.lam = alpha, beta, mu, lam
        self.register_buffer("inverse_counts", (1 / present).float())
        self.register_buffer("shift", (kappa / lam * (absent / present).log()).float())

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        inverse = self.inverse_counts.to(z)
        share = inverse / (y * inverse).sum(1, keepdim=True)  # inf without labels, sigmoid 1
        weight = share.sub_(self.mu).mul_(self.beta).sigmoid_().add_(self.alpha)
        z = z - self.shift.to(z)
        if y.device.type == "cpu" and not torch.compiler.is_compiling() and not (y - y * y).sum():
            slope = (y * (1 - self.lam)).add_(self.lam)  # hard targets: one term is 0
            return bce(z.mul_(slope), y, weight=weight.div_(slope), reduction=reduction)
        ones, zeros, share = torch.ones_like(y), torch.zeros_like(y), (1 - y) / self.lam
        positive = bce(z, ones, weight=weight * y, reduction=reduction)
        return positive + bce(self.lam * z, zeros, weight=weight * share, reduction=reduction)


class EQLv2(MultiLabelLoss):
    r"""Weight classes by the ratio of the gradients their positives and negatives have received.

    .. math::
        g_c = \frac{\sum y w^+_c (1 - p)}{\sum (1 - y) w^-_c p}, \qquad
        w^-_c = f(g_c), \quad w^+_c = 1 + \alpha (1 - f(g_c)), \quad
        f(g) = \frac{1}{1 + e^{-\gamma (g - \mu)}}

    with sums over all previous batches and all processes. A class that has received nothing yet has
    weights 1. The sums are unchanged in eval mode.

    Args:
        num_classes: number of classes ``C``.
        alpha, gamma, mu: shape of the weights, as in the paper.

    References:
        | Equalization Loss v2: A New Gradient Balance Approach for Long-tailed Object Detection
          (Tan et al., CVPR 2021)
        | https://arxiv.org/abs/2012.08548
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        *,
        alpha: Annotated[float, Bounds("[0, 1000]")] = 4.0,
        gamma: Annotated[float, Bounds("[0.001, 1000]")] = 12.0,
        mu: Annotated[float, Bounds("[0, 1000]")] = 0.8,
        reduction: Reduction = "mean",
    ):
        super().__init__(num_classes, reduction=reduction)
        self.alpha, self.gamma, self.mu = alpha, gamma, mu
        self.register_buffer("totals", torch.zeros(2, num_classes))

    @property
    def weights(self) -> Tensor:
        """``(2, C)``: weights of positives and of negatives for the next batch."""
        positive, negative = self.totals
        ratio = torch.where(negative > 0, positive / negative, math.inf)
        f = (self.gamma * (ratio - self.mu)).sigmoid()
        return torch.stack([1 + self.alpha * (1 - f), f])

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        positive, negative = self.weights.to(z)
        weight = torch.lerp(negative, positive, y)
        if self.training:
            with torch.no_grad():
                magnitude = z.sigmoid().sub_(y).abs_().mul_(weight)
                totals = over_ranks(class_totals(magnitude, y).to(self.totals.dtype))
                self.totals += torch.where(totals.isfinite(), totals, 0)
        return bce(z, y, weight=weight, reduction=reduction)


LOSSES: dict[str, Callable[..., MultiLabelLoss]] = {
    "bce": BinaryCrossEntropy,
    "weighted-bce": WeightedBCE,
    "class-balanced": ClassBalancedLoss,
    "focal": FocalLoss,
    "asl": AsymmetricLoss,
    "db": DistributionBalancedLoss,
    "eql-v2": EQLv2,
    "dgb": DynamicGradientBalancing,
    "dgb-focal": partial(DynamicGradientBalancing, base="focal"),
    "dgb-asl": partial(DynamicGradientBalancing, base="asl"),
}


def make_loss(name: str, labels: LabelMatrix, **options) -> MultiLabelLoss:
    """Make a loss of the table ``LOSSES`` for a training set.

    Args:
        name: key of ``LOSSES``.
        labels: annotations of the training images.
        options: keyword arguments of the loss.

    Raises:
        InputError: if there is no such loss or option, or an option is out of range.

    Example:
        >>> make_loss("dgb", LabelMatrix([[1, 0], [1, 1]]), strength=1.0).strength
        1.0
    """
    part = choose("loss", name, LOSSES)
    known = {"num_classes": labels.num_classes, "counts": labels.counts, "num_images": len(labels)}
    fixed = getattr(part, "keywords", {})  # dgb-focal takes no other base
    return build(part, f"loss {name!r}", options, **known, **fixed)


def _images(counts, num_images: int) -> tuple[Tensor, Tensor]:
    """Count the images with and without each class, ``(C,)`` each, as at least 1."""
    n = torch.tensor(np.asarray(counts, dtype=np.float64))  # a copy: counts may be read-only
    return n.clamp(min=1), (num_images - n).clamp(min=1)
