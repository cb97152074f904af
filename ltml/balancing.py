"""Gradient balancing: weigh each class's positives and negatives so that all pull equally hard."""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ltml.elements import BASES
from ltml.errors import InputError

__all__ = ["DynamicGradientBalancing", "MultiLabelLoss"]


class _WithWeightedGradient(torch.autograd.Function):
    """The mean loss as already computed; the derivative of each element, by hand, weighted."""

    @staticmethod
    def forward(ctx, z, loss, gradient, y, weights):
        ctx.save_for_backward(gradient, y, weights)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        gradient, y, weights = ctx.saved_tensors
        positive, negative = weights * (grad_output / gradient.numel())
        return torch.lerp(negative, positive, y).mul_(gradient), None, None, None, None


class MultiLabelLoss(nn.Module):
    """Check and cast what every loss is called with: ``loss(logits, targets) -> scalar``.

    All losses are the mean over the ``B * C`` elements, so their values can be compared. Lower
    precision is cast to float32, under autocast too. Targets may be of any type, hard or soft.

    Shapes are always checked. On the CPU so are the targets' range, at a few per cent of the time,
    and, where the loss is not finite, the logits. Elsewhere each look would make the host wait, so
    it is taken at the first batch only; a NaN that comes later shows in the loss that is logged.
    Compiled, only shapes are checked.

    Args:
        num_classes: number of classes ``C`` that logits must have; ``None`` for any.
    """

    def __init__(self, num_classes: int | None = None):
        super().__init__()
        self.num_classes = num_classes
        self._seen_a_batch = False

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: ``(B, C)``, before the sigmoid.
            targets: ``(B, C)``, in [0, 1].

        Raises:
            InputError: if the shapes disagree, or a value is NaN or out of range.
        """
        _check_shapes(logits, targets, self.num_classes)
        look = not torch.compiler.is_compiling() and (
            logits.device.type == "cpu" or not self._seen_a_batch
        )
        if look:
            _check_targets(targets)
        z = logits if logits.dtype == torch.float64 else logits.float()
        loss = self.mean_loss(z, targets.to(z.dtype))
        if look:
            if not math.isfinite(loss.item()):
                _check_logits(logits)
            self._seen_a_batch = True
        return loss

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of checked logits and targets of one floating type."""
        raise NotImplementedError


def _check_shapes(logits: Tensor, targets: Tensor, num_classes: int | None) -> None:
    if logits.ndim != 2 or 0 in logits.shape:
        raise InputError(
            f"logits has shape {tuple(logits.shape)}; give a matrix (images, classes), not empty"
        )
    if targets.shape != logits.shape:
        raise InputError(
            f"targets has shape {tuple(targets.shape)} but logits {tuple(logits.shape)}; "
            "give one target for each logit"
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise InputError(
            f"logits has {logits.shape[1]} classes but the loss was made for {num_classes}; "
            "make the loss and the model for the same classes"
        )


def _check_targets(targets: Tensor) -> None:
    low, high = torch.aminmax(targets)
    if not (low.item() >= 0 and high.item() <= 1):  # NaN fails as well
        image, label = (~((targets >= 0) & (targets <= 1))).nonzero()[0].tolist()
        raise InputError(
            f"targets holds {targets[image, label].item():g} at image {image}, class {label}; "
            "give values in [0, 1], 1 where the class is present"
        )


def _check_logits(logits: Tensor) -> None:
    wrong = ~logits.isfinite()
    if wrong.any():
        image, label = wrong.nonzero()[0].tolist()
        raise InputError(
            f"logits holds {logits[image, label].item()} at image {image}, class {label}; "
            "lower the learning rate or clip the gradient, or look for NaN in the images"
        )


def class_totals(x: Tensor, y: Tensor) -> Tensor:
    """Sum ``x >= 0`` over the images, for each class. The memory of ``x`` is used up.

    Returns:
        ``(2, C)``: over positives (elements weighed by ``y``), over negatives (by ``1 - y``).
    """
    total = _sum_of_rows(x)
    positive = _sum_of_rows(x.mul_(y))
    return torch.stack([positive, (total - positive).clamp_(min=0)])  # never < 0 by rounding


def _sum_of_rows(x: Tensor) -> Tensor:
    # By blocks of rows, so that each CPU thread reads the rows it wrote: threads that share out the
    # columns instead fetch half of them from each other's caches, which can double the time.
    return x.unflatten(0, (32, -1)).sum(1).sum(0) if len(x) % 32 == 0 else x.sum(0)


def over_ranks(totals: Tensor) -> Tensor:
    """Sum over the ranks of a distributed training; elsewhere return as is."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(totals)
    return totals


class DynamicGradientBalancing(MultiLabelLoss):
    r"""Equalise the gradient of all classes, positives and negatives apart, as training goes.

    Binary cross-entropy pushes a logit with :math:`\partial \ell / \partial z = p - y`, so what a
    class receives over a batch is :math:`G^+_c = \sum_i y_{ic} (1 - p_{ic})` from its positives and
    :math:`G^-_c = \sum_i (1 - y_{ic}) p_{ic}` from its negatives: in the tail, orders of magnitude
    less than in the head. With exponential moving averages of these and their mean :math:`T` over
    all :math:`2C` entries, the weights

    .. math::
        w = s \cdot \operatorname{clip}\left((T / G)^{\text{strength}}, 1/m, m\right), \qquad
        s : \sum w G = \sum G

    multiply the positives and the negatives of each class. An element with a soft target is shared
    out: weighed by :math:`y w^+_c + (1 - y) w^-_c`, and its :math:`|p - y|` counted likewise. A
    ratio :math:`R` between two entries becomes :math:`R^{1 - \text{strength}}`, while the total
    gradient, and so the learning rate that fits, stays what it was. Strength 0 is the plain loss,
    bit for bit.

    This is our formulation of what the abstract below states; its details are not public to us.

    The averages take in the present batch first and weigh it then: a rare class's first positive
    meets a statistic that already counts it, not the largest weight. They start from 0, which is a
    common factor on all of :math:`G` and cancels in :math:`w`, so there is no bias to correct. In
    eval mode they rest. When ``torch.distributed`` is initialised they are summed over the ranks,
    which must then all call the loss. What is not finite (fp16 overflow) leaves them alone. All of
    them are buffers, so a training that resumes from its ``state_dict`` goes on exactly. The
    weights carry no gradient.

    Args:
        num_classes: number of classes ``C``.
        strength: how far to equalise, from 0 (not at all) to 1 (fully).
        momentum: of the moving averages, in [0, 1): 0.99 looks back about 100 batches.
        max_weight: clip bound :math:`m`, at least 1; what a class never seen has, to no effect.
        base: loss to balance, with its own gradient in place of :math:`p - y`: ``"bce"``,
            ``"focal"`` (gamma 2) or ``"asl"`` (gamma 4 and 0, clip 0.05).

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

    def __init__(
        self,
        num_classes: int,
        *,
        strength: float = 0.5,
        momentum: float = 0.99,
        max_weight: float = 100.0,
        base: str = "bce",
    ):
        super().__init__(num_classes)
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; give the number of classes")
        if not 0 <= strength <= 1:
            raise InputError(f"strength is {strength}; give 0 (plain loss) to 1 (full balance)")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum}; give 0 <= momentum < 1, such as 0.99")
        if not max_weight >= 1:
            raise InputError(f"max_weight is {max_weight}; give 1 (no weighting) or more")
        if base not in BASES:
            raise InputError(f"base is {base!r}; give one of {', '.join(BASES)}")
        self.strength, self.momentum = strength, momentum
        self.max_weight, self.base = max_weight, base
        self.register_buffer("magnitudes", torch.zeros(2, num_classes))  # averages of G+ and G-

    @property
    def weights(self) -> Tensor:
        """``(2, C)``: weights of positives and of negatives, now; all 1 before the first batch."""
        G = self.magnitudes
        T = G.mean()
        w = (T / G).pow(self.strength).clamp(1 / self.max_weight, self.max_weight)
        w = w * (T / (w * G).mean())  # the total gradient as it was
        return torch.where(T > 0, w, 1.0)

    def mean_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Update the averages (in training), then return the weighted mean."""
        mean, elements = BASES[self.base]
        with torch.no_grad():
            loss, gradient = elements(z, y)  # (B, C)
            loss_totals = class_totals(loss, y)  # (2, C)
            if self.training:
                # Into the memory of the loss: fresh memory of (B, C) costs more than a pass.
                self.observe(class_totals(torch.abs(gradient, out=loss), y))
            weights = self.weights.to(z.dtype)
            weighted_mean = (weights * loss_totals).sum() / gradient.numel()
        if self.strength == 0:
            return mean(z, y)  # the plain loss itself, to the last bit
        return _WithWeightedGradient.apply(z, weighted_mean, gradient, y, weights)

    def observe(self, totals: Tensor) -> None:
        """Take a batch's sums of gradient magnitude, ``(2, C)``, into the moving averages."""
        totals = over_ranks(totals.to(self.magnitudes.dtype))
        totals = torch.where(totals.isfinite(), totals, self.magnitudes)
        self.magnitudes.lerp_(totals, 1 - self.momentum)

    def extra_repr(self) -> str:
        """Name the options, as torch's modules do."""
        return (
            f"{self.num_classes}, strength={self.strength}, momentum={self.momentum}, "
            f"max_weight={self.max_weight}, base={self.base!r}"
        )
