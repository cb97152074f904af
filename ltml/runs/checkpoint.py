"""What keeps a long training safe: checkpoints that stay whole, and the first step gone wrong."""

import io
import logging
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ltml.core.errors import InputError
from ltml.core.files import write_atomically

log = logging.getLogger(__name__)

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


class Divergence:
    """Notice the first step whose logits, loss or gradient are not finite, without waiting."""

    def __init__(self, class_names: Sequence[str], device: torch.device):
        self.class_names = class_names
        self._step = torch.full((), -1, device=device)
        self._wrong = torch.zeros(len(class_names), dtype=torch.bool, device=device)

    def see(self, step: int, *values: Tensor) -> None:
        """Take in a step's logits ``(B, C)``, or scalars such as its loss and gradient norm."""
        for value in values:
            finite = value.detach().isfinite()
            wrong = ~finite.all(0) if finite.ndim == 2 else torch.zeros_like(self._wrong)
            first = ~finite.all() & (self._step < 0)
            self._step = torch.where(first, step, self._step)
            self._wrong = torch.where(first, wrong, self._wrong)

    def check(self, images: Callable[[int], Sequence[int]], advice: str) -> None:
        """Raise if any step so far went wrong, naming its images. Waits for the device."""
        step = self._step.item()
        if step < 0:
            return
        names = [self.class_names[c] for c in self._wrong.nonzero().flatten().tolist()]
        what = f"the logits of {', '.join(names[:3])}" if names else "the loss or its gradient"
        more = f" and {len(names) - 3} more classes" if len(names) > 3 else ""
        shown = ", ".join(map(str, images(step)[:8]))
        raise InputError(
            f"{what}{more} became infinite or NaN in step {step + 1}, on training images {shown} "
            f"(numbers from 0); {advice}"
        )


def save_checkpoint(folder: Path, state: dict) -> None:
    """Write ``checkpoint.pt``; the one before stays, as ``checkpoint.previous.pt``.

    Raises:
        InputError: if it cannot be written; the earlier checkpoints are unchanged.
    """

    def write(part: Path) -> None:
        save_torch(state, part)
        if (folder / CHECKPOINT).exists():
            (folder / CHECKPOINT).replace(folder / PREVIOUS)

    write_atomically(folder / CHECKPOINT, write)


def load_checkpoint(folder: Path) -> dict | None:
    """Read the newest whole checkpoint of a run's folder, on the CPU; None if there never was one.

    Raises:
        InputError: if there are checkpoints, but none is whole.
    """
    paths = [path for name in (CHECKPOINT, PREVIOUS) if (path := folder / name).exists()]
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not look at checksums
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(broken)
        except (OSError, EOFError, zipfile.BadZipFile):
            log.warning("%s is damaged; the one before it is used if there is one", path)
            continue
        # Nothing but tensors, numbers, strings, lists and dictionaries is read.
        return torch.load(path, map_location="cpu", weights_only=True)
    if paths:
        raise InputError(
            f"{' and '.join(map(str, paths))} are damaged, so the training cannot go on from "
            "there; start again with overwrite"
        )
    return None


def save_torch(value, path: Path) -> None:
    """Write a file whole, and through to the disk."""
    buffer = io.BytesIO()  # on a full disk torch.save raises RuntimeError, not OSError
    torch.save(value, buffer)
    with path.open("wb") as file:
        file.write(buffer.getvalue())
        file.flush()
        os.fsync(file.fileno())
