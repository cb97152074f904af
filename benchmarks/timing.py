"""Times that can be compared: all taken in turns within one run, so that noise falls on all."""

import random
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

__all__ = ["bandwidth", "in_turns", "medians"]


def in_turns(
    jobs: Mapping[str, Callable[[], object]], *, seconds: float, device: str = "cpu"
) -> dict[str, list[float]]:
    """Run all jobs in turns, in a new random order each time, for so many seconds.

    Returns:
        name -> seconds of each run, without the first, which warms up.
    """
    order = random.Random(0)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    taken = {name: [] for name in jobs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(taken.values()))) < 4:
        for name in order.sample(list(jobs), len(jobs)):
            wait()
            began = time.perf_counter()
            jobs[name]()
            wait()
            taken[name].append(time.perf_counter() - began)
    return {name: times[1:] for name, times in taken.items()}


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    """Name -> median seconds."""
    return {name: median(times) for name, times in taken.items()}


def bandwidth(device: str = "cpu", megabytes: int = 256) -> float:
    """Bytes a second that a copy moves, read and written: what no loss can beat."""
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    times = in_turns({"copy": lambda: target.copy_(source)}, seconds=1, device=device)["copy"]
    return 2 * source.nbytes / min(times)
