"""Dynamic gradient balancing: weight each class's positives and negatives to pull equally hard."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ltml.core.elementwise import (
    BASES,
    MultiLabelLoss,
    Reduction,
    class_totals,
    closed,
    closed_bce,
    over_ranks,
)
from ltml.core.options import Bounds, checked


class DynamicGradientBalancing(MultiLabelLoss):
    r"""Equalise the gradients of all classes, for positives and negatives, during training.

    Binary cross-entropy pushes a logit with :math:`\partial \ell / \partial z = p - y`, so a batch
    gives a class :math:`G^+_c = \sum_i y_{ic} (1 - p_{ic})` from its positives and :math:`G^-_c =
    \sum_i (1 - y_{ic}) p_{ic}` from its negatives: in the tail, orders of magnitude less than in
    the head. With exponential moving averages of these and their mean :math:`T` over all
    :math:`2C` entries, the weights

    .. math::
        w = s \cdot \operatorname{clip}\left((T / G)^{\text{strength}}, 1/m, m\right), \qquad
        s : \sum w G = \sum G

    multiply the positives and the negatives of each class. A soft target belongs to both: its
    element has weight :math:`y w^+_c + (1 - y) w^-_c`, and its :math:`|p - y|` is split likewise.
    A ratio :math:`R` between two entries becomes :math:`R^{1 - \text{strength}}`, while the total
    gradient, and so the suitable learning rate, stays the same. Strength 0 is the plain loss, bit
    for bit. This is our formulation of what the paper's abstract states.

    A batch enters the averages before it is weighted, so the first positive of a rare class does
    not meet the largest weight. The averages start from 0: a factor common to all of :math:`G`
    cancels in :math:`w`, so there is no bias to correct. They are unchanged in eval mode and by
    values that are not finite (fp16 overflow), summed over the processes of a distributed training
    (which must all call the loss), and saved in ``state_dict``. The weights carry no gradient.

    Args:
        num_classes: number of classes ``C``.
        strength: degree of equalisation, from 0 (none) to 1 (full).
        momentum: momentum of the moving averages, in [0, 1): 0.99 averages about 100 batches.
        max_weight: clip bound :math:`m`, at least 1.
        base: loss to balance, by its own gradient: ``"bce"`` (:math:`p - y`), ``"focal"`` (gamma 2)
            or ``"asl"`` (gamma 4 and 0, clip 0.05).
        reduction: mean, sum or none; see :class:`~ltml.core.elementwise.MultiLabelLoss`.

    Raises:
        InputError: if an option is out of range.

    References:
        | Towards Gradient Equalization and Feature Diversification for Long-Tailed Multi-Label
          Image Recognition (Chen et al., IEEE TMM 27, 2025)
        | https://doi.org/10.1109/TMM.2025.3535395

    Example:
        >>> loss = DynamicGradientBalancing(2, strength=1)
        >>> targets = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]])
        >>> logits = torch.zeros(4, 2, requires_grad=True)
        >>> loss(logits, targets).backward()
        >>> loss.weights  # positives, negatives
        tensor([[0.6667, 2.0000],
                [2.0000, 0.6667]])
        >>> logits.grad * 8
        tensor([[-0.3333,  0.3333],
                [-0.3333,  0.3333],
                [-0.3333,  0.3333],
                [ 1.0000, -1.0000]])
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        *,
        strength: Annotated[float, Bounds("[0, 1]")] = 0.5,
        momentum: Annotated[float, Bounds("[0, 1)")] = 0.99,
        max_weight: Annotated[float, Bounds("[1, 1e9]")] = 100.0,
        base: Literal["bce", "focal", "asl"] = "bce",
        reduction: Reduction = "mean",
    ):
        super().__init__(num_classes, reduction=reduction)
        self.strength, self.momentum = strength, momentum
        self.max_weight, self.base = max_weight, base
        scale = (2 * num_classes) ** strength
        self._bounds = scale / max_weight, scale * max_weight
        self.register_buffer("magnitudes", torch.zeros(2, num_classes))  # averages of G+ and G-

    @property
    def weights(self) -> Tensor:
        """``(2, C)``: current weights of positives and of negatives; 1 before the first batch."""
        G = self.magnitudes
        total = G.sum()
        # T is total / 2C. It is left out here and in the bounds, for the last line scales w anew.
        low, high = self._bounds
        w = (total / G).pow_(self.strength).clamp_(low, high)
        w.mul_(total / (w * G).sum())  # the total gradient as it was
        return w.nan_to_num_(1.0, 1.0)  # where nothing pulls yet

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Update the averages (in training), then return the weighted loss."""
        values, gradient = BASES[self.base](z.detach(), y)  # (B, C)
        if self.training:
            self.observe(class_totals(gradient.abs(), y))
        weight = None
        if self.strength != 0:
            positive, negative = self.weights.to(z.dtype)
            weight = torch.lerp(negative, positive, y)
        elif values is None:  # torch's own loss, to the last bit
            return binary_cross_entropy_with_logits(z, y, reduction=reduction)
        if values is None:
            return closed_bce(z, y, gradient, weight, reduction)
        return closed(z, values, gradient, weight, reduction)

    def observe(self, totals: Tensor) -> None:
        """Add a batch's gradient magnitudes, ``(2, C)``, to the moving averages."""
        totals = over_ranks(totals.to(self.magnitudes.dtype))
        totals = torch.where(totals < math.inf, totals, self.magnitudes)  # false for NaN as well
        self.magnitudes.lerp_(totals, 1 - self.momentum)
