"""Where tensors live and are computed: which device, at what precision, with how much room."""

import ctypes
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

import torch

from ltml.core.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"`` into cuda, else mps, else cpu; check any other name.

    Raises:
        InputError: if there is no such device here.
    """
    if isinstance(name, str) and name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.zeros((), device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); give auto or cpu"
        ) from error
    return device


_KEEPERS, _LOCK = Counter(), Lock()


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Have the C library reuse large blocks of memory for a while, on a CPU.

    By default glibc gives them back to the system after every operation, and to fetch and clear
    them anew takes as long as the convolutions do. Afterwards what is free goes back.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    with _LOCK:
        _KEEPERS["now"] += 1
        libc.mallopt(_MMAP_MAX, 0)  # no block is a mapping of its own
        libc.mallopt(_TRIM_THRESHOLD, 2**29)  # bytes that may lie free at the end
    try:
        yield
    finally:
        with _LOCK:
            _KEEPERS["now"] -= 1
            if not _KEEPERS["now"]:
                # glibc moves its thresholds until they are set; these are where it ends.
                libc.mallopt(_MMAP_MAX, 2**16)
                libc.mallopt(_MMAP_THRESHOLD, 2**25)
                libc.mallopt(_TRIM_THRESHOLD, 2**26)
            libc.malloc_trim(0)


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):  # not Linux, or another C library
        return None


def device_name(device: torch.device) -> str:
    """Name the device as people know it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """Compute in bfloat16 or not.

    Args:
        device: device of the computation.
        precision: float32, bfloat16, or auto: bfloat16 where a GPU computes it natively. On a CPU
            it costs a frozen network some hundredths of mAP: see benchmarks/results.md.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = precision == "bfloat16" or (precision == "auto" and native)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # which macOS and Windows lack
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that can be had; files that the system keeps in memory give way."""
    try:
        text = Path("/proc/meminfo").read_text()
        return 1024 * int(text.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError):  # not Linux
        return 8 * 2**30
