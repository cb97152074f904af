"""What the cells of a label column say: the readings that they allow, and the one that is meant."""

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote

_MAX_CLASSES = 100_000  # a larger index is a slip, and would cost its memory
_INDEX = re.compile("[0-9]+")
_FLOAT = re.compile(r"([0-9]+)\.0*")  # an index, where pandas had to keep missing values
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+")
# Words for nothing, in lower case: never classes, unless a class list has them.
_WORDS = ["", "nan", "none", "null", "-", "--", "n/a", "<na>", "nat"]
NOTHING = frozenset([*_WORDS, "[]", "{}", "()", "set()", "[nan]", "[none]", "[null]", "['']"])
SEPARATORS = (";", "|", ",", " ")
_RARE = ("/", "+", "&")  # parts of names as often as not: they need evidence
_BOTH = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_MINUS = {"-1", "-1.0", "-1."}
_BOTH |= {"0.": False, "1.": True}
# A list as numpy writes it, without commas, or with numbers that Python refuses (007).
_ESCAPE = r"""\\(?:[\\'"nrt]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})"""
_NOT = r"\\\x00-\x1f\ud800-\udfff"  # halves of surrogate pairs are no text to a parser
_ITEM = rf"""'(?:[^'{_NOT}]|{_ESCAPE})*+'|"(?:[^"{_NOT}]|{_ESCAPE})*+"|-?[0-9]++\.?(?:0++)?+"""
_LIST = re.compile(rf"\[\s*+(?:(?:{_ITEM})(?:\s*+,\s*+|\s++|(?=\])))*+\]")
_ADJACENT = re.compile(r"""['"]\s+['"]""")  # two strings that Python would join into one
# Of objects, the keys of labels: beside boxes and areas, as in {"bbox": ..., "categories": [0]}.
LABEL_KEYS = re.compile(
    "choices|names?|taxonomy|(labels?|categor(y|ies)|class(es)?|tags?)(_?(names?|ids?))?", re.I
)
# Of an object without such lists, the keys of its own name, the surest first.
_NAMES = (re.compile("(tag|label|class|category|display|choice)[_-]?name", re.I), "name", "label")
_NAMES += ("tag", "class", "category", "title", "text", "choice")
_SCORED = re.compile(r".*[^:=\s]\s?[:=]\s?(0?\.[0-9]+|1\.0*)")  # cat:0.9
_CALLS = {"set", "frozenset", "list", "tuple", "array"}
_OPEN = re.compile(r"\[.*\]|\{.*\}|\(.*\)|(?:set|frozenset|(?:np\.)?array)\(.*\)", re.S)


def is_nothing(text: str) -> bool:
    """Whether a cell or a label is blank, or a word for nothing, such as ``NaN`` or ``-``."""
    return text == "NA" or text.casefold() in NOTHING


class Reading(NamedTuple):
    """How a column of labels is read: ``parts`` are the labels of each distinct cell."""

    mark: str  # "none", "lists", "vectors", or a separator
    parts: dict[str, tuple[str, ...]]
    width: int = 0  # of vectors

    @property
    def how(self) -> str:
        """In words."""
        named = {"none": "one label each", "lists": "labels in lists"}
        named |= {"vectors": "a vector of 0 and 1 each", " ": "labels separated by spaces"}
        return named.get(self.mark, f"labels separated by {quote(self.mark)}")


def read(table, cells: Mapping[str, int], class_names, separator: str | None) -> Reading:
    """Choose how distinct cells are read, or ask.

    Args:
        table: makes the errors of its rows, by ``error(row, text)``.
        cells: distinct cells -> row where each occurs first.
        class_names: the classes, if they are known.
        separator: the reading that was asked for: a separator, ``"none"``, ``"lists"`` or
            ``"vectors"``.

    Raises:
        InputError: if two readings are plausible, naming both and the option that chooses; or none.
    """
    known = set(class_names or ())
    no_vectors = any(cell[:1] == "[" and is_nothing(cell) for cell in cells)  # of no class at all
    cells = {c: row for c, row in cells.items() if c in known or not is_nothing(c)}
    sure = separator not in (None, "lists", "vectors")  # which is said of cells that are text
    lists = _lists(table, cells, strict=separator == "lists", sure=sure)
    texts = {cell: row for cell, row in cells.items() if cell not in lists}
    for cell, row in texts.items():
        if "\n" in cell or (lists and separator == "lists"):
            wrong = "holds a line break" if "\n" in cell else "is no list, as other rows have"
            raise table.error(row, f"{quote(cell)} {wrong}; correct it, and check quotes")
    width = 0
    if separator == "vectors" or (separator is None and not no_vectors):
        width = _vectors(table, cells, lists, class_names, sure=separator == "vectors")
    if width:
        return Reading("vectors", {c: _on(_tokens(c, lists)) for c in cells}, width)
    if separator == "vectors":
        raise InputError(
            f"{table.source}: the labels are no vectors of 0 and 1 of one length; leave the "
            "separator out, or correct them"
        )
    mark = separator if sure else "none" if lists else _separator(table, texts, class_names)
    parts = {cell: lists[cell] if cell in lists else tuple(split(cell, mark)) for cell in cells}
    return Reading("lists" if lists and not sure else mark, _without_nothing(parts, known))


def _without_nothing(parts, known):
    return {
        cell: tuple(label for label in found if label in known or not is_nothing(label))
        for cell, found in parts.items()
    }


def split(cell: str, mark: str) -> list[str]:
    """Split a cell into labels; those that are blank are left out."""
    if mark == "none":
        return [cell]
    parts = cell.split() if mark.isspace() else cell.split(mark)
    return [part.strip() for part in parts if part.strip()]


# --- lists, sets and what annotation tools write ---------------------------------------------


def parse_list(cell: str) -> tuple[str, ...] | None:
    """Read a list, set or tuple as JSON, Python or numpy writes it; None if it is none.

    Of an object, as Label Studio's ``{"choices": ["cat", "dog"]}``, the lists in it are read.

    Example:
        >>> parse_list("['cat', 'hot dog']"), parse_list("[np.int64(0) np.int64(7)]")
        (('cat', 'hot dog'), None)
        >>> parse_list("[np.int64(0), np.int64(7)]"), parse_list('{"choices": ["cat"]}')
        (('0', '7'), ('cat',))
    """
    if not _OPEN.fullmatch(cell):
        return None
    try:
        return _items(json.loads(cell))
    except (ValueError, RecursionError):  # perhaps as Python or numpy writes it
        pass
    if not _ADJACENT.search(cell):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an escape that means nothing
                return _items(_value(ast.parse(cell, mode="eval").body))
        except (ValueError, SyntaxError, RecursionError, MemoryError, Warning):
            pass
    if not _LIST.fullmatch(cell):
        return None
    # Each is a number, taken as written (007), or one string in quotes: ast reads its escapes as a
    # literal, and runs nothing.
    items = re.findall(_ITEM, cell)
    return _items([ast.literal_eval(item) if item[0] in "'\"" else item for item in items])


def _value(node: ast.expr):
    """A literal, and what the reprs of numpy and pandas put around one; nothing is run."""
    match node:
        case ast.Constant(value):
            return value
        case ast.List(items) | ast.Tuple(items) | ast.Set(items):
            return [_value(item) for item in items]
        case ast.Dict(keys, values):
            return {_value(k): _value(v) for k, v in zip(keys, values, strict=True) if k}
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
            return -number
        case ast.Name("nan" | "NaN" | "NA" | "null"):
            return None
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name), args):
            if name in _CALLS:
                return _value(args[0]) if args else []
            if len(args) == 1 and re.fullmatch(r"u?int\d*|float\d*|bool_?|str_", name):
                return _value(args[0])
    raise ValueError


def _items(value) -> tuple[str, ...]:
    if isinstance(value, dict):
        inner = {k: v for k, v in value.items() if isinstance(v, list)}
        named = [v for k, v in inner.items() if LABEL_KEYS.fullmatch(str(k))]
        name = None if named else _name_in(value)
        if name is not None:
            return (name,)
        if not inner and value and all(v in (0, 1) for v in value.values()):
            return tuple(str(k).strip() for k, v in value.items() if v)
        inner = named or list(inner.values())
        inner = inner or [[v] for v in value.values() if isinstance(v, dict) and v]
        if not inner and not all(v == {} for v in value.values()):
            raise ValueError
        value = [item for items in inner for item in items]
    if not isinstance(value, list):
        raise ValueError
    labels = []
    for item in value:
        if isinstance(item, dict):  # a region, with its own list of labels
            labels += _items(item)
        elif item is None or (isinstance(item, float) and item != item):
            continue
        elif isinstance(item, float) and item.is_integer():
            labels.append(str(int(item)))
        elif isinstance(item, str | int):
            labels.append(str(item).strip())
        else:
            raise ValueError
    return tuple(label for label in labels if label)


def _name_in(value: dict) -> str | None:
    """What an object is called, such as ``{"id": 3, "name": "cat"}``, or ``{"animal": "cat"}``."""
    texts = {str(k): v.strip() for k, v in value.items() if isinstance(v, str) and v.strip()}
    for key in _NAMES:
        for name, text in texts.items():
            if key.fullmatch(name) if isinstance(key, re.Pattern) else key == name.lower():
                return text
    return next(iter(texts.values())) if len(texts) == len(value) == 1 else None


def _lists(
    table, cells: Mapping[str, int], *, strict: bool, sure: bool
) -> dict[str, tuple[str, ...]]:
    """Read the cells as lists, if they are: all of them, or objects beside single labels."""
    like = {cell: row for cell, row in cells.items() if _OPEN.fullmatch(cell)}
    found: dict[str, tuple[str, ...]] = {}
    for cell, row in like.items():
        try:
            items = parse_list(cell)
        except ValueError:
            items = None
        if items is not None:
            found[cell] = items
        elif (cell[0] == "[" and not sure) or strict:
            raise table.error(
                row, f"{quote(cell)} is no list as JSON or Python writes it; correct it"
            )
    others = [cell for cell in cells if cell not in found]
    objects = any(cell[0] == "{" and ":" in cell for cell in found)
    if (
        found and others and not objects and not sure
    ):  # Label Studio writes a single choice as plain text
        if not any(cell[0] == "[" for cell in found):
            return {}  # names in brackets
        row = cells[others[0]]
        text = f"{quote(others[0])} is no list, as other rows have; correct it, and check quotes"
        raise table.error(row, text)
    return found


# --- vectors of 0 and 1 ----------------------------------------------------------------------


def _tokens(cell: str, lists: Mapping[str, tuple[str, ...]]) -> list[str]:
    if cell in lists:
        return list(lists[cell])
    if len(cell) > 2 and set(cell) <= {"0", "1"}:
        return list(cell)
    return [token for token in re.split(r"[\s,;|]+", cell) if token]


def _on(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(c) for c, token in enumerate(tokens) if _BOTH.get(token.lower(), False))


def _vectors(table, cells: Mapping[str, int], lists, class_names, *, sure: bool) -> int:
    """Return the length of the cells' vectors of 0 and 1, or 0 if they are none; ask if unsure."""
    if not cells:
        return 0
    length, repeats, words, counts = 0, False, False, ""
    signs: set[str] = set()
    for cell in cells:
        tokens = _tokens(cell, lists)
        length = length or len(tokens)
        if len(tokens) != length or length < 2:
            return 0
        both = all(token.lower() in _BOTH for token in tokens)
        if not both and all(token.lower() in _BOTH or token in _MINUS for token in tokens):
            both, repeats, signs = True, True, signs | set(tokens)
        if not both:
            if not all(map(_INDEX.fullmatch, tokens)):
                return 0
            counts = counts or cell
        repeats |= len(set(tokens)) < length
        words |= any(token.lower() in ("true", "false") for token in tokens)
    if class_names is not None and length != len(class_names):
        return 0
    if signs and any(_BOTH.get(t.lower()) is False for c in cells for t in _tokens(c, lists)):
        cell = next(c for c in cells if _MINUS & set(_tokens(c, lists)))
        raise table.error(
            cells[cell],
            f"{quote(cell)} holds -1, and other cells 0, so that -1 may be unknown; give a column "
            "of 0, 1 and -1 for each class",
        )
    zeros = any(_tokens(cell, lists).count("0") > 1 for cell in cells)
    if counts:
        if zeros and length > 2:  # an index does not stand twice in a cell, as 0 does in counts
            raise table.error(
                cells[counts],
                f"{quote(counts)} holds numbers other than 0 and 1 for each class; write 1 for "
                "present and 0 for absent, or give class indices without repeats",
            )
        return 0
    if all(len(cell) > 2 and set(cell) <= {"0", "1"} for cell in cells):  # 0110, or a number
        return length if sure or any(cell[0] == "0" for cell in cells) else 0
    if sure or repeats or words:
        return length
    cell = next(iter(cells))
    said = f"({', '.join(_tokens(cell, lists))})"
    text = f"the labels {quote(said)[1:-1]} may be indices or 0 and 1"
    raise table.error(
        cells[cell],
        f"{text}; choose with --separator vectors or --separator "
        f"{'lists' if cell in lists else quote(_mark_in(cell))}, in Python separator=",
    )


def _mark_in(cell: str) -> str:
    return next((mark for mark in SEPARATORS if mark in cell), " ")


# --- separators ------------------------------------------------------------------------------


def _separator(table, cells: Mapping[str, int], class_names) -> str:
    """Choose the separator by which the cells can be read; see ``read_label_csv``."""
    marks = [m for m in SEPARATORS if any(split(c, m) != [c] for c in cells)]
    if class_names is None:
        marks = [m for m in marks if not _only_in_signs(cells, m)]
    marks.insert(0, "none")
    labels = {m: {label for cell in cells for label in split(cell, m)} for m in marks}
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
        if fits == ["none"]:
            fits += [m for m in _RARE if _separates(cells, m)]
        if "none" in fits and " " in marks and " " not in fits and are_tags(cells):
            fits.append(" ")
        if " " in fits and are_tags(cells) and set(fits) <= {"none", " "}:
            return " "
    if len(fits) > 1:
        cell = next(cell for cell in cells if split(cell, fits[1]) != [cell])
        one, other = (
            f"{' + '.join(map(quote, split(cell, m)[:4]))} (separator {quote(m)})" for m in fits[:2]
        )
        raise table.error(
            cells[cell],
            f"{quote(cell)} may be {one} or {other}; choose with --separator {quote(fits[0])} or "
            f"--separator {quote(fits[1])}, in Python separator=, or list the classes in "
            "classes.txt",
        )
    return fits[0]


def _separates(cells: Iterable[str], mark: str) -> bool:
    """Whether the cells, as names of single classes, would be made of each other's names."""
    parts = {cell: split(cell, mark) for cell in cells}
    words = set().union(*parts.values())
    return len(words) < len(parts) and any(
        len(found) > 1 and parts.keys() >= set(found) for found in parts.values()
    )


def _only_in_signs(cells: Iterable[str], mark: str) -> bool:
    """Whether a mark stands only within words without a letter, such as ``;)`` or ``|_|``."""
    if mark == " ":
        return False
    words = {word for cell in cells if mark in cell for word in cell.split() if mark in word}
    return all(len(w) > 1 and w != mark * len(w) and not any(map(str.isalnum, w)) for w in words)


def are_tags(cells: Iterable[str]) -> bool:
    """Whether words between spaces are tags: names of several words are joined by underscores, or
    few words make many cells of various lengths.
    """
    parts = [cell.split() for cell in cells]
    several = [words for words in parts if len(words) > 1]
    if any("_" in word.strip("_") for words in several for word in words):
        return True
    distinct = {word for words in parts for word in words}
    lengths = {len(words) for words in parts}
    return len(parts) >= 20 and 2 * len(distinct) <= len(parts) and len(lengths) > 2


# --- labels and classes ----------------------------------------------------------------------


def find_classes(
    table, labels: Mapping[str, int], class_names, width: int = 0
) -> tuple[dict[str, int], Sequence[str]]:
    """Return the column of every label, and the class names.

    Args:
        table: makes the errors.
        labels: distinct labels -> row where each occurs first.
        class_names: the classes, if they are known.
        width: number of classes, where labels are places in vectors.

    Raises:
        InputError: naming the row of a label that is no class, or is spelled in two ways.
    """
    # At most ten digits: int() refuses thousands, and no class has so large an index.
    digits = {n: n for n in labels if _INDEX.fullmatch(n)}
    if labels and all(map(_FLOAT.fullmatch, labels)):
        digits = {n: n.partition(".")[0] for n in labels}
    index = {n: int(found.lstrip("0")[:10] or 0) for n, found in digits.items()}
    numbered = len(index) == len(labels)
    if width:
        return index, class_names or [f"class {c}" for c in range(width)]
    if class_names is None:
        if not labels:
            raise InputError(
                f"{table.source} holds no label; give some, or list the classes in classes.txt "
                "(in Python class_names=)"
            )
        scored = [label for label in labels if _SCORED.fullmatch(label)]
        if len(scored) > 0.5 * len(labels):
            raise table.error(
                labels[scored[0]],
                f"label {quote(scored[0])} ends in a number, as if with a score; leave the scores "
                "out, or list all classes in classes.txt",
            )
        for label, row in labels.items():
            # A number among names is a slip more often than a name: "cat 3", or "0 1 -1".
            if index[label] >= _MAX_CLASSES if numbered else NUMBER.fullmatch(label):
                problem = "too large for an index" if numbered else "a number beside names"
                text = f"label {quote(label)} is {problem}; correct it, or list all classes"
                raise table.error(row, f"{text} in classes.txt")
        if numbered:
            return index, [f"class {c}" for c in range(max(index.values()) + 1)]
        check_spelling(table.source, {name: table.rows[row] for name, row in labels.items()})
        class_names = check_class_names(sorted(labels), where=table.source)
    column, C = {name: c for c, name in enumerate(class_names)}, len(class_names)
    unknown = [label for label in labels if label not in column]
    numbered = numbered and max(index.values(), default=0) < C
    if unknown and not numbered:
        label = next((label for label in unknown if index.get(label, C) >= C), unknown[0])
        text = f"label {quote(label)} is none of the {C} classes{nearest(label, class_names)}"
        if len(index) == len(labels) and 0 not in index.values() and max(index.values()) == C:
            text += ", and none is 0: if they are counted from 1, begin classes.txt with a class 0"
        raise table.error(labels[label], f"{text}; correct it, or list all classes in classes.txt")
    for label, row in labels.items():
        if numbered and not unknown and column[label] != index[label]:
            text = f"label {quote(label)} is class {column[label]} by name, and may be an index too"
            raise table.error(row, f"{text}; rename the classes")
    return (index if unknown else column), class_names


def _key(name: str) -> str:
    """Return what names have in common that are all but equal."""
    return re.sub(r"[\s_]+", "", unicodedata.normalize("NFKC", name)).casefold()


def nearest(name: str, names: Iterable[str]) -> str:
    """Hint at the name that was meant, in brackets; ``""`` if none is near."""
    same = [other for other in names if _key(other) == _key(name)]
    if same:
        return f" ({quote(same[0])} but for case and spaces)"
    close = get_close_matches(name[:100], list(names), n=1)
    return f" (did you mean {quote(close[0])}?)" if close else ""


def check_spelling(source: str, names: Mapping[str, str]) -> None:
    """Raise if two names are equal but for case and spaces; ``names``: name -> its place."""
    seen: dict[str, str] = {}
    for name, place in names.items():
        other = seen.setdefault(_key(name), name)
        if other != name:
            raise InputError(
                f"{source}, {place}: {quote(name)} is {quote(other)} ({names[other]}) but for case "
                "and spaces; write them alike, or list both in classes.txt"
            )
