"""Logits of each image after every epoch: when a class is learned, and by which images."""

import json
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import write_atomically
from ltml.core.options import choose

FILE = "score_history.npz"


@dataclass(frozen=True, eq=False, repr=False)
class ScoreHistory:
    """Hold the logits of one split's images over the epochs of a training.

    Args:
        split: train, val or test.
        class_names: ``C`` names.
        ids: ``N`` names of the images.
        epochs: ``(E,)``, from 1.
        logits: ``(E, N, C)`` float16.
        targets: ``(N, C)`` float32: 1, 0, or NaN where unknown.
    """

    split: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    epochs: np.ndarray
    logits: np.ndarray
    targets: np.ndarray

    def __repr__(self) -> str:
        E, N, C = self.logits.shape
        return f"ScoreHistory({self.split!r}, {E} epochs, {N:,} images, {C} classes)"

    def of_class(self, name: str) -> pd.DataFrame:
        """Logits of one class: a row per epoch, a column per image that holds it."""
        c = choose("class", name, {n: i for i, n in enumerate(self.class_names)})
        held = np.flatnonzero(self.targets[:, c] == 1)
        return pd.DataFrame(
            self.logits[:, held, c].astype(np.float32),
            index=pd.Index(self.epochs, name="epoch"),
            columns=pd.Index([self.ids[i] for i in held], name="image"),
        )

    def learned(self, threshold: float = 0.0) -> pd.DataFrame:
        """When each label was learned: a row per image and class that it holds.

        Args:
            threshold: logit from which it counts as found.

        Returns:
            image, class, learned (first epoch from which it is found to the end; NaN: not at the
            end), first (epoch in which it is found first), forgotten (times that it was found and
            then not).

        References:
            | An Empirical Study of Example Forgetting during Deep Neural Network Learning (Toneva
              et al., ICLR 2019), https://arxiv.org/abs/1812.05159
        """
        i, c = np.nonzero(self.targets == 1)
        found = self.logits[:, i, c] >= threshold  # (E, K)
        lost = (~found).cumsum(0) == (~found).sum(0)  # not lost any more
        stays = found & lost
        epochs = self.epochs.astype(float)
        columns = {
            "image": np.array(self.ids, dtype=object)[i],
            "class": np.array(self.class_names, dtype=object)[c],
            "learned": np.where(stays.any(0), epochs[stays.argmax(0)], np.nan),
            "first": np.where(found.any(0), epochs[found.argmax(0)], np.nan),
            "forgotten": (found[:-1] & ~found[1:]).sum(0),
        }
        return pd.DataFrame(columns)


def add_epoch(
    folder: Path,
    epoch: int,
    split: str,
    logits: np.ndarray,
    targets: np.ndarray,
    ids: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Add an epoch to the file in a run's folder; one that is there stays as it is."""
    path = folder / FILE

    def write(part: Path) -> None:
        if path.is_file():
            shutil.copyfile(path, part)
        with zipfile.ZipFile(part, "a") as archive:
            arrays = {
                f"{split}/ids": _text(ids),
                f"{split}/targets": targets.astype(np.float16),
                f"{split}/{epoch}": logits.astype(np.float16),
                "class_names": _text(class_names),
            }
            for name, array in arrays.items():
                if f"{name}.npy" not in archive.NameToInfo:
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, array, allow_pickle=False)

    write_atomically(path, write)


def read_history(folder: Path, split: str) -> ScoreHistory:
    """Read what :func:`add_epoch` wrote.

    Raises:
        InputError: if there is none, or it is damaged.
    """
    path = folder / FILE
    remedy = "train again with --record-scores (in Python record_scores=True)"
    if not path.is_file():
        raise InputError(f"run {folder.name!r} has no scores of each epoch; {remedy}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            there = sorted({name.partition("/")[0] for name in archive.files if "/" in name})
            choose("split", split, dict.fromkeys(there))
            names = [name.partition("/") for name in archive.files]
            epochs = sorted(int(n) for s, _, n in names if s == split and n.isdigit())
            return ScoreHistory(
                split,
                tuple(json.loads(archive["class_names"].tobytes())),
                tuple(json.loads(archive[f"{split}/ids"].tobytes())),
                np.array(epochs),
                np.stack([archive[f"{split}/{epoch}"] for epoch in epochs]),
                archive[f"{split}/targets"].astype(np.float32),
            )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is damaged ({error}); {remedy}") from error


def _text(words: Sequence[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(list(map(str, words))).encode(), np.uint8)
