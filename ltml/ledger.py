"""A ledger of each class's gradient magnitude, for any loss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltml.errors import InputError

__all__ = ["GradientLedger", "GradientRecord", "gradient_imbalance"]


@dataclass(frozen=True)
class GradientRecord:
    """What a ledger saw between two readings: arrays of shape ``(C,)``."""

    positive: np.ndarray  # sum of |dL/dz| over positives
    negative: np.ndarray  # sum of |dL/dz| over negatives
    weight: np.ndarray  # sum over steps of the norm of dL/dw_c; NaN if no classifier was watched

    @property
    def imbalance(self) -> float:
        """Largest over smallest total (positive + negative) of a class; inf if one is 0."""
        return gradient_imbalance(self.positive + self.negative)


def gradient_imbalance(total: np.ndarray) -> float:
    """Largest over smallest total gradient magnitude of a class, ``(C,)``; inf if one is 0.

    Example:
        >>> gradient_imbalance(np.array([1.0, 4.0, 2.0]))
        4.0
    """
    return float(total.max() / total.min()) if total.min() > 0 else float("inf")


class GradientLedger:
    r"""Sum each class's gradient magnitude as it passes backward through the logits.

    .. math:: G^+_c = \sum_{i} y_{ic} \left|\frac{\partial L}{\partial z_{ic}}\right|, \qquad
              G^-_c = \sum_{i} (1 - y_{ic}) \left|\frac{\partial L}{\partial z_{ic}}\right|

    The gradient is read where backpropagation brings it anyway, by one hook on the logits, so any
    loss can be watched, no second backward pass is made, and nothing waits for the device until
    :meth:`read`.

    Args:
        num_classes: ``C``.
        device: where logits and weights live.

    References:
        The magnitudes whose imbalance *Towards Gradient Equalization and Feature Diversification
        for Long-Tailed Multi-Label Image Recognition* (Chen et al., IEEE TMM 2025,
        https://doi.org/10.1109/TMM.2025.3535395) sets out to remove; our formulation.

    Example:
        >>> ledger = GradientLedger(2)
        >>> logits = torch.zeros(3, 2, requires_grad=True)
        >>> targets = torch.tensor([[1., 0.], [1., 0.], [0., 1.]])
        >>> ledger.watch(logits, targets)
        >>> torch.nn.functional.binary_cross_entropy_with_logits(
        ...     logits, targets, reduction="sum").backward()
        >>> record = ledger.read()  # |p - y| is 0.5 everywhere
        >>> record.positive, record.negative
        (array([1. , 0.5]), array([0.5, 1. ]))
    """

    def __init__(self, num_classes: int, *, device: str | torch.device = "cpu"):
        self.num_classes = num_classes
        # A run of a million steps must not lose the small terms; mps has no float64.
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.sums = torch.zeros(3, num_classes, device=device, dtype=dtype)  # pos, neg, weight
        self._classifier, self._weighed = None, False

    def watch(self, logits: Tensor, targets: Tensor, *, scale=None) -> None:
        """Record the gradient of the next backward pass through these logits.

        Args:
            logits: ``(B, C)``, part of the graph that the loss will be computed from.
            targets: ``(B, C)`` in [0, 1]; a soft target shares its gradient between both sums.
            scale: what the loss is multiplied with before ``backward``, to be divided out again: a
                number, or the :class:`torch.amp.GradScaler` that does it.

        Raises:
            InputError: if the shapes disagree, or the logits need no gradient.
        """
        if logits.shape != targets.shape or logits.shape[-1] != self.num_classes:
            raise InputError(
                f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be "
                f"(batch, {self.num_classes}), as the ledger's num_classes says"
            )
        if not logits.requires_grad:
            raise InputError(
                "logits need no gradient, so there is nothing to watch; call watch() in training, "
                "outside torch.no_grad()"
            )
        targets = targets.detach().float()

        def add(grad: Tensor) -> None:
            magnitude = grad.detach().abs().float()
            if scale is not None:  # known by now: scaler.scale(loss) came before backward
                magnitude = magnitude / (
                    scale.get_scale() if hasattr(scale, "get_scale") else scale
                )
            positive = (magnitude * targets).sum(0)
            negative = (magnitude * (1 - targets)).sum(0)
            self.sums[0] += positive
            self.sums[1] += negative

        logits.register_hook(add)

    def watch_classifier(self, weight: Tensor) -> None:
        r"""Also record :math:`\lVert \partial L / \partial w_c \rVert` at every backward pass.

        Args:
            weight: ``(C, D)`` parameter, one row a class; it is watched until :meth:`close`.

        Raises:
            InputError: if it does not have one row for each class.
        """
        if weight.ndim != 2 or len(weight) != self.num_classes:
            raise InputError(
                f"weight has shape {tuple(weight.shape)}; give the "
                f"classifier's ({self.num_classes}, D)"
            )
        self.close()
        self._classifier = weight.register_hook(self.add_weight)

    def add_weight(self, grad: Tensor) -> None:
        r"""Take in :math:`\partial L / \partial w`, ``(C, D)``, of one step.

        For who has it at hand; :meth:`watch_classifier` does so by itself.
        """
        self.sums[2] += grad.detach().float().norm(dim=1)
        self._weighed = True

    def close(self) -> None:
        """Stop watching the classifier."""
        if self._classifier is not None:
            self._classifier.remove()
            self._classifier = None

    def read(self) -> GradientRecord:
        """Return the sums since the last reading and start afresh. Waits for the device."""
        positive, negative, weight = self.sums.cpu().double().numpy().copy()
        if not self._weighed:
            weight = np.full(self.num_classes, np.nan)
        self.sums.zero_()
        return GradientRecord(positive, negative, weight)
