"""Diversity enhancement: class-specific features, fused across categories and images."""

import torch
from torch import Tensor, nn

from ltml.errors import InputError

__all__ = ["DiversityEnhancement"]


class DiversityEnhancement(nn.Module):
    r"""Classify by class-specific features, fused in training with other categories and images.

    A linear classifier :math:`(w_c, b_c)` looks where its class seems to be. With :math:`x_l` the
    feature at location :math:`l` of the map, class :math:`c` has the feature and logit

    .. math::
        f_c = \frac{1}{L} \sum_l x_l + \kappa \sum_l a_{lc} x_l, \qquad
        a_{lc} = \operatorname{softmax}_l\Bigl(\tau \Bigl\langle \frac{w_c}{\lVert w_c \rVert},
        x_l \Bigr\rangle\Bigr), \qquad
        z_c = \langle w_c, \tilde f_c \rangle + b_c .

    Training fuses in two ways; evaluation not at all, with :math:`\tilde f = f` at no cost.

    *Across categories*, labels kept, every class looks through another category's eyes too:

    .. math::
        \tilde f_c = (1 - u)\, f_c + u\, f_{\pi(c)}, \qquad u \sim U(0, \alpha),

    with :math:`\pi` a random permutation of the categories of each image.

    *Across images*, :meth:`enhance` adds to each image :math:`i` of a batch a pair: the locations
    of :math:`i` and of a partner :math:`j` side by side, :math:`2L` of them, with both's labels.
    Partners are drawn by their rarest label, :math:`p_j \propto \max_c y_{jc} / n_c`, so rare
    classes are met beside ever new neighbours, and no image is decoded or convolved twice.

    ``alpha=0, pairs=False`` leaves class attention; ``kappa=0`` too leaves average pooling and a
    linear layer.

    Args:
        in_channels: channels ``D`` of the feature map.
        num_classes: ``C``.
        alpha: strongest fusion across categories, in [0, 1].
        pairs: fuse across images, in :meth:`enhance`.
        counts: ``(C,)`` training images of each class, for the choice of partners; default: any
            image with a label is as good a partner as another.
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
        pairs: bool = False,
        counts=None,
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
        self.alpha, self.pairs, self.kappa, self.tau = alpha, pairs, kappa, tau
        n = torch.ones(num_classes) if counts is None else torch.tensor(counts).float()
        if n.shape != (num_classes,) or (n < 0).any():
            raise InputError(
                f"counts has shape {tuple(n.shape)}; give one count, not negative, for each of the "
                f"{num_classes} classes"
            )
        # Known from the training labels, so no part of the weights.
        self.register_buffer("rarity", 1 / n.clamp(min=1), persistent=False)
        self.generator: torch.Generator | None = None  # of the fusion; None: torch's own

    def extra_repr(self) -> str:
        """Show the options."""
        return f"alpha={self.alpha}, pairs={self.pairs}, kappa={self.kappa}, tau={self.tau}"

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
        return self._logits(self._scores(feature_map))

    def enhance(self, feature_map: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Score a training batch, and its pairs of images after it.

        Args:
            feature_map: ``(B, D, h, w)``.
            targets: ``(B, C)``.

        Returns:
            logits and targets, ``(2B, C)`` with pairs, else ``(B, C)``.
        """
        scores = self._scores(feature_map)  # (B, C, L)
        logits = self._logits(scores)
        if not self.pairs:
            return logits, targets
        partner = self._partners(targets)
        paired = torch.cat([scores, scores[partner]], 2)  # (B, C, 2L)
        both = torch.maximum(targets, targets[partner])
        return torch.cat([logits, self._logits(paired)]), torch.cat([targets, both])

    def _partners(self, targets: Tensor) -> Tensor:
        """Draw a partner for each image by its rarest label; ``(B,)`` indices into the batch."""
        weight = (targets * self.rarity).amax(1)  # (B,)
        random = torch.rand(
            len(weight), len(weight), generator=self.generator, device=weight.device
        )
        # argmax of log p + Gumbel noise is a draw from p, without waiting for the device
        noise = -(-random.clamp(min=1e-20).log()).log()
        return (weight.clamp(min=1e-20).log() + noise).argmax(1)

    def _logits(self, scores: Tensor) -> Tensor:
        # <w_c, sum_l a_l x_l> = sum_l a_l <w_c, x_l>: features need not be formed, and fusing two
        # features is fusing where their classes look.
        logits = scores.mean(2) + self.classifier.bias  # (B, C)
        if self.kappa == 0:
            return logits
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
