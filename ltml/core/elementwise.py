"""What losses share: checked input, and elementwise losses with their derivatives."""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ltml.core.errors import InputError
from ltml.core.options import fitted

Reduction = Literal["mean", "sum", "none"]
_CERTAIN = -1e30  # as a logit; a negative of it costs 0, to the last bit, by every loss

Elements = Callable[..., tuple[Tensor | None, Tensor]]  # (z, y) -> loss, d loss / d z, elementwise


def bce(z: Tensor, y: Tensor) -> tuple[None, Tensor]:
    """The derivative ``p - y`` of binary cross-entropy; torch has its value, differentiable."""
    return None, z.sigmoid().sub_(y)


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


class _Closed(torch.autograd.Function):
    """A value that was computed already, and the derivative of its elements, times a scale."""

    @staticmethod
    def forward(ctx, z, value, gradient, scale):
        ctx.save_for_backward(gradient)
        ctx.scale = scale
        return value

    @staticmethod
    def backward(ctx, grad_output):
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return _first_derivative(ctx, grad_output)
        # Under create_graph, second derivatives are refused: a constant would be wrong in silence.
        return _refusing(ctx, grad_output.detach().requires_grad_())


def _first_derivative(ctx, grad_output):
    (gradient,) = ctx.saved_tensors
    return gradient * (grad_output * ctx.scale), None, None, None


_refusing = once_differentiable(_first_derivative)


def closed(
    z: Tensor, loss: Tensor, gradient: Tensor, weights: Tensor | None, reduction: str
) -> Tensor:
    """Return a reduced loss of elements that were computed already, with their derivatives.

    With ``weights`` (B, C), elements and their derivatives are multiplied by them; both tensors
    are overwritten.
    """
    with torch.no_grad():
        if weights is not None:
            loss, gradient = loss.mul_(weights), gradient.mul_(weights)
        scale = 1 / loss.numel() if reduction == "mean" else 1.0
        value = loss if reduction == "none" else loss.sum().mul_(scale)
    return _Closed.apply(z, value, gradient, scale)


def closed_bce(
    z: Tensor, y: Tensor, gradient: Tensor, weights: Tensor | None, reduction: str
) -> Tensor:
    """The same of binary cross-entropy, of which ``gradient`` is ``p - y``; it is overwritten."""
    z_, options = z.detach(), {"weight": weights, "reduction": reduction}
    if z.numel() < 2**16 or z.device.type != "cpu" or torch.compiler.is_compiling():
        value = F.binary_cross_entropy_with_logits(z_, y, **options)
        if weights is not None:
            gradient = gradient.mul_(weights)
        return _Closed.apply(z, value, gradient, 1 / z.numel() if reduction == "mean" else 1.0)
    # log(1 + e^-|z|) is -log of the larger of p and 1 - p, to 1e-7: torch's log1p takes up to
    # twenty times as long as the sigmoid that is at hand.
    larger = (gradient + y).sub_(0.5).abs_().add_(0.5)
    loss = torch.addcmul(z_.clamp(min=0).sub_(larger.log_()), z_, y, value=-1)
    return closed(z, loss, gradient, weights, reduction)


# Autograd of the formulas takes 0.85 to 1.02 of the CPU time of focal and asymmetric losses by
# their closed forms (64 x 20 to 1024 x 1203); these stand because balancing needs the derivative
# of each element before the backward pass.
def reduced(elements: Elements, z: Tensor, y: Tensor, reduction: str, **options) -> Tensor:
    """Return an elementwise loss, reduced, differentiated by its closed form."""
    with torch.no_grad():
        loss, gradient = elements(z, y, **options)
    return closed(z, loss, gradient, None, reduction)


# What can be balanced: the value and the derivative of each element.
BASES: dict[str, Elements] = {"bce": bce, "focal": focal, "asl": asymmetric}


class MultiLabelLoss(nn.Module):
    r"""Check, cast and mask the input of a loss: ``loss(logits, targets)``.

    A target of NaN is unknown. The loss is then that of the known elements alone, ``"mean"`` their
    mean, and the gradient at unknown ones is exactly 0; statistics over batches leave them out. A
    batch of which nothing is known costs 0.

    Lower precision is cast to float32, under autocast too; targets may have any type, hard or soft.
    On the CPU values are checked too, the logits where the loss is not finite. On other devices
    that would make the host wait, so only the first batch is; a later NaN shows in the logged loss.

    A subclass computes ``reduced(z, y, reduction)`` of logits and targets of one floating-point
    type without NaN. An element with :math:`y = 0` must cost exactly 0 as :math:`z \to -\infty`,
    for that is how unknown ones arrive: as negatives that are certain.

    Args:
        num_classes: number of classes ``C`` that logits must have; ``None`` for any.
        reduction: ``"mean"`` over the known elements, their ``"sum"``, or ``"none"``: each element
            by itself, 0 where unknown, as torch's own losses do.
    """

    def __init__(self, num_classes: int | None = None, *, reduction: Reduction = "mean"):
        super().__init__()
        self.num_classes = num_classes
        self.reduction = fitted("reduction", reduction, Reduction)
        self._seen_a_batch = False

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of ``(B, C)`` logits, before the sigmoid, and targets in [0, 1] or NaN.

        Returns:
            a scalar, or ``(B, C)`` with ``reduction="none"``.

        Raises:
            InputError: if the shapes disagree, a target is out of range, or a logit is NaN.
        """
        for name, value in (("logits", logits), ("targets", targets)):
            if not isinstance(value, Tensor):
                raise InputError(f"{name} is of type {type(value).__name__}; give a tensor")
        shape = logits.shape
        if len(shape) != 2 or 0 in shape or self.num_classes not in (None, shape[1]):
            expected = f"(images, {self.num_classes or 'classes'}), at least one image"
            raise InputError(f"logits has shape {tuple(shape)}, but the loss takes {expected}")
        if targets.shape != shape:
            found = tuple(targets.shape)
            raise InputError(f"targets has shape {found} but logits {tuple(shape)}; match them")
        due = logits.device.type == "cpu" or not self._seen_a_batch
        check = due and not torch.compiler.is_compiling()
        # Elsewhere to look for NaN would be to wait, so what may hold some is taken to.
        masked = not check and targets.is_floating_point()
        if check:
            low, high = torch.aminmax(targets)
            masked = not (low.item() >= 0 and high.item() <= 1)  # NaN fails as well
        z = logits if logits.dtype == torch.float64 else logits.float()
        y = targets.to(z.dtype)
        if not masked:
            loss = self.reduced(z, y, self.reduction)
        else:
            # Arithmetic, for a mask takes thirty times as long on the CPU.
            unknown = (y - y).nan_to_num_(1.0)  # 0 where known
            y = y.nan_to_num(0.0, math.inf, -math.inf)
            if check:
                low, high = torch.aminmax(y)
                if not (low.item() >= 0 and high.item() <= 1):
                    _name_first_wrong("targets", y, (y >= 0) & (y <= 1), "give values in [0, 1]")
            z = torch.add(z, unknown, alpha=_CERTAIN)
            if self.reduction == "mean":
                # Sums of so many ones are exact in single precision.
                known = (y.numel() - unknown.sum(1).sum()).clamp_(min=1)
                loss = self.reduced(z, y, "sum") / known
            else:
                loss = self.reduced(z, y, self.reduction)
        if check:
            if not math.isfinite(loss.sum().item() if loss.ndim else loss.item()):
                remedy = "lower the learning rate, or look for NaN in the images"
                _name_first_wrong("logits", logits, logits.isfinite(), remedy)
            if not self._seen_a_batch:  # to set an attribute of a module takes microseconds
                self._seen_a_batch = True
        return loss

    def reduced(self, z: Tensor, y: Tensor, reduction: str) -> Tensor:
        """Return the loss of logits and targets of one floating-point type, reduced."""
        raise NotImplementedError


def _name_first_wrong(name: str, x: Tensor, right: Tensor, remedy: str) -> None:
    if not right.all():
        image, label = (~right).nonzero()[0].tolist()
        value = x[image, label].item()
        raise InputError(f"{name} holds {value:g} at image {image}, class {label}; {remedy}")


def class_totals(x: Tensor, y: Tensor) -> Tensor:
    """Sum ``x >= 0`` over images, weighted by ``y`` and ``1 - y``: ``(2, C)``. Overwrites ``x``."""
    positive = x * y
    return torch.stack([_sum_of_rows(positive), _sum_of_rows(x.sub_(positive))])


def _sum_of_rows(x: Tensor) -> Tensor:
    # In blocks of rows, so that each CPU thread reads the rows it wrote: if threads split the
    # columns, half of the rows come from each other's caches, which can double the time.
    large = x.numel() > 2**16 and len(x) % 32 == 0
    return x.unflatten(0, (32, -1)).sum(1).sum(0) if large else x.sum(0)


def over_ranks(totals: Tensor) -> Tensor:
    """Sum over the processes of a distributed training; otherwise return as is."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(totals)
    return totals
