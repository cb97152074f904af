"""A validation split cut out of the training split, with every class's share."""

import logging
from dataclasses import replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import eye_array, hstack

from ltml.data import LongTailData
from ltml.errors import InputError
from ltml.labels import LabelMatrix

__all__ = ["holdout_split", "with_holdout"]

_LOG = logging.getLogger(__name__)


def holdout_split(labels, share: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images in two so that each side has its share of every class.

    Iterative stratification: the images of the class with fewest images left are dealt out first,
    so that commoner classes make up for it. A class of two or more images is on both sides, and the
    image of a class of one is for training. Where labels make that impossible (three classes that
    share three images in pairs), the classes on one side only are logged as a warning.

    Args:
        labels: ``(N, C)`` LabelMatrix, or what one can be made of.
        share: of the images to hold out, between 0 and 1.
        seed: of the choice among equal images.

    Returns:
        Indices of the images to train on, and of those held out, ascending.

    Raises:
        InputError: if ``share`` is not between 0 and 1.

    References:
        Sechidis et al., On the Stratification of Multi-Label Data, ECML PKDD 2011,
        https://doi.org/10.1007/978-3-642-23808-6_10

    Example:
        >>> train, val = holdout_split([[1, 0], [1, 0], [1, 1], [1, 1]], 0.5)
        >>> len(train), len(val), (2 in train) != (3 in train)
        (2, 2, True)
    """
    if not 0 < share < 1:
        raise InputError(f"share={share!r} of held-out images; give a number between 0 and 1")
    labels, rng = LabelMatrix(labels), np.random.default_rng(seed)
    matrix, columns, counts = labels.matrix, labels.matrix.tocsc(), labels.counts
    least, most = np.where(counts > 1, 1, 0), np.where(counts > 1, counts - 1, 1)  # to hold out
    open_, held = np.ones(len(labels), bool), np.zeros(len(labels), bool)
    left, val = counts.copy(), np.zeros_like(counts)  # (C,) images not yet dealt, and held out
    while left.any():
        c = np.where(left > 0, left, len(labels) + 1).argmin()
        images = columns.indices[columns.indptr[c] : columns.indptr[c + 1]]
        images = rng.permutation(images[open_[images]])
        take = np.clip(round(share * counts[c]), least[c], counts[c] - 1) - val[c]
        take = np.clip(take, 0, len(images))
        held[images[:take]], open_[images] = True, False
        left -= matrix[images].sum(axis=0)
        val += matrix[images[:take]].sum(axis=0)
    rest = rng.permutation(np.flatnonzero(open_))  # without labels
    held[rest[: max(0, round(share * len(labels)) - held.sum())]] = True

    if ((val < least) | (val > most)).any():
        held = _repair(matrix, held, least, most)
        val = labels.subset(held).counts
        failed = np.flatnonzero((val < least) | (val > most))
        if len(failed):
            names = ", ".join(labels.class_names[c] for c in failed)
            _LOG.warning("no split has these classes beside all others on both sides: %s", names)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _repair(matrix, held: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Move the fewest images by which as many classes as possible have least to most held out."""
    N, C = matrix.shape
    bounds = [
        LinearConstraint(hstack([matrix.T, eye_array(C)]), least, np.inf),
        LinearConstraint(hstack([matrix.T, -eye_array(C)]), -np.inf, most),
    ]
    # x (N,) of 0 and 1, and by how much each class may miss its bounds, which costs more than any x
    cost = np.concatenate([1 - 2.0 * held, np.full(C, N + 1.0)])
    upper = np.concatenate([np.ones(N), np.full(C, np.inf)])
    found = milp(cost, integrality=np.ones(N + C), bounds=Bounds(0, upper), constraints=bounds)
    return found.x[:N] > 0.5


def with_holdout(data: LongTailData, share: float, *, seed: int = 0) -> LongTailData:
    """Cut a validation split out of the training split; see :func:`holdout_split`.

    Raises:
        InputError: if there is a validation split already, or ``share`` is not between 0 and 1.
    """
    if data.val is not None:
        raise InputError(f"{data.name} has a validation split; give no share to hold out")
    train, val = holdout_split(data.train.labels, share, seed=seed)
    return replace(data, train=data.train.subset(train), val=data.train.subset(val))
