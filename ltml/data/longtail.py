"""Cut a long-tailed subset out of any multi-label data set."""

import numpy as np

from ltml.errors import InputError
from ltml.labels import LabelMatrix

__all__ = ["class_targets", "long_tailed_subset", "target_counts"]

_PROFILES = ("pareto", "exponential")
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

    With :math:`u_r = r / (C - 1)` for rank :math:`r = 0, \dots, C - 1` and the ratio :math:`\rho`
    of the largest to the smallest count,

    .. math::

        n_r = n_{\max}\, \rho^{-u_r} \quad\text{(exponential)}, \qquad
        n_r = n_{\max}\, \big(1 + (\rho^{1/(\alpha+1)} - 1)\, u_r\big)^{-(\alpha+1)}
        \quad\text{(Pareto).}

    The latter is the density of a Pareto distribution of power :math:`\alpha` at evenly spaced
    points. It bends below the exponential, which it approaches for large :math:`\alpha`. With
    :math:`\alpha = 6` it comes close to the counts of VOC-LT, for which Wu et al. give that power.

    References:
        | Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
          Datasets, ECCV 2020, https://arxiv.org/abs/2007.09654
        | Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019,
          https://arxiv.org/abs/1901.05555

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
        >>> target_counts(5, max_count=1000, imbalance=100)
        array([1000,  231,   69,   25,   10])
    """
    if num_classes < 1:
        raise InputError(f"num_classes is {num_classes}; give at least 1")
    if max_count < 1:
        raise InputError(f"max_count is {max_count}; give at least 1 image")
    if not 1 <= imbalance < np.inf:
        raise InputError(f"imbalance is {imbalance}; give largest / smallest count, at least 1")
    if profile not in _PROFILES:
        raise InputError(f"profile {profile!r} is unknown; choose from {', '.join(_PROFILES)}")
    if not 0 < power < np.inf:
        raise InputError(f"power is {power}; give a positive number")
    u = np.arange(num_classes) / max(num_classes - 1, 1)
    if profile == "exponential":
        counts = max_count * imbalance**-u
    else:
        counts = max_count * (1 + (imbalance ** (1 / (power + 1)) - 1) * u) ** -(power + 1)
    return np.maximum(np.rint(counts), 1).astype(np.int64)


def class_targets(labels: LabelMatrix, **profile) -> np.ndarray:
    """Assign the counts of a profile to the classes by their rank in ``labels``.

    The most frequent class gets the largest target, and so on (ties: lower index first), because
    that order is the easiest to reach; no target exceeds the images there are.

    Args:
        labels: ``(N, C)``.
        profile: options of :func:`target_counts`.

    Returns:
        ``(C,)`` int64.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0]])
        >>> class_targets(labels, max_count=3, imbalance=3)
        array([3, 1])
    """
    targets = np.empty(labels.num_classes, np.int64)
    targets[np.argsort(-labels.counts, kind="stable")] = target_counts(
        labels.num_classes, **profile
    )
    return np.minimum(targets, labels.counts)


def long_tailed_subset(
    labels: LabelMatrix,
    *,
    max_count: int,
    imbalance: float = 100.0,
    profile: str = "pareto",
    power: float = 6.0,
    seed: int = 0,
) -> np.ndarray:
    r"""Choose images so that the class counts follow a long-tailed profile.

    An image brings all its labels, so the targets :math:`t_c` of :func:`class_targets` can not in
    general be met exactly: where every sheep stands beside a person, there are at least as many
    persons as sheep. The subset is a good, not the best, minimiser of

    .. math:: F(S) = \sum_c \Big(\frac{n_c(S) - t_c}{t_c}\Big)^2

    found by a greedy search: from the rarest target upwards, each class is filled with the images
    that raise :math:`F` least, so that images whose other labels are still wanted come first; then
    images whose removal or addition lowers :math:`F` are removed and added until none is left.
    Images come in blocks that shrink towards each target, which makes the search fast and is
    approximate too. Ties are broken at random.

    What was reached: ``labels.subset(images).counts`` against ``class_targets(labels, ...)``.

    Args:
        labels: ``(N, C)`` of the whole data set.
        max_count: images of the most frequent class.
        imbalance: largest over smallest target.
        profile: ``"pareto"`` or ``"exponential"``.
        power: power of the Pareto profile.
        seed: of the random tie-breaking; the same seed gives the same subset.

    Returns:
        Indices of the chosen images, ascending. Every class that has images keeps at least one;
        images without a label are never chosen.

    Raises:
        InputError: if an argument is out of its range, or ``labels`` holds no label.

    Example:
        >>> Y = np.random.default_rng(0).random((20_000, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]
        >>> labels = LabelMatrix(Y)
        >>> images = long_tailed_subset(labels, max_count=500, imbalance=50)
        >>> class_targets(labels, max_count=500, imbalance=50)
        array([500, 150,  54,  22,  10])
        >>> labels.subset(images).counts
        array([500, 150,  54,  22,  10])
    """
    if not labels.counts.any():
        raise InputError(f"labels hold no label on {len(labels)} images; give a labelled data set")
    targets = class_targets(
        labels, max_count=max_count, imbalance=imbalance, profile=profile, power=power
    )
    # In shuffled order, taking the first of equals is a random choice.
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    search = _Search(labels.subset(shuffled), targets)
    for label in np.argsort(targets, kind="stable"):
        search.fill(label)
    search.polish()
    return np.sort(shuffled[search.chosen])


class _Search:
    """State of the greedy search: which images are chosen, and the class counts they give."""

    def __init__(self, labels: LabelMatrix, targets: np.ndarray):
        self.labels, self.targets = labels, targets
        self.scale = 1.0 / np.maximum(targets, 1) ** 2.0
        self.chosen = np.zeros(len(labels), bool)
        self.counts = np.zeros(labels.num_classes, np.int64)
        self.image_of_label = labels.image_of_label()
        self.labelled = np.diff(labels.indptr) > 0
        order = np.argsort(labels.indices, kind="stable")
        self.images_by_class = np.split(self.image_of_label[order], np.cumsum(labels.counts)[:-1])

    def fill(self, label: int):
        """Choose images of one class until its target is met."""
        images = self.images_by_class[label]
        images = images[~self.chosen[images]]
        part = self.labels.subset(images)
        image_of_label, free = part.image_of_label(), np.ones(len(images), bool)
        while (missing := self.targets[label] - self.counts[label]) > 0 and free.any():
            cost = np.bincount(image_of_label, self.change(+1)[part.indices], len(images))
            # Counts move within a block, so take a part of what is missing and look again.
            block = _smallest(np.where(free, cost, np.inf), max(1, missing // 4))
            free[block] = False
            self.flip(images[block], +1)

    def polish(self):
        """Remove and add images, in turns, while that lowers the error."""
        for _ in range(_ROUNDS):
            before = self.error()
            self.improve(-1)
            self.improve(+1)
            if not self.error() < before:
                break

    def improve(self, sign: int):
        """Remove (-1) or add (+1) images while that lowers the error."""
        size = len(self.chosen)
        for _ in range(_BLOCKS):
            cost = np.bincount(
                self.image_of_label, self.change(sign)[self.labels.indices], len(self.chosen)
            )
            cost[(self.chosen == (sign > 0)) | ~self.labelled] = np.inf
            helpful = np.count_nonzero(cost < 0)
            if not helpful:
                break
            before, size = self.error(), min(2 * size, helpful)
            block = _smallest(cost, size)
            # Images that help one by one may overshoot together: halve the block until it helps.
            self.flip(block, sign)
            while size > 1 and not self.error() < before:
                self.flip(block, -sign)
                size //= 2
                block = block[:size]
                self.flip(block, sign)

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
        self.counts += sign * self.labels.subset(images).counts


def _smallest(cost: np.ndarray, size: int) -> np.ndarray:
    """Positions of the finite ``size`` smallest values, ascending; equals in their order."""
    # Cheaper than sorting all: keep what is not above the size-th value, then sort that.
    bound = np.partition(cost, min(size, len(cost)) - 1)[min(size, len(cost)) - 1]
    near = np.flatnonzero((cost <= bound) & np.isfinite(cost))
    return near[np.argsort(cost[near], kind="stable")[:size]]
