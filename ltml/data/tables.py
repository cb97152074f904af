"""Open tables of labels in the files that people have: text, compressed, Excel, Parquet, JSON."""

import csv
import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import lines_of, quote, read_json, read_text
from ltml.data.cells import NUMBER
from ltml.data.image import IMAGE_SUFFIXES
from ltml.data.kinds import kind_of

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".txt", ".jsonl", ".ndjson", ".manifest")
SUFFIXES += (".xlsx", ".parquet", ".json")
_OTHERS = (".pkl", ".pickle", ".feather", ".zip", ".bz2", ".xz", ".npy", ".npz", ".mat", ".h5")
_LARGE = 64 * 2**20  # bytes; larger tables are read by pandas at once, without their line ends
_MARKS = ",;\t|"
_IMAGE = re.compile(
    "(image|img|photo|picture|pic|bild|scan|slide|xray)(s|uu?id|ids?|label|no|nr|key|url|src|uri"
    "|(file)?(name|path)?s?|index)?|(file|path|filename|filepath)s?|file(id|url)|fname|fpath|url"
    "|(coco|flickr|source)url|dicom(id)?|(study|sop|series)?(study|series)?instanceuid|uuid|uid"
)


def plain(name: str) -> str:
    """A column's name in lower case, without spaces, underscores, brackets and the like."""
    return re.sub(r"""[\s_.'"/\\#:()\[\]{}<>-]+""", "", name.lower())


def is_image_name(name: str) -> bool:
    """Whether a column of this name usually holds images."""
    return _IMAGE.fullmatch(plain(name)) is not None


class Table(NamedTuple):
    """Hold what messages call a table and its rows, and the image of each row."""

    source: str
    rows: Sequence[str]
    images: Sequence[str]

    def error(self, row: int, text: str) -> InputError:
        """Make the error of a row."""
        return InputError(f"{self.source}, {self.rows[row]}: {text}")


class Places(Sequence):
    """Call rows by their number, without a text for each."""

    def __init__(self, word: str, numbers: Sequence[int]):
        self.word, self.numbers = word, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row):
        if isinstance(row, slice | list | np.ndarray):
            return Places(self.word, np.asarray(self.numbers)[row])
        return f"{self.word} {self.numbers[row]}"


class Frame(NamedTuple):
    """Hold a table as text: what messages call it and its rows, and its columns of cells.

    ``note`` says what a reader had to suppose to open it.
    """

    source: str
    places: Sequence[str]
    columns: pd.DataFrame
    note: str = ""

    def rows(self, index: np.ndarray) -> "Frame":
        """Select rows."""
        return Frame(self.source, self.places[index], self.columns.iloc[index], self.note)


def open_table(path: Path) -> Frame:
    """Read a file as stripped text, its columns named.

    Raises:
        InputError: naming the file and line, if it is no table, or its kind needs an extra.
    """
    name = path.name.lower()
    if name.endswith((".xlsx", ".xls", ".parquet")):
        frame = _by_pandas(path, name.rpartition(".")[2])
    elif name.endswith((".jsonl", ".ndjson", ".manifest", ".jsonl.gz")):
        frame = _by_line(path)
    elif name.endswith(".json"):
        frame = _json(path)
    elif name.endswith(_OTHERS):
        raise InputError(f"{path} is of a kind that is not read; save it as {', '.join(SUFFIXES)}")
    else:
        frame = _text(path)
    columns = frame.columns
    named = [n for n in columns.columns if n and not re.fullmatch(r"Unnamed: \d+", n)]
    columns = columns.loc[:, columns.columns.isin(named)]
    if columns.columns.has_duplicates:
        raise InputError(f"{path}: two columns have the same name; rename one")
    if not len(columns):
        raise InputError(f"{path} holds no image; add a line for each")
    return frame._replace(columns=columns)


def as_text(value) -> str:
    """Write a value of a table in memory as a cell of text: lists as JSON, missing values blank."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, set | frozenset | tuple):
        value = list(value)
    if isinstance(value, list | dict):
        return json.dumps(value, default=_plain)
    if isinstance(value, float) and value.is_integer():  # numbers beside missing values
        return str(int(value))
    return "" if value != value else str(value).strip()


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _need(path: Path, package: str) -> InputError:
    return InputError(
        f"{path} needs {package}, which is not installed; install it with: "
        "python -m pip install 'ltml[tables]'"
    )


def _by_pandas(path: Path, kind: str) -> Frame:
    """Read Excel's first sheet, or Parquet."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        if kind == "parquet":
            found = pd.read_parquet(path)
        else:
            found = pd.read_excel(path, dtype=str, keep_default_na=False)
    except ImportError:
        raise _need(path, "pyarrow" if kind == "parquet" else "openpyxl") from None
    except Exception as error:  # each engine raises kinds of its own over a damaged file
        text = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be read as {kind}: {quote(text)}") from None
    found = found.reset_index(drop=found.index.name is None)
    for name, column in found.items():
        cell = next(iter(column), None)
        if isinstance(cell, dict) and "bytes" in cell:
            raise InputError(
                f"{path}: column {quote(str(name))} holds the images themselves; in Python, load "
                f"it by datasets.load_dataset('parquet', data_files={str(path)!r}), and give a "
                "split of that to ltml.data.from_dataset"
            )
    cells = {str(name).strip(): list(map(as_text, column)) for name, column in found.items()}
    columns = pd.DataFrame(cells, dtype=object)
    return Frame(str(path), Places("row", range(2, len(columns) + 2)), columns)


def _by_line(path: Path) -> Frame:
    """Read a JSON object from each line."""
    entries, lines = [], []
    for number, line in enumerate(lines_of(decoded(path)), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            text = getattr(error, "msg", "too large a number, or too deep")
            raise InputError(f"{path}, line {number} is not JSON: {text}") from None
        if not isinstance(entry, dict):
            raise InputError(f"{path}, line {number}: {quote(entry)} is no object of columns")
        entry = _with_names(entry)
        entries.append({name.strip(): as_text(value) for name, value in entry.items()})
        lines.append(number)
    columns = pd.DataFrame(entries, dtype=object).fillna("")
    return Frame(str(path), Places("line", lines), columns)


def _with_names(entry: dict) -> dict:
    """Give numbers the names of the class map beside them, as AWS Ground Truth's manifests do."""
    named, told = {}, {f"{name}-metadata" for name in entry}
    for name, value in entry.items():
        if name in told and isinstance(value, dict):
            continue
        about = entry.get(f"{name}-metadata")
        classes = about.get("class-map") if isinstance(about, dict) else None
        if isinstance(classes, dict) and isinstance(value, list):
            value = [classes.get(str(item), item) for item in value]
        elif isinstance(about, dict) and isinstance(about.get("class-name"), str):
            value = about["class-name"]
        named[name] = value
    return named


def _json(path: Path) -> Frame:
    """Read a list of objects, or an object of each image's labels."""
    found = read_json(path, limit=None)
    if isinstance(found, dict) and all(map(_are_labels, found.values())):
        found = [{"image": image, "labels": labels} for image, labels in found.items()]
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InputError(
            f'{path} is no list of objects such as [{{"image": "1.jpg", "labels": '
            f'["cat"]}}], and none of each image\'s labels'
        )
    entries = [{n.strip(): as_text(v) for n, v in entry.items()} for entry in found]
    columns = pd.DataFrame(entries, dtype=object).fillna("")
    return Frame(str(path), Places("entry", range(len(columns))), columns)


def _are_labels(value) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(item, str | int | float) for item in value)
    )


def decoded(path: Path) -> str:
    """Return the text of a file, compressed or not."""
    if path.suffix.lower() != ".gz":
        return read_text(path, limit=None)
    try:
        with gzip.open(path) as file:
            return file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte {error.start}; save it as UTF-8"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as gzip: {error}") from None


def _is_large(path: Path) -> bool:
    try:
        times = 5 if path.suffix.lower() == ".gz" else 1  # how well such tables are compressed
        return path.is_file() and times * path.stat().st_size > _LARGE
    except OSError:
        return False


def _text(path: Path) -> Frame:
    if _is_large(path):
        return _large(path)
    # Plain \n for the csv module, so that its line numbers are those of an editor.
    text = "\n".join(lines_of(decoded(path)))
    before = _lines_before(text.split("\n", 200)[:200])
    text = "\n" * before + text.split("\n", before)[-1]
    head = [line for line in text.split("\n", 200)[:200] if line.strip(' \t,;"')]
    if (counted := _counted(path, text)) is not None:
        return counted
    mark = _delimiter(path, head)
    rows, lines = [], []
    if mark == " ":  # a list: an image, then its labels
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                rows.append([*line.strip().split(None, 1), ""][:2])
                lines.append(number)
    else:
        reader = csv.reader(io.StringIO(text), delimiter=mark, strict=True, skipinitialspace=True)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
    at = next((i for i, cell in enumerate(rows[0]) if is_file_name(cell)), None)
    if at is not None and all(is_file_name(row[at]) for row in rows if len(row) > at):
        width = max(map(len, rows))  # without a header, a column for each label of an image
        rows = [row + [""] * (width - len(row)) for row in rows]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(rows[0]):
            raise InputError(
                f"{path}, line {line}: there are {len(row)} columns, not {len(rows[0])}; put a "
                f"cell that holds {quote(mark)} in double quotes"
            )
    names, note = _header(rows)
    if not note:
        rows, lines = rows[1:], lines[1:]
    columns = pd.DataFrame(rows, columns=names, dtype=object)
    return Frame(str(path), Places("line", lines), columns, note)


def _counted(path: Path, text: str) -> Frame | None:
    """Read a list that begins with the number of its rows, as CelebA's and DeepFashion's do.

    Its header may leave the image out, and name all labels by one word.
    """
    lines = [(n, line.split()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    head = lines[0][1] if lines else []
    if len(head) != 1 or not head[0].isdecimal() or int(head[0]) != len(lines) - 2:
        return None
    (_, names), rows = lines[1], [cells for _, cells in lines[2:]]
    width = len(rows[0]) if rows else 0
    wrong = next((n for n, cells in lines[2:] if len(cells) != width), None)
    if wrong is not None:
        raise InputError(f"{path}, line {wrong}: there are not {width} columns, as in line 3")
    if len(names) == width - 1:
        names = ["image", *names]
    elif len(names) == 2 < width:
        names = [names[0], *(f"class {c}" for c in range(width - 1))]
    if len(names) != width:
        raise InputError(f"{path}, line 2: there are {len(names)} names of {width} columns")
    columns = pd.DataFrame(rows, columns=names, dtype=object)
    return Frame(str(path), Places("line", [n for n, _ in lines[2:]]), columns)


def _lines_before(lines: Sequence[str]) -> int:
    """Number of lines before the header: Excel's ``sep=;``, comments, and what is blank."""
    found = 0
    for number, line in enumerate(lines, 1):
        if re.fullmatch(r"sep=.|#[^,;\t|]*", line):
            found = number
        elif line.strip():
            break
    return found


def _delimiter(path: Path, head: list[str]) -> str:
    """Choose what separates the columns, by the first lines."""
    if not head:
        text = f"the columns are {quote('')}; begin with a line such as image,labels"
        raise InputError(f"{path}: {text}")

    def cells(line: str, mark: str) -> list[str]:
        try:
            return next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
        except csv.Error:
            return []

    first = {mark: [cell.strip() for cell in cells(head[0], mark)] for mark in _MARKS}
    named = [m for m in _MARKS if any(map(is_image_name, first[m]))]
    named = named or [
        m for m in _MARKS if any(map(is_file_name, first[m][: len(first[m]) > 1 and 99]))
    ]
    marks = named or [m for m in _MARKS if len(first[m]) > 1]
    if not marks:
        words = head[0].split(None, 1)
        return " " if len(words) > 1 and is_file_name(words[0]) else ","

    def fit(mark: str) -> tuple:
        return (
            len(first[mark]) > 1,
            sum(len(cells(line, mark)) == len(first[mark]) for line in head[1:20]),
            len(first[mark]),
        )

    return max(marks, key=fit)


def is_file_name(cell: str) -> bool:
    """Whether a cell ends as image files do."""
    return Path(cell.strip()[-12:]).suffix.lower() in IMAGE_SUFFIXES


def _header(rows: list[list[str]]) -> tuple[list[str], str]:
    """Return the names of the columns; with a note, where the first row is an image already."""
    first = rows[0] if rows else []
    at = [i for i, cell in enumerate(first) if is_file_name(cell)]
    if not at:
        return first, ""
    rest = [i for i in range(len(first)) if i != at[0]]
    names = [""] * len(first)
    names[at[0]] = "image"
    flags = len(rest) > 1 and all(row[i] in ("0", "1", "-1") for row in rows[:50] for i in rest)
    filled = {i: [row[i] for row in rows[:50] if row[i]] for i in rest}
    split = next((i for i in rest if filled[i] and all(map(kind_of, filled[i]))), None)
    rest = [i for i in rest if i != split]
    numbers = [i for i in rest if all(map(NUMBER.fullmatch, filled[i]))]  # places of boxes
    numbers = numbers if 0 < len(numbers) < len(rest) else []
    if split is not None:
        names[split] = "split"
    for number, i in enumerate(numbers, 1):
        names[i] = f"number {number}"
    rest = [i for i in rest if i not in numbers]
    for number, i in enumerate(rest):
        names[i] = f"class {number}" if flags else f"label {number + 1}" if rest[1:] else "labels"
    return names, "it has no header: the first column of images, and labels"


def _large(path: Path) -> Frame:
    """Read a table of millions of rows, each distinct cell kept once."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        head = lines_of(file.read(2**16).decode("utf-8-sig", errors="replace"))[:-1][:200]
    before = _lines_before(head)
    head = [line for line in head[before:] if line.strip(' \t,;"')]
    mark = _delimiter(path, head)
    sample = [head[0].split(None, 1)] if mark == " " else head[:50]
    if mark != " ":
        sample = list(csv.reader(sample, delimiter=mark, skipinitialspace=True))
    names, note = _header([[cell.strip() for cell in row] for row in sample])
    options = {"na_filter": False, "encoding": "utf-8-sig", "low_memory": True}
    options |= {"skiprows": before, "header": None if note else 0, "index_col": False}
    if mark == " ":  # a list: an image, then its labels, as many as there are
        options |= {"sep": "\x1f", "quoting": csv.QUOTE_NONE, "dtype": str}
    else:
        options |= {"sep": mark, "skipinitialspace": True, "dtype": "category"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            found = pd.read_csv(path, **options)
        if mark == " ":
            found = found.iloc[:, 0].str.split(n=1, expand=True).fillna("").astype("category")
        if len(found.columns) != len(names):
            raise pd.errors.ParserError(f"{len(found.columns)} columns, of which {names} are named")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte {error.start}; save it as UTF-8"
        ) from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, OSError, EOFError) as error:
        text = re.sub(r"\s+", " ", str(error)).strip()
        raise InputError(f"{path} cannot be read: {quote(text)}") from None
    found.columns = names
    for i, name in enumerate(names):
        cells = found.iloc[:, i].cat
        stripped = [str(cell).strip() for cell in cells.categories]
        if len(set(stripped)) == len(stripped):
            cells = pd.Categorical.from_codes(cells.codes, stripped)
        else:
            cells = pd.Categorical(np.asarray(stripped, dtype=object)[cells.codes])
        found.isetitem(found.columns.get_loc(name) if names.count(name) == 1 else i, cells)
    first = before + (1 if note else 2)
    return Frame(str(path), Places("line", range(first, first + len(found))), found, note)
