"""Cut a long-tailed subset out of any multi-label data set."""

import numpy as np

from ltml.errors import InputError
from ltml.labels import LabelMatrix

__all__ = ["class_targets", "long_tailed_subset", "target_counts"]


def target_counts(
    num_classes: int, *, max_count: int, imbalance: float = 100.0, profile: str = "pareto"
) -> np.ndarray:
    r"""Compute the class counts of a long-tailed distribution, most frequent class first.

    At rank :math:`r`, with :math:`u_r = r / (C - 1)`,

    .. math::

        n_r = n_{\max}\, \rho^{-u_r} \text{ (exponential)}, \quad
        n_r = n_{\max}\, \big(1 + (\rho^{1/7} - 1)\, u_r\big)^{-7} \text{ (Pareto, of power 6).}

    The latter comes close to VOC-LT's counts.

    References:
        | Wu et al., Distribution-Balanced Loss, ECCV 2020, https://arxiv.org/abs/2007.09654
        | Cui et al., Class-Balanced Loss, CVPR 2019, https://arxiv.org/abs/1901.05555

    Args:
        num_classes: :math:`C`.
        max_count: :math:`n_{\max}`, images of the most frequent class.
        imbalance: :math:`\rho \ge 1`, largest over smallest count.
        profile: ``"pareto"`` or ``"exponential"``.

    Returns:
        ``(C,)`` int64, descending, rounded, at least 1.

    Raises:
        InputError: if an argument is out of its range.

    Example:
        >>> target_counts(5, max_count=1000, imbalance=100, profile="exponential")
        array([1000,  316,  100,   32,   10])
    """
    for name, value in {"max_count": max_count, "imbalance": imbalance}.items():
        if not 1 <= value < np.inf:
            raise InputError(f"{name} is {value}; give at least 1")
    u = np.arange(num_classes) / max(num_classes - 1, 1)
    if profile == "exponential":
        counts = max_count * imbalance**-u
    elif profile == "pareto":
        counts = max_count * (1 + (imbalance ** (1 / 7) - 1) * u) ** -7
    else:
        raise InputError(f"profile {profile!r} is unknown; choose from pareto, exponential")
    return np.maximum(np.rint(counts), 1).astype(np.int64)


def class_targets(labels: LabelMatrix, **profile) -> np.ndarray:
    """Assign :func:`target_counts` to classes by rank, ``(C,)``; none exceeds what there is.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]])
        >>> class_targets(labels, max_count=3, imbalance=3)
        array([3, 1])
    """
    targets = np.empty(labels.num_classes, np.int64)
    order = np.argsort(-labels.counts, kind="stable")
    targets[order] = target_counts(labels.num_classes, **profile)
    return np.minimum(targets, labels.counts)


def long_tailed_subset(labels: LabelMatrix, *, seed: int = 0, **profile) -> np.ndarray:
    r"""Choose images so that the class counts follow a long-tailed profile.

    An image brings all its labels, so the targets :math:`t_c` of :func:`class_targets` cannot in
    general be met exactly. From none, images are added or removed one by one, whichever lowers

    .. math:: F(S) = \sum_c \Big(\frac{n_c(S) - t_c}{t_c}\Big)^2

    most, until none does: rare classes, whose images weigh most, come first.

    Args:
        labels: ``(N, C)`` of the whole data set.
        seed: of the choice among equal images.
        profile: options of :func:`target_counts`.

    Returns:
        Indices of the chosen images, ascending; all have labels, and every class keeps at least
        one image.

    Raises:
        InputError: if an argument is out of its range, or ``labels`` holds no label.

    Example:
        >>> Y = np.random.default_rng(0).random((5000, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]
        >>> labels = LabelMatrix(Y)
        >>> images = long_tailed_subset(labels, max_count=500, imbalance=50)
        >>> labels.subset(images).counts
        array([500, 150,  54,  22,  10])
    """
    if not labels.counts.any():
        raise InputError(f"labels hold no label on {len(labels)} images; give a labelled data set")
    # In shuffled order, taking the first of equals is a random choice.
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    matrix, targets = labels.matrix[shuffled].astype(float), class_targets(labels, **profile)
    scale = 1.0 / np.maximum(targets, 1) ** 2
    chosen, counts = np.zeros(len(labels), bool), np.zeros(labels.num_classes)
    unlabelled = np.diff(matrix.indptr) == 0
    while True:
        # By how much the error changes with one more or one less image of each class; above all,
        # none is to be left out.
        more = np.where(counts == 0, -1e9, scale * (2 * (counts - targets) + 1))
        less = np.where(counts == 1, 1e9, scale * (2 * (targets - counts) + 1))
        change = np.where(chosen, matrix @ less, matrix @ more)
        change[unlabelled] = np.inf
        best = change.argmin()
        if not change[best] < 0:
            return np.sort(shuffled[chosen])
        chosen[best] ^= True
        counts += (1 if chosen[best] else -1) * matrix[[best]].toarray()[0]
