"""Which images go into a batch: drawn as they come, class by class, or balanced group by group."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ltml.batches import Sampler
from ltml.draws import AliasTables, ShuffledPasses, rounded_shares
from ltml.errors import InputError
from ltml.group_weights import balance_batch, balance_groups, check_groups, group_shares
from ltml.labels import LabelMatrix
from ltml.seeding import generator

__all__ = ["SAMPLERS", "ClassAwareSampler", "GroupSampler", "Sampler", "UniformSampler"]


class UniformSampler(Sampler):
    """Draw images as they come: shuffled passes over all of them, each image once a pass.

    A batch may straddle two passes, so no image is left out. Arguments as in :class:`Sampler`.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1], [1, 0]])
        >>> sampler = UniformSampler(labels, batch_size=3, num_batches=2)
        >>> [sorted(batch.tolist()) for batch in sampler]
        [[0, 1, 2], [0, 1, 2]]
    """

    replacement = False

    def __init__(self, labels: LabelMatrix, **options):
        super().__init__(labels, **options)
        self._passes = ShuffledPasses(len(labels), self.seed, "sampler.uniform", self._source)

    def _draw(self, first, last):
        return self._passes.take(first * self.batch_size, last * self.batch_size).view(
            last - first, self.batch_size
        )

    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64: the same for every image."""
        return np.full(len(self.labels), 1 / len(self.labels))


class ClassAwareSampler(Sampler):
    r"""Draw a class uniformly, then one of its images uniformly (Shen et al., 2016).

    .. math:: p_i = \frac{1}{C} \sum_c \frac{Y_{ic}}{n_c}

    Every class is chosen equally often, yet not drawn equally often: an image chosen for one class
    brings its other classes along. Classes without an image are left out. Arguments as in
    :class:`Sampler`.

    References:
        Shen, Lin, Huang, *Relay backpropagation for effective learning of deep convolutional neural
        networks*, ECCV 2016, https://arxiv.org/abs/1512.05830

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1], [1, 0]], ["person", "sheep"])
        >>> sampler = ClassAwareSampler(labels, batch_size=4, num_batches=1)
        >>> sampler.image_probabilities().round(3)  # the one sheep: half of the draws and more
        array([0.167, 0.667, 0.167])
    """

    def __init__(self, labels: LabelMatrix, **options):
        super().__init__(labels, **options)
        self._classes = classes = np.flatnonzero(labels.counts)
        if not len(classes):
            raise InputError("labels hold no label on any image, so no class can be drawn")
        self.shares = group_shares(labels, self.groups, "classes")
        # Images sorted by class: the images of class c start at starts[c].
        order = np.argsort(labels.indices, kind="stable")
        starts = np.cumsum(labels.counts) - labels.counts
        self._images = torch.from_numpy(labels.image_of_label()[order]).to(self._source)
        self._starts = torch.from_numpy(starts[classes]).to(self._source)
        self._counts = torch.from_numpy(labels.counts[classes]).to(self._source)
        self._chosen = (-1, None, None)

    def _choose(self, first, last):
        if self._chosen[0] != first:
            random = generator(self.seed, "sampler.class-aware", first, self._source)
            shape, options = (last - first, self.batch_size), {"device": self._source}
            choice = torch.randint(len(self._counts), shape, generator=random, **options)
            u = torch.rand(shape, generator=random, dtype=torch.float64, **options)
            self._chosen = first, choice, u
        return self._chosen[1:]

    def _draw(self, first, last):
        choice, u = self._choose(first, last)
        flat = choice.flatten()
        offset = (u.flatten() * self._counts.index_select(0, flat)).long()
        place = self._starts.index_select(0, flat) + offset
        return self._images.index_select(0, place).view(choice.shape)

    def _groups_of(self, batch):
        block, row = divmod(batch, self._batches_per_block)
        first = block * self._batches_per_block
        choice = self._choose(first, first + self._batches_per_block)[0][row].cpu().numpy()
        group = np.zeros(self.labels.num_classes, dtype=np.int64)
        for number, classes in enumerate(self.groups.values()):
            group[classes] = number
        return group[self._classes[choice]]

    def _probabilities(self, classes: np.ndarray) -> np.ndarray:
        weight = np.zeros(self.labels.num_classes)
        weight[classes] = 1 / np.maximum(self.labels.counts[classes], 1)
        weight /= np.count_nonzero(self.labels.counts[classes])
        image = self.labels.image_of_label()
        return np.bincount(image, weight[self.labels.indices], minlength=len(self.labels))

    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64; 0 for an image without a label."""
        return self._probabilities(self._classes)

    def group_probabilities(self) -> dict[str, np.ndarray]:
        """For head, medium and tail, ``(N,)`` float64: what draws of their classes draw."""
        return {n: self._probabilities(self.groups[n]) for n, share in self.shares.items() if share}


class GroupSampler(Sampler):
    r"""Draw for groups of classes, each group balanced as well as can be.

    Every batch takes a share from each group :math:`g`. Within it, the image weights are those of
    largest entropy under which all classes of the group are drawn equally often:

    .. math:: \max_w H(w) \;\text{ s.t. } \sum_i w_i = 1, \; \sum_i w_i Y_{ic} = t
              \;\; \forall c \in g \quad \Rightarrow \quad w_i \propto \exp(\lambda \cdot Y_i)

    Group sampling is from Chen et al.; this formulation of it is ours. See
    :func:`ltml.maxent.maximum_entropy` for the solver.

    Args:
        labels: the labels of the images to draw from.
        groups: name -> class indices. Default: head, medium and tail of ``labels.groups()``.
            Classes in no group are drawn only beside others.
        ridge: trades balance against the number of distinct images; 0 balances exactly. The entropy
            of the weights and the squared deviation of the rates both grow with it.
        share: the groups' shares of the draws: ``"classes"``, by number of classes; ``"equal"``;
            ``"images"``, by number of images with a class of the group; or name -> number.
        uniform: fraction of every batch that is drawn as :class:`UniformSampler` draws; the groups
            share the rest. Milder re-balancing often serves real photos better.
        balance: ``"group"`` balances what is drawn for each group by itself, as in the formula;
            ``"batch"`` balances in each group what is drawn for all groups together (before
            ``uniform`` is mixed in), at the price of fewer distinct images.
        options: as in :class:`Sampler`.

    Attributes:
        groups: name -> class indices, of the groups that are drawn for.
        shares: name -> share of all draws; with ``uniform`` they sum to 1.
        report: sentences, one for each thing that could not be balanced.

    Raises:
        InputError: for an empty group, a class in two groups, a negative ridge, and the like.

    References:
        Chen et al., *Towards gradient equalization and feature diversification for long-tailed
        multi-label image recognition*, IEEE TMM 27, 2025, https://doi.org/10.1109/TMM.2025.3535395

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1]], ["cat", "dog"])
        >>> sampler = GroupSampler(labels, groups={"pets": [0, 1]}, batch_size=4, num_batches=1)
        >>> sampler.audit().expected.round(4)
        array([0.6306, 0.6306])
    """

    def __init__(
        self,
        labels: LabelMatrix,
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        ridge: float = 0.0,
        share: str | Mapping[str, float] = "classes",
        uniform: float = 0.0,
        balance: str = "group",
        **options,
    ):
        super().__init__(labels, **options)
        if not labels.counts.any():
            raise InputError("labels hold no label on any image, so there is nothing to balance")
        if not 0 <= ridge < float("inf"):
            raise InputError(f"ridge is {ridge!r}; give 0 (exact balance) or a positive number")
        if not 0 <= uniform < 1:
            raise InputError(f"uniform is {uniform!r}; give a fraction of the batch, 0 to below 1")
        if balance not in ("group", "batch"):
            raise InputError(f'balance is {balance!r}; give "group" or "batch"')
        groups = check_groups(labels, groups)
        shares = group_shares(labels, groups, share)
        self.ridge, self.uniform, self.balance = float(ridge), float(uniform), balance
        if balance == "batch":
            solved = balance_batch(labels, groups, shares, ridge=self.ridge)
        else:
            solved = balance_groups(labels, groups, ridge=self.ridge)
        self.report = solved.report
        self.groups = {name: groups[name] for name in solved.images}
        self.shares = {name: shares[name] * (1 - self.uniform) for name in solved.images}
        self._images, self._weights = solved.images, solved.weights
        self._tables = AliasTables(
            list(solved.images.values()), list(solved.weights.values()), self._source
        )
        self._passes = ShuffledPasses(len(labels), self.seed, "sampler.group.pass", self._source)

    def _groups_of(self, batch):
        return self._slots(batch, batch + 1)[0][0]

    def _slots(self, first, last):
        shares = [share / (1 - self.uniform) for share in self.shares.values()]
        return rounded_shares(first, last, self.batch_size, shares, self.uniform)

    def _draw(self, first, last):
        random = generator(self.seed, "sampler.group", first, self._source)
        group, passed = self._slots(first, last)
        u = torch.rand(group.shape, generator=random, dtype=torch.float64, device=self._source)
        which = torch.from_numpy(group).to(self._source, non_blocking=True)
        drawn = self._tables.draw(which.clamp(min=0), u)
        if not self.uniform:
            return drawn
        plain = self._passes.take(int(passed[0]), int(passed[-1]))
        place = (passed[:-1, None] - passed[0] + np.arange(self.batch_size)).clip(
            max=len(plain) - 1
        )
        place = torch.from_numpy(place).to(self._source, non_blocking=True)
        return torch.where(which < 0, plain[place], drawn)

    def group_probabilities(self) -> dict[str, np.ndarray]:
        """For each group, ``(N,)`` float64: its weights."""
        out = {name: np.zeros(len(self.labels)) for name in self.groups}
        for name, p in out.items():
            p[self._images[name]] = self._weights[name]
        return out

    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64, over all draws."""
        p = sum(self.shares[name] * q for name, q in self.group_probabilities().items())
        return self.uniform / len(self.labels) + p

    def _identity(self) -> dict:
        groups = {name: classes.tolist() for name, classes in self.groups.items()}
        own = {"groups": groups, "shares": self.shares}
        own |= {"ridge": self.ridge, "uniform": self.uniform, "balance": self.balance}
        return {**super()._identity(), **own}


SAMPLERS = {"uniform": UniformSampler, "class-aware": ClassAwareSampler, "group": GroupSampler}
