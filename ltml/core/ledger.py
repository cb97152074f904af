"""A ledger of each class's gradient, for any loss."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ltml.core.devices import choose_device
from ltml.core.errors import InputError
from ltml.core.options import Bounds, fitted


@dataclass(frozen=True)
class GradientRecord:
    """What a ledger saw between two readings: arrays of shape ``(C,)``, and one of ``(C, C)``."""

    positive: np.ndarray  # sum of |dL/dz| over positives
    negative: np.ndarray  # sum of |dL/dz| over negatives
    weight: np.ndarray  # sum over steps of the norm of dL/dw_c; NaN if no classifier was watched
    interference: np.ndarray | None = None  # inner products of the classes' dL/df, if recorded

    @property
    def norms(self) -> np.ndarray:
        """``(C,)``: norm of the gradient that each class sends into the features.

        Raises:
            InputError: if interference was not recorded.
        """
        if self.interference is None:
            raise InputError("interference was not recorded; give GradientLedger interference=True")
        return np.sqrt(np.diag(self.interference))

    @property
    def cosines(self) -> np.ndarray:
        """``(C, C)``: cosines between these gradients; NaN for a class that sends none."""
        with np.errstate(invalid="ignore"):
            return self.interference / np.outer(self.norms, self.norms)


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

    (our formulation). A hook on the logits reads the gradient during the usual backward pass, for
    any loss. Nothing waits for the device until :meth:`read`.

    Interference is how classes pull the features they share. With :math:`g = \partial L / \partial
    z`, class :math:`c` sends :math:`g_{ic} w_c` into the features of image :math:`i`, so the inner
    product of two classes' gradients over all images is

    .. math:: M_{cd} = \sum_{\text{steps}} \Bigl(\sum_i g_{ic} g_{id}\Bigr) \langle w_c, w_d \rangle

    for logits :math:`W f + b`, at :math:`C^2 (B + D)` multiplications a step.

    Args:
        num_classes: ``C``.
        device: device of logits and weights.
        interference: whether to record :math:`M`.

    References:
        | Towards Gradient Equalization and Feature Diversification for Long-Tailed Multi-Label
          Image Recognition (Chen et al., IEEE TMM 27, 2025)
        | https://doi.org/10.1109/TMM.2025.3535395

    Example:
        >>> ledger, logits = GradientLedger(2), torch.zeros(3, 2, requires_grad=True)
        >>> targets = torch.tensor([[1., 0.], [1., 0.], [0., 1.]])
        >>> ledger.watch(logits, targets)
        >>> torch.nn.BCEWithLogitsLoss(reduction="sum")(logits, targets).backward()
        >>> record = ledger.read()  # |p - y| is 0.5 everywhere
        >>> record.positive, record.negative
        (array([1. , 0.5]), array([0.5, 1. ]))
    """

    def __init__(self, num_classes: int, *, device: str | torch.device = "cpu", interference=False):
        self.num_classes = fitted("num_classes", num_classes, Annotated[int, Bounds("[1, 1e6]")])
        self.interference = fitted("interference", interference, bool)
        num_classes, device = self.num_classes, choose_device(device)
        # A run of a million steps must not lose the small terms; mps has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        rows = 3 + num_classes * interference  # positive, negative, weight; then M
        self.sums = torch.zeros(rows, num_classes, device=device, dtype=dtype)
        self._classifier, self._hook, self._weighted = None, None, False

    def watch(self, logits: Tensor, targets: Tensor, *, scale=None, weight=None) -> None:
        """Record the gradient of the next backward pass through these logits.

        Args:
            logits: ``(B, C)``, part of the graph that the loss will be computed from.
            targets: ``(B, C)`` in [0, 1]; a soft target splits its gradient between both sums, and
                one that is NaN, unknown, belongs to neither.
            scale: factor of the loss before ``backward``, to be divided out: a number or a
                :class:`torch.amp.GradScaler`. Steps that overflow, which it skips, are left out.
            weight: ``(C, D)`` of the classifier, for interference; default: the watched one.

        Raises:
            InputError: if the shapes disagree, the logits need no gradient, or weight is missing.
        """
        if logits.shape != targets.shape or logits.shape[-1] != self.num_classes:
            shapes = f"logits {tuple(logits.shape)}, targets {tuple(targets.shape)}"
            raise InputError(f"{shapes}: both must be (batch, {self.num_classes})")
        if not logits.requires_grad:
            raise InputError("logits need no gradient; call watch() outside torch.no_grad()")
        weight = self._classifier if weight is None else weight
        if self.interference and weight is None:
            raise InputError("interference needs the classifier; give watch(weight=...)")
        targets = targets.detach().float()
        positive, negative = targets.nan_to_num(0), (1 - targets).nan_to_num(0)

        def add(grad: Tensor) -> None:
            grad = _unscaled(grad, scale)
            magnitude = grad.abs()
            self.sums[0] += (magnitude * positive).sum(0)
            self.sums[1] += (magnitude * negative).sum(0)
            if self.interference:
                with torch.autocast(grad.device.type, enabled=False):
                    w = weight.detach().float()
                    self.sums[3:].add_((grad.T @ grad) * (w @ w.T))

        logits.register_hook(add)

    def watch_classifier(self, weight: Tensor, *, scale=None) -> None:
        r"""Also record :math:`\lVert \partial L / \partial w_c \rVert` at every backward pass.

        Args:
            weight: ``(C, D)`` parameter, watched until :meth:`close`.
            scale: factor of the loss; see :meth:`watch`.
        """
        if weight.ndim != 2 or len(weight) != self.num_classes:
            raise InputError(f"weight {tuple(weight.shape)} must be ({self.num_classes}, D)")
        self.close()
        self._classifier = weight
        self._hook = weight.register_hook(lambda grad: self.add_weight(_unscaled(grad, scale)))

    def add_weight(self, grad: Tensor) -> None:
        r"""Add :math:`\partial L / \partial w`, ``(C, D)``, of one step, if you have it at hand."""
        self.sums[2] += grad.detach().float().norm(dim=1)
        self._weighted = True

    def close(self) -> None:
        """Stop watching the classifier."""
        if self._hook is not None:
            self._hook.remove()
        self._classifier = self._hook = None

    def read(self) -> GradientRecord:
        """Return the sums since the last reading and start afresh. Waits for the device."""
        sums = self.sums.cpu().double().numpy().copy()
        self.sums.zero_()
        weight = sums[2] if self._weighted else np.full(self.num_classes, np.nan)
        return GradientRecord(*sums[:2], weight, sums[3:] if self.interference else None)


def _unscaled(grad: Tensor, scale) -> Tensor:
    """Undo the scale of the loss without waiting for the device; an overflow gives 0."""
    grad = grad.detach().float()
    if scale is None:
        return grad
    factor = scale.scale(grad.new_ones(())) if hasattr(scale, "scale") else scale  # get_scale waits
    return torch.where(grad.isfinite().all(), grad / factor, 0)
