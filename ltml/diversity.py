"""Diversity enhancement: class-specific features, fused across categories while training."""

import torch
from torch import Tensor, nn

from ltml.errors import InputError

__all__ = ["DiversityEnhancement"]


class DiversityEnhancement(nn.Module):
    r"""Classify by class-specific features, each fused with another category's in training.

    A linear classifier :math:`(w_c, b_c)` looks where its class seems to be. With :math:`x_l` the
    feature at location :math:`l` of the map, class :math:`c` has the feature and logit

    .. math::
        f_c = \frac{1}{L} \sum_l x_l + \kappa \sum_l a_{lc} x_l, \qquad
        a_{lc} = \operatorname{softmax}_l\Bigl(\tau \Bigl\langle \frac{w_c}{\lVert w_c \rVert},
        x_l \Bigr\rangle\Bigr), \qquad
        z_c = \langle w_c, \tilde f_c \rangle + b_c .

    In training, labels kept, every class sees its image through another category's eyes too:

    .. math::
        \tilde f_c = (1 - u)\, f_c + u\, f_{\pi(c)}, \qquad u \sim U(0, \alpha),

    with :math:`\pi` a random permutation of the categories of each image. In evaluation
    :math:`\tilde f = f`, so fusion costs nothing there. ``alpha=0`` leaves class attention alone;
    ``kappa=0`` leaves average pooling and a linear layer.

    Args:
        in_channels: channels ``D`` of the feature map.
        num_classes: ``C``.
        alpha: strongest fusion, in [0, 1].
        kappa: weight of the attended feature beside the average, not negative.
        tau: sharpness of the attention, not negative.

    Raises:
        InputError: if a number is out of range.

    References:
        | Our formulation of the diversity enhancement module of Towards Gradient Equalization and
          Feature Diversification for Long-Tailed Multi-Label Image Recognition (Chen et al., IEEE
          TMM 2025), https://doi.org/10.1109/TMM.2025.3535395; only its abstract is known to us.
        | The attention follows Residual Attention: A Simple but Effective Method for Multi-Label
          Recognition (Zhu & Wu, ICCV 2021), https://arxiv.org/abs/2108.02456

    Example:
        >>> dem = DiversityEnhancement(8, 5, alpha=0.3)
        >>> x = torch.randn(2, 8, 4, 4)
        >>> dem(x).shape, dem.features(x).shape
        (torch.Size([2, 5]), torch.Size([2, 5, 8]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        alpha: float = 0.3,
        kappa: float = 1.0,
        tau: float = 1.0,
    ):
        super().__init__()
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha={alpha} must lie in [0, 1]")
        for name, value in (("kappa", kappa), ("tau", tau)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name}={value} must be finite and not negative")
        self.classifier = nn.Linear(in_channels, num_classes)
        self.alpha, self.kappa, self.tau = alpha, kappa, tau
        self.generator: torch.Generator | None = None  # of the fusion; None: torch's own

    def extra_repr(self) -> str:
        """Show the options."""
        return f"alpha={self.alpha}, kappa={self.kappa}, tau={self.tau}"

    def attention(self, feature_map: Tensor) -> Tensor:
        """Where each class looks: ``(B, D, h, w)`` -> ``(B, C, L)``, each row summing to 1."""
        return self._attention(self._scores(feature_map))

    def features(self, feature_map: Tensor) -> Tensor:
        """Class-specific features without fusion: ``(B, D, h, w)`` -> ``(B, C, D)``."""
        x = feature_map.flatten(2)  # (B, D, L)
        attended = self.attention(feature_map) @ x.mT  # (B, C, D)
        return x.mean(2).unsqueeze(1) + self.kappa * attended

    def forward(self, feature_map: Tensor) -> Tensor:
        """``(B, D, h, w)`` -> logits ``(B, C)``, fused in training mode."""
        logits = self.classifier(feature_map.mean((2, 3)))  # (B, C)
        if self.kappa == 0:
            return logits
        # <w_c, sum_l a_l x_l> = sum_l a_l <w_c, x_l>: features need not be formed, and fusing two
        # features is fusing where their classes look.
        scores = self._scores(feature_map)  # (B, C, L)
        attention = self._attention(scores)
        if self.training and self.alpha > 0:
            attention = self._fuse(attention)
        return logits + self.kappa * (attention * scores).sum(2)

    def _scores(self, feature_map: Tensor) -> Tensor:
        """``<w_c, x_l>``, ``(B, C, L)``."""
        return self.classifier.weight @ feature_map.flatten(2)

    def _attention(self, scores: Tensor) -> Tensor:
        norm = self.classifier.weight.norm(dim=1).clamp(min=1e-12)
        return (scores * (self.tau / norm).unsqueeze(1)).softmax(2)

    def _fuse(self, attention: Tensor) -> Tensor:
        B, C, _ = attention.shape
        random = torch.rand(2, B, C, generator=self.generator, device=attention.device)
        u = (self.alpha * random[0]).unsqueeze(2)
        partner = random[1].argsort(1).unsqueeze(2).expand_as(attention)  # a permutation each
        return (1 - u) * attention + u * attention.gather(1, partner)
