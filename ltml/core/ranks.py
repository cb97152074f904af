"""Training in several processes: which one this is, and what is put together from all of them."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ltml.core.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """Say which of how many processes this one is; ``Ranks(0, 1)`` is a training on its own.

    ``accelerate launch``, ``accelerate.notebook_launcher`` and ``torchrun`` start the processes and
    tell each by its environment.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str) -> "Ranks":
        """Meet the other processes that the environment announces, if any.

        Args:
            device: ``"cpu"`` to stay there; anything else takes a GPU each where there are some.

        Raises:
            InputError: if accelerate, which brings the processes together, is missing.
        """
        if cls.launched().size < 2:
            return cls()
        if not dist.is_initialized():
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise InputError(
                    "several processes need accelerate; install it with: pip install 'ltml[multi]'"
                ) from error
            PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        return cls.current()

    @classmethod
    def launched(cls) -> "Ranks":
        """Return who we are by the environment alone, before or after the processes meet."""
        rank = os.environ.get("RANK")
        if rank is None:  # Lightning says which node, and which process on it
            nodes, rank = os.environ.get("NODE_RANK", "0"), os.environ.get("LOCAL_RANK", "0")
            rank = rank if nodes == "0" else "1"  # whichever, it is not the first
        return cls(int(rank), int(os.environ.get("WORLD_SIZE", "1")))

    @classmethod
    def current(cls) -> "Ranks":
        """Return who we are among processes that have met, by whatever launcher."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, the one that writes."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own GPU in place of "cuda"."""
        if self.size > 1 and device.type == "cuda":
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap a model in DistributedDataParallel, which averages gradients over processes."""
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        if device.type == "cuda":  # on the CPU, torch has no batch norm over processes
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def all_reduce_mean(self, x: Tensor) -> Tensor:
        """Average a tensor over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
            x /= self.size
        return x

    def all_gather(self, value) -> list:
        """Return the objects of all processes, in rank order, in each of them."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def all_gather_rows(self, rows: Tensor, count: int) -> Tensor:
        """Put together rows ``rank, rank + size, ...`` of each process into all ``count`` rows."""
        if self.size == 1:
            return rows
        out = rows.new_empty(count, *rows.shape[1:])
        for rank, part in enumerate(self.all_gather(rows)):
            out[rank :: self.size] = part
        return out

    def broadcast(self, value):
        """Return the object of rank 0 in all processes."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()
