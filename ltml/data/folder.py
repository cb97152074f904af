"""Your own data: a folder of images with a CSV file of labels for each split."""

import csv
import io
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from ltml.data import LongTailData, Split
from ltml.errors import InputError
from ltml.files import Root, check_class_names, check_name, lines_of, quote, read_text
from ltml.labels import LabelMatrix

__all__ = ["load", "read_label_csv"]

_MAX_CLASSES = 100_000  # a larger index is a slip, and would cost its memory
_INDEX = re.compile("[0-9]+")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")


def read_label_csv(
    path: str | Path, class_names: Sequence[str] | None = None
) -> tuple[list[str], LabelMatrix]:
    """Read the labels of a split from a CSV file; no image is touched.

    The first line names the columns, ``image`` and ``labels`` among them, and each further line is
    an image: ``photos/1.jpg,cat dog``. Labels are class names or class indices from 0, one kind
    throughout the file, separated by spaces; or by ``;`` where names hold spaces, as in
    ``traffic light;dog``. An empty cell is an image without labels.

    Args:
        path: the CSV file.
        class_names: names in column order. Default: the names found, sorted; or for indices
            ``"class 0"`` up to the largest found.

    Returns:
        The ``image`` column and the labels, in the order of the file.

    Raises:
        InputError: naming the file and line, if it cannot be read, a class is unknown, or an image
            stands there twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text("image,labels\\n1.jpg,cat dog\\n2.jpg,cat\\n3.jpg,\\n")
        ...     images, labels = read_label_csv(path)
        >>> images, labels.class_names, labels.counts
        (['1.jpg', '2.jpg', '3.jpg'], ('cat', 'dog'), array([2, 1]))
    """
    images, labels, _ = _read(path, class_names)
    return images, labels


def _read(path, class_names) -> tuple[list[str], LabelMatrix, list[int]]:
    """Images, labels and the line of each."""
    if class_names is not None:
        class_names = check_class_names(class_names, where="class_names")
    images, cells, lines = _read_rows(path, class_names or ())
    first_line: dict[str, int] = {}  # label -> line where it first stands
    for cell, line in zip(cells, lines, strict=True):
        for label in cell:
            first_line.setdefault(label, line)
    column, class_names = _columns(path, first_line, class_names)
    lists = [[column[label] for label in cell] for cell in cells]
    return images, LabelMatrix.from_lists(lists, class_names), lines


def _read_rows(path, class_names) -> tuple[list[str], list[list[str]], list[int]]:
    """Images, their labels as written, and their lines."""
    # Plain \n for the csv module, so that its line numbers are those of an editor.
    rows = csv.reader(io.StringIO("\n".join(lines_of(read_text(path)))), strict=True)
    images, cells, lines = [], [], []
    seen: dict[str, int] = {}
    header = None
    try:
        for row in rows:
            line, where = rows.line_num, f"{path}, line {rows.line_num}"
            if not any(field.strip() for field in row):
                continue
            if header is None:
                header = [field.strip() for field in row]
                if header.count("image") != 1 or header.count("labels") != 1:
                    raise InputError(
                        f"{where}: the columns are {quote(','.join(header))}; "
                        "begin with the line image,labels"
                    )
                image_column, label_column = header.index("image"), header.index("labels")
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{where}: there are {len(row)} columns, not {len(header)}; "
                    "separate labels by spaces, and put a name with a comma in double quotes"
                )
            image = check_name(row[image_column].strip(), where=where, folders=True)
            plain = posixpath.normpath(image)  # ./1.jpg is 1.jpg
            if seen.setdefault(plain, line) != line:
                raise InputError(
                    f"{where}: image {quote(image)} stands on line {seen[plain]} already; keep one"
                )
            cell = row[label_column].strip()
            if " " in cell and cell in class_names:
                raise InputError(
                    f"{where}: {quote(cell)} is one class but reads as several labels; "
                    "end it with ;"
                )
            labels = cell.split(";") if ";" in cell else cell.split()
            images.append(image)
            cells.append([label.strip() for label in labels if label.strip()])
            lines.append(line)
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num} is not CSV: {error}") from None
    if not images:
        raise InputError(f"{path} holds no image; give the line image,labels and one for each")
    return images, cells, lines


def _columns(path, first_line: dict[str, int], class_names) -> tuple[dict[str, int], Sequence[str]]:
    """Column of every label in the file, and the class names."""
    # At most ten digits: int() refuses thousands, and no class has so large an index.
    as_index = {
        label: int(label.lstrip("0")[:10] or 0) for label in first_line if _INDEX.fullmatch(label)
    }
    all_indices = len(as_index) == len(first_line)
    if class_names is None:
        if not first_line:
            raise InputError(f"{path} holds no label; give some, or the class names")
        for label, line in first_line.items():
            if all_indices and as_index[label] >= _MAX_CLASSES:
                raise InputError(
                    f"{path}, line {line}: label {quote(label)} is no class index; "
                    "give 0, 1, 2, ..."
                )
            # A number among names is a slip more often than a name: "cat 3", or "0 1 -1".
            if not all_indices and _NUMBER.fullmatch(label):
                raise InputError(
                    f"{path}, line {line}: label {quote(label)} is a number, but others are not "
                    "numbers from 0; give all as names or all as indices, or give the class names"
                )
        if all_indices:
            return as_index, [f"class {c}" for c in range(max(as_index.values()) + 1)]
        names = check_class_names(sorted(first_line), where=str(path))
        return {name: c for c, name in enumerate(names)}, names

    as_name = {name: c for c, name in enumerate(class_names)}
    inside = all_indices and all(index < len(class_names) for index in as_index.values())
    if first_line.keys() <= as_name.keys():
        for label, line in first_line.items():
            if inside and as_name[label] != as_index[label]:
                raise InputError(
                    f"{path}, line {line}: label {quote(label)} is the name of class "
                    f"{as_name[label]} and could be an index too; rename the classes"
                )
        return as_name, class_names
    for label, line in first_line.items():
        if all_indices and as_index[label] >= len(class_names):
            raise InputError(
                f"{path}, line {line}: label {quote(label)} is outside 0 to "
                f"{len(class_names) - 1}, the indices of the {len(class_names)} classes; "
                "correct it, or name all classes"
            )
        if not all_indices and label not in as_name:
            raise InputError(
                f"{path}, line {line}: label {quote(label)} is not among the {len(class_names)} "
                "classes; correct it, or name the class (names with spaces are separated by ;)"
            )
    return as_index, class_names


def _read_class_names(path: Path) -> tuple[str, ...]:
    lines = lines_of(read_text(path))
    while lines and not lines[-1].strip():
        lines.pop()
    return check_class_names([line.strip() for line in lines], where=str(path))


def load(*, root: str | Path, train_split: str = "train", test_split: str = "test") -> LongTailData:
    """Load a folder of your own images.

    Args:
        root: folder with ``<split>.csv`` for both splits (see :func:`read_label_csv`; images are
            named relative to ``root``) and, optionally, ``classes.txt`` with a class name on each
            line. Without it the classes are those of the training file.
        train_split: name of the training file, without ``.csv``.
        test_split: name of the test file, without ``.csv``.

    Raises:
        InputError: naming the file and line, if anything is missing, broken or outside ``root``.
    """
    root = Root(root)
    listing = root.find("classes.txt", where="classes.txt")
    class_names = None if listing is None else _read_class_names(listing)
    splits = []
    for split in (train_split, test_split):
        where = f"split {quote(split)}"
        name = check_name(split.removesuffix(".csv"), where=where, folders=True)
        path = root.find(f"{name}.csv", where=where)
        if path is None:
            there = sorted(file.name for file in root.path.glob("*.csv"))
            raise InputError(
                f"{where} needs {root.path / name}.csv, which is missing; "
                + (f"there are {', '.join(there[:10])}" if there else "write it")
            )
        ids, labels, lines = _read(path, class_names)
        class_names = labels.class_names
        images = []
        for image, line in zip(ids, lines, strict=True):
            file = root.find(image, where=f"{path}, line {line}")
            if file is None:
                raise InputError(
                    f"{path}, line {line}: image {root.path / image} is missing; add it, or take "
                    "the line out"
                )
            images.append(file)
        splits.append(Split(images, labels, ids))
    return LongTailData("folder", *splits)
