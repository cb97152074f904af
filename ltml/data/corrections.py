"""Correct a table of labels in its own form, as a copy."""

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltml.core.errors import InputError
from ltml.core.files import quote, write_atomically
from ltml.data.cells import parse_list
from ltml.data.folder import read_label_csv
from ltml.data.holders import PLAIN, ending_of, holder_of
from ltml.data.plan import ReadingOptions
from ltml.data.reader import read
from ltml.data.tables import open_table

# The form is not guessed here a second time: of the ways to write the labels, that one is taken by
# which every row of the table says what the reader found in it; and what is written is read again.

_MARKS = (";", "|", ",", " ")
TRUE = {"1": "0", "1.0": "0.0", "true": "false", "True": "False", "TRUE": "FALSE", "t": "f"}
FALSE = {no: yes for yes, no in TRUE.items()}


@dataclass(frozen=True)
class Form:
    """How a table writes labels.

    Args:
        kind: ``"cell"``: all labels of an image in a cell; ``"rows"``: a row for each; or
            ``"columns"``: a column of 0 and 1 for each class.
        image: column of the images.
        label: column of the labels; for ``"columns"`` -1.
        mark: text between the labels of a cell, or ``"json"`` or ``"python"`` for lists.
        words: ``C`` words for the classes: names or indices; for ``"columns"`` their columns.
    """

    kind: str
    image: int
    label: int
    mark: str
    words: tuple[str, ...]

    def joined(self, row: np.ndarray) -> str:
        """Write the labels of an image, of which ``row`` ``(C,)`` says which there are."""
        words = [self.words[c] for c in np.flatnonzero(row)]
        numbers = all(word.isdigit() for word in self.words)
        if self.mark == "json":
            return json.dumps([int(w) for w in words] if numbers else words, ensure_ascii=False)
        if self.mark == "python":
            return f"[{', '.join(words)}]" if numbers else repr(words)
        return self.mark.join(words)


class LabelTable:
    """Hold a table of labels as it is written, and write it with some images' labels changed.

    Args:
        path: a table, as :func:`ltml.data.folder.read_label_csv` reads it.
        class_names: names of the classes, as for that.
        separator: text between labels, as for that.

    Raises:
        InputError: if it cannot be read, or its form is another than these can be written in.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name, "train.csv")
        >>> _ = path.write_text("image,labels\\na.jpg,cat dog\\nb.jpg,dog\\nc.jpg,cat\\n")
        >>> print(LabelTable(path).corrected({"b.jpg": [1, 1]}), end="")
        image,labels
        a.jpg,cat dog
        b.jpg,cat dog
        c.jpg,cat
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | Path,
        class_names: Sequence[str] | None = None,
        *,
        separator: str | None = None,
    ):
        self.path, self.separator = Path(path), separator
        self.images, self.labels = read_label_csv(path, class_names, separator=separator)
        self._names = None if class_names is None else self.labels.class_names
        self.holder = holder_of(self.path)
        for delimiter, rows in self.holder.readings():
            self.delimiter, self.rows = delimiter, rows
            self.form = self._find_form()
            if self.form is not None:
                break
        else:
            raise InputError(
                f"{self.path}: its labels are in a form that cannot be written back, which a "
                "column of labels, a row for each label, and columns of 0 and 1 can; correct the "
                "table by hand, by the columns image, class and given of --csv"
            )
        column = self.form.image
        self._row: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows[1:], 1):
            self._row.setdefault(posixpath.normpath(row[column].strip()), []).append(number)

    def _find_form(self) -> Form | None:
        header, body = [cell.strip() for cell in self.rows[0]], self.rows[1:]
        if any(len(row) != len(header) for row in body):
            return None
        cells = [[row[k].strip() for row in body] for k in range(len(header))]
        wanted = {posixpath.normpath(name) for name in self.images}
        found = [k for k in range(len(header)) if {*map(posixpath.normpath, cells[k])} == wanted]
        if not found:
            return None
        names, image = self.labels.class_names, found[0]
        whole = self.labels.matrix.toarray()
        row_of = {posixpath.normpath(name): i for i, name in enumerate(self.images)}
        at = [row_of[posixpath.normpath(name)] for name in cells[image]]
        truth = [frozenset(np.flatnonzero(whole[i]).tolist()) for i in at]
        if all(name in header for name in names) and len(at) == len(self.images):
            columns = tuple(str(header.index(name)) for name in names)
            flags = np.array([[cells[int(k)][r] in TRUE for k in columns] for r in range(len(at))])
            if (flags == whole[at]).all():
                return Form("columns", image, -1, "", columns)
        numbers = tuple(str(c) for c in range(len(names)))
        several = len(at) > len(self.images)
        for k in range(len(header)):
            if k == image:
                continue
            for words in (names, numbers):
                column = {word: c for c, word in enumerate(words)}
                marks = ("",) if several else _order(self.separator)
                for mark in marks:
                    read = [_parts(cell, mark, column) for cell in cells[k]]
                    if None in read:
                        continue
                    if several:
                        union: dict[int, frozenset] = {}
                        for i, part in zip(at, read, strict=True):
                            union[i] = union.get(i, frozenset()) | part
                        read = [union[i] for i in at]
                    if read == truth:
                        kind = "rows" if several else "cell"
                        return Form(kind, image, k, _mark(mark, cells[k]), words)
        return None

    def cells(self, image: str) -> list[list[str]]:
        """Rows of an image, as they are written."""
        return [self.rows[number] for number in self._row[posixpath.normpath(image)]]

    def corrected(self, labels: Mapping[str, Sequence[int]]) -> str:
        """Return a table that is text as text, with the labels of some images replaced.

        Args:
            labels: image -> ``(C,)`` of 0 and 1.

        Raises:
            InputError: if an image is not in the table.
        """
        return self.holder.text(self._changed(labels), self.delimiter)

    def _changed(self, labels: Mapping[str, Sequence[int]]) -> dict[int, list[list[str]]]:
        """The rows that stand in the place of a row, of those that change."""
        new: dict[int, list[list[str]]] = {}
        for image, row in labels.items():
            numbers = self._row.get(posixpath.normpath(image))
            if numbers is None:
                raise InputError(f"image {quote(image)} is not in {self.path}; leave it out")
            row = np.asarray(row) > 0
            new |= {number: [] for number in numbers}
            new[numbers[0]] = self._written([self.rows[number] for number in numbers], row)
        return new

    def _written(self, rows: list[list[str]], labels: np.ndarray) -> list[list[str]]:
        """The rows of an image, with other labels."""
        form, first = self.form, list(rows[0])
        if form.kind == "columns":
            for k, there in zip(map(int, form.words), labels, strict=True):
                cell = first[k].strip()
                if there != (cell in TRUE):
                    first[k] = FALSE.get(cell, "1") if there else TRUE[cell]
                elif not there and cell not in FALSE:  # of unknown labels, which is now known
                    first[k] = "0"
            return [first]
        if form.kind == "cell":
            first[form.label] = form.joined(labels)
            return [first]
        kept = {row[form.label].strip(): row for row in rows}
        words = [form.words[c] for c in np.flatnonzero(labels)] or [""]
        made = []
        for word in words:
            row = list(kept.get(word, first))
            row[form.label] = word
            made.append(row)
        return made

    def write(self, path: str | Path, labels: Mapping[str, Sequence[int]]) -> None:
        """Write a corrected copy, and read it again: it holds what was wanted, and all else.

        Raises:
            InputError: if ``path`` exists or its ending is of another kind of file, an image is
                not in the table, or the reader reads something else in the copy than was wanted.
        """
        path = Path(path)
        if path.exists():
            raise InputError(f"{str(path)!r} exists; give another name for the corrected copy")
        ending = self.holder.ending
        if ending_of(path) != ending and not {ending, ending_of(path)} <= {"", *PLAIN}:
            raise InputError(f"{path} must end in {ending}, as {self.path} does")
        new = self._changed(labels)

        def write(part: Path) -> None:
            # The reader goes by the name's ending.
            copy = part.with_name(f"{part.name}{ending}")
            try:
                self.holder.write(copy, new, self.delimiter)
                self._check(copy, labels)
                copy.replace(part)
            finally:
                copy.unlink(missing_ok=True)

        write_atomically(path, write)

    def _check(self, copy: Path, labels: Mapping[str, Sequence[int]]) -> None:
        names, mark = self.labels.class_names, self.separator
        if self.form.kind == "rows":
            mark = "none"
        elif self.form.kind == "cell" and self.form.mark in _MARKS:
            mark = self.form.mark
        read_again, found, _ = read(open_table(copy), names, ReadingOptions.of(separator=mark))
        images = read_again.images
        wanted = self.labels.dense().float().numpy()
        row_of = {posixpath.normpath(name): i for i, name in enumerate(self.images)}
        for image, row in labels.items():
            wanted[row_of[posixpath.normpath(image)]] = row
        order = [row_of[posixpath.normpath(name)] for name in images]
        same = np.array_equal(found.dense().float().numpy(), wanted[order], equal_nan=True)
        if not same or len(order) != len(self.images):
            raise InputError(
                f"{self.path}: the corrections cannot be written in its form; correct it by hand"
            )


def read_corrections(path: str | Path, table: LabelTable) -> dict[str, np.ndarray]:
    """Read corrected rows, in the form of a table, as the page of suspects saves them.

    Returns:
        image -> ``(C,)`` of 0 and 1.

    Raises:
        InputError: if they cannot be read as rows of the table.
    """
    form, names = table.form, table.labels.class_names
    mark = "none" if form.kind == "rows" else form.mark if form.mark in _MARKS else None
    mark = table.separator or mark
    images, labels = read_label_csv(path, names, separator=mark)
    there = {posixpath.normpath(name) for name in table.images}
    for image in images:
        if posixpath.normpath(image) not in there:
            raise InputError(f"{path}: image {quote(image)} is not in {table.path}; leave it out")
    return dict(zip(images, labels.dense().float().numpy(), strict=True))


def _order(separator: str | None) -> tuple[str, ...]:
    """Marks to try; of cells with one label each, a common one."""
    if separator == "none":
        return ("",)
    first = () if separator is None else (separator,)
    return (*first, "json", *_MARKS)


def _parts(cell: str, mark: str, column: Mapping[str, int]) -> frozenset[int] | None:
    """Classes in a cell, or None if it cannot be read so."""
    if mark == "json":
        words = parse_list(cell) if cell else ()
        if words is None:
            return None
    elif mark == "":
        words = [cell]
    else:
        words = cell.split() if mark == " " else cell.split(mark)
    words = [word.strip() for word in words if word.strip()]
    if all(word in column for word in words):
        return frozenset(column[word] for word in words)
    try:  # 007 is 7
        return frozenset(column[str(int(word))] for word in words)
    except (KeyError, ValueError):
        return None


def _mark(mark: str, cells: Sequence[str]) -> str:
    return "python" if mark == "json" and not all(map(_is_json, cells)) else mark


def _is_json(cell: str) -> bool:
    try:
        return not cell or isinstance(json.loads(cell), list)
    except ValueError:
        return False
