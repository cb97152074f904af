"""A validation split cut out of the training split, with every class's share."""

import logging
from dataclasses import replace

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import eye_array, hstack

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.data.splits import LongTailData

_LOG = logging.getLogger(__name__)
_NOISE = 0.1  # seeds give unrelated splits, and no class misses its share by an image


def holdout_split(labels, share: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images in two so that each side has its share of every class.

    Iterative stratification: the images of the class with fewest images left are dealt out first,
    so that commoner classes can make up for it. A class of at least two images is on both sides.
    Where no split has all such classes on both sides (three classes, each on two of three images),
    as many as possible are, and the others are logged as a warning. The image of a class of one is
    for training.

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
    least, most = np.where(counts > 1, 1, 0), np.where(counts > 1, counts - 1, counts)
    wanted = np.clip(np.rint(share * counts).astype(int), least, np.maximum(counts - 1, 0))  # (C,)
    dealt, held = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    left, val = counts.copy(), np.zeros_like(counts)  # (C,) images not dealt yet, and held out
    while left.any():
        c = np.where(left > 0, left, len(labels) + 1).argmin()
        images = columns.indices[columns.indptr[c] : columns.indptr[c + 1]]
        images = images[~dealt[images]]
        # First, but for some noise, those whose other classes lack more than their share.
        lack = (wanted - val) / np.maximum(left, 1) - share
        images = images[np.argsort(_NOISE * rng.random(len(images)) - matrix[images] @ lack)]
        take = images[: max(0, wanted[c] - val[c])]
        held[take], dealt[images] = True, True
        left -= matrix[images].sum(axis=0)
        val += matrix[take].sum(axis=0)
    rest = rng.permutation(np.flatnonzero(~dealt))  # without labels
    held[rest[: max(0, round(share * len(labels)) - held.sum())]] = True

    def failed() -> np.ndarray:
        return np.flatnonzero((val < least) | (val > most))

    if len(failed()):
        held = _repair(matrix, held, least, most)
        val = labels.subset(held).counts
        names = ", ".join(labels.class_names[c] for c in failed())
        if names:
            _LOG.warning("no split has all classes on both sides; these are on one: %s", names)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _repair(matrix, held: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Move the fewest images by which as many classes as possible have least to most held out."""
    val = held @ matrix
    rare = (val < least) | (val > most) | (matrix.sum(axis=0) < 20)
    images = np.flatnonzero(matrix[:, rare].sum(axis=1))  # others need not move
    part, now = matrix[images].T, held[images].astype(float)
    C, n = part.shape
    least, most = least - (val - part @ now), most - (val - part @ now)
    bounds = [
        LinearConstraint(hstack([part, eye_array(C)]), least, np.inf),
        LinearConstraint(hstack([part, -eye_array(C)]), -np.inf, most),
    ]
    # x (n,) of 0 and 1, and by how much each class may miss its bounds, which costs more than any x
    cost = np.concatenate([1 - 2 * now, np.full(C, n + 1.0)])
    whole = np.ones_like(cost)
    upper = np.concatenate([np.ones(n), np.full(C, np.inf)])
    limit = {"time_limit": 60}  # seconds; reached only by hundreds of classes on the same images
    found = milp(
        cost, integrality=whole, bounds=Bounds(0, upper), constraints=bounds, options=limit
    )
    held = held.copy()
    held[images] = now if found.x is None else found.x[:n] > 0.5
    return held


def with_holdout(data: LongTailData, share: float, *, seed: int = 0) -> LongTailData:
    """Cut a validation split out of the training split; see :func:`holdout_split`.

    Raises:
        InputError: if there is a validation split already, or ``share`` is not between 0 and 1.
    """
    if data.val is not None:
        raise InputError(f"{data.name} has a validation split; give no share to hold out")
    train, val = holdout_split(data.train.labels, share, seed=seed)
    return replace(data, train=data.train.subset(train), val=data.train.subset(val))
