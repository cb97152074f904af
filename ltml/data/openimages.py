"""Open Images: image-level labels that people or a machine gave, in tables of one label a row."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.options import Bounds
from ltml.data.finder import Finder
from ltml.data.kinds import kind_of
from ltml.data.layouts import Part, Reading, Tree, head_of, layout, split_name

_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence")
_ROWS = 2_000_000  # of a table in memory at a time


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has tables of image-level labels."""
    found = _tables(tree)
    return f"Open Images: {tree.list(found)}" if found else None


def _tables(tree: Tree) -> list[Path]:
    found = tree.match("*.csv", "*/*.csv", "*/*/*.csv")
    return [p for p in found if tuple(_header(p)[: len(_COLUMNS)]) == _COLUMNS]


def _header(path: Path) -> list[str]:
    return [cell.strip().strip('"') for cell in head_of(path, 4096).split("\n")[0].split(",")]


@layout("open-images")
def load(
    tree: Tree, *, machine: Annotated[float, Bounds("(0, 1]")] | None = None, boxable: bool = False
) -> Reading:
    """Load Open Images' image-level labels of the images that are on the disk.

    Tables of image-level labels have the columns ImageID, Source, LabelName and Confidence: 1 for a
    label that people verified as present, 0 for absent, a score in between for one that a machine
    gave. Entries that nobody verified are unknown. Class names are those of a table of class
    descriptions, where there is one. See Kuznetsova et al., IJCV 2020,
    https://arxiv.org/abs/1811.00982. Further arguments are those of
    :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the tables and of the images, ``IMAGEID.jpg`` anywhere under it.
        machine: confidence from which a machine's label counts as present, where nobody verified
            it. Default: it does not count.
        boxable: whether to take only the classes of ``class-descriptions-boxable.csv``.

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    found = _tables(tree)
    if not found:
        raise InputError(
            f"{tree.root} has no table with the columns {','.join(_COLUMNS)}; put "
            "train-annotations-human-imagelabels.csv and its like there"
        )
    here = pd.Index([Path(file).stem.lower() for file in Finder(tree.root).files])
    names = _names(tree, boxable)
    rows: dict[str, list] = {}
    for path in found:
        split = split_name(path, tree.root)
        rows.setdefault(split if kind_of(split) else "all", []).append((path, _read(path, here)))
    parts = {}
    for split, tables in rows.items():
        table = pd.concat([table for _, table in tables], ignore_index=True)
        if len(table):
            parts[split] = _part(tables[0][0], table, names, machine, boxable)
    if not parts:
        raise InputError(
            f"{tree.root} has none of the images that {tree.list(found)} label; put them there as "
            "IMAGEID.jpg"
        )
    used = {name for part in parts.values() for row in part.labels for name in row}
    if not used:
        raise InputError(
            f"{tree.list(found)} verify no label of the images as present; give others"
        )
    for part in parts.values():  # a class that is nowhere present cannot be learnt
        part.known = [[name for name in row if name in used] for row in part.known]
    order = {name: i for i, name in enumerate(names.values())}
    classes = sorted(used, key=lambda name: (order.get(name, len(order)), name))
    return Reading(recognises(tree), parts, classes)


def _read(path: Path, here: pd.Index) -> pd.DataFrame:
    """Rows of the images on the disk."""
    kept = []
    try:
        chunks = pd.read_csv(
            path,
            usecols=["ImageID", "LabelName", "Confidence"],
            dtype={"ImageID": str, "LabelName": str, "Confidence": float},
            keep_default_na=False,
            chunksize=_ROWS,
        )
        for chunk in chunks:
            kept.append(chunk[chunk.ImageID.str.lower().isin(here)])
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table of labels: {error}") from None
    return pd.concat(kept, ignore_index=True)


def _names(tree: Tree, boxable: bool) -> dict[str, str]:
    """Label -> class name; two labels of one name are told apart."""
    files = tree.match("*class-descriptions*.csv", "*/*class-descriptions*.csv")
    small = [path for path in files if "boxable" in path.name]
    if boxable and not small:
        raise InputError(f"{tree.root} has no class-descriptions-boxable.csv; put it there")
    names: dict[str, str] = {}
    for path in small if boxable else sorted(files, key=lambda p: "boxable" in p.name):
        table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
        if table.shape[1] < 2:
            raise InputError(f"{path} does not hold a label and its name on each line")
        for label, name in table.iloc[:, :2].itertuples(index=False):
            if label != "LabelName":
                names.setdefault(label, name.strip() or label)
    counts = pd.Series(list(names.values()), dtype=str).value_counts()
    twice = set(counts.index[counts > 1])
    return {k: f"{name} ({k})" if name in twice else name for k, name in names.items()}


def _part(path: Path, table: pd.DataFrame, names: dict, machine: float | None, boxable) -> Part:
    wrong = np.flatnonzero(~table.Confidence.between(0, 1))
    if len(wrong):
        row = table.iloc[wrong[0]]
        raise InputError(
            f"{path}: image {quote(row.ImageID)} has confidence {row.Confidence:g} of "
            f"{quote(row.LabelName)}; give 0 to 1"
        )
    if boxable:
        table = table[table.LabelName.isin(names.keys())]
    verified = table.Confidence.isin([0.0, 1.0])
    images, first = pd.factorize(table.ImageID)
    label, mids = pd.factorize(table.LabelName)
    name = [names.get(mid, mid) for mid in mids]
    entry = images.astype(np.int64) * max(len(mids), 1) + label
    score = table.Confidence.to_numpy()
    yes, no = _distinct(entry[score == 1]), _distinct(entry[score == 0])
    both = np.intersect1d(yes, no, assume_unique=True)  # people differ: unknown
    if machine is not None:
        sure = _distinct(entry[~verified.to_numpy() & (score >= machine)])
        yes = _distinct(np.concatenate([yes, np.setdiff1d(sure, no, assume_unique=True)]))
    yes, no = (np.setdiff1d(part, both, assume_unique=True) for part in (yes, no))
    name, rows = np.array(name, object), len(first)

    def lists(entries: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum(np.bincount(entries // len(mids), minlength=rows))[:-1]
        return np.split(name[entries % len(mids)], ends)

    labels, known = lists(yes), lists(_distinct(np.concatenate([yes, no])))
    return Part(path, list(first), labels, known=known)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Sorted distinct values, by sorting: np.unique's hashing takes ten times as long on these."""
    values = np.sort(values)
    return values[np.flatnonzero(np.diff(values, prepend=-1))]
