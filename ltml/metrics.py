"""How good the ranking is: per-class average precision, and its mean over head, medium and tail."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from ltml.errors import InputError

__all__ = ["average_precision", "group_map"]


def average_precision(scores: Tensor, targets: Tensor) -> np.ndarray:
    r"""Compute each class's step-wise average precision, scikit-learn's definition.

    .. math:: AP_c = \sum_k (R_k - R_{k-1}) P_k

    over the distinct scores in descending order. A class without a positive has no AP: it is NaN
    here, so that means leave it out (torchmetrics alone would score it 0).

    Args:
        scores: ``(N, C)`` logits or probabilities; only their order within a class matters.
        targets: ``(N, C)`` of 0 and 1.

    Returns:
        ``(C,)`` float64 in [0, 1], NaN for classes without a positive.

    Raises:
        InputError: if the shapes disagree or a score is NaN.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
        >>> average_precision(scores, torch.tensor([[1, 0], [0, 0], [1, 0]])).round(4)
        array([0.8333,    nan])
    """
    if scores.shape != targets.shape or scores.ndim != 2:
        raise InputError(
            f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} differ; "
            "give both as (images, classes)"
        )
    if scores.isnan().any():
        row, column = scores.isnan().nonzero()[0].tolist()
        raise InputError(
            f"scores hold NaN at image {row}, class {column}; the model has diverged: "
            "lower the learning rate"
        )
    scores, targets = scores.detach().cpu(), targets.detach().cpu().long()
    out = np.full(scores.shape[1], np.nan)
    for c in targets.any(0).nonzero().flatten().tolist():
        # Ranks instead of values: torchmetrics squashes what lies outside [0, 1] through a float32
        # sigmoid, which would tie large logits. Ranks keep every order and every tie.
        rank = torch.unique(scores[:, c], return_inverse=True)[1].double()
        out[c] = float(binary_average_precision(rank / max(float(rank.max()), 1), targets[:, c]))
    return out


def group_map(ap: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Average the per-class AP over all classes and over each group, absent classes left out.

    Args:
        ap: ``(C,)`` average precisions, NaN where a class has none.
        groups: group name -> class indices, as of :meth:`ltml.LabelMatrix.groups`.

    Returns:
        ``{"mAP": ..., "head": ..., "medium": ..., "tail": ...}``; NaN for a group without a class
        that has positives.

    Example:
        >>> groups = {"head": np.array([0]), "tail": np.array([1, 2])}
        >>> group_map(np.array([0.8, 0.4, np.nan]), groups)
        {'mAP': 0.6000000000000001, 'head': 0.8, 'tail': 0.4}
    """

    def mean(values: np.ndarray) -> float:
        present = values[~np.isnan(values)]
        return float(present.mean()) if present.size else float("nan")

    return {"mAP": mean(ap), **{name: mean(ap[classes]) for name, classes in groups.items()}}
