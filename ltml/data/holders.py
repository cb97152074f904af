"""Rows of a table as its file holds them, and a copy of the file in which some are others."""

import ast
import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import lines_of
from ltml.data.tables import SUFFIXES, as_text, decoded

PLAIN = (".csv", ".tsv", ".txt")
Changed = Mapping[int, list[list[str]]]  # number of a row -> the rows in its place


def ending_of(path: Path) -> str:
    """The ending of a table's name, of two parts where it is compressed; "" of another file's."""
    return max((end for end in SUFFIXES if path.name.lower().endswith(end)), key=len, default="")


def holder_of(path: Path) -> "TextHolder | ValueHolder":
    """Open a file whose rows can be written back.

    Raises:
        InputError: if it is of another kind.
    """
    ending = ending_of(path)
    holders = {".jsonl": Lines, ".ndjson": Lines, ".json": Objects, ".xlsx": Sheet}
    holders |= {".parquet": Columns}
    holders |= dict.fromkeys((*PLAIN, ".csv.gz", ".tsv.gz"), TextHolder)
    if not ending and path.suffix.lower() not in (".gz", ".xls"):
        return TextHolder(path, ending)
    if ending not in holders:
        raise InputError(
            f"{path} cannot be written back; save it as one of {', '.join(sorted(holders))}"
        )
    return holders[ending](path, ending)


class TextHolder:
    """Hold text of rows and cells, compressed or not."""

    def __init__(self, path: Path, ending: str):
        self.ending, self._text = ending, decoded(path)
        self._newline = "\r\n" if "\r\n" in self._text else "\n"

    def readings(self) -> Iterator[tuple[str, list[list[str]]]]:
        """Yield each delimiter and the rows by it, the likeliest first."""
        header = next(line for line in self._text.splitlines() if line.strip(' \t,;"'))
        for delimiter in sorted(",;\t", key=header.count, reverse=True):
            lines = io.StringIO(self._text, newline="")
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            self._rows = [row for row in reader if any(cell.strip() for cell in row)]
            yield delimiter, self._rows

    def text(self, new: Changed, delimiter: str) -> str:
        """Return the table with other rows."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator=self._newline)
        for number, row in enumerate(self._rows):
            writer.writerows(new.get(number, [row]))
        return out.getvalue()

    def write(self, path: Path, new: Changed, delimiter: str) -> None:
        """Write a copy with other rows."""
        data = self.text(new, delimiter).encode()
        path.write_bytes(gzip.compress(data, mtime=0) if self.ending.endswith(".gz") else data)


class ValueHolder:
    """Hold rows of values: numbers, lists, text. A cell that does not change keeps its value."""

    def __init__(self, path: Path, ending: str):
        self.path, self.ending = path, ending
        self.names, self.values = self._read()

    def _read(self) -> tuple[list[str], list[list]]:
        raise NotImplementedError

    def _write(self, path: Path, rows: list[tuple[int | None, list]]) -> None:
        """Write rows, each with the number of the row that it is unchanged, counted from 0."""
        raise NotImplementedError

    def readings(self) -> Iterator[tuple[str, list[list[str]]]]:
        """Yield a delimiter of corrections, and the rows as text."""
        yield ",", [self.names, *([as_text(value) for value in row] for row in self.values)]

    def write(self, path: Path, new: Changed, delimiter: str) -> None:
        """Write a copy with other rows."""
        rows: list[tuple[int | None, list]] = []
        for i, row in enumerate(self.values):
            if i + 1 not in new:
                rows.append((i, row))
                continue
            for cells in new[i + 1]:
                pairs = enumerate(zip(cells, row, strict=True))
                rows.append((None, [self._value(k, cell, old) for k, (cell, old) in pairs]))
        self._write(path, rows)

    def _value(self, k: int, cell: str, old):
        """The value that a cell of column ``k`` says, of the kind of those in the column."""
        if as_text(old) == cell:
            return old
        kinds = {type(row[k]) for row in self.values if row[k] is not None}
        if list in kinds:
            try:
                return json.loads(cell) if cell else []
            except ValueError:
                return ast.literal_eval(cell)
        if kinds == {bool}:
            return cell.lower() in ("true", "1")
        if kinds and kinds <= {int, float}:
            return None if not cell else float(cell) if kinds == {float} else int(cell)
        return cell

    def text(self, new: Changed, delimiter: str) -> str:
        """Raise the error of a table that is no text."""
        raise InputError(f"{self.path} is no table of text; write the copy as a file")


class Lines(ValueHolder):
    """A JSON object in each line."""

    def _read(self):
        self._kept = [line for line in lines_of(decoded(self.path)) if line.strip()]
        return self._of_objects([json.loads(line) for line in self._kept])

    def _of_objects(self, entries: list[dict]):
        self._entries = entries
        names = list(dict.fromkeys(name for entry in entries for name in entry))
        return names, [[entry.get(name) for name in names] for entry in entries]

    def _objects(self, rows) -> Iterator[tuple[int | None, dict]]:
        for i, row in rows:
            entry = dict(zip(self.names, row, strict=True))
            yield i, self._entries[i] if i is not None else entry

    def _write(self, path, rows):
        lines = [
            json.dumps(entry, ensure_ascii=False) if i is None else self._kept[i]
            for i, entry in self._objects(rows)
        ]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


class Objects(Lines):
    """A list of JSON objects, or an object of each image's labels."""

    def _read(self):
        text = decoded(self.path)
        found, self._indent = json.loads(text), 2 if "\n" in text.strip() else None
        self._paired = isinstance(found, dict)
        if self._paired:
            found = [{"image": image, "labels": labels} for image, labels in found.items()]
        return self._of_objects(found)

    def _write(self, path, rows):
        found = [entry for _, entry in self._objects(rows)]
        if self._paired:
            found = {entry["image"]: entry["labels"] for entry in found}
        text = json.dumps(found, ensure_ascii=False, indent=self._indent)
        path.write_text(f"{text}\n", encoding="utf-8", newline="\n")


class Sheet(ValueHolder):
    """The first sheet of an Excel file; its other sheets and its formats stay."""

    def _read(self):
        from openpyxl import load_workbook

        self._book = load_workbook(self.path)
        names, *rows = self._book.worksheets[0].iter_rows(values_only=True)
        names = [as_text(name) for name in names]
        return names, [list(row) for row in rows if any(value is not None for value in row)]

    def _write(self, path, rows):
        sheet = self._book.worksheets[0]
        for number, (_, row) in enumerate(rows, 2):
            for k, value in enumerate(row, 1):
                if sheet.cell(number, k).value != value:
                    sheet.cell(number, k).value = value
        sheet.delete_rows(len(rows) + 2, max(sheet.max_row - len(rows) - 1, 0))
        self._book.save(path)


class Columns(ValueHolder):
    """A Parquet file; its schema stays."""

    def _read(self):
        import pyarrow.parquet as parquet

        self._table = parquet.read_table(self.path)
        columns = [column.to_pylist() for column in self._table.columns]
        return self._table.column_names, [list(row) for row in zip(*columns, strict=True)]

    def _write(self, path, rows):
        import pyarrow
        import pyarrow.parquet as parquet

        schema = self._table.schema
        arrays = [
            pyarrow.array([row[k] for _, row in rows], type=field.type)
            for k, field in enumerate(schema)
        ]
        parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), path)
