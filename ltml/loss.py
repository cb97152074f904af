"""Losses for long-tailed multi-label recognition, by name."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltml.balancing import (
    DynamicGradientBalancing,
    MultiLabelLoss,
    class_totals,
    over_ranks,
)
from ltml.elements import asymmetric, focal, mean_of
from ltml.errors import InputError
from ltml.labels import LabelMatrix

__all__ = [
    "LOSSES",
    "AsymmetricLoss",
    "BinaryCrossEntropy",
    "ClassBalancedLoss",
    "DistributionBalancedLoss",
    "DynamicGradientBalancing",
    "EQLv2",
    "FocalLoss",
    "WeightedBCE",
    "make_loss",
]


class BinaryCrossEntropy(MultiLabelLoss):
    r"""Average the binary cross-entropy of every image and class.

    .. math::
        \ell = -y \log p - (1 - y) \log(1 - p), \qquad p = \sigma(z)

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(2, 3), torch.eye(2, 3))
        tensor(0.6931)
    """

    def __init__(self):
        super().__init__()

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        return F.binary_cross_entropy_with_logits(z, y)


class WeightedBCE(MultiLabelLoss):
    r"""Weigh the positives of each class by its inverse frequency.

    .. math::
        \ell = -\frac{N - n_c}{n_c} \, y \log p - (1 - y) \log(1 - p)

    so that the positives of a class weigh as much as its negatives. Both counts are taken as at
    least 1, which keeps classes that are never, or always, present.

    Args:
        counts: ``(C,)`` images of each class.
        num_images: number of images ``N``.

    References:
        | Logistic Regression in Rare Events Data (King & Zeng, Political Analysis 2001)
        | https://doi.org/10.1093/oxfordjournals.pan.a004868
    """

    def __init__(self, counts, num_images: int):
        n = _counts(counts, num_images)
        super().__init__(len(n))
        weight = (num_images - n).clamp(min=1) / n.clamp(min=1)
        self.register_buffer("positive_weight", weight.float())

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        return F.binary_cross_entropy_with_logits(z, y, pos_weight=self.positive_weight.to(z))


class ClassBalancedLoss(MultiLabelLoss):
    r"""Weigh each class by the inverse of its effective number of images.

    .. math::
        \ell = w_c \, \mathrm{BCE}(z, y), \qquad
        w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \qquad \tfrac{1}{C} \sum_c w_c = 1

    The paper weighs an image by its one class; with several labels an image, each class's column
    takes the weight of that class. Counts are taken as at least 1.

    Args:
        counts: ``(C,)`` images of each class.
        num_images: number of images ``N``.
        beta: in [0, 1): 0 weighs all classes alike, towards 1 by inverse frequency.

    References:
        | Class-Balanced Loss Based on Effective Number of Samples (Cui et al., CVPR 2019)
        | https://arxiv.org/abs/1901.05555
    """

    def __init__(self, counts, num_images: int, *, beta: float = 0.999):
        n = _counts(counts, num_images)
        super().__init__(len(n))
        if not 0 <= beta < 1:
            raise InputError(f"beta is {beta}; give 0 <= beta < 1, such as 0.999")
        weight = (1 - beta) / (1 - beta ** n.clamp(min=1))
        self.register_buffer("class_weight", (weight / weight.mean()).float())

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        return F.binary_cross_entropy_with_logits(z, y, weight=self.class_weight.to(z))


class FocalLoss(MultiLabelLoss):
    r"""Fade out the elements that are already right.

    .. math::
        \ell = -y (1 - p)^\gamma \log p - (1 - y) p^\gamma \log(1 - p)

    Args:
        gamma: focusing exponent, 0 or more; 0 is binary cross-entropy.

    References:
        | Focal Loss for Dense Object Detection (Lin et al., ICCV 2017)
        | https://arxiv.org/abs/1708.02002
    """

    def __init__(self, *, gamma: float = 2.0):
        super().__init__()
        self.gamma = _exponent("gamma", gamma)

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        return mean_of(focal, z, y, gamma=self.gamma)


class AsymmetricLoss(MultiLabelLoss):
    r"""Fade out easy negatives faster than easy positives, and drop the easiest.

    .. math::
        \ell = -y (1 - p)^{\gamma_+} \log p - (1 - y) \, p_m^{\gamma_-} \log(1 - p_m), \qquad
        p_m = \max(p - \text{clip}, 0)

    Args:
        gamma_neg: exponent of the negatives, 0 or more.
        gamma_pos: exponent of the positives, 0 or more; the paper uses 0 and 1.
        clip: probability, in [0, 1), below which a negative costs nothing.

    References:
        | Asymmetric Loss For Multi-Label Classification (Ridnik et al., ICCV 2021)
        | https://arxiv.org/abs/2009.14119
    """

    def __init__(self, *, gamma_neg: float = 4.0, gamma_pos: float = 0.0, clip: float = 0.05):
        super().__init__()
        self.gamma_neg = _exponent("gamma_neg", gamma_neg)
        self.gamma_pos = _exponent("gamma_pos", gamma_pos)
        if not 0 <= clip < 1:
            raise InputError(f"clip is {clip}; give 0 <= clip < 1, such as 0.05")
        self.clip = clip

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        options = {"gamma_neg": self.gamma_neg, "gamma_pos": self.gamma_pos, "clip": self.clip}
        return mean_of(asymmetric, z, y, **options)


class DistributionBalancedLoss(MultiLabelLoss):
    r"""Correct for labels that come along with others, and tolerate negatives.

    An image is drawn for any of its labels, so class-aware draws repeat what stands beside them.
    The share of the draws of image :math:`i` that are for class :math:`c` weighs each element,

    .. math::
        w_{ic} = \alpha + \sigma(\beta (r_{ic} - \mu)), \qquad
        r_{ic} = \frac{1 / n_c}{\sum_{j : y_{ij} = 1} 1 / n_j}

    (:math:`w = \alpha + 1` in an image without labels), and logits are shifted towards each class's
    prior and sharpened for negatives:

    .. math::
        \ell = w \left[y \log(1 + e^{-z'}) + \tfrac{1 - y}{\lambda} \log(1 + e^{\lambda z'})\right],
        \qquad z' = z - \tfrac{\kappa}{\lambda} \log(N / n_c - 1)

    Counts of a class, and of the images without it, are taken as at least 1.

    Args:
        counts: ``(C,)`` images of each class.
        num_images: number of images ``N``.
        alpha, beta, mu: of the smooth weights; the paper uses mu 0.3 on VOC-LT, 0.2 on COCO-LT.
        kappa: how far the prior shifts the logits.
        lam: :math:`\lambda`, tolerance of negatives: 5 on VOC-LT, 2 on COCO-LT.

    References:
        | Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed Datasets (Wu et
          al., ECCV 2020)
        | https://arxiv.org/abs/2007.09654
    """

    def __init__(
        self,
        counts,
        num_images: int,
        *,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        kappa: float = 0.05,
        lam: float = 5.0,
    ):
        n = _counts(counts, num_images)
        super().__init__(len(n))
        if not lam > 0:
            raise InputError(f"lam is {lam}; give a positive number, such as 5")
        self.alpha, self.beta, self.mu, self.lam = alpha, beta, mu, lam
        odds = (num_images - n).clamp(min=1) / n.clamp(min=1)
        self.register_buffer("inverse_counts", (1 / n.clamp(min=1)).float())
        self.register_buffer("shift", (kappa / lam * odds.log()).float())

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        inverse = self.inverse_counts.to(z)
        share = inverse / (y * inverse).sum(1, keepdim=True)  # inf without labels, sigmoid 1
        weight = (share - self.mu).mul_(self.beta).sigmoid_().add_(self.alpha)
        slope = self.lam + (1 - self.lam) * y  # 1 for positives, lambda for negatives
        return F.binary_cross_entropy_with_logits(
            (z - self.shift.to(z)) * slope, y, weight=weight.div_(slope)
        )


class EQLv2(MultiLabelLoss):
    r"""Weigh classes by the ratio of the gradients their positives and negatives have received.

    .. math::
        g_c = \frac{\sum y w^+_c (1 - p)}{\sum (1 - y) w^-_c p}, \qquad
        w^-_c = f(g_c), \quad w^+_c = 1 + \alpha (1 - f(g_c)), \quad
        f(g) = \frac{1}{1 + e^{-\gamma (g - \mu)}}

    with sums over all batches so far, the present one not counted, and over all ranks. A class
    that has received nothing yet has weights 1. In eval mode the sums rest.

    Args:
        num_classes: number of classes ``C``.
        alpha, gamma, mu: of the weights, as in the paper.

    References:
        | Equalization Loss v2: A New Gradient Balance Approach for Long-tailed Object Detection
          (Tan et al., CVPR 2021)
        | https://arxiv.org/abs/2012.08548
    """

    def __init__(
        self, num_classes: int, *, alpha: float = 4.0, gamma: float = 12.0, mu: float = 0.8
    ):
        super().__init__(num_classes)
        self.alpha, self.gamma, self.mu = alpha, gamma, mu
        self.register_buffer("totals", torch.zeros(2, num_classes))

    @property
    def weights(self) -> Tensor:
        """``(2, C)``: weights of positives and of negatives for the next batch."""
        positive, negative = self.totals
        ratio = torch.where(negative > 0, positive / negative, math.inf)
        f = (self.gamma * (ratio - self.mu)).sigmoid()
        return torch.stack([1 + self.alpha * (1 - f), f])

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """See :meth:`MultiLabelLoss.mean_loss`."""
        positive, negative = self.weights.to(z)
        weight = torch.lerp(negative, positive, y)
        if self.training:
            with torch.no_grad():
                magnitude = z.sigmoid().sub_(y).abs_().mul_(weight)
                totals = over_ranks(class_totals(magnitude, y).to(self.totals.dtype))
                self.totals += torch.where(totals.isfinite(), totals, 0)
        return F.binary_cross_entropy_with_logits(z, y, weight=weight)


def _balancing(base: str) -> Callable[..., nn.Module]:
    return lambda labels, **options: DynamicGradientBalancing(
        labels.num_classes, base=base, **options
    )


def _counting(loss: type[nn.Module]) -> Callable[..., nn.Module]:
    return lambda labels, **options: loss(labels.counts, len(labels), **options)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "bce": lambda labels, **options: BinaryCrossEntropy(**options),
    "weighted-bce": _counting(WeightedBCE),
    "class-balanced": _counting(ClassBalancedLoss),
    "focal": lambda labels, **options: FocalLoss(**options),
    "asl": lambda labels, **options: AsymmetricLoss(**options),
    "db": _counting(DistributionBalancedLoss),
    "eql-v2": lambda labels, **options: EQLv2(labels.num_classes, **options),
    "dgb": _balancing("bce"),
    "dgb-focal": _balancing("focal"),
    "dgb-asl": _balancing("asl"),
}


def make_loss(name: str, labels: LabelMatrix, **options) -> nn.Module:
    """Make a loss of the table ``LOSSES`` for a training set.

    Args:
        name: key of ``LOSSES``.
        labels: annotations of the training images.
        options: keyword arguments of the loss.

    Raises:
        InputError: if there is no such loss, or an option is out of range.

    Example:
        >>> make_loss("dgb", LabelMatrix([[1, 0], [1, 1]]), strength=1.0)
        DynamicGradientBalancing(2, strength=1.0, momentum=0.99, max_weight=100.0, base='bce')
    """
    if name not in LOSSES:
        raise InputError(f"loss is {name!r}; give one of {', '.join(LOSSES)}")
    return LOSSES[name](labels, **options)


def _counts(counts, num_images: int) -> Tensor:
    n = counts.cpu() if isinstance(counts, Tensor) else counts
    n = torch.tensor(np.asarray(n, dtype=np.float64))  # a copy: counts may be read-only
    if n.ndim != 1 or not len(n):
        raise InputError(f"counts has shape {tuple(n.shape)}; give one count for each class")
    if not ((n >= 0) & (n <= num_images)).all():
        wrong = int((~((n >= 0) & (n <= num_images))).nonzero()[0])
        raise InputError(
            f"counts holds {n[wrong].item():g} for class {wrong}; give 0 to num_images "
            f"({num_images})"
        )
    return n


def _exponent(name: str, value: float) -> float:
    if not value >= 0:
        raise InputError(f"{name} is {value}; give 0 or more")
    return value
