"""Which device a training runs on, and what it can do."""

import torch

from ltml.errors import InputError

__all__ = ["choose_device", "device_name", "has_bf16"]


def choose_device(name: str = "auto") -> torch.device:
    """Turn ``"auto"`` into cuda, else mps, else cpu; check any other name.

    Raises:
        InputError: if there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); give auto or cpu"
        ) from error


def has_bf16(device: torch.device) -> bool:
    """Tell whether the device computes in bfloat16 by itself."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def device_name(device: torch.device) -> str:
    """Name the device as people know it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
