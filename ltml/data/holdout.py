"""A validation split cut out of the training split, with its fraction of every class."""

import logging
import math
from dataclasses import replace
from numbers import Real

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import eye_array, hstack

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.labels import LabelMatrix
from ltml.core.options import Seed, fitted
from ltml.data.splits import LongTailData

_LOG = logging.getLogger(__name__)
_MOST = 1.25  # images held out, as a multiple of what was asked for
_NOISE = 0.1  # seeds give unrelated splits, and no class misses its share by an image


def holdout_split(labels, share: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images in two so that each side has its fraction of every class.

    Iterative stratification: the images of the class with fewest images left are dealt out first,
    so that commoner classes can make up for it. A class of at least two images is on both sides,
    unless that takes more than a quarter more images than asked for (of a hundred classes of two
    images each, a tenth has twenty images, not a hundred) or no split can do it (three classes,
    each on two of three images). Then as many as possible are, and one warning names the others,
    which are for training. The image of a class of one is for training. Unknown labels are no
    positives.

    Args:
        labels: ``(N, C)`` LabelMatrix, or what one can be made of.
        share: fraction of the images to hold out, between 0 and 1.
        seed: seed of the choice among equal images.

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
    seed = fitted("seed", seed, Seed)
    if not isinstance(share, Real) or not 0 < share < 1:
        raise InputError(f"share={quote(share)} of held-out images; give a number between 0 and 1")
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

    most_images = max(1, math.ceil(_MOST * share * len(labels)))
    if held.sum() > most_images:
        held = _fewer(labels, held, most_images, rng)
        val = held @ matrix
    if ((val < least) | (val > most)).any():
        held = _repair(matrix, held, least, most, most_images)
        val = held @ matrix
    if len(failed := np.flatnonzero((val < least) | (val > most))):
        names = ", ".join(labels.class_names[c] for c in failed[:5])
        more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        _LOG.warning(
            "%d of %d classes are on one side only, since %d images (%.3g %%) are held out: %s%s",
            *(len(failed), labels.num_classes, held.sum(), 100 * held.mean(), names, more),
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _fewer(labels: LabelMatrix, held: np.ndarray, most: int, rng: np.random.Generator):
    """Give images back to training, those of the rarest classes first."""
    counts, images = labels.counts, np.flatnonzero(held)
    rarest = [counts[labels[i]].min(initial=len(labels)) for i in images]
    order = np.lexsort([rng.random(len(images)), rarest])
    held = held.copy()
    held[images[order[: len(images) - most]]] = False
    return held


def _repair(matrix, held: np.ndarray, least: np.ndarray, most: np.ndarray, most_images: int):
    """Move the fewest images by which as many classes as possible have least to most held out."""
    val = held @ matrix
    rare = (val < least) | (val > most) | (matrix.sum(axis=0) < 20)
    images = np.flatnonzero(matrix[:, rare].sum(axis=1))  # others need not move
    part, now = matrix[images].T, held[images].astype(float)
    C, n = part.shape
    least, most = least - (val - part @ now), most - (val - part @ now)
    total = np.concatenate([np.ones(n), np.zeros(C)])
    bounds = [
        LinearConstraint(hstack([part, eye_array(C)]), least, np.inf),
        LinearConstraint(hstack([part, -eye_array(C)]), -np.inf, most),
        LinearConstraint(total, -np.inf, max(most_images - held.sum() + now.sum(), now.sum())),
    ]
    # x (n,) of 0 and 1, and by how much each class may miss its bounds, which costs more than any x
    cost = np.concatenate([1 - 2 * now, np.full(C, n + 1.0)])
    whole = np.ones_like(cost)
    upper = np.concatenate([np.ones(n), np.full(C, np.inf)])
    limit = {"time_limit": 60}  # seconds; reached only by hundreds of classes on the same images
    found = milp(
        cost, integrality=whole, bounds=Bounds(0, upper), constraints=bounds, options=limit
    )
    if found.x is None:
        return held
    moved = held.copy()
    moved[images] = found.x[:n] > 0.5

    def served(side: np.ndarray) -> int:  # out of time, what was found may be worse
        val = side @ matrix
        return np.count_nonzero((val > 0) & (val < matrix.sum(axis=0)))

    return moved if served(moved) >= served(held) else held


def with_holdout(data: LongTailData, share: float, *, seed: int = 0) -> LongTailData:
    """Cut a validation split out of the training split; see :func:`holdout_split`.

    Raises:
        InputError: if there is a validation split already, or ``share`` is not between 0 and 1.
    """
    if data.val is not None:
        raise InputError(f"{data.name} has a validation split; give no share to hold out")
    train, val = holdout_split(data.train.labels, share, seed=seed)
    labels = data.train.labels.grouped(data.train.labels.bounds)  # by the counts of the whole table
    whole = replace(data.train, labels=labels)
    return replace(data, train=whole.subset(train), val=whole.subset(val))
