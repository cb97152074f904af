"""Which images go into a batch: as they come, class by class, or balanced group by group."""

import math
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from ltml.core.audit import Audit, audit
from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.maxent import balance_groups, check_groups, group_shares
from ltml.core.options import Bounds, Seed, check_fields, fitted
from ltml.core.seeding import generator

_BLOCK = 2**15  # images sampled in one go: a batch of 64 alone would be all overhead

AtLeast1 = Annotated[int, Bounds("[1, 1e12]")]
_POSITION = Annotated[int, Bounds("[0, inf)")]


@dataclass(eq=False, repr=False)
class Sampler(ABC):
    """Iterate batches of image indices, as ``DataLoader(dataset, batch_sampler=sampler)`` wants.

    Batch ``b`` is a function of ``(seed, b)`` alone, so a training that stops goes on exactly where
    it was, and ranks agree without talking to each other.

    **Epochs.** ``iter()`` begins the epoch that was set by :meth:`set_epoch`, from its first batch
    and whatever was taken before; without a call, each iteration begins the next epoch, however
    much of the last one was taken. An epoch always has ``len(sampler)`` batches, but for the one in
    which a loaded state lies: the first iteration after :meth:`load_state_dict` yields what is left
    of it.

    **States.** A state counts the batches that were trained on: all that were handed out, the one
    in use among them, less those that accelerate's loader has fetched ahead. The workers of a
    ``DataLoader`` also read ahead, which no sampler can see; with them, save between epochs, or
    give :meth:`state_dict` the number of batches trained on.

    **Several processes.** Give each its ``rank`` and the ``world_size``, and keep a trainer from
    sharding once more: ``Trainer(use_distributed_sampler=False)`` in Lightning (which refuses this
    sampler otherwise). accelerate's ``prepare`` shards by itself: leave ``world_size`` at 1 there,
    and ``batch_size`` is that of one process.

    Args:
        labels: :class:`LabelMatrix`, or ``(N, C)`` of 0 and 1: array, tensor or sparse matrix.
        batch_size: images in a batch, over all ranks.
        num_batches: batches in an epoch. Default: ``ceil(N / batch_size)``.
        seed: seed of the training.
        rank: number of this process; it yields every ``world_size``-th index of a batch.
        world_size: number of processes.
        groups: name -> class indices, to balance or to audit. Default: ``labels.groups()``.

    Raises:
        InputError: if there is no image, or a number is out of range.
    """

    labels: LabelMatrix
    _: KW_ONLY
    batch_size: Annotated[int, Bounds("[1, 1e6]")]
    num_batches: AtLeast1 | None = None
    seed: Seed = 0
    rank: Annotated[int, Bounds("[0, inf)")] = 0
    world_size: AtLeast1 = 1
    groups: Mapping[str, Sequence[int]] | None = None

    replacement = True  # whether one image can come up twice before another does once
    start = 0  # the first batch for which the probabilities hold

    def __post_init__(self):
        check_fields(self)
        if not isinstance(self.labels, LabelMatrix):
            self.labels = LabelMatrix(self.labels)
        if len(self.labels) == 0:
            raise InputError("labels hold no image; give at least one")
        if self.num_batches is None:
            self.num_batches = math.ceil(len(self.labels) / self.batch_size)
        rank, world_size = self.rank, self.world_size
        if self.batch_size % world_size:
            raise InputError(f"batch_size is {self.batch_size}; give a multiple of {world_size=}")
        if rank >= world_size:
            raise InputError(f"rank is {rank}; give one of 0 to {world_size - 1}")
        self.groups = check_groups(self.labels, self.groups)
        self.shares: dict[str, float] = {}
        self.report: list[str] = []  # what could not be balanced
        self.batch = 0  # number of the next batch
        self._begun: int | None = None  # epoch of the last iteration, if it set the position
        self._resumed = False
        self._batches_per_block = max(1, _BLOCK // self.batch_size)
        self._block = self._pass = (None, None)

    @abstractmethod
    def _sample(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """``(last - first, batch_size)``: images of these batches; group of each, or -1."""

    @abstractmethod
    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64, sum 1: the expected share of each image."""

    def group_probabilities(self) -> dict[str, np.ndarray]:
        """For each group in ``shares``, ``(N,)`` float64: from what its images are sampled."""
        return {}

    def indices(self, batch: int) -> np.ndarray:
        """``(batch_size // world_size,)`` int64 images of any batch; the position does not move."""
        return self._read(batch)[0]

    def drawn_for(self, batch: int) -> np.ndarray:
        """Parallel to ``indices(batch)``: for which of the groups (-1: none) each is sampled."""
        return self._read(batch)[1]

    def _read(self, batch: int) -> list[np.ndarray]:
        number, row = divmod(batch, self._batches_per_block)
        if self._block[0] != number:
            first = number * self._batches_per_block
            self._block = number, self._sample(first, first + self._batches_per_block)
        # A copy, so that what a caller does to a batch stays with the caller.
        return [block[row, self.rank :: self.world_size].copy() for block in self._block[1]]

    def _shuffled(self, stream: str, start: int, stop: int) -> np.ndarray:
        """Read an endless sequence of shuffled passes over all images, at these positions."""
        n, parts = len(self.labels), [np.empty(0, np.int64)]
        for number in range(start // n, -(-stop // n)):
            if self._pass[0] != (stream, number):
                random = generator(self.seed, stream, number)
                self._pass = (stream, number), torch.randperm(n, generator=random).numpy()
            parts.append(self._pass[1][max(start - number * n, 0) : stop - number * n])
        return np.concatenate(parts)

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        if self.world_size > 1 and self._sharded_by() > 1:
            raise InputError(
                f"accelerate shards the batches of its loaders, and this sampler, of "
                f"world_size={self.world_size}, those of its own: most images would never be "
                "seen; leave rank and world_size out, and batch_size is that of one process"
            )
        self.batch = self._start()
        self._begun = self.batch // self.num_batches
        for batch in range(self.batch, (self._begun + 1) * self.num_batches):
            self.batch = batch + 1  # first: a state saved while the batch is in use lies behind it
            yield self.indices(batch).tolist()

    def _start(self) -> int:
        """Batch with which the next iteration begins."""
        return self.batch if self._begun is None else (self._begun + 1) * self.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration begins.

        After a state was loaded, the epoch in which it lies is gone on with, and an earlier one
        leaves the position alone: loaders such as accelerate's count from 0 in every process. Load
        an earlier state to go back.
        """
        epoch = fitted("epoch", epoch, _POSITION)
        next_epoch = self._start() // self.num_batches
        if self._resumed and (epoch < next_epoch or (epoch == next_epoch and self._begun is None)):
            return
        self.batch, self._begun = epoch * self.num_batches, None

    def audit(self, draws: int = 0) -> Audit:
        """Say what this sampler yields; see :func:`ltml.core.audit.audit`."""
        return audit(self, draws)

    def _identity(self) -> dict:
        """What must agree for two samplers to yield the same batches."""
        matrix = self.labels.matrix
        start = zlib.crc32(matrix.indptr.astype(np.int64))
        content = zlib.crc32(matrix.indices.astype(np.int32), start)
        return {
            "sampler": type(self).__name__,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "labels": f"{matrix.shape[0]} x {matrix.shape[1]}, crc32 {content:08x}",
        }

    def state_dict(self, *, batch: int | None = None) -> dict:
        """Return the position, and what identifies the sequence it is a position in.

        Args:
            batch: number of batches trained on since the first, where only the loop knows it;
                default: those handed out, less what accelerate has fetched ahead.
        """
        if batch is None:
            batch = self.batch - self._fetched_ahead()
        return {**self._identity(), "batch": fitted("batch", batch, _POSITION)}

    def _fetched_ahead(self) -> int:
        """Batches that an iteration of accelerate's loader holds beyond the one in use."""
        around = self._around()
        if around is None or self._begun is None or around[0].end_of_dataloader:
            return 0
        shards = [s for s in around if hasattr(s, "split_batches") and not s.split_batches]
        return shards[0].num_processes if shards else 1  # one batch for every process

    def _around(self) -> list | None:
        """accelerate's loader, if it is in use and one of this sampler, and what lies between."""
        if "accelerate" not in sys.modules:
            return None
        from accelerate.state import GradientState

        part, found = GradientState().active_dataloader, []
        while part is not None and part is not self:
            found.append(part)
            part = getattr(part, "batch_sampler", None)
        return None if part is None else found

    def _sharded_by(self) -> int:
        """Number of processes among which accelerate deals out the batches of this iteration."""
        # By who calls: a loop that was left early leaves accelerate's loader in use for ever.
        frame, found = sys._getframe() if "accelerate" in sys.modules else None, 1
        while frame is not None:
            caller = frame.f_locals.get("self")
            if type(caller).__name__ == "BatchSamplerShard":
                found = max(found, caller.num_processes)
            elif type(caller).__name__ == "DataLoaderDispatcher":  # one process reads for all
                found = max(found, caller.state.num_processes)
            frame = frame.f_back
        return found

    def load_state_dict(self, state: dict) -> None:
        """Go to a position in the same sequence of batches; the number of ranks may differ.

        Raises:
            InputError: if the state is that of another sequence.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise InputError(
                    f"state holds {name} {state.get(name)!r}, this sampler has {value!r}; "
                    "resume with the settings and data of the saved training"
                )
        self.batch = fitted("batch", state.get("batch"), _POSITION, where="state: ")
        self._begun, self._resumed = None, True


class UniformSampler(Sampler):
    """Sample images as they come, in shuffled passes; arguments are those of :class:`Sampler`.

    A batch may straddle two passes, so no image is left out.

    Example:
        >>> sampler = UniformSampler([[1, 0], [1, 1], [1, 0]], batch_size=3, num_batches=2)
        >>> [sorted(batch) for batch in sampler]
        [[0, 1, 2], [0, 1, 2]]
    """

    replacement = False

    def _sample(self, first, last):
        shape = (last - first, self.batch_size)
        images = self._shuffled("sampler.uniform", first * shape[1], last * shape[1])
        return images.reshape(shape), np.full(shape, -1)

    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64: the same for every image."""
        return np.full(len(self.labels), 1 / len(self.labels))


class ClassAwareSampler(Sampler):
    r"""Sample a class uniformly, then one of its images uniformly (Shen et al., 2016).

    .. math:: p_i = \frac{1}{C} \sum_c \frac{Y_{ic}}{n_c}

    Every class is chosen equally often, yet does not appear equally often: an image chosen for one
    class brings its others along. Classes without an image are left out. Arguments are those of
    :class:`Sampler`.

    Raises:
        InputError: if no image has a label.

    References:
        Shen, Lin, Huang, *Relay backpropagation for effective learning of deep convolutional neural
        networks*, ECCV 2016, https://arxiv.org/abs/1512.05830

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1], [1, 0]], ["person", "sheep"])
        >>> sampler = ClassAwareSampler(labels, batch_size=4)
        >>> sampler.image_probabilities().round(3)  # the one sheep: half of the time and more
        array([0.167, 0.667, 0.167])
    """

    def __post_init__(self):
        super().__post_init__()
        counts, matrix = self.labels.counts, self.labels.matrix
        self._classes = np.flatnonzero(counts)
        if not len(self._classes):
            raise InputError("labels hold no label on any image, so no class can be sampled")
        self._group = np.full(len(counts), -1)
        for number, (name, classes) in enumerate(self.groups.items()):
            self._group[classes] = number
            self.shares[name] = np.count_nonzero(counts[classes]) / len(self._classes)
        # Images sorted by class: those of class c start at starts[c].
        self._images = self.labels.image_of_label()[np.argsort(matrix.indices, kind="stable")]
        self._starts = np.cumsum(counts) - counts

    def _sample(self, first, last):
        random = generator(self.seed, "sampler.class-aware", first)
        shape = (last - first, self.batch_size)
        choice = torch.randint(len(self._classes), shape, generator=random).numpy()
        u = torch.rand(shape, generator=random, dtype=torch.float64).numpy()
        chosen = self._classes[choice]
        offset = (u * self.labels.counts[chosen]).astype(np.int64)
        return self._images[self._starts[chosen] + offset], self._group[chosen]

    def _probabilities(self, classes: np.ndarray) -> np.ndarray:
        weight = np.zeros(self.labels.num_classes)
        weight[classes] = 1 / np.maximum(self.labels.counts[classes], 1)
        return self.labels.matrix @ weight / np.count_nonzero(self.labels.counts[classes])

    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64; 0 for an image without a label."""
        return self._probabilities(self._classes)

    def group_probabilities(self) -> dict[str, np.ndarray]:
        """For each group, ``(N,)`` float64: the image shares when its classes are chosen."""
        return {n: self._probabilities(self.groups[n]) for n, share in self.shares.items() if share}


@dataclass(eq=False, repr=False, kw_only=True)
class GroupSampler(Sampler):
    r"""Sample for groups of classes, each group balanced as well as can be.

    Every batch takes a share from each group :math:`g`. Within it, the image weights are those of
    largest entropy under which all classes of the group are sampled equally often:

    .. math:: \max_w H(w) \;\text{ s.t. } \sum_i w_i = 1, \; \sum_i w_i Y_{ic} = t
              \;\; \forall c \in g \quad \Rightarrow \quad w_i \propto \exp(\lambda \cdot Y_i)

    Group sampling is from Chen et al.; this formulation of it is ours, and is solved by
    :func:`ltml.core.maxent.maximum_entropy`.

    Args:
        labels, batch_size, num_batches, seed, rank, world_size: as in :class:`Sampler`.
        groups: name -> class indices; classes in none are sampled only beside others. Default:
            ``labels.groups()``.
        ridge: trades balance for more distinct images; 0 balances exactly.
        share: the groups' shares of a batch: ``"classes"``, by number of classes; ``"equal"``;
            ``"images"``, by number of images with a class of the group; or name -> number.
        uniform: fraction of every batch that is sampled as by :class:`UniformSampler`; the groups
            share the rest. Milder re-balancing often serves real photos better.

    Attributes:
        shares: name -> share of all images sampled; with ``uniform`` they sum to 1.
        report: sentences, one for each thing that could not be balanced.

    Raises:
        InputError: if no image has a label, or an option is out of range.

    References:
        Chen et al., *Towards gradient equalization and feature diversification for long-tailed
        multi-label image recognition*, IEEE TMM 27, 2025, https://doi.org/10.1109/TMM.2025.3535395

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 0], [1, 1], [0, 1]], ["cat", "dog"])
        >>> sampler = GroupSampler(labels, batch_size=4, groups={"pets": [0, 1]})
        >>> sampler.audit().expected.round(4)
        array([0.6306, 0.6306])
    """

    ridge: Annotated[float, Bounds("[0, 1e6]")] = 0.0
    share: Literal["classes", "equal", "images"] | Mapping[str, float] = "classes"
    uniform: Annotated[float, Bounds("[0, 1)")] = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not self.labels.counts.any():
            raise InputError("labels hold no label on any image, so there is nothing to balance")
        shares = group_shares(self.labels, self.groups, self.share)
        self._weights, self.report = balance_groups(self.labels, self.groups, ridge=self.ridge)
        self.groups = {name: self.groups[name] for name in self._weights}
        self.shares = {name: shares[name] * (1 - self.uniform) for name in self._weights}
        self._images = [np.flatnonzero(weights) for weights in self._weights.values()]
        sums = [np.cumsum(weights[weights > 0]) for weights in self._weights.values()]
        self._sums = [each / each[-1] for each in sums]  # 1 at the end, above every random number

    def _sample(self, first, last):
        shares = [share / (1 - self.uniform) for share in self.shares.values()]
        group, passed = _rounded_shares(first, last, self.batch_size, shares, self.uniform)
        random = generator(self.seed, "sampler.group", first)
        u = torch.rand(group.shape, generator=random, dtype=torch.float64).numpy()
        out = np.empty(group.shape, np.int64)
        for number, (images, sums) in enumerate(zip(self._images, self._sums, strict=True)):
            mine = group == number
            out[mine] = images[np.searchsorted(sums, u[mine], side="right")]
        out[group < 0] = self._shuffled("sampler.group.pass", *passed)
        return out, group

    def group_probabilities(self) -> dict[str, np.ndarray]:
        """For each group, ``(N,)`` float64: its weights."""
        return dict(self._weights)

    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64, over the shares of all groups and the uniform one."""
        p = sum(self.shares[name] * weights for name, weights in self._weights.items())
        return self.uniform / len(self.labels) + p

    def _identity(self) -> dict:
        return super()._identity() | {
            "groups": {name: classes.tolist() for name, classes in self.groups.items()},
            "shares": self.shares,
            "ridge": float(self.ridge),
            "uniform": float(self.uniform),
        }


@dataclass(eq=False, repr=False, kw_only=True)
class LateGroupSampler(GroupSampler):
    r"""Sample as :class:`UniformSampler` first, and as :class:`GroupSampler` at the end.

    A network learns what images look like best from all of them, and to tell rare classes apart
    where these come up often: re-balancing is put off (Cao et al., 2019).

    Args:
        labels, batch_size, seed, rank, world_size, groups, ridge, share, uniform: as in
            :class:`GroupSampler`.
        num_batches: batches in the whole training. Default: ``ceil(N / batch_size)``.
        last: share of them, above 0 and up to 1, that are group draws; :meth:`audit` describes
            these. Before them, batches are those of :class:`UniformSampler` with the same seed.

    Raises:
        InputError: as :class:`GroupSampler`, and if ``last`` is out of range.

    References:
        Cao et al., *Learning imbalanced datasets with label-distribution-aware margin loss*,
        NeurIPS 2019, https://arxiv.org/abs/1906.07413

    Example:
        >>> sampler = LateGroupSampler([[1, 0], [1, 1], [1, 0]], batch_size=3, num_batches=5)
        >>> [sorted(batch) for batch in sampler][:3]
        [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    """

    last: Annotated[float, Bounds("(0, 1]")] = 0.4

    def __post_init__(self):
        super().__post_init__()
        self.start = self.num_batches - max(1, round(self.last * self.num_batches))

    def _sample(self, first, last):
        images, group = super()._sample(first, last)
        early, size = min(max(self.start - first, 0), last - first), self.batch_size
        passed = self._shuffled("sampler.uniform", first * size, (first + early) * size)
        images[:early], group[:early] = passed.reshape(early, size), -1
        return images, group

    def _identity(self) -> dict:
        return super()._identity() | {"start": self.start}


def _rounded_shares(
    first: int, last: int, batch_size: int, shares: Sequence[float], rest: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """Give every place of the batches ``first`` to ``last - 1`` to a group, or to none (-1).

    Each batch gets the whole number below or above a share, so that shares hold exactly on average.
    Also return how many places were for none before these batches, and are after them.
    """
    batch, place = np.arange(first, last + 1), np.arange(batch_size)
    before = np.floor(batch * (batch_size * rest)).astype(np.int64)
    none = np.diff(before)[:, None]
    # Systematic rounding, by an offset that fills [0, 1) evenly: the multiples of sqrt(2).
    offset = (batch[:-1, None] * 1779033703 % 2**32) / 2**32
    group = np.full((last - first, batch_size), -1)
    for end in np.concatenate([[0], np.cumsum(shares)[:-1]]):
        group += place >= none + np.floor((batch_size - none) * end + offset * (end > 0))
    return group, (int(before[0]), int(before[-1]))


SAMPLERS = {
    "uniform": UniformSampler,
    "class-aware": ClassAwareSampler,
    "group-late": LateGroupSampler,
    "group": GroupSampler,
}
