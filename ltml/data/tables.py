"""Read the labels of images from a table, in the forms in use."""

import csv
import io
import json
import logging
import posixpath
import re
import unicodedata
from ast import literal_eval
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, quote, read_text
from ltml.core.labels import LabelMatrix

_LOG = logging.getLogger(__name__)
_MAX_CLASSES = 100_000  # a larger index is a slip, and would cost its memory
_INDEX = re.compile("[0-9]+")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
# Names of columns, in lower case and without spaces and underscores.
_IMAGES = re.compile("(image|img|photo)(s|(file)?(name|path)?|index)|(file|path)s?|file(name|path)")
_LABELS = re.compile("(label|tag|class|target|category)(name)?s?|classes|categories|findinglabels")
_NO_CLASS = re.compile(r"unnamed:?\d*|id|index|split|fold|width|height")
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
_SEPARATORS = (";", "|", ",", " ")
# A list as Python or numpy (without commas) writes it.
_ESCAPE = r"""\\(?:[\\'"nrt]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})"""
_NOT = r"\\\x00-\x1f\ud800-\udfff"  # halves of surrogate pairs are no text to a parser
_ITEM = rf"""'(?:[^'{_NOT}]|{_ESCAPE})*+'|"(?:[^"{_NOT}]|{_ESCAPE})*+"|[0-9]++"""
_LIST = re.compile(rf"\[\s*+(?:(?:{_ITEM})(?:\s*+,\s*+|\s++|(?=\])))*+\]")


class Table(NamedTuple):
    """Hold what messages call a table and its rows, and the image of each row."""

    source: str
    rows: Sequence[str]
    images: Sequence[str]

    def error(self, row: int, text: str) -> InputError:
        """Make the error of a row."""
        return InputError(f"{self.source}, {self.rows[row]}: {text}")

    def say(self, classes: int, how: str) -> None:
        """Log how the table was read."""
        _LOG.info("%s: %d classes, %s", Path(self.source).name, classes, how)


def read_label_csv(
    path: str | Path, class_names: Sequence[str] | None = None, *, separator: str | None = None
) -> tuple[list[str], LabelMatrix]:
    """Read the labels of a split from a table; no image is touched.

    The first line names the columns, which are separated by ``,``, ``;`` or tabs. One is called
    ``image``, ``path``, ``filename`` or the like. Labels are given in one of three forms:

    - a column ``labels``, ``tags``, ``class`` or the like holds all labels of the image: names, or
      class indices from 0, separated by ``;``, ``|``, ``,`` or spaces, or as a list;
    - it holds one label, and an image has a row for each of its labels;
    - each class has a column of 0 and 1.

    Other columns are ignored. How labels are separated is found from the whole file, and logged.
    ``;`` and ``|`` always separate; commas and spaces may be parts of names. Where the class names
    are not known, these separate if some cell consists of labels that other cells hold alone, and
    there are fewer labels than distinct cells: for single labels, one name would be made of other
    names, and the names would outnumber their words. Otherwise the reader asks.

    Args:
        path: the file.
        class_names: names in column order. Default: the names found, sorted, or in the order of
            their columns; for indices ``"class 0"`` up to the largest found.
        separator: what separates the labels of a cell, such as ``";"`` or ``" "``, or ``"none"``
            if each cell is one label. Default: found from the file.

    Returns:
        The images as written, and their labels, in the order of the file.

    Raises:
        InputError: naming the file and line, if the table can be read in two ways, a class is
            unknown or spelled in two ways, or an image is repeated.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text("filename;tags\\n1.jpg;traffic light|dog\\n2.jpg;dog\\n")
        ...     images, labels = read_label_csv(path)
        >>> images, labels.class_names, labels.counts
        (['1.jpg', '2.jpg'], ('dog', 'traffic light'), array([2, 1]))
    """
    table, labels = read_table(Path(path), class_names, separator)
    return list(table.images), labels


def read_table(path: Path, class_names, separator: str | None) -> tuple[Table, LabelMatrix]:
    """Read a file as :func:`read_label_csv` does, and keep the line of each image."""
    if class_names is not None:
        class_names = check_class_names(class_names, where="class_names")
    columns = _read_csv(path)
    columns = columns.loc[:, columns.columns != ""]
    if columns.columns.has_duplicates:
        raise InputError(f"{path}: two columns have the same name; rename one")
    image, label = _find_column(path, columns, _IMAGES), _find_column(path, columns, _LABELS)
    table = Table(str(path), list(columns.index), columns.pop(image).tolist())
    for row, name in enumerate(table.images):
        if not name or min(name) < " ":
            raise table.error(row, f"the image is {quote(name)}; give its path, and check quotes")
    if label is None:
        return table, read_columns(table, columns, class_names)
    cells = columns.pop(label).tolist()
    joined, labels = read_cells(table, cells, class_names, separator)
    flags = _flags(columns).dropna(axis=1)
    flags = flags[[name for name in flags if not _is(_NO_CLASS, name)]]
    doubt = [n for n in flags if n in labels.class_names or _FLAGS.keys() >= set(cells)]
    if len(joined.rows) < len(table.rows):  # Open Images has rows that deny a label
        doubt += [n for n in flags if n.lower() == "confidence" and not flags[n].all()]
    if doubt:
        both = f"{quote(label)} and the 0 and 1 of column {quote(doubt[0])}"
        raise InputError(f"{path}: both column {both} may give labels; drop one of them")
    return joined, labels


def _read_csv(path: Path) -> pd.DataFrame:
    """Return the stripped cells of a file, indexed by line."""
    # Plain \n for the csv module, so that its line numbers are those of an editor.
    text = "\n".join(lines_of(read_text(path)))
    header = next((line for line in text.split("\n") if line.strip(' \t,;"')), "")
    marks = [m for m in ",;\t" if any(_is(_IMAGES, name) for name in header.split(m))]
    if len(marks) != 1:
        text = f"the columns are {quote(header)}; begin with a line such as image,labels"
        raise InputError(f"{path}: {text}")
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text), delimiter=marks[0], strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise InputError(
                f"{path}, {line}: there are {len(row)} columns, not {len(rows[0])}; put a cell "
                f"that holds {quote(marks[0])} in double quotes"
            )
    if len(rows) < 2:
        raise InputError(f"{path} holds no image; add a line for each")
    return pd.DataFrame(rows[1:], lines[1:], rows[0], dtype=object)


def _is(kind: re.Pattern, name: str) -> bool:
    return kind.fullmatch(re.sub(r"""[ _.'"-]+""", "", name.lower())) is not None


def _find_column(path: Path, columns: Iterable[str], kind: re.Pattern) -> str | None:
    found = [name for name in columns if _is(kind, name)]
    if len(found) > 1:
        both = f"{quote(found[0])} and {quote(found[1])}"
        raise InputError(f"{path}: columns {both} may both be meant; drop or rename one of them")
    return found[0] if found else None


def _flags(columns: pd.DataFrame) -> pd.DataFrame:
    """Read 0 and 1, or true and false; NaN for anything else."""
    return columns.astype(str).apply(lambda column: column.str.lower().map(_FLAGS))


def read_columns(table: Table, columns: pd.DataFrame, class_names) -> LabelMatrix:
    """Read a column of 0 and 1 for each class; without class names every column is a class."""
    given = class_names is not None
    if not given:
        class_names = tuple(name for name in columns if not _is(_NO_CLASS, name))
        _check_spelling(table.source, dict.fromkeys(class_names, "a column"))
    if not class_names:
        raise InputError(f"{table.source} has no labels; call their column labels")
    flags = _flags(columns)
    for name in [*class_names, *flags.dropna(axis=1)]:
        if name not in columns:
            near = _nearest(name, columns)
            raise InputError(f"{table.source}: class {quote(name)} has no column{near}; add it")
        if name not in class_names and not (given and _is(_NO_CLASS, name)):
            text = f"column {quote(name)} of 0 and 1 is no class{_nearest(name, class_names)}"
            raise InputError(f"{table.source}: {text}; drop or rename it")
    flags = flags[list(class_names)]
    for row, c in np.argwhere(flags.isna().to_numpy())[:1]:
        value = quote(str(columns[class_names[c]].iloc[row]))
        text = f"column {quote(class_names[c])} holds {value}, neither 0 nor 1; correct it, or drop"
        raise table.error(row, f"{text} the column; if it holds all labels, call it labels")
    join_rows(table, [], single=False)
    table.say(len(class_names), f"a column each: {quote(', '.join(class_names))}")
    return LabelMatrix(flags.to_numpy(np.int8), class_names)


def read_cells(
    table: Table, cells: Sequence[str | tuple[str, ...]], class_names, separator: str | None
) -> tuple[Table, LabelMatrix]:
    """Read the labels in a cell of each row; rows of one image are joined if they hold one each."""
    if separator is None and any(isinstance(c, str) and c[:1] + c[-1:] == "[]" for c in cells):
        cells = [cell and _parse_list(table, row, cell) for row, cell in enumerate(cells)]
    first: dict[str | tuple, int] = {}  # row where a cell occurs first
    for row, cell in enumerate(cells):
        if cell:
            first.setdefault(cell, row)
    texts = {cell: row for cell, row in first.items() if isinstance(cell, str)}
    for cell, row in texts.items():
        if "\n" in cell or len(texts) < len(first):
            wrong = "holds a line break" if "\n" in cell else "is no list, as other rows have"
            raise table.error(row, f"{quote(cell)} {wrong}; correct it, and check quotes")
    mark = separator or _find_separator(table, texts, class_names)
    mark = "lists" if len(texts) < len(first) else mark
    parts = {cell: _split(cell, mark) if cell in texts else list(cell) for cell in first}
    labels: dict[str, int] = {}  # row where a label occurs first
    for cell, row in first.items():
        for label in parts[cell]:
            labels.setdefault(label, row)
    column, class_names = _find_classes(table, labels, class_names)
    lists = [[column[label] for label in parts[cell]] if cell else [] for cell in cells]
    joined, lists = join_rows(table, lists, single=mark == "none", least=0 if separator else 0.1)

    single = "one label per " + ("row" if len(joined.rows) < len(table.rows) else "image")
    how = {"none": single, "lists": "labels in lists", " ": "labels separated by spaces"}
    table.say(len(class_names), how.get(mark, f"labels separated by {quote(mark)}"))
    return joined, LabelMatrix.from_lists(lists, class_names)


def _split(cell: str, mark: str) -> list[str]:
    if mark == "none":
        return [cell]
    parts = cell.split() if mark.isspace() else cell.split(mark)
    return [part.strip() for part in parts if part.strip()]


def _find_separator(table: Table, cells: Mapping[str, int], class_names) -> str:
    """Choose the separator by which the cells can be read; see :func:`read_label_csv`."""
    marks = ["none", *(m for m in _SEPARATORS if any(_split(c, m) != [c] for c in cells))]
    labels = {m: {label for cell in cells for label in _split(cell, m)} for m in marks}
    known = set(class_names or ())
    fits = [m for m in marks if labels[m] <= known or all(map(_INDEX.fullmatch, labels[m]))]
    if not fits and class_names is not None:  # the reading with fewest unknown labels is reported
        return min(marks, key=lambda m: (len(labels[m] - known), -len(labels[m] & known)))
    if not fits:
        fits = [m for m in marks if m in ";|,"] or marks[-1:]
        if fits[0] in ", " and not _separates(cells, fits[0]):
            fits.insert(0, "none")
        elif " " in marks and _separates(labels[fits[0]], " "):  # two separators are mixed
            fits.append(" ")
    if len(fits) > 1:
        cell = next(cell for cell in cells if _split(cell, fits[1]) != [cell])
        one, other = (
            f"{' + '.join(map(quote, _split(cell, m)[:4]))} (separator {quote(m)})"
            for m in fits[:2]
        )
        raise table.error(
            cells[cell],
            f"{quote(cell)} may be {one} or {other}; choose with --separator, in Python separator=,"
            " or list the classes in classes.txt",
        )
    return fits[0]


def _separates(cells: Iterable[str], mark: str) -> bool:
    """Whether the cells, as names of single classes, would be made of each other's names."""
    parts = {cell: _split(cell, mark) for cell in cells}
    words = set().union(*parts.values())
    return len(words) < len(parts) and any(
        len(found) > 1 and parts.keys() >= set(found) for found in parts.values()
    )


def _parse_list(table: Table, row: int, cell: str) -> tuple[str, ...]:
    try:
        items = json.loads(cell)
        fits = isinstance(items, list) and all(type(item) in (str, int) for item in items)
    except (ValueError, RecursionError):  # perhaps as Python or numpy writes it
        fits = _LIST.fullmatch(cell) is not None
        items = re.findall(_ITEM, cell) if fits else []
        # Each is a number, taken as written (007), or one string in quotes: ast reads its escapes
        # as a literal, and runs nothing.
        items = [literal_eval(item) if item[0] in "'\"" else item for item in items]
    if not fits:
        raise table.error(row, f"{quote(cell)} is no list as JSON or Python writes it; correct it")
    return tuple(label for item in items if (label := str(item).strip()))


def _find_classes(
    table: Table, labels: Mapping[str, int], class_names
) -> tuple[dict[str, int], Sequence[str]]:
    """Return the column of every label, and the class names."""
    # At most ten digits: int() refuses thousands, and no class has so large an index.
    index = {n: int(n.lstrip("0")[:10] or 0) for n in labels if _INDEX.fullmatch(n)}
    numbered = len(index) == len(labels)
    if class_names is None:
        if not labels:
            raise InputError(f"{table.source} holds no label; give some, or the class names")
        for label, row in labels.items():
            # A number among names is a slip more often than a name: "cat 3", or "0 1 -1".
            if index[label] >= _MAX_CLASSES if numbered else _NUMBER.fullmatch(label):
                problem = "too large for an index" if numbered else "a number beside names"
                text = f"label {quote(label)} is {problem}; correct it, or list all classes"
                raise table.error(row, f"{text} in classes.txt")
        if numbered:
            return index, [f"class {c}" for c in range(max(index.values()) + 1)]
        _check_spelling(table.source, {name: table.rows[row] for name, row in labels.items()})
        class_names = check_class_names(sorted(labels), where=table.source)
    column, C = {name: c for c, name in enumerate(class_names)}, len(class_names)
    unknown = [label for label in labels if label not in column]
    numbered = numbered and max(index.values(), default=0) < C
    if unknown and not numbered:
        label = next((label for label in unknown if index.get(label, C) >= C), unknown[0])
        text = f"label {quote(label)} is none of the {C} classes{_nearest(label, class_names)}"
        raise table.error(labels[label], f"{text}; correct it, or list all classes in classes.txt")
    for label, row in labels.items():
        if numbered and not unknown and column[label] != index[label]:
            text = f"label {quote(label)} is class {column[label]} by name, and may be an index too"
            raise table.error(row, f"{text}; rename the classes")
    return (index if unknown else column), class_names


def _key(name: str) -> str:
    """Return what names have in common that are all but equal."""
    return re.sub(r"[\s_]+", "", unicodedata.normalize("NFKC", name)).casefold()


def _nearest(name: str, names: Iterable[str]) -> str:
    same = [other for other in names if _key(other) == _key(name)]
    if same:
        return f" ({quote(same[0])} but for case and spaces)"
    close = get_close_matches(name[:100], list(names), n=1)
    return f" (did you mean {quote(close[0])}?)" if close else ""


def _check_spelling(source: str, names: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for name, place in names.items():
        other = seen.setdefault(_key(name), name)
        if other != name:
            raise InputError(
                f"{source}, {place}: {quote(name)} is {quote(other)} ({names[other]}) but for case "
                "and spaces; write them alike, or list both in classes.txt"
            )


def join_rows(table: Table, lists: list[list[int]], *, single: bool, least: float = 0):
    """Join the rows of an image into one, if each holds a single label.

    Few repeated images, less than the share ``least``, are a slip rather than such a table.
    """
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(table.images):
        rows.setdefault(posixpath.normpath(image), []).append(row)
    repeated = [found for found in rows.values() if len(found) > 1]
    if not repeated:
        return table, lists
    single = single and all(len(lists[row]) == 1 for found in repeated for row in found)
    if not single or len(repeated) < least * len(rows):
        before, row = repeated[0][:2]
        text = f"image {quote(table.images[row])} is on {table.rows[before]} already; keep one row"
        raise table.error(row, f"{text}; or, if every row gives one label, separator 'none'")
    kept = [found[0] for found in rows.values()]
    lines, images = [table.rows[row] for row in kept], [table.images[row] for row in kept]
    lists = [[c for row in found for c in lists[row]] for found in rows.values()]
    return Table(table.source, lines, images), lists
