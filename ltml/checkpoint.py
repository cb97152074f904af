"""Keep what a training needs to go on exactly: written whole or not at all, the last two kept."""

import hashlib
import io
import logging
import os
from pathlib import Path

import torch

from ltml.errors import InputError
from ltml.runs import write_atomically

__all__ = ["CURRENT", "PREVIOUS", "load_checkpoint", "remove_checkpoints", "save_checkpoint"]

log = logging.getLogger(__name__)

CURRENT, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_DIGEST = hashlib.sha256().digest_size  # bytes at the file's end


def save_checkpoint(folder: Path, state: dict) -> None:
    """Write ``folder/checkpoint.pt``, and keep the one before until this one is known to be whole.

    The file is torch's own format followed by the SHA-256 of all of it, so that a flipped bit is
    found and not trained on. It reaches the disk, and is read back, before it takes its name.

    Raises:
        InputError: if it cannot be written; the earlier checkpoints are as they were.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    content += hashlib.sha256(content).digest()

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if _whole(part) is None:
            raise OSError(f"what was read back is not what was written to {part.name}")
        if (folder / CURRENT).exists():
            (folder / CURRENT).replace(folder / PREVIOUS)

    write_atomically(folder / CURRENT, write)


def load_checkpoint(folder: Path) -> dict | None:
    """Read the newest whole checkpoint of a run's folder, on the CPU; None if there never was one.

    Raises:
        InputError: if there are checkpoints, but none is whole.
    """
    broken = []
    for name in (CURRENT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        content = _whole(path)
        if content is not None:
            # Nothing but tensors, numbers, strings, lists and dicts is read.
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        broken.append(str(path))
        log.warning("%s is damaged; the one before it is used if there is one", path)
    if broken:
        raise InputError(
            f"{' and '.join(broken)} are damaged, so the training cannot go on from there; start "
            "again with overwrite"
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete them, when a training has ended."""
    for name in (CURRENT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _whole(path: Path) -> bytes | None:
    """Return the file's content if it ends in its own digest."""
    content = path.read_bytes()
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    return body if hashlib.sha256(body).digest() == digest else None
