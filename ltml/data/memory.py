"""Splits from tables in memory, and from the data sets of torchvision and Hugging Face."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch.utils.data import Subset

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.labels import LabelMatrix
from ltml.data.folder import find_images
from ltml.data.image import read_image
from ltml.data.splits import Split
from ltml.data.tables import Table, join_rows, read_cells, read_columns


def from_frame(
    df: pd.DataFrame,
    *,
    images: str = "path",
    labels: str | Sequence[str] = "labels",
    class_names: Sequence[str] | None = None,
    root: str | Path = "",
    separator: str | None = None,
    name: str = "frame",
) -> Split:
    """Make a split from a DataFrame of image files and labels.

    Args:
        df: a row for each image, or for each image and label.
        images: column of paths.
        labels: column of names or indices: text (see :func:`ltml.data.tables.read_label_csv`),
            a list, or a number; or the columns of 0 and 1, one for each class.
        class_names: names in column order. Default: those found. Give a test split those of its
            training split.
        root: folder that the paths are relative to. Default: the current one.
        separator: what separates the labels of a cell; ``"none"`` if each cell is one label.
        name: how messages call the frame.

    Raises:
        InputError: naming the row from 0, if an image is missing, or labels cannot be read.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> from PIL import Image
        >>> for file in ("1.png", "2.png"):
        ...     Image.new("RGB", (8, 8)).save(Path(folder.name, file))
        >>> df = pd.DataFrame({"path": ["1.png", "2.png"], "labels": [["cat", "dog"], ["cat"]]})
        >>> split = from_frame(df, root=folder.name)
        >>> split.labels.class_names, split.labels.counts
        (('cat', 'dog'), array([2, 1]))
        >>> folder.cleanup()
    """
    chosen = [labels] if isinstance(labels, str) else list(labels)
    for column in (images, *chosen):
        if column not in df.columns:
            there = ", ".join(map(str, df.columns))
            raise InputError(f"{name} has no column {quote(column)}; its columns are {there}")
    for row in np.flatnonzero(df[images].isna())[:1]:
        raise InputError(f"{name}, row {row}: there is no path; give one, or drop the row")
    paths = [os.fspath(path) for path in df[images]]
    table = Table(name, [f"row {row}" for row in range(len(df))], paths)
    if isinstance(labels, str):
        table, matrix = _read_labels(table, df[labels], class_names, separator)
    else:
        columns = df[chosen].rename(columns=str)
        matrix = read_columns(table, columns, class_names or tuple(columns))
    return Split(find_images(table, root), matrix, list(table.images))


class DatasetImages(Sequence):
    """Give the images of a data set, decoded one by one; an array of indices selects some.

    Args:
        dataset: whose items hold an image.
        key: of the image in an item.
        index: ``(N,)`` items to give. Default: all.
    """

    dtype = np.dtype(object)  # an array of images, to those who select from it

    def __init__(self, dataset, key: str | int, index: np.ndarray | None = None):
        self.dataset, self.key = dataset, key
        self.index = np.arange(len(dataset)) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i):
        if not isinstance(i, int | np.integer):
            return DatasetImages(self.dataset, self.key, self.index[i])
        return self.dataset[int(self.index[i])][self.key]


def from_dataset(
    dataset,
    *,
    images: str | None = None,
    labels: str | None = None,
    class_names: Sequence[str] | None = None,
    separator: str | None = None,
) -> Split:
    """Make a split from a data set of torchvision or Hugging Face; images are decoded on use.

    Args:
        dataset: of items ``(image, target)``, a target being a class index, a list of indices, or a
            vector of 0 and 1; or a :class:`datasets.Dataset` with columns of images and labels.
        images: column of the images. Default: the one of type ``Image``.
        labels: column of the labels. Default: the one with class names, else the one called so.
        class_names: names in column order. Default: those of the data set, else those found, or
            ``"class 0"``, ``"class 1"``...
        separator: what separates labels in a text; see :func:`ltml.data.tables.read_label_csv`.

    Raises:
        InputError: naming the item from 0, if it cannot be read.

    Example:
        >>> from PIL import Image
        >>> photo = Image.new("RGB", (8, 8))
        >>> split = from_dataset([(photo, [0, 1]), (photo, [1])], class_names=["cat", "dog"])
        >>> split.labels.counts
        array([1, 2])
    """
    if isinstance(dataset, Mapping):
        raise InputError(f"the data set has the splits {', '.join(dataset)}; give one of them")
    if isinstance(dataset, Subset):
        options = {"images": images, "labels": labels, "class_names": class_names}
        return from_dataset(dataset.dataset, separator=separator, **options).subset(dataset.indices)
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):  # of Hugging Face
        kinds = {name: getattr(kind, "feature", kind) for name, kind in features.items()}
        pictures = [name for name, kind in kinds.items() if type(kind).__name__ == "Image"]
        named = [name for name, kind in kinds.items() if hasattr(kind, "names")]
        called = [name for name in kinds if name in ("label", "labels")]
        images = _choose("images", images, pictures, kinds)
        labels = _choose("labels", labels, named or called, kinds)
        class_names = class_names or getattr(kinds[labels], "names", None)
        targets = dataset.with_format(None).select_columns([labels])[:][labels]
        dataset = dataset.with_format(None).select_columns([images])
    else:
        images, class_names = 0, class_names or getattr(dataset, "classes", None)
        targets = (dataset[i][1] for i in range(len(dataset)))
        listed = getattr(dataset, "targets", None)  # saves decoding every image
        plain = isinstance(listed, list) and set(map(type, listed)) == {int}
        if plain and getattr(dataset, "target_transform", None) is None:
            targets = listed
    if class_names is not None:  # ImageNet's classes have several names each
        class_names = [name if isinstance(name, str) else ", ".join(name) for name in class_names]
    ids = [str(i) for i in range(len(dataset))]
    table = Table("data set", [f"item {i}" for i in ids], ids)
    _, matrix = _read_labels(table, targets, class_names, separator)
    pictures = DatasetImages(dataset, images)
    try:
        read_image(pictures[0], "0 of the data set")  # a transform that normalises shows here
    except InputError as error:
        raise InputError(
            f"{error}: give the data set without a transform that normalises"
        ) from error
    return Split(pictures, matrix, ids)


def _choose(option: str, given: str | None, found: list[str], columns: Iterable[str]) -> str:
    given = found[0] if given is None and len(found) == 1 else given
    if given not in columns:
        there = ", ".join(columns)
        raise InputError(f"{option}={given!r} is no column of the data set; choose from {there}")
    return given


def _read_labels(table: Table, cells: Iterable, class_names, separator):
    """Read labels given as text, lists of names, class indices, or vectors of 0 and 1."""
    cells = [_plain(table, row, cell) for row, cell in enumerate(cells)]
    if any(isinstance(label, str) for cell in cells for label in cell):
        cells = [c if isinstance(c, str) else tuple(str(n).strip() for n in c) for c in cells]
        return read_cells(table, cells, class_names, separator)
    lengths, values = {len(cell) for cell in cells}, {value for cell in cells for value in cell}
    if len(lengths) == 1 and values and values <= {0, 1}:
        # An image's indices do not repeat, as 0 and 1 must in vectors of more than two classes.
        if any(len(set(cell)) < len(cell) or type(cell[0]) is not int for cell in cells):
            return table, LabelMatrix([list(cell) for cell in cells], class_names)
        if lengths == {2}:
            text = "may be indices or 0 and 1; give booleans if they are 0 and 1"
            raise table.error(0, f"the labels {cells[0]} {text}")
    if class_names is None:
        if not values:
            raise InputError(f"{table.source} holds no label; give some, or class_names")
        class_names = [f"class {c}" for c in range(int(max(values)) + 1)]
    table, lists = join_rows(table, cells, single=lengths <= {0, 1}, least=0.1)
    return table, LabelMatrix.from_lists(lists, class_names)


def _plain(table: Table, row: int, cell) -> str | tuple:
    """Text, or a tuple of names or numbers."""
    cell = cell.tolist() if hasattr(cell, "tolist") else cell  # arrays and tensors
    if isinstance(cell, str):
        return cell.strip()
    if cell is None or cell is pd.NA or cell != cell:  # pandas' missing values
        return ()
    if isinstance(cell, float) and cell.is_integer():  # beside missing values, pandas makes 1 1.0
        cell = int(cell)
    labels = tuple(cell) if isinstance(cell, list | tuple | set) else (cell,)
    wrong = next((x for x in labels if not isinstance(x, str | int | float)), None)
    if wrong is not None:
        text = f"a label is of type {type(wrong).__name__}; give names, indices or 0 and 1"
        raise table.error(row, f"{text} (torchvision: by target_transform)")
    return labels
