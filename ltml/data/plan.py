"""How a table is read: the role of each column, the meaning of each value, and what is asked."""

import logging
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.labels import LabelMatrix
from ltml.data import cells as reading
from ltml.data.cells import is_nothing, nearest
from ltml.data.kinds import kind_of
from ltml.data.tables import Frame, Table, is_file_name, is_image_name, plain

_LOG = logging.getLogger(__name__)

# --- names of columns, as `plain` writes them -------------------------------------------------

_LABELS = re.compile(
    "((label|tag|class|target|category|genre|finding|choice|attribute|diagnosis|dx|disease|concept)"
    "(name|label)?(e?s)?(ids?)?|categories|diagnoses|findinglabels|labelnames?|classlabels?"
    "|(image|object|class)(label|tag|categor)(s|y|ies)|annotations?)"
)
_LOOSE = re.compile("label|tag|class|categor|target|genre|finding|attribute|diagnos|species|choice")
_FAMILY = re.compile(r"(.*?)[ _.-]?(\d+)?")
_SPLIT = re.compile(
    "(data)?(split|fold|set|subset|partition|phase|usage)(name|id)?s?|(is|in|for)(train|valid|val|test)"
    "(ation|ing|set)?|train(ing)?,?|evalpartition"
)
_READER = re.compile(
    "(annotator|rater|reader|grader|radiologist|rad|labell?er|expert|worker|coder|reviewer)"
    "(id|name|no)?"
)
_VALUE = re.compile(
    "values?|confidence|present|presence|exists?|existence|verified|verification|answer|score"
    "|probability|is(present|positive|true)|vote|status|state"
)
# Of boxes, exports and tables' indices: never classes, and never asked about.
_PLAIN = re.compile(
    r"encodedpixels|rle|segmentation|masks?|polygons?|unnamed:?\d*|id|index|idx|width|height|depth|area|[xy](min|max|c|1|2)|bbox"
    "|(is)?(occluded|truncated|groupof|depiction|inside|crowd|difficult)|pose|leadtime|rotation"
    "|(annotation|patient|subject|study|series|user|project|task)id|age|followup|createdat|source"
)
# Numbers by which exports call regions and the like: region_id, boxIndex, but not Covid.
_NUMBERED = re.compile("(.*[a-z](Id|ID|Idx|Index|Count)|(.*[_ -])(id|ID|idx|index|count))")
# Flags of people and of splits of other people's: classes in some tables, and not in most.
_DOUBTFUL = re.compile("male|female|sex|gender|smoker|patientsex|is[a-z]+ed|reviewed|checked")
_SUMMARY = re.compile(".*(risk|any|abnormal|overall|patholog).*|disease|positive|sick|anomaly")
NEGATIVE = re.compile("nofindings?|normal|healthy|negative|nolabel|background|nothing|nodisease")

_ONE = {"1", "true", "t", "yes", "y", "present", "positive", "pos"}
_ZERO = {"0", "false", "f", "no", "n", "absent", "negative", "neg"}
_UNKNOWN = {"unknown", "unk", "uncertain", "unsure", "?", "u", "not sure", "maybe", "not mentioned"}
_COMMA = re.compile("[-+]?[0-9]+,0+")  # 1,0, as half of Europe writes 1.0
STATES = {"present": 1, "absent": 0, "unknown": -1}
_SAMPLE = 500  # distinct cells from which it is seen what a column holds


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """What a user says about a table; all else is found.

    Raises:
        InputError: by :meth:`of`, naming an option that there is not, or a value that is wrong.
    """

    image_column: str | None = None
    """Column that names the image; default: found."""
    label_columns: tuple[str, ...] = ()
    """Columns that hold labels; default: found."""
    class_columns: tuple[str, ...] = ()
    """Columns of 0 and 1, one for each class, or patterns of their names; default: found."""
    value_column: str | None = None
    """Column that affirms or denies the label in its row, such as Confidence; default: found."""
    split_column: str | None = None
    """Column that names the split of each image; default: found."""
    reader_column: str | None = None
    """Column that names who annotated the row; default: found."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out, or patterns of their names."""
    separator: str | None = None
    """What separates the labels of a cell, or none (one label each), lists, vectors; default: found
    from the whole file."""
    values: str | None = None
    """What values mean, such as '-1=unknown,blank=0,>=0.5=1': each 1, 0 or unknown; 'unlisted' is a
    class without a row, where a column affirms or denies labels."""
    negative_class: str | None = None
    """Class that says that there is none of the others, such as 'No Finding': it is left out, and
    its images hold no class."""
    readers: str | None = None
    """Where several rows are of one image, by several people: any, majority, or agree (unknown
    where they differ)."""
    image_pattern: str | None = None
    """Path of the image called {}, such as train/{}_green.png; {split} is the split's name."""

    @classmethod
    def of(cls, options: "ReadingOptions | None" = None, **given) -> "ReadingOptions":
        """Take options as people give them: a name for a list of one, a dictionary of values."""
        known = [each.name for each in fields(cls)]
        found = {}
        for name, value in given.items():
            if name not in known:
                raise InputError(f"there is no option {name!r}; choose from {', '.join(known)}")
            if name in ("label_columns", "class_columns", "ignore"):
                value = () if value is None else value
                value = (value,) if isinstance(value, str) else tuple(value)
                wrong = next((v for v in value if not isinstance(v, str)), None)
            elif name == "values" and isinstance(value, Mapping):
                value, wrong = ",".join(f"{_cell(k)}={v}" for k, v in value.items()), None
            else:
                wrong = value if not isinstance(value, str | None) else None
            if wrong is not None:
                raise InputError(f"{name} is {quote(wrong)}; give the name of a column, or a text")
            found[name] = value
        options = replace(options or cls(), **found)
        choices = ("any", "majority", "agree", None)
        if options.readers not in choices:
            raise InputError(f"readers={options.readers!r} is none of any, majority and agree")
        meanings(options.values)
        return options

    def as_dict(self) -> dict:
        """Those that were given, for a recipe's ``data_options``."""
        given = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in given.items()}


@dataclass(kw_only=True)
class ReadingPlan:
    """What each column of a table is for, and what its values mean.

    ``print(plan)`` says it in sentences. Every field may be changed, and the plan passed back, as
    ``ltml.load("folder", plan=plan)``: what it says is then done, and nothing is asked.

    Attributes:
        image: column of the images.
        labels: columns of labels, with how each is read: a separator, ``"none"`` (one label),
            ``"lists"`` or ``"vectors"``.
        classes: columns of 0 and 1, one for each class.
        value: column that affirms or denies the label of its row.
        split: column of the split.
        reader: column of who annotated the row.
        ignored: all other columns.
        values: cell -> ``"present"``, ``"absent"`` or ``"unknown"``; ``""`` is a blank cell, and
            ``"unlisted"`` a class without a row.
        negative_class: class that means none of the others.
        readers: ``"any"``, ``"majority"`` or ``"agree"``, where several people annotated an image.
        image_pattern: path of the image called ``{}``.
        notes: role -> what was found, to be said.
    """

    image: str
    labels: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    value: str | None = None
    split: str | None = None
    reader: str | None = None
    ignored: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    negative_class: str | None = None
    readers: str | None = None
    image_pattern: str | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Return it as JSON keeps it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> "ReadingPlan":
        """Build from what :meth:`as_dict` gave; what later versions may add is passed over."""
        values = values.as_dict() if isinstance(values, cls) else values
        if not isinstance(values, Mapping) or not isinstance(values.get("image"), str):
            raise InputError("plan: it names no column of images; give what as_dict() gave")
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def options(self, columns: Sequence[str]) -> dict:
        """Return what it says of another table of the same kind, as :class:`ReadingOptions`.

        Args:
            columns: columns of that table; what the plan says of others is left out.
        """
        marks = set(self.labels.values())
        out = {"separator": marks.pop() if len(marks) == 1 else None}
        out |= {"negative_class": self.negative_class, "image_pattern": self.image_pattern}
        roles = {"image_column": self.image, "value_column": self.value}
        roles |= {"reader_column": self.reader}
        out |= {role: name for role, name in roles.items() if name in columns}
        out["readers"] = self.readers if "reader_column" in out else None
        for role, names in (("label_columns", self.labels), ("class_columns", self.classes)):
            if names and set(names) <= set(columns):
                out[role] = tuple(names)
        known = {k or "blank": v for k, v in self.values.items() if "," not in k}
        out["values"] = ",".join(f"{key}={state}" for key, state in known.items()) or None
        return {name: value for name, value in out.items() if value is not None}

    def __str__(self) -> str:
        notes = self.notes
        said = [f"image: {_name(self.image)}" + _after(notes.get("image"))]
        if self.image_pattern:
            said[0] += f", by the pattern {self.image_pattern}"
        for column, mark in self.labels.items():
            how = reading.Reading(mark, {}).how
            said.append(f"labels: {_name(column)}, {how}" + _after(notes.get(f"labels {column}")))
        if self.classes:
            names = names_of(self.classes, 8)
            said.append(f"classes: {len(self.classes)} columns of 0 and 1: {names}")
        if "classes" in notes:
            said.append(notes["classes"])
        if self.value:
            said.append(f"value: {_name(self.value)} affirms or denies the label of its row")
        plain_values = {"0": "absent", "1": "present", "false": "absent", "true": "present"}
        told = {k: v for k, v in self.values.items() if plain_values.get(k) != v}
        if told:
            meanings = (f"{k or 'blank'} {v}" for k, v in told.items())
            said.append(f"values: {', '.join(meanings)}")
        for role in ("split", "reader"):
            if getattr(self, role):
                said.append(f"{role}: {_name(getattr(self, role))}" + _after(notes.get(role)))
        if self.readers:
            said.append(f"several rows of an image: {self.readers}")
        if self.negative_class:
            said.append(f"negative class: {self.negative_class!r}, which is left out")
        if self.ignored:
            said.append(f"ignored: {names_of(self.ignored, 8)}")
        said += [notes[key] for key in ("table", "unlabelled") if key in notes]
        return "\n".join(said)

    def log(self, table: Table, labels: LabelMatrix) -> None:
        """Log in one line how a table's labels were read."""
        C, rows = labels.num_classes, self.notes.get("rows")
        if self.classes:
            how = f"a column each: {quote(', '.join(self.classes))}"
        elif rows:
            how = rows
        else:
            marks = list(dict.fromkeys(self.labels.values()))
            how = "one label per image" if marks == ["none"] else reading.Reading(marks[0], {}).how
        _LOG.info("%s: %d classes, %s", Path(table.source).name, C, how)


def _after(note: str | None) -> str:
    return f", {note}" if note else ""


def _name(column: str) -> str:
    return f"`{column}`" if len(column) < 60 else f"`{column[:57]}...`"


def names_of(columns: Sequence[str], most: int) -> str:
    """Name the first few columns."""
    named = ", ".join(map(_name, columns[:most]))
    return f"{named} and {len(columns) - most} more" if len(columns) > most else named


def _cell(value) -> str:
    return "blank" if value is None or value != value or value == "" else str(value)


def canonical(cell: str) -> str:
    """Write a value as its like are: ``1.0`` is 1, ``TRUE`` true, and words for nothing blank."""
    cell = cell.strip()
    if is_nothing(cell):
        return ""
    if reading.NUMBER.fullmatch(cell) or _COMMA.fullmatch(cell):
        number = float(cell.replace(",", "."))
        return str(int(number)) if abs(number) < 1e15 and number == int(number) else f"{number:g}"
    return cell.casefold()


def meanings(text: str | None) -> list[tuple[str, int]]:
    """Read ``-1=unknown,blank=0,>=0.5=1``: pairs of a value or bound, and 1, 0 or -1 (unknown)."""
    found = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        key, equals, meaning = (piece.strip() for piece in part.rpartition("="))
        meaning = meaning.casefold()
        state = 1 if meaning in _ONE else 0 if meaning in _ZERO else STATES.get(meaning)
        if state is None and meaning in _UNKNOWN | {"nan"}:
            state = -1
        if not equals or state is None:
            raise InputError(
                f"values: {quote(part.strip())} is no VALUE=MEANING; give such as -1=unknown or "
                "blank=0, with 1, 0 or unknown"
            )
        bound = re.fullmatch(r"(>=?|<=?)\s*(.+)", key)
        if bound and not reading.NUMBER.fullmatch(bound.group(2)):
            raise InputError(f"values: {quote(key)} is no bound; give such as >=0.5=1")
        if not bound:
            key = "" if key.casefold() in ("blank", "empty") else canonical(key)
        found.append((key, state))
    return found


def meaning_of(value: str, given: list[tuple[str, int]]) -> int | None:
    """What a canonical value was said to mean, or means to everyone."""
    for key, state in given:
        bound = re.fullmatch(r"(>=?|<=?)\s*(.+)", key)
        if not bound:
            if key == value:
                return state
        elif reading.NUMBER.fullmatch(value):
            number, limit = float(value), float(bound.group(2))
            holds = {">": number > limit, ">=": number >= limit, "<": number < limit}
            if holds.get(bound.group(1), number <= limit):
                return state
    if value in _ONE:
        return 1
    return 0 if value in _ZERO else -1 if value in _UNKNOWN else None


def split_kind(value: str) -> str | None:
    """Which split a value or a file name stands for: ``"train"``, ``"val"``, ``"test"``."""
    if plain(value) in ("trainval", "learn"):
        return "train"
    return kind_of(value) if re.fullmatch("[A-Za-z_-]+", value) else None


# --- what a column holds ----------------------------------------------------------------------


class NoLabelsError(InputError):
    """A table names no images, or has no labels: it is some other table, or says neither."""


class Column:
    """A column of text: its distinct cells, and what they look like."""

    def __init__(self, name: str, cells: pd.Series):
        self.name, self.plain = name, plain(name)
        self.codes, distinct = pd.factorize(cells, use_na_sentinel=False)
        self.cells = ["" if cell is None or cell != cell else str(cell) for cell in distinct]

    @property
    def is_plain(self) -> bool:
        """Whether the name is one of boxes and exports, and not of a class."""
        return bool(_PLAIN.fullmatch(self.plain) or _NUMBERED.fullmatch(self.name))

    @cached_property
    def first(self) -> np.ndarray:
        """Row where each distinct cell occurs first."""
        rows = np.empty(len(self.cells), np.int64)
        rows[self.codes[::-1]] = np.arange(len(self.codes) - 1, -1, -1)
        return rows

    @cached_property
    def filled(self) -> list[str]:
        """Distinct cells that are not blank."""
        return [cell for cell in self.cells if not is_nothing(cell)]

    @cached_property
    def counts(self) -> np.ndarray:
        """Rows of each distinct cell."""
        return np.bincount(self.codes, minlength=len(self.cells))

    @cached_property
    def vocabulary(self) -> set[str]:
        """Canonical values, if they are few enough to be flags."""
        return set(map(canonical, self.cells)) if len(self.cells) <= 200 else {"*"}

    def share(self, test) -> float:
        """Share of the (first) distinct filled cells of which something holds."""
        sample = self.filled[:_SAMPLE]
        return sum(map(test, sample)) / len(sample) if sample else 0.0

    @cached_property
    def is_files(self) -> bool:
        """Whether the cells end as image files do."""
        return self.share(is_file_name) > 0.5

    def is_flag(self, given: list[tuple[str, int]] = ()) -> bool:
        """Whether all cells mean present, absent or unknown, and some the first two."""
        words = self.vocabulary - {""}
        known = {meaning_of(word, given) for word in words - {"-1"}}
        return bool(known - {-1}) and None not in known

    @property
    def is_silent(self) -> bool:
        """Whether all cells are blank or -1: a class that no image is known to have, perhaps."""
        return self.vocabulary <= {"", "-1"} and not any(c[:1] in tuple("[{(") for c in self.cells)

    def nearly_flag(self) -> bool:
        """Whether most cells are 0 and 1, and a few are something else: slips."""
        if len(self.cells) > 200 or not {"0", "1"} & self.vocabulary:
            return False
        flags = np.array([canonical(c) in _ONE | _ZERO | {""} for c in self.cells])
        return bool(self.counts[flags].sum() > 0.5 * self.counts.sum() and flags.sum() >= 1) and (
            len(self.cells) - flags.sum() <= max(1, flags.sum())
        )

    @cached_property
    def is_number(self) -> bool:
        """Whether all filled cells are numbers."""
        return self.share(lambda cell: bool(reading.NUMBER.fullmatch(cell))) == 1

    @property
    def is_words(self) -> bool:
        """Whether the cells are a few words or names, each of many rows."""
        few = 1 < len(self.filled) <= max(2, len(self.codes) // 3)
        return few and not (self.is_number or self.is_plain or self.is_flag() or self.is_files)

    @cached_property
    def is_list(self) -> bool:
        """Whether the cells are lists of names or indices."""

        def holds(cell: str) -> bool:
            try:
                return reading.parse_list(cell) is not None
            except ValueError:
                return False

        return self.share(holds) > 0.5


class Planner:
    """Give every column of a table its role."""

    def __init__(self, frame: Frame, class_names, options: ReadingOptions, finder, near):
        self.frame, self.class_names, self.options = frame, class_names, options
        self.finder, self.near = finder, near
        self.source, self.given = frame.source, meanings(options.values)
        self.columns = {n: Column(n, frame.columns[n]) for n in frame.columns}
        self.doubts: list[str] = []
        self.left: dict[str, Column] = {}

    def error(self, text: str) -> InputError:
        """Make an error of the whole table."""
        return InputError(f"{self.source}: {text}")

    def named(self, option: str, names: Iterable[str | None]) -> list[str]:
        """Check that options name columns; patterns stand for all columns that they fit."""
        found = []
        for name in filter(None, names):
            fits = [name] if name in self.columns else []
            if not fits and any(mark in name for mark in "*?["):
                fits = [column for column in self.left if fnmatchcase(column, name)]
                if option == "class_columns":
                    columns = [self.columns[c] for c in fits]
                    fits = [c.name for c in columns if c.is_flag(self.given) or c.is_silent]
            if not fits:
                there = names_of(list(self.columns), 20)
                hint = nearest(name, self.columns)
                raise NoLabelsError(
                    f"{self.source}: {option}: there is no column {quote(name)}{hint}; there are "
                    f"{there}"
                )
            found += fits
        return list(dict.fromkeys(found))

    def make(self, labelled: bool = True) -> ReadingPlan:
        """Find all roles, or ask about all that are in doubt at once."""
        if not len(self.frame.columns):
            raise InputError(f"{self.source} holds no image; add a line for each")
        asked, self.left = self.options, dict(self.columns)
        for name in self.named("ignore", asked.ignore):
            del self.left[name]
        plan = ReadingPlan(image=self._image(), image_pattern=asked.image_pattern)
        plan.negative_class, plan.readers = asked.negative_class, asked.readers
        self.left.pop(plan.image, None)
        if self.frame.note:
            plan.notes["table"] = self.frame.note
        left_out = set(self.columns) - set(self.left) - {plan.image}
        chosen = [n for n in self.named("label_columns", asked.label_columns) if n not in left_out]
        classes = [n for n in self.named("class_columns", asked.class_columns) if n not in left_out]
        plan.value = next(iter(self.named("value_column", [asked.value_column])), None)
        plan.split = next(iter(self.named("split_column", [asked.split_column])), None)
        plan.reader = next(iter(self.named("reader_column", [asked.reader_column])), None)
        for name in (*chosen, *classes, plan.value, plan.split, plan.reader):
            self.left.pop(name, None)
        if plan.split is None:
            plan.split = self._split()
        if plan.reader is None:
            images = self.columns[plan.image]
            plan.reader = self._reader(len(images.cells) < len(images.codes))
        if not labelled:
            pass
        elif not chosen and not classes:
            chosen, classes = self._labels(plan)
        elif chosen and plan.value is None:
            plan.value = self._value(plan.image)
        for name in (*chosen, *classes):
            self.left.pop(name, None)
        plan.labels, plan.classes = dict.fromkeys(chosen, asked.separator or ""), classes
        if plan.value:
            self._value_states(plan, [plan.value])
        if classes:
            self._value_states(plan, classes)
        plan.ignored = [n for n in self.columns if n in self.left or n in self._left_out(plan)]
        if self.doubts:
            raise InputError(self._ask())
        return plan

    def _left_out(self, plan: ReadingPlan) -> set[str]:
        used = {plan.image, plan.value, plan.split, plan.reader, *plan.labels, *plan.classes}
        return set(self.columns) - used

    def _ask(self) -> str:
        located = [doubt for doubt in self.doubts if doubt.startswith(("line ", "row "))]
        others = [doubt for doubt in self.doubts if doubt not in located]
        said = "; and ".join([*located, *others])
        options = dict.fromkeys(re.findall(r"--([a-z]+(?:-[a-z]+)*)", said))
        python = ", ".join(f"{option.replace('-', '_')}=" for option in options)
        return f"{self.source}{', ' if located else ': '}{said} (in Python {python})"

    def follow(self, plan: ReadingPlan) -> ReadingPlan:
        """Check a plan that is given against the table; what it says is done."""
        plan = ReadingPlan.from_dict(plan)
        if plan.split not in self.columns:
            plan.split = None  # it came from another table, and is looked for there again
        self.left = dict(self.columns)
        for option, names in (
            ("plan.image", [plan.image]),
            ("plan.labels", plan.labels),
            ("plan.classes", plan.classes),
            ("plan.value", [plan.value]),
            ("plan.reader", [plan.reader]),
        ):
            missing = [n for n in names if n is not None and n not in self.columns]
            if missing:
                raise self.error(f"{option}: there is no column {quote(missing[0])}")
        if not plan.labels and not plan.classes:
            raise self.error("the plan names no column of labels and none of classes; give some")
        plan.notes, plan.ignored = {}, [n for n in self.columns if n in self._left_out(plan)]
        return plan

    # --- the image ---

    def _image(self) -> str:
        asked = self.named("image_column", [self.options.image_column])
        if asked:
            return asked[0]
        taken = {self.options.value_column, self.options.split_column}
        taken |= {*self.options.label_columns, *self.options.class_columns}
        columns = [c for n, c in self.left.items() if n not in taken]
        named = [c for c in columns if is_image_name(c.name)]
        valued = [c for c in columns if c.is_files]
        both = [c for c in valued if c in named]
        found = both or valued or named
        if self.finder is not None and found == valued and not any(map(self._fit, found)):
            # Files of elsewhere, such as addresses: another column may name those that are here.
            there = [c for c in columns if len(c.filled) == len(c.codes) and self._fit(c) == 1]
            found = there[:1] or found
        elif self.finder is not None and (len(found) != 1 or not found[0].is_files):
            pattern = self.options.image_pattern is not None
            there = [c for c in found or columns if self._fit(c) == 1]
            # Of columns of any name, one whose entries are all files: each its own.
            if there and (found or pattern or len(there[0].cells) == len(there[0].codes)):
                found = there if found else there[:1]
        if not found:
            weak = [c for c in columns if c.plain in ("id", "name", "key", "item", "sample")]
            weak = [c for c in weak if not c.is_flag() or len(c.cells) == len(c.codes)]
            # An id has an entry of its own in each row, or is not the only column so called.
            found = [c for c in weak if c.plain == "id"][:1] or weak[:1]
        if not found:
            found = self._without_name(columns)
        if len(found) > 1:
            found = self._same_images(found)
        if not found:
            names = quote(", ".join(self.columns))
            answers = [c for c in columns if len(c.filled) == len(c.codes) > 1] or columns
            answers = [f"--image-column {quote(c.name)}" for c in answers[:4]]
            raise NoLabelsError(
                f"{self.source}: the columns are {names}, and none is known to name images; say "
                f"which: {' or '.join(answers)} (in Python image_column=)"
            )
        if len(found) > 1:
            names = " and ".join(quote(c.name) for c in found[:4])
            answers = " or ".join(f"--image-column {quote(c.name)}" for c in found[:4])
            self.doubts.append(
                f"columns {names} may both be meant; say which names the image: {answers}"
            )
        return found[0].name

    def _without_name(self, columns: list[Column]) -> list[Column]:
        """An id by another name: unique text in the first column, beside labels."""
        first = columns[0] if len(columns) > 1 else None
        if first is None or first.is_number or first.is_flag() or first.is_list:
            return []
        own = len(first.filled) == len(first.codes) > 1
        return [first] if own and re.search(r"id$|name$|key$|file|ima?ge?", first.plain) else []

    def _fit(self, column: Column) -> float:
        if self.finder is None or not column.filled:
            return 0.0
        sample = column.filled[:: max(1, len(column.filled) // 20)][:20]
        return sum(self.finder.fits(c, near=self.near) for c in sample) / len(sample)

    @staticmethod
    def _same_images(found: list[Column]) -> list[Column]:
        """Where columns give one image's path and name in every row, take the path."""
        longest = max(found, key=lambda c: sum(map(len, c.filled[:_SAMPLE])))
        rows = range(min(len(longest.codes), _SAMPLE))
        for other in found:
            for row in rows:
                path = longest.cells[longest.codes[row]].replace("\\", "/")
                name = other.cells[other.codes[row]].replace("\\", "/")
                stem = posixpath.basename(path).rpartition(".")[0]
                if not path.endswith(name) and name not in (stem, path):
                    return found
        return [longest]

    # --- split and reader ---

    def _split(self) -> str | None:
        by_value = []
        for name, column in self.left.items():
            kinds = {split_kind(cell) for cell in column.filled[:20]} if column.filled else {None}
            if len(column.filled) <= 10 and None not in kinds and len(kinds) > 1:
                by_value.append(name)
        named = [n for n, c in self.left.items() if _SPLIT.fullmatch(c.plain)]
        named = [n for n in named if len(self.left[n].cells) <= 20]
        found = by_value or named
        if not found:
            return None
        if len(found) > 1:
            names = " and ".join(map(quote, found[:3]))
            answers = " or ".join(f"--split-column {quote(n)}" for n in found[:3])
            self.doubts.append(f"columns {names} may both name the split; say which: {answers}")
        for name in found:
            self.left.pop(name, None)
        return found[0]

    def _reader(self, repeated: bool) -> str | None:
        found = [n for n, c in self.left.items() if _READER.fullmatch(c.plain)]
        found = [n for n in found if repeated or not self.left[n].is_flag()]
        for name in found[:1]:
            self.left.pop(name)
        return found[0] if found else None

    def _value(self, image: str) -> str | None:
        """The column that affirms or denies labels: its values are flags, or have bounds."""
        for name, column in self.left.items():
            if not _VALUE.fullmatch(column.plain):
                continue
            if column.is_flag(self.given):
                self.left.pop(name)
                return name
            if column.is_number and not is_nothing("".join(column.filled[:1])):
                numbers = [float(c) for c in column.filled]
                option = f"--value-column {quote(name)} --values '>=0.5=1,<0.5=0'"
                self.doubts.append(
                    f"column {quote(name)} holds {min(numbers):g} to {max(numbers):g} for each "
                    f"label; say from where a label counts: {option}, or --ignore {quote(name)}"
                )
                self.left.pop(name)
                return None
            words = column.filled
            repeated = len(self.columns[image].cells) < len(column.codes)
            if repeated and 1 < len(words) <= 20:  # an attribute's value, in a row of its own
                self.doubts.append(
                    f"column {quote(name)} holds {listed(words)} for each label; say whether these "
                    f"are the labels, or are left out: --label-columns {quote(name)}, or --ignore "
                    f"{quote(name)}"
                )
                self.left.pop(name)
                return None
        return None

    # --- labels and classes ---

    def _labels(self, plan: ReadingPlan) -> tuple[list[str], list[str]]:
        """Find the columns of labels, or those of classes."""
        flags = {n: c for n, c in self.left.items() if c.is_flag(self.given)}
        rest = {n: c for n, c in self.left.items() if c.filled or _LABELS.fullmatch(c.plain)}
        families = self._families(rest)
        if families:
            chosen = self._one_family(families)
            for name in chosen:
                self.left.pop(name, None)
            if chosen:
                self._affirm(plan, chosen)
                self._ask_beside(chosen, flags)
            return chosen, []
        if self.class_names is not None and any(n in self.left for n in self.class_names):
            return [], list(self.class_names)
        tidy = self._tidy(plan.image, flags, rest)
        if tidy:
            self.left.pop(tidy)
            plan.value = plan.value or self._value(plan.image)
            return [tidy], []
        lists = any(c.is_list and not c.is_number for c in rest.values())
        only_numbered = bool(flags) and all(c.is_plain for c in flags.values())
        classes = [] if lists and only_numbered else self._flags(flags)
        if classes:
            return [], classes
        # No name says it: a column of lists, or of what only labels look like.
        found = [n for n, c in rest.items() if c.is_list or _LOOSE.search(c.plain)]
        found = [n for n in found if not rest[n].is_number]
        found = [n for n in found if len(rest[n].cells) > 1] or found  # not of every image the same
        if len(found) > 1:
            names, every = listed(found), " ".join(map(quote, found))
            answers = [every, *map(quote, found)]
            self.doubts.append(
                f"columns {names} may hold labels; say which: "
                + ", or ".join(f"--label-columns {answer}" for answer in answers)
            )
            return [], []
        if found:
            self.left.pop(found[0])
            self._affirm(plan, found)
            self._ask_beside(found, flags)
            return found, []
        if self.class_names is not None:
            return [], list(self.class_names)
        raise self._no_labels(found, rest)

    def _tidy(self, image: str, flags: Mapping[str, Column], rest: Mapping[str, Column]):
        """The one column of words, where images have several rows and the only column of 0 and 1 is
        called as those that affirm them: ``variable,value``, as pandas' ``melt`` writes.
        """
        rows = len(self.columns[image].codes)
        affirmed = [c for c in flags.values() if _VALUE.fullmatch(c.plain)]
        if not len(flags) == len(affirmed) == 1 or len(self.columns[image].cells) == rows:
            return None
        words = [n for n, c in rest.items() if n not in flags and not (c.is_number or c.is_plain)]
        words = [n for n in words if len(self.columns[n].filled) <= rows // 2]
        return words[0] if len(words) == 1 else None

    def _affirm(self, plan: ReadingPlan, chosen: list[str]) -> None:
        """Look for a column that affirms labels, unless these are lists, of several each."""
        if not any(self.columns[name].is_list for name in chosen):
            plan.value = plan.value or self._value(plan.image)

    @staticmethod
    def _families(columns: Mapping[str, Column]) -> list[list[str]]:
        """Columns named as labels are, those that differ by a number together."""
        found: dict[str, list[str]] = {}
        for name, column in columns.items():
            stem, number = _FAMILY.fullmatch(name).groups()
            if (
                number
                and (column.is_flag() or column.is_silent)
                and _FAMILY.fullmatch(name)[1] == "class"
            ):
                continue  # as columns without a header are called
            if _LABELS.fullmatch(column.plain):
                found.setdefault(plain(name).rstrip("s"), []).append(name)
            elif number and _LABELS.fullmatch(plain(stem)):
                found.setdefault(plain(stem).rstrip("s"), []).append(name)
        return list(found.values())

    def _one_family(self, families: list[list[str]]) -> list[str]:
        """The columns of labels among several kinds: names rather than their numbers, or ask."""
        if len(families) == 1:
            return families[0]
        single = [family[0] for family in families]
        parallel = self.parallel([self.columns[name] for name in single])
        if all(len(family) == 1 for family in families) and parallel:
            for name in single:
                self.left.pop(name, None)
            return [parallel]
        names = " and ".join(quote(name) for name in single[:4])
        everything = [name for family in families for name in family]
        alike = len({self._form(self.columns[name]) for name in everything}) == 1
        answers = [f"--label-columns {' '.join(map(quote, f))}" for f in families]
        answers += [f"--label-columns {' '.join(map(quote, everything))}"] * alike
        flags = [n for n, c in self.left.items() if c.is_flag() and n not in everything]
        flags = [n for n in flags if not self.columns[n].is_plain]
        if flags:
            answers.append(f"--class-columns {_listed(flags)}")
        self.doubts.append(f"columns {names} may both be meant; say which: {', or '.join(answers)}")
        return []

    @staticmethod
    def _form(column: Column) -> str:
        """What labels look like; columns of different forms are not of the same labels."""
        if column.is_number:
            return "numbers"
        signs = set("".join(column.filled[:_SAMPLE]))
        return "numbers in lists" if signs <= set("0123456789.,;|[](){} -") else "names"

    @staticmethod
    def parallel(columns: list[Column]) -> str | None:
        """The column of names, where others hold a number for each name."""
        names = [c for c in columns if not c.is_number]
        if len(names) != 1 or len({len(c.cells) for c in columns}) != 1:
            return None
        pairs = {tuple(row) for row in zip(*(c.codes.tolist() for c in columns), strict=True)}
        return names[0].name if len(pairs) == len(columns[0].cells) > 1 else None

    def _ask_beside(self, chosen: list[str], flags: Mapping[str, Column]) -> None:
        """Ask about columns without a role beside those of labels that look like labels too."""
        known = set(self.class_names or ())
        label = self.columns[chosen[0]]
        both = {*label.vocabulary} <= {"0", "1", ""}
        doubtful = [n for n in flags if n in self.left and not flags[n].is_plain]
        if not any(len(flags[n].cells) > 1 or n in label.filled for n in doubtful):
            doubtful = []  # a constant
        if known and not both:
            doubtful = [n for n in doubtful if n in known]
        answers = [f"--label-columns {' '.join(map(quote, chosen))}"]
        if doubtful:
            several = f"column{'s' * (len(doubtful) > 1)} {listed(doubtful)}"
            self.doubts.append(
                f"both column {quote(chosen[0])} and the 0 and 1 of {several} may give labels; say "
                f"which: --class-columns {_listed(doubtful)}, or {answers[0]}"
            )
            return
        words = {w for name in chosen for w in self._words(self.columns[name])}
        also = []
        for name, column in self.left.items():
            if name in flags or column.is_number or not column.filled or len(words) < 2:
                continue
            if column.share(lambda cell: set(self._split_loosely(cell)) <= words) > 0.5:
                also.append(name)
        if also:
            every = " ".join(map(quote, [*chosen, *also]))
            self.doubts.append(
                f"column{'s' * (len(also) > 1)} {listed(also)} {'hold' if also[1:] else 'holds'} "
                f"labels of {quote(chosen[0])} "
                f"too; say whether they count: --label-columns {every}, or {answers[0]}"
            )

    @staticmethod
    def _split_loosely(cell: str) -> list[str]:
        try:
            items = reading.parse_list(cell)
        except ValueError:
            items = None
        return list(items) if items else [p.strip() for p in re.split("[;|,]", cell) if p.strip()]

    def _words(self, column: Column) -> set[str]:
        return {w for cell in column.filled[:5000] for w in [cell, *self._split_loosely(cell)]}

    def _flags(self, flags: Mapping[str, Column]) -> list[str]:
        """Which columns of 0 and 1 are classes, in their order."""
        if not flags:
            near = [n for n, c in self.left.items() if c.nearly_flag()]
            near = [n for n in near if not self.columns[n].is_plain]
            return near if self._ask_numbers(near) else []
        odd = [n for n, c in flags.items() if c.is_plain]
        if odd:
            some = len(odd) < len(flags)
            raise (InputError if some else NoLabelsError)(
                f"{self.source}: column{'s' * (len(odd) > 1)} {listed(odd)} of 0 and 1 "
                f"{'are no classes' if odd[1:] else 'is no class'}; drop or rename "
                f"{'them' if odd[1:] else 'it'}, or say --ignore {' '.join(map(quote, odd))}"
            )
        kept = [n for n in flags if n not in odd]
        empty = [n for n, c in self.left.items() if c.is_silent and not c.is_plain]
        near = [n for n, c in self.left.items() if n not in flags and c.nearly_flag()]
        near = [n for n in near if not self.columns[n].is_plain]
        near = [n for n in near if self.columns[n].vocabulary & (_ONE | _ZERO)]
        kept = [n for n in self.left if n in {*kept, *empty, *near}]
        self._ask_numbers(kept)
        words = [n for n, c in self.left.items() if n not in kept and c.is_words]
        if len(kept) == 1 and words:
            self.doubts.append(
                f"column {quote(kept[0])} of 0 and 1 would be the only class; say so, or which "
                f"columns hold the labels: --class-columns {quote(kept[0])}, or --label-columns "
                f"{' '.join(map(quote, words[:6]))}"
            )
        doubtful = [n for n in kept if _DOUBTFUL.fullmatch(self.columns[n].plain)]
        doubtful += [n for n in self._summaries(kept) if n not in doubtful]
        if doubtful and len(kept) > len(doubtful) and not self.options.ignore:
            what = f"column{'s' * (len(doubtful) > 1)} {listed(doubtful)}"
            left_out = " ".join(map(quote, doubtful))
            self.doubts.append(
                f"{what} of 0 and 1 may be no class{'es' * (len(doubtful) > 1)}; say whether to "
                f"count them: --ignore {left_out}, or --class-columns '*' for all"
            )
        return kept

    def _ask_numbers(self, kept: list[str]) -> list[str]:
        """Ask about columns beside others of 0 and 1 that hold counts, or shares from 0 to 1."""
        if not kept:
            return kept
        rest = [n for n, c in self.left.items() if n not in kept and c.is_number]
        for holds, what, meaning in (
            (self._are_counts, "may count what they are named after", "'>=1=1'"),
            (self._are_shares, "hold shares from 0 to 1", "'>=0.5=1,<0.5=0'"),
        ):
            found = [n for n in rest if holds(self.columns[n])]
            if found:
                also = {n for n in kept if not self.left[n].is_flag(self.given)}
                found = [n for n in self.left if n in found or (n in also and holds(self.left[n]))]
                self.doubts.append(
                    f"column{'s' * (len(found) > 1)} {listed(found)} {what}; say so: --values "
                    f"{meaning}, or --ignore {' '.join(map(quote, found))}"
                )
        return kept

    def _summaries(self, names: list[str]) -> list[str]:
        """Columns that are 1 exactly where any other is: a summary of the classes."""
        if len(names) < 3 or len(names) * len(self.frame.columns) > 10**8:
            return []
        Y = np.stack([self._is_one(self.columns[n]) for n in names], axis=1)
        total, found = Y.sum(axis=1), []
        for i, name in enumerate(names):
            others = total - Y[:, i] > 0
            same = (Y[:, i] == others).all() and others.any()
            named = _SUMMARY.fullmatch(self.columns[name].plain)
            if same and (named or (len(names) > 4 and len(Y) >= 20 and not others.all())):
                found.append(name)
        return found

    @staticmethod
    def _is_one(column: Column) -> np.ndarray:
        return np.array([canonical(c) in _ONE for c in column.cells])[column.codes]

    def _no_labels(self, found: list[str], rest: Mapping[str, Column]) -> InputError:
        """Say that there are no labels, or which column may hold them."""
        words = found or [n for n, c in rest.items() if not c.is_number and not c.is_plain]
        counts = [n for n, c in rest.items() if c.is_number and self._are_counts(c)]
        if counts:
            column = self.columns[counts[0]]
            cell = next(c for c in column.filled if canonical(c) not in _ONE | _ZERO)
            place = self.frame.places[int(column.first[column.cells.index(cell)])]
            return NoLabelsError(
                f"{self.source}, {place}: column {quote(counts[0])} holds {quote(cell)}, neither 0 "
                f"nor 1; if the columns count, say so: --class-columns {_listed(counts)} --values "
                "'>=1=1'"
            )
        names, values = self._marks(rest)
        shares = [n for n, c in rest.items() if c.is_number and self._are_shares(c)]
        if shares and not names:
            names, values = shares, [">=0.5=1,<0.5=0"]
        if names:
            what = "hold the same few words" if names is not shares else "hold shares from 0 to 1"
            answers = [f"--class-columns {_listed(names)} --values {quote(v)}" for v in values]
            return InputError(
                f"{self.source}: columns {listed(names)} {what}; if they are classes, say what "
                f"counts: {' or '.join(answers)}"
            )
        if words:
            column = self.columns[words[0]]
            cell = column.filled[0]
            place = self.frame.places[int(column.first[column.cells.index(cell)])]
            answers = " or ".join(f"--label-columns {quote(name)}" for name in words[:3])
            return NoLabelsError(
                f"{self.source}, {place}: column {quote(words[0])} holds {quote(cell)}, neither 0 "
                f"nor 1; if it holds the labels, say so: {answers} (in Python label_columns=)"
            )
        answers = [f"--label-columns {quote(name)}" for name in list(rest)[:4]]
        which = f", or say which it is: {' or '.join(answers)}" if answers else ""
        return NoLabelsError(f"{self.source}: it has no labels; call their column labels{which}")

    @staticmethod
    def _are_counts(column: Column) -> bool:
        numbers = {canonical(c) for c in column.filled}
        few = len(numbers) <= 30 and all(n.isdecimal() and int(n) <= 255 for n in numbers)
        return few and "0" in numbers and not column.is_plain

    @staticmethod
    def _are_shares(column: Column) -> bool:
        numbers = [float(c) for c in column.filled[:_SAMPLE]]
        inside = bool(numbers) and all(0 <= n <= 1 for n in numbers)
        return inside and len(set(numbers) - {0, 1}) > 0 and not column.is_plain

    def _marks(self, rest: Mapping[str, Column]) -> tuple[list[str], list[str]]:
        """Columns that hold one or two words, the same in all, and what these may mean."""
        alike: dict[frozenset, list[str]] = {}
        for name, column in rest.items():
            words = frozenset(column.vocabulary - {""})
            if not column.is_plain and 1 <= len(words) <= 2 and "*" not in words:
                alike.setdefault(words, []).append(name)
        words, names = max(alike.items(), key=lambda item: len(item[1]), default=((), []))
        blank = any("" in self.columns[name].vocabulary for name in names)
        one = sorted(words)
        if len(names) < 2 or (len(one) == 1 and not blank):
            return [], []
        if len(one) == 1:
            return names, [f"{one[0]}=1,blank=0", f"{one[0]}=1,blank=unknown"]
        return names, [f"{one[0]}=0,{one[1]}=1", f"{one[0]}=1,{one[1]}=0"]

    # --- values ---

    def _value_states(self, plan: ReadingPlan, names: Sequence[str]) -> None:
        """Find what each value of some columns means; ask about -1 and blanks in doubt."""
        names = [n for n in names if n in self.columns]
        words = set().union(*(self.columns[n].vocabulary for n in names))
        meaning = {w: meaning_of(w, self.given) for w in words}
        zero = 0 in meaning.values()
        pending = [w for w in ("-1", "") if w in words and meaning[w] is None]
        said = {key for key, _ in self.given}
        if "-1" in pending:
            if not zero and "" not in words:
                meaning["-1"] = 0
            elif zero and ("" in words or "" in said):
                meaning["-1"] = -1
        if "" in pending and zero:
            meaning[""] = -1
        pending = [w for w in pending if meaning[w] is None]
        if pending:
            self._ask_values(names, pending)
        states = {1: "present", 0: "absent", -1: "unknown"}
        plan.values |= {w: states[m] for w, m in sorted(meaning.items()) if m is not None}
        for key, state in self.given:
            if key == "unlisted":
                plan.values[key] = states[state]

    def _ask_values(self, names: Sequence[str], pending: list[str]) -> None:
        rows = []
        for name in names:
            column = self.columns[name]
            for cell, row in zip(column.cells, column.first, strict=True):
                if canonical(cell) == pending[0]:
                    rows.append((int(row), name, cell))
        row, name, cell = min(rows)
        called = [word or "blank" for word in pending]
        answers = [",".join(f"{w}={m}" for w in called) for m in ("0", "unknown")]
        self.doubts.append(
            f"{self.frame.places[row]}: column {quote(name)} holds {quote(cell)}, neither 0 nor 1; "
            f"say what it means: --values {answers[0]} or --values {answers[1]}"
        )

    # --- images ---

    def images(self, plan: ReadingPlan) -> tuple[Table, np.ndarray]:
        """Return the distinct images with the row where each is first, and each row's image."""
        column = self.columns[plan.image]
        for cell, row in zip(column.cells, column.first, strict=True):
            if not cell or min(cell) < " ":
                text = f"the image is {quote(cell)}; give its path, and check quotes"
                raise InputError(f"{self.source}, {self.frame.places[int(row)]}: {text}")
        normal: dict[str, int] = {}
        same = np.array(
            [normal.setdefault(posixpath.normpath(c), i) for i, c in enumerate(column.cells)]
        )
        kept, inverse = np.unique(same, return_inverse=True)
        images = [column.cells[i] for i in kept]
        places = [self.frame.places[int(row)] for row in column.first[kept]]
        return Table(self.source, places, images), inverse[column.codes]


def _listed(names: Sequence[str]) -> str:
    return " ".join(map(quote, names)) if len(names) <= 20 else "'*'"


def listed(names: Sequence[str]) -> str:
    """Name things in a sentence: ``'a', 'b' and 'c'``."""
    shown = [quote(name) for name in names[:6]]
    if len(names) > 6:
        return f"{', '.join(shown)} and {len(names) - 6} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)
