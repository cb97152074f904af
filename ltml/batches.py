"""Numbered batches of image indices: what every sampler has in common."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ltml.audit import Audit, audit
from ltml.errors import InputError
from ltml.group_weights import check_groups
from ltml.labels import LabelMatrix

__all__ = ["Sampler"]

_BLOCK = 2**15  # draws made in one go: a batch of 64 alone would be all overhead


class Sampler(ABC):
    """Iterate batches of image indices; the base of every sampler here.

    Batch number ``b`` is a function of ``(seed, b)`` and of nothing else, so a training that stops
    goes on exactly where it was, and ranks agree without talking to each other.

    One iteration is one epoch of ``num_batches`` batches. The next goes on with fresh batches, as a
    shuffling :class:`torch.utils.data.DataLoader` does: epoch ``e`` holds the batches numbered
    ``e * num_batches`` to ``(e + 1) * num_batches - 1``. A sampler whose state was loaded (or whose
    iteration was broken off) in the middle of an epoch first yields what is left of that epoch.

    Args:
        labels: the labels of the images to draw from, :math:`N` images.
        batch_size: images in a batch, over all ranks.
        num_batches: batches in one iteration; ``len(sampler)``.
        seed: seed of the training.
        device: where draws are made and indices live. (Apple's ``mps`` lacks float64: there, draws
            are made on the CPU and copied.)
        rank, world_size: this process and the number of processes. Each yields every
            ``world_size``-th index of the same global batch.

    Raises:
        InputError: if there is no image to draw, or a number is out of range.
    """

    replacement = True  # whether one image can come up twice before another does once

    def __init__(
        self,
        labels: LabelMatrix,
        *,
        batch_size: int,
        num_batches: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ):
        numbers = {"batch_size": batch_size, "num_batches": num_batches, "world_size": world_size}
        for name, value in numbers.items():
            if not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number, 1 or more")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"seed is {seed!r}; give a whole number, 0 or more")
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} does not divide among world_size {world_size}; "
                f"give a multiple of {world_size}"
            )
        if rank not in range(world_size):
            raise InputError(f"rank is {rank!r}; give one of 0 to {world_size - 1}")
        if len(labels) == 0:
            raise InputError("labels hold no image; give at least one")
        self.labels, self.batch_size, self.num_batches = labels, int(batch_size), int(num_batches)
        self.seed, self.rank, self.world_size = int(seed), int(rank), int(world_size)
        self.device = torch.device(device)
        self.groups, self.shares = check_groups(labels, None), {}  # see GroupSampler
        self.batch = 0  # number of the next batch
        self._source = torch.device("cpu") if self.device.type == "mps" else self.device
        self._batches_per_block = max(1, _BLOCK // self.batch_size)
        self._last = (-1, None)

    @abstractmethod
    def _draw(self, first: int, last: int) -> Tensor:
        """``(last - first, batch_size)`` int64 draws of these batches, which make up one block."""

    @abstractmethod
    def image_probabilities(self) -> np.ndarray:
        """``(N,)`` float64, sum 1: the expected share of each image among the draws."""

    def indices(self, batch: int) -> Tensor:
        """``(batch_size // world_size,)`` int64 image indices of one batch, on this rank.

        The position does not move: any batch can be asked for, in any order.
        """
        block, row = divmod(batch, self._batches_per_block)
        if self._last[0] != block:
            first = block * self._batches_per_block
            draws = self._draw(first, first + self._batches_per_block)
            self._last = block, draws.to(self.device, non_blocking=True)
        # A copy, so that what a caller does to a batch stays with the caller.
        return self._last[1][row, self.rank :: self.world_size].clone()

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.num_batches - self.batch % self.num_batches):
            self.batch += 1  # first, so that a state saved while a batch is in use lies behind it
            yield self.indices(self.batch - 1)

    def group_probabilities(self) -> dict[str, np.ndarray]:
        """For each group in ``shares``, ``(N,)`` float64: what draws for it are drawn from."""
        return {}

    def drawn_for(self, batch: int) -> Tensor:
        """``(batch_size // world_size,)``: for which of the groups each image was drawn.

        Parallel to ``indices(batch)``; an index into ``groups``, or -1 for none.
        """
        group = torch.from_numpy(self._groups_of(batch))
        return group[self.rank :: self.world_size].to(self.device, non_blocking=True)

    def _groups_of(self, batch: int) -> np.ndarray:
        return np.full(self.batch_size, -1)

    def audit(self, draws: int = 0) -> Audit:
        """Say what this sampler draws: class rates, balance, repetition, leakage.

        Args:
            draws: also make this many draws and count them; the position does not move.
        """
        return audit(self, draws)

    def _identity(self) -> dict:
        """What must agree for two samplers to draw the same batches."""
        content = zlib.crc32(self.labels.indices, zlib.crc32(self.labels.indptr))
        return {
            "sampler": type(self).__name__,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "labels": f"{len(self.labels)} x {self.labels.num_classes}, crc32 {content:08x}",
        }

    def state_dict(self) -> dict:
        """Return the position, and what identifies the sequence it is a position in."""
        return {**self._identity(), "batch": self.batch}

    def load_state_dict(self, state: dict) -> None:
        """Go to a saved position; the number of ranks may differ from that of the saved sampler.

        Raises:
            InputError: if the state is that of another sequence of batches.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise InputError(
                    f"state holds {name} {state.get(name)!r}, this sampler has {value!r}; "
                    "resume with the settings and data of the saved training"
                )
        if not isinstance(state.get("batch"), int) or state["batch"] < 0:
            raise InputError(f"state holds batch {state.get('batch')!r}; give a number, 0 or more")
        self.batch = state["batch"]
