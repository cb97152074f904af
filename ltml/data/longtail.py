"""Cut a long-tailed subset out of any multi-label data set."""

import numpy as np

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix

_ROUNDS, _BLOCKS = 10, 100  # bounds on the polishing, which mostly ends before them


def target_counts(
    num_classes: int,
    *,
    max_count: int,
    imbalance: float = 100.0,
    profile: str = "pareto",
    power: float = 6.0,
) -> np.ndarray:
    r"""Compute the class counts of a long-tailed distribution, most frequent class first.

    At rank :math:`r`, with :math:`u_r = r / (C - 1)`,

    .. math::

        n_r = n_{\max}\, \rho^{-u_r} \text{ (exponential)}, \quad
        n_r = n_{\max}\, \big(1 + (\rho^{1/(\alpha+1)} - 1)\, u_r\big)^{-(\alpha+1)}
        \text{ (Pareto).}

    The latter is a Pareto density of power :math:`\alpha`. With :math:`\alpha = 6`, which Wu et
    al. give for VOC-LT, it comes close to VOC-LT's counts.

    References:
        | Wu et al., Distribution-Balanced Loss, ECCV 2020, https://arxiv.org/abs/2007.09654
        | Cui et al., Class-Balanced Loss, CVPR 2019, https://arxiv.org/abs/1901.05555

    Args:
        num_classes: :math:`C`.
        max_count: :math:`n_{\max}`, images of the most frequent class.
        imbalance: :math:`\rho \ge 1`, largest over smallest count.
        profile: ``"pareto"`` or ``"exponential"``.
        power: :math:`\alpha > 0`; for ``"pareto"`` only.

    Returns:
        ``(C,)`` int64, descending, rounded, at least 1.

    Raises:
        InputError: if an argument is out of its range.

    Example:
        >>> target_counts(5, max_count=1000, imbalance=100, profile="exponential")
        array([1000,  316,  100,   32,   10])
    """
    bounds = {"num_classes": num_classes, "max_count": max_count, "imbalance": imbalance}
    for name, value in bounds.items():
        if not 1 <= value < np.inf:
            raise InputError(f"{name} is {value}; give at least 1")
    if not 0 < power < np.inf:
        raise InputError(f"power is {power}; give a positive number")
    u = np.arange(num_classes) / max(num_classes - 1, 1)
    if profile == "exponential":
        counts = max_count * imbalance**-u
    elif profile == "pareto":
        counts = max_count * (1 + (imbalance ** (1 / (power + 1)) - 1) * u) ** -(power + 1)
    else:
        raise InputError(f"profile {profile!r} is unknown; choose from pareto, exponential")
    return np.maximum(np.rint(counts), 1).astype(np.int64)


def class_targets(labels: LabelMatrix, **profile) -> np.ndarray:
    """Assign the counts of a profile to the classes by their rank in ``labels``.

    Args:
        labels: ``(N, C)``.
        profile: options of :func:`target_counts`.

    Returns:
        ``(C,)`` int64, the most frequent class's largest, none above the images that there are.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]])
        >>> class_targets(labels, max_count=3, imbalance=3)
        array([3, 1])
    """
    targets = np.empty(labels.num_classes, np.int64)
    order = np.argsort(-labels.counts, kind="stable")
    targets[order] = target_counts(labels.num_classes, **profile)
    return np.minimum(targets, labels.counts)


def long_tailed_subset(
    labels: LabelMatrix, *, max_count: int, seed: int = 0, **profile
) -> np.ndarray:
    r"""Choose images so that the class counts follow a long-tailed profile.

    An image brings all its labels, so the targets :math:`t_c` of :func:`class_targets` cannot in
    general be met exactly. The subset is a good, not the best, minimiser of

    .. math:: F(S) = \sum_c \Big(\frac{n_c(S) - t_c}{t_c}\Big)^2

    found by a greedy search: from the rarest target upwards, each class is filled with the images
    that raise :math:`F` least; then images are removed and added while that lowers :math:`F`. Ties
    are broken at random.

    Args:
        labels: ``(N, C)`` of the whole data set.
        max_count: images of the most frequent class.
        seed: of the random tie-breaking; the same seed gives the same subset.
        profile: further options of :func:`target_counts`.

    Returns:
        Indices of the chosen images, ascending. Every class that has images keeps at least one;
        images without a label are never chosen.

    Raises:
        InputError: if an argument is out of its range, or ``labels`` holds no label.

    Example:
        >>> Y = np.random.default_rng(0).random((20_000, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]
        >>> labels = LabelMatrix(Y)
        >>> images = long_tailed_subset(labels, max_count=500, imbalance=50)
        >>> labels.subset(images).counts
        array([500, 150,  54,  22,  10])
    """
    if not labels.counts.any():
        raise InputError(f"labels hold no label on {len(labels)} images; give a labelled data set")
    # In shuffled order, taking the first of equals is a random choice.
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    targets = class_targets(labels, max_count=max_count, **profile)
    search = _Search(labels.matrix[shuffled], targets)
    for label in np.argsort(targets, kind="stable"):
        search.fill(label)
    for _ in range(_ROUNDS):
        before = search.error()
        search.improve(-1)
        search.improve(+1)
        if not search.error() < before:
            break
    return np.sort(shuffled[search.chosen])


class _Search:
    """State of the greedy search: which images are chosen, and the class counts they give."""

    def __init__(self, matrix, targets: np.ndarray):
        self.matrix, self.columns, self.targets = matrix, matrix.tocsc(), targets
        self.scale = 1.0 / np.maximum(targets, 1) ** 2.0
        self.chosen = np.zeros(matrix.shape[0], bool)
        self.counts = np.zeros(matrix.shape[1], np.int64)

    def fill(self, label: int):
        """Choose images of one class until its target is met."""
        images = self.columns.indices[slice(*self.columns.indptr[label : label + 2])]
        rows = self.matrix[images]
        while (missing := self.targets[label] - self.counts[label]) > 0:
            # Costs change within a block, so take a part of what is missing and look again.
            cost = np.where(self.chosen[images], np.inf, rows @ self.change(+1))
            self.flip(images[_smallest(cost, max(1, missing // 4))], +1)

    def improve(self, sign: int):
        """Remove (-1) or add (+1) images while that lowers the error."""
        size, unlabelled = len(self.chosen), np.diff(self.matrix.indptr) == 0
        for _ in range(_BLOCKS):
            cost = self.matrix @ self.change(sign)
            cost[(self.chosen == (sign > 0)) | unlabelled] = np.inf
            helpful = np.count_nonzero(cost < 0)
            if not helpful:
                break
            before, size = self.error(), min(2 * size, helpful)
            block = _smallest(cost, size)
            # Images that help one by one may overshoot together: halve the block until it helps.
            self.flip(block, sign)
            while size > 1 and not self.error() < before:
                size //= 2
                self.flip(block[size:], -sign)
                block = block[:size]

    def error(self) -> float:
        """F of the images chosen so far; infinite where a class that has images got none."""
        if (self.counts[self.targets > 0] == 0).any():
            return np.inf
        return float((self.scale * (self.counts - self.targets) ** 2.0).sum())

    def change(self, sign: int) -> np.ndarray:
        """Change of the error, class by class, if an image were added (+1) or removed (-1)."""
        change = self.scale * (2.0 * sign * (self.counts - self.targets) + 1)
        if sign < 0:
            change[self.counts == 1] = np.inf  # the last image of a class stays
        return change

    def flip(self, images: np.ndarray, sign: int):
        """Add (+1) or remove (-1) images."""
        self.chosen[images] = sign > 0
        self.counts += sign * self.matrix[images].sum(axis=0)


def _smallest(cost: np.ndarray, size: int) -> np.ndarray:
    """Positions of the ``size`` smallest values, ascending, those that are finite."""
    order = np.argsort(cost, kind="stable")[:size]
    return order[np.isfinite(cost[order])]
