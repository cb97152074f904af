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
from ltml.data.cells import LABEL_KEYS
from ltml.data.finder import Finder
from ltml.data.image import read_image
from ltml.data.plan import ReadingOptions, ReadingPlan
from ltml.data.reader import flags_among, flat, read
from ltml.data.splits import Split
from ltml.data.tables import Frame, Places, Table, as_text


def from_frame(
    df: pd.DataFrame,
    *,
    images: str | None = None,
    labels: str | Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    root: str | Path = "",
    separator: str | None = None,
    name: str = "frame",
    plan: ReadingPlan | dict | None = None,
    **reading,
) -> Split:
    """Make a split from a DataFrame of image files and labels.

    Args:
        df: a row for each image, or for each image and label.
        images: column of paths, names or ids; see :class:`ltml.data.finder.Finder`. Default:
            ``path``, else found.
        labels: column of names or indices: text (see :func:`ltml.data.folder.read_label_csv`),
            a list, or a number; or several such columns; or the columns of 0 and 1, one for each
            class, NaN where unknown. Default: ``labels``, else found.
        class_names: names in column order. Default: those found. Give a test split those of its
            training split.
        root: folder of the images. Default: the current one.
        separator: text between the labels of a cell; ``"none"`` if each cell is one label.
        name: name of the frame in messages.
        plan: plan of reading the frame, from :func:`ltml.data.reader.read_plan`, perhaps changed.
        reading: more options of :class:`ltml.data.plan.ReadingOptions`, such as ``values``.

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
    if not isinstance(df, pd.DataFrame):
        raise InputError(f"{name} is of type {type(df).__name__}; give a pandas DataFrame")
    df = flat(df)
    class_names = None if class_names is None else list(map(str, class_names))
    images = "path" if images is None and "path" in df.columns and plan is None else images
    labels = "labels" if labels is None and "labels" in df.columns and not reading else labels
    one = isinstance(labels, str | int)
    chosen = [] if labels is None else [str(labels)] if one else list(map(str, labels))
    for column in ([] if images is None else [str(images)]) + chosen:
        if column not in df.columns:
            there = ", ".join(df.columns)
            raise InputError(f"{name} has no column {quote(column)}; its columns are {there}")
    if df.columns.has_duplicates:
        raise InputError(f"{name}: two columns have the same name; rename one")
    if images is not None:
        for row in np.flatnonzero(df[str(images)].isna())[:1]:
            raise InputError(f"{name}, row {row}: there is no path; give one, or drop the row")
        reading["image_column"] = str(images)
    places = Places("row", range(len(df)))
    finder = Finder(root, pattern=reading.get("image_pattern"))
    if one and images is not None and plan is None:  # numbers are indices, whatever classes' names
        paths = list(map(as_text, df[str(images)]))
        cells = _plain_cells(Table(name, places, paths), df[chosen[0]])
        if not any(isinstance(label, str) for cell in cells for label in cell):
            table, matrix = _read_numbers(Table(name, places, paths), cells, class_names)
            return _found(finder, table, matrix)
    columns = {column: list(map(as_text, df[column])) for column in df.columns}
    if one and images is not None and plan is None:
        columns[chosen[0]] = _texts(cells)
    frame = Frame(name, places, pd.DataFrame(columns, dtype=object, index=range(len(df))))
    if chosen:
        flags = not one and flags_among(frame, chosen)
        reading["class_columns" if flags else "label_columns"] = chosen
    options = ReadingOptions.of(separator=separator, **reading)
    table, matrix, plan = read(frame, class_names, options, finder=finder, plan=plan)
    plan.log(table, matrix)
    return _found(finder, table, matrix)


def _found(finder: Finder, table: Table, matrix: LabelMatrix) -> Split:
    files = finder.find(table.images, place=lambda row: f"{table.source}, {table.rows[row]}")
    return Split(files, matrix, list(table.images))


class DatasetImages(Sequence):
    """Give the images of a data set, decoded one by one; an array of indices selects some.

    Args:
        dataset: whose items hold an image.
        key: key of the image in an item.
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
    labels: str | Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    separator: str | None = None,
    **reading,
) -> Split:
    """Make a split from a data set of torchvision or Hugging Face; images are decoded on use.

    Args:
        dataset: sequence of items ``(image, target)``, a target being a class index, a list of
            indices, or a vector of 0 and 1; or a :class:`datasets.Dataset` with columns of
            images and labels.
        images: column of the images. Default: the one of type ``Image``.
        labels: column of the labels, or several: of labels, or of booleans, one for each class.
            Default: the one with class names, else the one called so, else those of booleans.
        class_names: names in column order. Default: those of the data set, else those found, or
            ``"class 0"``, ``"class 1"``...
        separator: text between labels; see :func:`ltml.data.folder.read_label_csv`.
        reading: more options of :class:`ltml.data.plan.ReadingOptions`, such as ``values``.

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
        options = {"images": images, "labels": labels, "class_names": class_names, **reading}
        return from_dataset(dataset.dataset, separator=separator, **options).subset(dataset.indices)
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            "the data set is streamed, so its images cannot be drawn in any order; load it without "
            "streaming, or take a part: datasets.Dataset.from_list(list(dataset.take(1000)))"
        )
    ids = [str(i) for i in range(len(dataset))]
    table = Table("data set", Places("item", range(len(ids))), ids)
    features = getattr(dataset, "features", None)
    listed_labels = False  # lists of indices, which are never vectors of 0 and 1
    if isinstance(features, Mapping):  # of Hugging Face
        kinds = {name: getattr(kind, "feature", kind) for name, kind in features.items()}
        pictures = [name for name, kind in kinds.items() if type(kind).__name__ == "Image"]
        images = _choose("images", images, pictures, kinds)
        plain = dataset.with_format(None)
        dataset = plain.select_columns([images])
        columns = _label_columns(labels, kinds)
        if len(columns) == 1 and (key := _key_of_labels(kinds[columns[0]])) is not None:
            inside = kinds[columns[0]][key]
            names = getattr(getattr(inside, "feature", inside), "names", None)
            class_names = names if class_names is None else class_names
            objects = plain.select_columns(columns)[:][columns[0]]
            cells = _plain_cells(table, (_inside(cell, key) for cell in objects))
            if any(isinstance(label, str) for cell in cells for label in cell):
                frame = {"image": ids, "labels": _texts(cells)}
                matrix = _read_texts(
                    table, frame, class_names, separator, reading, label_columns="labels"
                )
            else:
                _, matrix = _read_numbers(table, cells, class_names, indices=True)
            return _of_pictures(dataset, images, matrix, ids)
        if len(columns) > 1 or not isinstance(labels, str | None):
            matrix = _read_several(table, plain, columns, kinds, class_names, separator, reading)
            return _of_pictures(dataset, images, matrix, ids)
        names = getattr(kinds[columns[0]], "names", None)
        listed_labels = names is not None and kinds[columns[0]] is not features[columns[0]]
        class_names = names if class_names is None else class_names
        targets = plain.select_columns(columns)[:][columns[0]]
    else:
        images = 0
        class_names = getattr(dataset, "classes", None) if class_names is None else class_names
        targets = (_target(dataset, i) for i in range(len(dataset)))
        listed = getattr(dataset, "targets", None)  # saves decoding every image
        plain = isinstance(listed, list) and set(map(type, listed)) == {int}
        if plain and getattr(dataset, "target_transform", None) is None:
            targets = listed
    if class_names is not None:  # ImageNet's classes have several names each
        class_names = [name if isinstance(name, str) else _several(name) for name in class_names]
    cells = _plain_cells(table, targets)
    if any(isinstance(label, str) for cell in cells for label in cell):
        frame = {"image": ids, "labels": _texts(cells)}
        matrix = _read_texts(table, frame, class_names, separator, reading, label_columns="labels")
    else:
        _, matrix = _read_numbers(table, cells, class_names, indices=listed_labels)
    return _of_pictures(dataset, images, matrix, ids)


def _of_pictures(dataset, key, matrix: LabelMatrix, ids: list[str]) -> Split:
    pictures = DatasetImages(dataset, key)
    try:
        if ids:
            read_image(pictures[0], "0 of the data set")  # a transform that normalises shows here
    except InputError as error:
        raise InputError(
            f"{error}: give the data set without a transform that normalises"
        ) from error
    return Split(pictures, matrix, ids)


def _several(name) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name)


def _target(dataset, i: int):
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(
            f"item {i} of the data set is of type {type(item).__name__}; give a data set of items "
            "(image, target)"
        )
    return item[1]


def _choose(option: str, given: str | None, found: list[str], columns: Iterable[str]) -> str:
    given = found[0] if given is None and len(found) == 1 else given
    if given is None:
        there = ", ".join(columns)
        raise InputError(
            f"the data set does not say which column holds its {option}; give {option}=, of {there}"
        )
    if given not in columns:
        there = ", ".join(columns)
        raise InputError(f"{option}={given!r} is no column of the data set; choose from {there}")
    return given


def _label_columns(labels, kinds: Mapping) -> list[str]:
    """Columns of labels: those given, or the one with class names, called so, or of booleans."""
    if labels is not None:
        given = [labels] if isinstance(labels, str) else list(labels)
        return [_choose("labels", name, [], kinds) for name in given]
    named = [name for name, kind in kinds.items() if hasattr(kind, "names")]
    called = [name for name in kinds if name in ("label", "labels")]
    flags = [name for name, kind in kinds.items() if getattr(kind, "dtype", None) == "bool"]
    objects = [name for name, kind in kinds.items() if _key_of_labels(kind) is not None]
    found = named or called or ([] if flags else objects)
    return flags if not found and flags else [_choose("labels", None, found, kinds)]


def _key_of_labels(kind) -> str | None:
    """Key of the labels of an image's objects, such as ``category`` beside ``bbox``."""
    if not isinstance(kind, Mapping):
        return None
    named = [k for k, v in kind.items() if hasattr(getattr(v, "feature", v), "names")]
    called = [k for k in kind if LABEL_KEYS.fullmatch(k)]
    return (named or called or [None])[0]


def _inside(cell, key: str) -> list:
    """Labels of the objects of an image, each once: of a dictionary of lists, or a list of them."""
    found = cell[key] if isinstance(cell, Mapping) else [each[key] for each in cell or ()]
    return list(dict.fromkeys(found if isinstance(found, list) else [found]))


def _read_several(table, plain, columns, kinds, class_names, separator, reading) -> LabelMatrix:
    """Read several columns of a data set: of 0 and 1, or of labels whose names are known."""
    frame = {"image": list(table.images)}
    for column in columns:
        names = getattr(kinds[column], "names", None)
        cells = plain.select_columns([column])[:][column]
        if names is not None:
            named = dict(enumerate(names))
            cells = [
                [named[i] for i in cell if i in named]
                if isinstance(cell, list)
                else named.get(cell)
                for cell in cells
            ]
        frame[column] = list(map(as_text, cells))
    texts = Frame(table.source, table.rows, pd.DataFrame(frame, dtype=object))
    role = "class_columns" if flags_among(texts, columns) else "label_columns"
    return _read_texts(table, frame, class_names, separator, reading, **{role: columns})


def _read_texts(table, frame: dict, class_names, separator, reading, **roles) -> LabelMatrix:
    columns = pd.DataFrame(frame, dtype=object)
    options = ReadingOptions.of(image_column="image", separator=separator, **roles, **reading)
    found, matrix, plan = read(Frame(table.source, table.rows, columns), class_names, options)
    plan.log(found, matrix)
    return matrix


def _read_numbers(table: Table, cells: Sequence[tuple], class_names, *, indices: bool = False):
    """Read class indices, lists of them, or vectors of 0 and 1, NaN where unknown."""
    lengths = {len(cell) for cell in cells}
    known = {value for cell in cells for value in cell if value == value}
    if -1 in known and known <= {-1, 0, 1} and not indices:
        if 0 in known or len(lengths) > 1:
            row = next(row for row, cell in enumerate(cells) if -1 in cell)
            raise table.error(
                row,
                f"the labels {quote(str(cells[row]))} hold -1; give NaN where it is unknown, and 0 "
                "where the class is absent",
            )
        return table, LabelMatrix(np.array(cells, dtype=float) > 0, class_names)
    if len(lengths) == 1 and max(lengths) > 1 and not indices:
        repeats = any(len(set(cell)) < len(cell) or type(cell[0]) is not int for cell in cells)
        if known and known <= {0, 1}:
            # An image's indices do not repeat, as 0 and 1 must in vectors of more than two classes.
            if repeats:
                return table, LabelMatrix(np.array(cells, dtype=float), class_names)
            if lengths == {2}:
                text = "may be indices or 0 and 1; give booleans if they are 0 and 1"
                raise table.error(0, f"the labels {cells[0]} {text}")
        row = next((row for row, cell in enumerate(cells) if cell.count(0) > 1), None)
        if row is not None and max(lengths) > 2 and known:
            wrong = max(known, key=abs)
            raise table.error(
                row,
                f"the labels {quote(str(cells[row]))} are no indices, as 0 stands twice, and not 0 "
                f"and 1 either, as {wrong} shows; give 0 and 1, such as (counts > 0)",
            )
    cells = [tuple(value for value in cell if value == value) for cell in cells]
    for row, cell in enumerate(cells):
        for value in cell:
            if not isinstance(value, int) and not float(value).is_integer():
                text = f"image {row} has label {value!r}; give names, indices, or 0 and 1"
                raise table.error(row, text)
    lists = [[int(value) for value in cell] for cell in cells]
    if class_names is None:
        if not known:
            raise InputError(f"{table.source} holds no label; give some, or class_names")
        class_names = [f"class {c}" for c in range(int(max(known)) + 1)]
    return _joined(table, LabelMatrix.from_lists(lists, class_names))


def _joined(table: Table, matrix: LabelMatrix) -> tuple[Table, LabelMatrix]:
    """Join the rows of an image, if each holds one label and they are more than a slip."""
    codes, images = pd.factorize(
        np.array([os.path.normpath(i) for i in table.images], dtype=object)
    )
    if len(images) == len(codes):
        return table, matrix
    counts = np.bincount(codes)
    several, labels = counts > 1, np.diff(matrix.matrix.indptr)
    first = np.unique(codes, return_index=True)[1]
    if several.sum() < 0.1 * len(images) or (labels[several[codes]] != 1).any():
        row = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        text = f"image {quote(table.images[row])} is on {table.rows[first[codes[row]]]} already"
        raise table.error(row, f"{text}; keep one row")
    lists = [[] for _ in images]
    for row, code in enumerate(codes):
        lists[code] += matrix[row].tolist()
    places = [table.rows[row] for row in first]
    joined = Table(table.source, places, [table.images[row] for row in first])
    return joined, LabelMatrix.from_lists(lists, matrix.class_names)


def _texts(cells: Sequence[str | tuple]) -> list[str]:
    """Labels as cells of a table; beside lists, a text is one label."""
    lists = any(isinstance(cell, tuple) and cell for cell in cells)
    return [as_text([c] if lists and isinstance(c, str) and c else c) for c in cells]


def _plain_cells(table: Table, cells: Iterable) -> list[str | tuple]:
    """Labels as text, or as tuples of names or numbers."""
    return [_plain(table, row, cell) for row, cell in enumerate(cells)]


def _plain(table: Table, row: int, cell) -> str | tuple:
    cell = cell.tolist() if hasattr(cell, "tolist") else cell  # arrays and tensors
    if isinstance(cell, str):
        return cell.strip()
    if cell is None or cell is pd.NA or cell != cell:  # pandas' missing values
        return ()
    labels = tuple(cell) if isinstance(cell, list | tuple | set | frozenset) else (cell,)
    labels = tuple(x.item() if isinstance(x, np.generic) else x for x in labels)
    wrong = next((x for x in labels if not isinstance(x, str | int | float | None)), None)
    wrong = None if wrong is pd.NA else wrong
    if wrong is not None:
        text = f"a label is of type {type(wrong).__name__}; give names, indices or 0 and 1"
        raise table.error(row, f"{text} (torchvision: by target_transform)")
    labels = tuple(float("nan") if x is None or x is pd.NA else x for x in labels)
    if any(isinstance(x, str) for x in labels):
        return tuple(x for x in labels if x == x)
    # Beside missing values, pandas makes 1 1.0.
    whole = not isinstance(cell, list | tuple) and isinstance(cell, float) and cell.is_integer()
    return (int(cell),) if whole else labels
