"""Read small text files with errors for people; write files whole or not at all."""

import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from ltml.core.errors import InputError

_MAX_BYTES = 64 * 2**20  # an id list of millions of images; a label file beyond it is a mistake
# Control characters, halves of surrogate pairs and line separators: no file can be named so on
# every system, and each would break a message or a record of one line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_FLAG = re.compile("[-+]?[0-9]{1,3}")  # after an id, in VOC's image sets


def quote(value) -> str:
    """``repr`` for a message of one line: whatever a file held, escaped and cut to 80 characters.

    Example:
        >>> print(quote("two\\nlines"), len(quote("x" * 10_000)))
        'two\\nlines' 80
    """
    # Long input is cut first: the repr of a huge nested list or number may itself fail.
    if isinstance(value, str | bytes):
        text = repr(value[:200])
    elif value is None or isinstance(value, bool | float):
        text = repr(value)
    elif isinstance(value, int):
        text = repr(value) if value.bit_length() < 300 else "a number of over 90 digits"
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def read_text(path: str | Path, *, limit: int | None = _MAX_BYTES) -> str:
    """Read a UTF-8 text file, with or without a byte-order mark, of at most ``limit`` bytes.

    Raises:
        InputError: naming the file, if it is missing, unreadable, too large or not UTF-8.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device could block for ever
            raise InputError(f"{path} is not a file; give a text file")
        if limit is not None and status.st_size > limit:
            raise InputError(
                f"{path} has {status.st_size:,} bytes; such a file has at most {limit:,}, "
                "so check that it is the right one"
            )
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte {error.start} is "
            f"0x{error.object[error.start]:02x}; save it as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def lines_of(text: str) -> list[str]:
    """Split at ``\\n``, ``\\r\\n`` or ``\\r`` only, so that line numbers are those of an editor."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(path: str | Path, *, limit: int | None = _MAX_BYTES, drop: Collection[str] = ()):
    """Read a JSON file in which no key stands twice in an object, so that nothing is lost silently.

    Args:
        path: the file.
        limit: largest number of bytes; see :func:`read_text`.
        drop: keys to leave out of every object as it is parsed, to save memory.

    Raises:
        InputError: naming the file, and the place where it stops being JSON.
    """

    def distinct(pairs: list[tuple]) -> dict:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"the key {quote(twice)} stands twice in an object")
        for key in drop:
            entry.pop(key, None)
        return entry

    text = read_text(path, limit=limit)
    try:
        return json.loads(text, object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, 100,000 brackets
        raise InputError(f"{path} is not JSON that can be read: {error}") from None


def read_list(path: str | Path) -> list[tuple[int, str]]:
    """Read a list of distinct image ids, the first word of each line: ``(line number, id)`` pairs.

    Flags after it are ignored: ``000012 -1`` in VOC's per-class image sets says whether the class
    is there, which the annotations say better. The file is read as text and never unpickled.

    Raises:
        InputError: if the file cannot be read, holds no id, an id twice, or several ids on a line.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(lines_of(read_text(path)), 1):
        words = line.split()
        if not words:
            continue
        for word in words[1:]:
            if not _FLAG.fullmatch(word):
                raise InputError(
                    f"{path}, line {number}: {quote(word)} stands after the id; put each id on a "
                    "line of its own"
                )
        if words[0] in seen:
            raise InputError(
                f"{path}, line {number}: {quote(words[0])} stands on line {seen[words[0]]} "
                "already; keep one"
            )
        seen[words[0]] = number
    if not seen:
        raise InputError(f"{path} is empty; put one image id on each line")
    return [(number, name) for name, number in seen.items()]


def check_class_names(names: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return class names that can stand in a table, a plot and a message.

    Args:
        names: class names: at least one, distinct, not blank, of one line.
        where: the file or argument they came from, to begin the message with.

    Raises:
        InputError: naming the first that is not so, and its position from 1.
    """
    if isinstance(names, str):
        raise InputError(f"{where} is {quote(names)}; give a list of names")
    names, seen = tuple(names), {}
    if not names:
        raise InputError(f"{where}: there is no class; give at least one")
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not name.strip() or _UNPRINTABLE.search(name):
            raise InputError(f"{where}: class {number} is named {quote(name)}; give it a name")
        if seen.setdefault(name, number) != number:
            raise InputError(
                f"{where}: classes {seen[name]} and {number} are both named {quote(name)}; "
                "give distinct names"
            )
    return names


def check_replaceable(path: Path, mark: str, *, within: int | None = 400) -> None:
    """Raise unless a file does not exist, or has the mark of those that ltml writes there.

    Args:
        path: file to be replaced.
        mark: text that only ltml's own files hold.
        within: number of bytes at the file's start that may precede the mark; None: it may stand
            anywhere.

    Raises:
        InputError: if it is another file of the user's.
    """
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give a file")
    there = next(each for each in path.absolute().parents if each.exists())
    if not there.is_dir():
        raise InputError(f"{str(path)!r} has no place: {str(there)!r} is a file; give a folder")
    if path.exists():
        with path.open("rb") as file:
            start = file.read(-1 if within is None else len(mark.encode()) + within)
        if mark.encode() not in start:
            raise InputError(
                f"{str(path)!r} exists and holds something else; give another name, or move it"
            )


def make_parent(path: Path) -> None:
    """Make the folder that a file is to be written in, unless it is there.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder of {str(path)!r} cannot be made ({error.strerror or error}); give another"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, then put it in place at once.

    Raises:
        InputError: if it cannot be written; what ``path`` held before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} could not be written ({error.strerror or error}); what it held before "
            "is unchanged: make room, or allow writing, and try again"
        ) from error
    finally:
        with suppress(OSError):  # a disk that became read-only
            temporary.unlink(missing_ok=True)


def as_json(name: str, value):
    """Return a value as JSON holds it; numbers that it lacks (nan, inf) become None.

    Raises:
        InputError: naming what JSON cannot hold.
    """
    if isinstance(value, Mapping) and name.count("[") < 50:  # deeper, it holds itself
        return {str(k): as_json(f"{name}[{str(k)[:40]!r}]", v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple) and name.count("[") < 50:
        return [as_json(f"{name}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    name = name if len(name) < 80 else f"{name[:80]}..."
    raise InputError(f"{name} is {quote(value)}, which JSON cannot hold; give text or numbers")


def write_json(path: Path, content: dict) -> None:
    """Write readable JSON; see :func:`as_json`."""
    text = json.dumps(as_json("content", content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table with seven significant digits."""
    write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.7g"))
