"""Heads: from a feature map to one logit a class, with or without diversity enhancement."""

from typing import Annotated

import torch
from torch import Tensor, nn

from ltml.core.options import Bounds, checked

Scale = Annotated[float, Bounds("[0, 1e6]")]


class Head(nn.Module):
    """What heads share: a linear classifier, and whether it takes features of length 1.

    Attributes:
        classifier: ``nn.Linear`` from ``D`` channels to ``C`` classes.
        normalize: scale each image's map so that its average has length 1; a closed-form
            classifier wants that, see :class:`ltml.core.discriminant.SharedCovariance`.
    """

    normalize = False

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.classifier = nn.Linear(in_channels, num_classes)

    def _scaled(self, feature_map: Tensor) -> Tensor:
        if not self.normalize:
            return feature_map
        length = feature_map.mean((2, 3), keepdim=True).norm(dim=1, keepdim=True)
        return feature_map / length.clamp(min=1e-12)  # a map of zeros has none


class PooledLinear(Head):
    """Average the feature map and classify it: the plain head.

    Args:
        in_channels: channels ``D`` of the feature map.
        num_classes: ``C``.

    Example:
        >>> PooledLinear(8, 5)(torch.randn(2, 8, 4, 4)).shape
        torch.Size([2, 5])
    """

    def features(self, feature_map: Tensor) -> Tensor:
        """``(B, D, h, w)`` -> ``(B, 1, D)``: one feature, shared by all classes."""
        return self._scaled(feature_map).mean((2, 3)).unsqueeze(1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """``(B, D, h, w)`` -> logits ``(B, C)``."""
        return self.classifier(self._scaled(feature_map).mean((2, 3)))


class DiversityEnhancement(Head):
    r"""Classify class-specific features, fused in training with those of other categories.

    With :math:`(w_c, b_c)` a linear classifier and :math:`x_l` the feature at location :math:`l` of
    the map, class :math:`c` attends to where its score is high:

    .. math::
        f_c = \frac{1}{L} \sum_l x_l + \kappa \sum_l a_{lc} x_l, \qquad
        a_{lc} = \operatorname{softmax}_l\Bigl(\tau \,
        \frac{\langle w_c, x_l \rangle}{\lVert w_c \rVert \lVert \bar x \rVert}\Bigr), \qquad
        z_c = \langle w_c, \tilde f_c \rangle + b_c .

    The scores are relative to the lengths of :math:`w_c` and of the average feature
    :math:`\bar x`, so that :math:`\tau` means the same for every backbone: on the raw features of
    ImageNet networks, which are long, the softmax would be a maximum.

    In evaluation :math:`\tilde f = f`. In training each class's feature is fused with that of
    another category, :math:`\pi` being a random permutation for each image, and labels are kept:

    .. math::
        \tilde f_c = (1 - u)\, f_c + u\, f_{\pi(c)}, \qquad u \sim U(0, \alpha).

    Args:
        in_channels: channels ``D`` of the feature map.
        num_classes: ``C``.
        alpha: strongest fusion across categories, in [0, 1].
        kappa: weight of the attended feature beside the average, not negative.
        tau: sharpness of the attention, not negative.

    Raises:
        InputError: if a number is out of range.

    References:
        | Our formulation of the diversity enhancement module of Towards Gradient Equalization and
          Feature Diversification for Long-Tailed Multi-Label Image Recognition (Chen et al., IEEE
          TMM 2025), https://doi.org/10.1109/TMM.2025.3535395; only its abstract is public.
        | The attention follows Residual Attention: A Simple but Effective Method for Multi-Label
          Recognition (Zhu & Wu, ICCV 2021), https://arxiv.org/abs/2108.02456

    Example:
        >>> dem = DiversityEnhancement(8, 5, alpha=0.3)
        >>> x = torch.randn(2, 8, 4, 4)
        >>> dem(x).shape, dem.features(x).shape
        (torch.Size([2, 5]), torch.Size([2, 5, 8]))
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        alpha: Annotated[float, Bounds("[0, 1]")] = 0.6,
        kappa: Scale = 1.0,
        tau: Scale = 8.0,
    ):
        super().__init__(in_channels, num_classes)
        self.alpha, self.kappa, self.tau = alpha, kappa, tau
        self.generator: torch.Generator | None = None  # of the fusion; None: torch's own

    def extra_repr(self) -> str:
        """Show the options."""
        return f"alpha={self.alpha}, kappa={self.kappa}, tau={self.tau}"

    def attention(self, feature_map: Tensor) -> Tensor:
        """Attention of each class: ``(B, D, h, w)`` -> ``(B, C, L)``, each row summing to 1."""
        return self._attention(*self._scores(feature_map))

    def features(self, feature_map: Tensor) -> Tensor:
        """Class-specific features without fusion: ``(B, D, h, w)`` -> ``(B, C, D)``."""
        x = self._scaled(feature_map).flatten(2)  # (B, D, L)
        attended = self.attention(feature_map) @ x.mT  # (B, C, D)
        return x.mean(2).unsqueeze(1) + self.kappa * attended

    def forward(self, feature_map: Tensor) -> Tensor:
        """``(B, D, h, w)`` -> logits ``(B, C)``, fused in training mode."""
        return self._logits(*self._scores(feature_map))

    def _logits(self, scores: Tensor, mean: Tensor) -> Tensor:
        # <w_c, sum_l a_l x_l> = sum_l a_l <w_c, x_l>: features need not be formed, and fusing two
        # features is fusing where their classes look.
        logits = scores.mean(2) + self.classifier.bias  # (B, C)
        if self.kappa == 0:
            return logits
        attention = self._attention(scores, mean)
        if self.training and self.alpha > 0:
            attention = self._fuse(attention)
        return logits + self.kappa * (attention * scores).sum(2)

    def _scores(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """``<w_c, x_l>``, ``(B, C, L)``, and the average feature ``(B, D)``."""
        x = self._scaled(feature_map).flatten(2)  # (B, D, L)
        return self.classifier.weight @ x, x.mean(2)

    def _attention(self, scores: Tensor, mean: Tensor) -> Tensor:
        lengths = mean.norm(dim=1).unsqueeze(1) * self.classifier.weight.norm(dim=1)  # (B, C)
        return (scores * (self.tau / lengths.clamp(min=1e-12)).unsqueeze(2)).softmax(2)

    def _fuse(self, attention: Tensor) -> Tensor:
        B, C, _ = attention.shape
        random = torch.rand(2, B, C, generator=self.generator, device=attention.device)
        u = (self.alpha * random[0]).unsqueeze(2)
        partner = random[1].argsort(1).unsqueeze(2).expand_as(attention)  # a permutation each
        return (1 - u) * attention + u * attention.gather(1, partner)


class ClassAttention(DiversityEnhancement):
    """Classify class-specific features without fusion; see :class:`DiversityEnhancement`."""

    def __init__(self, in_channels: int, num_classes: int, *, kappa: Scale = 1.0, tau: Scale = 8.0):
        super().__init__(in_channels, num_classes, alpha=0.0, kappa=kappa, tau=tau)


# diversity -> the head that turns a feature map into logits
HEADS = {"off": PooledLinear, "attention": ClassAttention, "dem": DiversityEnhancement}
