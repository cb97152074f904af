"""Feature diversity of anything: of arrays of one's own, or of a bank."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.metrics import feature_diversity
from ltml.core.options import choose
from ltml.training.bank import Bank


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Hold a feature of each image, and its labels.

    Args:
        features: feature of each image, ``(N, D)``.
        labels: labels of the images, ``(N, C)``.
    """

    features: Tensor
    labels: LabelMatrix

    def __repr__(self) -> str:
        N, D = self.features.shape
        return f"Features({N:,} images, {D} dimensions, {self.labels.num_classes} classes)"

    def diversity(self, *, measure: str = "vendi", size: int | None = None) -> pd.DataFrame:
        """Measure each class's diversity at one sample size, so that rare and common compare.

        Args:
            measure: a name of :data:`ltml.core.metrics.DIVERSITY`.
            size: number of samples in a subset; default: one fewer than the smallest class of at
                least three has, at most 50.

        Returns:
            a row a class, by descending count: class, group, count, measure, size, value, error;
            see :func:`ltml.core.metrics.feature_diversity`.
        """
        present = (self.labels.dense() == 1).int()
        table = feature_diversity(self.features, present, measure=measure, size=size)
        names = pd.DataFrame(
            {
                "class": self.labels.class_names,
                "group": self.labels.group_of_class(),
                "count": table.pop("count"),
                "measure": measure,
            }
        )
        out = pd.concat([names, table], axis=1)
        return out.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)


def features_from(features, labels=None, *, split: str = "train") -> Features:
    """Take features from arrays, or from a bank; those of a run are in its record, see
    :func:`ltml.record_features`.

    Args:
        features: array or tensor ``(N, D)``; feature maps ``(N, D, h, w)``, which are averaged; or
            a :class:`~ltml.training.bank.Bank`.
        labels: ``(N, C)``: a LabelMatrix, or what makes one; a bank has its own.
        split: name of a bank's split.

    Raises:
        InputError: if shapes disagree, or a number is not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = LabelMatrix(np.repeat([[1, 0], [0, 1]], [30, 10], axis=0), ["cat", "dog"])
        >>> spread = np.repeat([[3.0], [0.1]], [30, 10], axis=0)
        >>> found = features_from(1 + spread * rng.normal(size=(40, 8)), labels)
        >>> found.diversity()[["class", "count", "value"]].round(1)
          class  count  value
        0   cat     30    5.2
        1   dog     10    1.1
    """
    if isinstance(features, Bank):
        part = choose("split", split, features.splits)
        maps = part.images[:, 0]
        pooled = torch.cat([x.float().mean((2, 3)) for x in maps.split(512)])
        return Features(pooled, part.labels)
    if labels is None:
        raise InputError("labels are missing; give (images, classes) beside the features")
    x = features if isinstance(features, Tensor) else torch.as_tensor(np.asarray(features))
    x = x.detach().cpu().float()
    x = x.mean((2, 3)) if x.ndim == 4 else x
    labels = LabelMatrix(labels)
    if x.ndim != 2 or len(x) != len(labels):
        shapes = f"features {tuple(x.shape)} do not fit labels {labels.shape}"
        raise InputError(f"{shapes}; give (images, D), or maps (images, D, h, w)")
    if not x.isfinite().all():
        row = int((~x.isfinite()).any(1).nonzero()[0])
        raise InputError(f"the features of image {row} are infinite or NaN; leave it out")
    return Features(x, labels)
