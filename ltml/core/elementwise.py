"""What losses share: checked input, and elementwise losses with their derivatives."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ltml.core.errors import InputError

Elements = Callable[..., tuple[Tensor, Tensor]]  # (z, y) -> loss, d loss / d z, elementwise


def bce(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of each element, and its derivative ``p - y``."""
    # log(1 + e^z) - y z; beyond 40 the logarithm is z to the last bit of float64.
    return F.softplus(z, threshold=40).addcmul_(y, z, value=-1), z.sigmoid().sub_(y)


def focal(z: Tensor, y: Tensor, gamma: float = 2.0) -> tuple[Tensor, Tensor]:
    r"""Focal loss of each element, and its derivative.

    With :math:`p = \sigma(z)`, a positive costs :math:`-(1 - p)^\gamma \log p` and has derivative
    :math:`-(1 - p)^\gamma [(1 - p) - \gamma p \log p]`; a negative mirrors it, :math:`z \to -z`.
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
    if clip > 1e-30:  # less is lost in single precision
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
    """The mean loss as already computed; the derivative of each element, by hand.

    With ``weights`` (2, C), that of a positive is multiplied by the first row, of a negative by the
    second.
    """

    @staticmethod
    def forward(ctx, z, loss, gradient, y=None, weights=None):
        ctx.save_for_backward(gradient, y, weights)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        gradient, y, weights = ctx.saved_tensors
        scale = grad_output / gradient.numel()
        if weights is None:
            return gradient * scale, None, None, None, None
        positive, negative = weights * scale
        return torch.lerp(negative, positive, y).mul_(gradient), None, None, None, None


with_gradient = _WithGradient.apply


def mean_of(elements: Elements, z: Tensor, y: Tensor, **options) -> Tensor:
    """Return the mean of an elementwise loss, differentiated by its closed form."""
    with torch.no_grad():
        loss, gradient = elements(z, y, **options)
    return with_gradient(z, loss.mean(), gradient)


# What can be balanced: the mean of the loss, and the value and derivative of each element.
BASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Elements]] = {
    "bce": (F.binary_cross_entropy_with_logits, bce),
    "focal": (partial(mean_of, focal), focal),
    "asl": (partial(mean_of, asymmetric), asymmetric),
}


class MultiLabelLoss(nn.Module):
    """Check and cast the input of a loss: ``loss(logits, targets) -> scalar``.

    A subclass computes ``mean_loss(z, y)``, the mean over the ``B * C`` elements. Lower precision
    is cast to float32, under autocast too; targets may have any type, hard or soft.

    On the CPU values are checked too, the logits where the loss is not finite. On other devices
    that would make the host wait, so only the first batch is; a later NaN shows in the logged loss.

    Args:
        num_classes: number of classes ``C`` that logits must have; ``None`` for any.
    """

    def __init__(self, num_classes: int | None = None):
        super().__init__()
        self.num_classes = num_classes
        self._seen_a_batch = False

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of ``(B, C)`` logits, before the sigmoid, and targets in [0, 1].

        Raises:
            InputError: if the shapes disagree, or a value is NaN or out of range.
        """
        shape = tuple(logits.shape)
        if logits.ndim != 2 or 0 in shape or self.num_classes not in (None, shape[1]):
            expected = f"(images, {self.num_classes or 'classes'}), at least one image"
            raise InputError(f"logits has shape {shape}, but the loss takes {expected}")
        if targets.shape != shape:
            found = tuple(targets.shape)
            raise InputError(f"targets has shape {found} but logits {shape}; match them")
        due = logits.device.type == "cpu" or not self._seen_a_batch
        check = due and not torch.compiler.is_compiling()
        if check:
            low, high = torch.aminmax(targets)
            if not (low.item() >= 0 and high.item() <= 1):  # NaN fails as well
                right, remedy = (targets >= 0) & (targets <= 1), "give values in [0, 1]"
                _name_first_wrong("targets", targets, right, remedy)
        z = logits if logits.dtype == torch.float64 else logits.float()
        loss = self.mean_loss(z, targets.to(z.dtype))
        if check:
            if not math.isfinite(loss.item()):
                remedy = "lower the learning rate, or look for NaN in the images"
                _name_first_wrong("logits", logits, logits.isfinite(), remedy)
            self._seen_a_batch = True
        return loss

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of logits and targets of one floating-point type."""
        raise NotImplementedError


def _name_first_wrong(name: str, x: Tensor, right: Tensor, remedy: str) -> None:
    if not right.all():
        image, label = (~right).nonzero()[0].tolist()
        value = x[image, label].item()
        raise InputError(f"{name} holds {value:g} at image {image}, class {label}; {remedy}")


def class_totals(x: Tensor, y: Tensor) -> Tensor:
    """Sum ``x >= 0`` over images, weighted by ``y`` and ``1 - y``: ``(2, C)``. Overwrites ``x``."""
    total = _sum_of_rows(x)
    positive = _sum_of_rows(x.mul_(y))
    return torch.stack([positive, (total - positive).clamp_(min=0)])  # never < 0 by rounding


def _sum_of_rows(x: Tensor) -> Tensor:
    # In blocks of rows, so that each CPU thread reads the rows it wrote: if threads split the
    # columns, half of the rows come from each other's caches, which can double the time.
    return x.unflatten(0, (32, -1)).sum(1).sum(0) if len(x) % 32 == 0 else x.sum(0)


def over_ranks(totals: Tensor) -> Tensor:
    """Sum over the processes of a distributed training; otherwise return as is."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(totals)
    return totals
