"""Losses of single elements: value and closed-form derivative, which balancing can weigh."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["BASES", "Base", "asymmetric", "bce", "focal", "mean_of"]

Elements = Callable[..., tuple[Tensor, Tensor]]  # (z, y) -> loss, d loss / d z, elementwise


def bce(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of each element, and its derivative ``p - y``."""
    # log(1 + e^z) - y z; beyond 40 the logarithm is z to the last bit of float64.
    return F.softplus(z, threshold=40).addcmul_(y, z, value=-1), z.sigmoid().sub_(y)


def focal(z: Tensor, y: Tensor, gamma: float = 2.0) -> tuple[Tensor, Tensor]:
    r"""Focal loss of each element, and its derivative.

    With :math:`p = \sigma(z)`, a positive costs :math:`-(1 - p)^\gamma \log p` and has derivative
    :math:`-(1 - p)^\gamma [(1 - p) - \gamma p \log p]`; a negative is its mirror image, :math:`z
    \to -z`.
    """
    (p, q), (log_p, log_q) = _probabilities(z)
    positive, negative = q**gamma, p**gamma
    gradient = torch.lerp(negative * (p - gamma * q * log_q), positive * (gamma * p * log_p - q), y)
    return torch.lerp(negative.mul_(log_q), positive.mul_(log_p), y).neg_(), gradient


def asymmetric(
    z: Tensor, y: Tensor, gamma_neg: float = 4.0, gamma_pos: float = 0.0, clip: float = 0.05
) -> tuple[Tensor, Tensor]:
    r"""Asymmetric loss of each element, and its derivative.

    A positive is as in :func:`focal` with :math:`\gamma_+`. A negative costs :math:`-p_m^{\gamma_-}
    \log(1 - p_m)`, with :math:`p_m = \max(p - \text{clip}, 0)`, and has derivative :math:`p (1 - p)
    p_m^{\gamma_-} [1 / (1 - p_m) - \gamma_- \log(1 - p_m) / p_m]`, or 0 where :math:`p_m = 0`.
    """
    (p, q), (log_p, log_q) = _probabilities(z)
    positive = q**gamma_pos if gamma_pos else torch.ones_like(q)
    positive_gradient = positive * (gamma_pos * p * log_p - q)
    if clip:
        q_m = (q + clip).clamp_(max=1)  # 1 - p_m, at least clip
        p_m, log_q = 1 - q_m, q_m.log()
        negative, slope = p_m**gamma_neg, p * q * (p_m > 0)
        # log(1 - p_m) / p_m tends to -1 at 0, where slope is 0.
        negative_gradient = negative * slope * (1 / q_m - gamma_neg * log_q / p_m.clamp_(min=1e-30))
    else:
        negative = p**gamma_neg
        negative_gradient = negative * (p - gamma_neg * q * log_q)
    gradient = torch.lerp(negative_gradient, positive_gradient, y)
    return torch.lerp(negative.mul_(log_q), positive.mul_(log_p), y).neg_(), gradient


def _probabilities(z: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return ``(p, 1 - p)`` and their logarithms, each exact in the far tails too."""
    tail = F.logsigmoid(z.abs())  # -log(1 + e^-|z|), never an overflow
    logs = z.clamp(max=0).add_(tail), z.clamp(min=0).neg_().add_(tail)
    return (z.sigmoid(), z.neg().sigmoid_()), logs


class _WithGradient(torch.autograd.Function):
    """The mean loss as already computed, with the derivative of each element given by hand."""

    @staticmethod
    def forward(ctx, z, loss, gradient):
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * (grad_output / gradient.numel()), None, None


def mean_of(elements: Elements, z: Tensor, y: Tensor, **options) -> Tensor:
    """Return the mean of an elementwise loss, differentiated by its closed form."""
    with torch.no_grad():
        loss, gradient = elements(z, y, **options)
    return _WithGradient.apply(z, loss.mean(), gradient)


class Base(NamedTuple):
    """A loss that can be balanced: its mean, and the value and derivative of each element."""

    mean: Callable[[Tensor, Tensor], Tensor]
    elements: Elements


BASES = {
    "bce": Base(F.binary_cross_entropy_with_logits, bce),
    "focal": Base(partial(mean_of, focal), focal),
    "asl": Base(partial(mean_of, asymmetric), asymmetric),
}
