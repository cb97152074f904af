"""What goes wrong while a training runs, and how it is said."""

import fcntl
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ltml.errors import InputError

__all__ = ["Divergence", "claimed", "is_out_of_memory", "largest_batch"]

LOCK = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a run's folder, and keep it to this process; the system lets go of it if we die.

    Raises:
        InputError: if another training writes there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(
            f"out {str(folder)!r} cannot be written ({error.strerror}); give another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"out {str(folder)!r} is being written by another training; give a new folder, "
                "or wait for it to end"
            ) from error
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


class Divergence:
    """Notice the first step whose logits, loss or gradient are not finite, without a wait.

    Args:
        class_names: of the logits' columns.
        device: where they are computed.
    """

    def __init__(self, class_names: Sequence[str], device: torch.device):
        self.class_names = class_names
        self._step = torch.full((), -1, device=device)
        self._wrong = torch.zeros(len(class_names), dtype=torch.bool, device=device)

    def look(self, step: int, *values: Tensor) -> None:
        """Take in a step's logits ``(B, C)``, or scalars such as its loss and gradient norm."""
        for value in values:
            finite = value.detach().isfinite()
            wrong = ~finite.all(0) if finite.ndim == 2 else torch.zeros_like(self._wrong)
            first = ~finite.all() & (self._step < 0)
            self._step = torch.where(first, step, self._step)
            self._wrong = torch.where(first, wrong, self._wrong)

    def check(self, images: Callable[[int], Tensor], advice: str) -> None:
        """Raise if any step seen so far went wrong. Waits for the device.

        Args:
            images: step -> the images of its batch.
            advice: what to try.

        Raises:
            InputError: naming step, class and batch.
        """
        step = self._step.item()
        if step < 0:
            return
        names = [self.class_names[c] for c in self._wrong.nonzero().flatten().tolist()]
        what = f"the logits of {', '.join(names[:3])}" if names else "the loss or its gradient"
        more = f" and {len(names) - 3} more classes" if len(names) > 3 else ""
        batch = images(step).tolist()
        shown = ", ".join(map(str, batch[:8])) + (", ..." if len(batch) > 8 else "")
        raise InputError(
            f"{what}{more} became infinite or NaN in step {step + 1}, on training images {shown} "
            f"(numbers from 0); {advice}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def largest_batch(attempt: Callable[[int], object], batch_size: int) -> int | None:
    """Halve the batch until it fits.

    Args:
        attempt: tries a step of a size.
        batch_size: what did not fit.

    Returns:
        a size that does, or None.
    """
    size = batch_size // 2
    while size >= 2:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return None
