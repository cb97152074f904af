"""The scores that a run keeps of its images, and the mistakes among them."""

import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import write_atomically, write_csv
from ltml.core.options import choose, fitted

# Whoever looks at mistakes need not wait for torch.

FILE, SCHEMA = "scores.npz", 1
SPLITS = ("test", "val", "train")
KINDS = ("miss", "false alarm")
_MOST = 2**22  # numbers kept in single precision, 16 MB; larger splits take half of it


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Hold a model's scores of the images of one split, beside the labels they were given.

    Args:
        split: ``"test"``, ``"val"``, or ``"train"``. Training images have the scores of a
            classifier in closed form that was fitted without them (leave-one-out).
        class_names: ``C`` names, in column order.
        ids: ``N`` names of the images.
        paths: ``N`` image files, ``""`` where an image was not read from a file.
        logits: ``(N, C)`` float32.
        targets: ``(N, C)`` float32: 1 present, 0 absent, NaN unknown.
    """

    split: str
    class_names: tuple[str, ...]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    logits: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Scores({self.split!r}, {len(self):,} images, {len(self.class_names)} classes)"

    @property
    def probabilities(self) -> np.ndarray:
        """``(N, C)`` float64 in [0, 1]; sure images do not tie."""
        return sigmoid(self.logits)

    def table(self) -> pd.DataFrame:
        """Logits, a row per image and a column per class."""
        index = pd.Index(self.ids, name="image")
        return pd.DataFrame(self.logits, index=index, columns=list(self.class_names))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, in double precision."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities, in double precision; infinite at 0 and 1."""
    p = np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p)


def add_scores(
    folder: Path,
    class_names: Sequence[str],
    split: str,
    logits: np.ndarray,
    targets: np.ndarray,
    ids: Sequence[str],
    files: Sequence[str],
) -> None:
    """Write the scores of one split into a run's folder, beside those of others.

    Args:
        folder: folder of the run.
        class_names, split, logits, targets, ids: as of :class:`Scores`.
        files: ``N`` image files, or none.
    """
    size = np.float32 if logits.size <= _MOST else np.float16
    unknown = np.isnan(targets) if targets.dtype.kind == "f" else np.zeros(targets.shape, bool)
    arrays = _read_arrays(folder) | {
        "schema": np.array(SCHEMA),
        "class_names": _text(class_names),
        f"{split}_logits": logits.astype(size),
        f"{split}_present": np.packbits(targets > 0),
        f"{split}_unknown": np.packbits(unknown) if unknown.any() else np.empty(0, np.uint8),
        f"{split}_ids": _text(ids),
        f"{split}_paths": _text(files if any(files) else []),
    }

    def write(path: Path) -> None:
        with path.open("wb") as file:  # numpy would add .npz to a name
            np.savez(file, **arrays)

    write_atomically(folder / FILE, write)


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Everything that was written so far; nothing if there is no whole file."""
    try:
        with (folder / FILE).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return {}


def add_thresholds(folder: Path) -> None:
    """Choose each class's threshold, as that of largest F1, and write them into a run's folder.

    Validation scores are used where there are any, else those of training images left out; without
    either there are none. A class without a positive gets the threshold that is best for all
    classes at once.
    """
    import torch

    from ltml.core.metrics import f1_thresholds

    there = [name for name in ("val", "train") if f"{name}_logits" in _read_arrays(folder)]
    if not there:
        return
    found = read_scores(folder, there[0], remedy="train again")
    p, y = found.probabilities, found.targets
    chosen = f1_thresholds(torch.from_numpy(p), torch.from_numpy(y)).numpy()
    on = np.where(np.isnan(chosen), "all classes", there[0])
    if np.isnan(chosen).any():
        every = (torch.from_numpy(x.reshape(-1, 1)) for x in (p, y))
        chosen = np.where(np.isnan(chosen), f1_thresholds(*every).numpy(), chosen)
    columns = {"class": found.class_names, "threshold": chosen, "chosen_on": on}
    table = pd.DataFrame(columns | {"positives": (y == 1).sum(0)})
    write_csv(folder / "thresholds.csv", table)


def read_scores(folder: Path, split: str, *, remedy: str) -> Scores:
    """Read the scores of one split from a run's folder.

    Args:
        folder: folder of the run.
        split: a name of :data:`SPLITS`.
        remedy: end of the message where they are missing, which says how to make them.

    Raises:
        InputError: if there are none, or the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"run {folder.name!r} keeps no scores of its images; {remedy}")
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if (schema := int(archive["schema"])) > SCHEMA:
                raise ValueError(f"schema {schema} of a later ltml")
            there = [name for name in SPLITS if f"{name}_logits" in archive.files]
            if split in there:
                names = tuple(json.loads(archive["class_names"].tobytes()))
                logits = archive[f"{split}_logits"].astype(np.float32)
                ids = tuple(json.loads(archive[f"{split}_ids"].tobytes()))
                paths = json.loads(archive[f"{split}_paths"].tobytes())
                shape = len(ids), len(names)
                if logits.shape != shape:
                    raise ValueError(f"logits are {logits.shape}, not {shape}")
                targets = _bits(archive[f"{split}_present"], shape).astype(np.float32)
                if len(archive[f"{split}_unknown"]):
                    targets[_bits(archive[f"{split}_unknown"], shape)] = np.nan
                paths = tuple(paths or [""] * len(ids))
                return Scores(split, names, ids, paths, logits, targets)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{str(path)!r} is damaged ({error}); {remedy}") from error
    raise InputError(
        f"run {folder.name!r} keeps scores of {' and '.join(there)}, not of {split}; "
        + ("give one of those" if there else remedy)
    )


def _text(words: Sequence[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(list(map(str, words))).encode(), np.uint8)


def _bits(packed: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def find_mistakes(
    scores: Scores,
    thresholds: np.ndarray,
    groups: Sequence[str],
    *,
    kind: str | None = None,
    classes: Sequence[str] | None = None,
    per_class: int | None = None,
) -> pd.DataFrame:
    """Tabulate the labels that a model gets wrong; see :meth:`ltml.Run.mistakes`.

    Args:
        scores: scores of a split.
        thresholds: ``(C,)`` probabilities from which a class is predicted.
        groups: ``C`` names, such as head or tail.
        kind: one of :data:`KINDS`; None: both.
        classes: names of the classes to look at; None: all.
        per_class: the worst so many of each class and kind; None: all.
    """
    names, N = scores.class_names, len(scores)
    if kind is not None:
        choose("kind", kind, dict.fromkeys(KINDS))
    per_class = fitted("per_class", per_class, int | None)
    if per_class is not None and per_class < 1:
        raise InputError(f"per_class={per_class}: give at least 1")
    column = {name: c for c, name in enumerate(names)}
    chosen = range(len(names)) if classes is None else [choose("class", n, column) for n in classes]
    p, present = scores.probabilities, scores.targets == 1
    made, absent = p >= thresholds, scores.targets == 0
    # How far on the wrong side, in logits, which are comparable near 0 and 1.
    margin = np.abs(scores.logits - logit(thresholds))
    order = np.argsort(-scores.logits, axis=0, kind="stable")
    rank = np.empty((N, len(names)), np.int64)
    np.put_along_axis(rank, order, np.arange(1, N + 1)[:, None], axis=0)
    wrong = {"miss": present & ~made, "false alarm": absent & made}
    found = []
    for name in KINDS if kind is None else (kind,):
        for c in chosen:
            rows = np.flatnonzero(wrong[name][:, c])
            rows = rows[np.argsort(-margin[rows, c], kind="stable")][:per_class]
            found += [(name, i, c) for i in rows]
    kinds = np.array([k for k, _, _ in found], dtype=object)
    i = np.array([i for _, i, _ in found], np.int64)
    c = np.array([c for _, _, c in found], np.int64)
    worst = np.argsort(-margin[i, c], kind="stable")
    kinds, i, c = kinds[worst], i[worst], c[worst]
    listed = {
        row: tuple(tuple(names[k] for k in np.flatnonzero(of[row])) for of in (present, made))
        for row in np.unique(i)
    }
    return pd.DataFrame(
        {
            "image": np.array(scores.ids, dtype=object)[i],
            "path": np.array(scores.paths, dtype=object)[i],
            "index": i,
            "class": np.array(names, dtype=object)[c],
            "group": np.array(groups, dtype=object)[c],
            "kind": kinds,
            "given": present[i, c].astype(np.int64),
            "score": scores.logits[i, c],
            "probability": p[i, c],
            "threshold": np.asarray(thresholds, np.float64)[c],
            "margin": margin[i, c],
            "rank": rank[i, c],
            "given_labels": [listed[row][0] for row in i],
            "predicted_labels": [listed[row][1] for row in i],
        }
    )
