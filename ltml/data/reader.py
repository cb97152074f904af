"""Read a table by a plan of its columns: labels present, absent and unknown, image by image."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote
from ltml.core.labels import LabelMatrix
from ltml.data import cells as reading
from ltml.data.cells import check_spelling, find_classes, nearest
from ltml.data.finder import Finder
from ltml.data.plan import (
    NEGATIVE,
    STATES,
    Column,
    Planner,
    ReadingOptions,
    ReadingPlan,
    canonical,
    listed,
    meaning_of,
    meanings,
    names_of,
)
from ltml.data.tables import Frame, Table, is_image_name, plain


def read_plan(
    frame: "Frame | pd.DataFrame | str | Path",
    class_names: Sequence[str] | None = None,
    *,
    finder: Finder | None = None,
    options: ReadingOptions | None = None,
    **given,
) -> ReadingPlan:
    """Say what each column of a table means, from its name and its values.

    Args:
        frame: a table: a file, a DataFrame, or an opened one.
        class_names: the classes, if they are known.
        finder: finder of the images, to see which column's entries are files.
        options: reading options that are known already.
        given: more of :class:`ReadingOptions`, such as ``image_column="Id"``.

    Raises:
        InputError: one question, which names all columns that may be meant in several ways and the
            options that answer it.

    Example:
        >>> table = pd.DataFrame({
        ...     "Image Index": ["1.png", "2.png"], "Finding Labels": ["Mass|Edema", "No Finding"],
        ...     "Patient Age": ["58", "60"]})
        >>> print(read_plan(table))
        image: `Image Index`
        labels: `Finding Labels`, labels separated by '|', 3 classes, 'No Finding' among them
        ignored: `Patient Age`
    """
    options = ReadingOptions.of(options, **given)
    return read(as_frame(frame), class_names, options, finder=finder)[2]


def as_frame(table: "Frame | pd.DataFrame | str | Path") -> Frame:
    """Open a table, whatever it is."""
    from ltml.data.tables import Places, as_text, open_table

    if isinstance(table, Frame):
        return table
    if isinstance(table, pd.DataFrame):
        table = flat(table)
        columns = {n: list(map(as_text, table[n])) for n in table.columns}
        frame = pd.DataFrame(columns, dtype=object, index=range(len(table)))
        return Frame("frame", Places("row", range(len(table))), frame)
    return open_table(Path(table))


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """Call the columns by text, of several levels by the last that says something; and make the
    rows' names a column, if they are text and no column is called as images are.
    """
    names = [name if isinstance(name, tuple) else (name,) for name in table.columns]
    names = [[str(part) for part in name if str(part).strip()] or [""] for name in names]
    last = [name[-1] for name in names]
    if len(set(last)) < len(last):
        last = [" ".join(name) for name in names]
    table = table.set_axis(last, axis=1)
    index = table.index
    text = not isinstance(index, pd.MultiIndex) and pd.api.types.is_string_dtype(index.dtype)
    if text and len(index) and index.is_unique and not any(map(is_image_name, last)):
        name = str(index.name or "image")
        if name not in last:
            table = table.assign(**{name: index})[[name, *last]]
    return table


def flags_among(frame: Frame, names: Sequence[str]) -> bool:
    """Whether columns hold numbers, one for each class, rather than labels."""
    columns = [Column(name, frame.columns[name]) for name in names]
    return all(not column.filled or column.is_flag() or column.is_number for column in columns)


def read(
    frame: Frame,
    class_names: Sequence[str] | None,
    options: ReadingOptions,
    *,
    finder: Finder | None = None,
    near: Path | None = None,
    plan: ReadingPlan | None = None,
    labelled: bool = True,
) -> tuple[Table, LabelMatrix | None, ReadingPlan]:
    """Plan how a table is read, and read it; ``plan`` decides, if it is given.

    ``labelled=False`` stops at the plan of images and splits, for a table that holds only these.
    """
    if class_names is not None:
        class_names = check_class_names(class_names, where="class_names")
    frame, options = _apart(frame, options, finder, near, plan)
    planner = Planner(frame, class_names, options, finder, near)
    plan = planner.make(labelled) if plan is None else planner.follow(plan)
    table, codes = planner.images(plan)
    if not labelled:
        return table, None, plan
    table, labels = Reader(planner, plan, table, codes, class_names, options).labels()
    empty = int((np.diff(labels.matrix.indptr) == 0).sum())
    if empty:
        plan.notes["unlabelled"] = f"{empty:,} of {len(labels):,} images have no label"
    return table, labels, plan


def _apart(frame: Frame, options: ReadingOptions, finder, near, plan):
    """Part ids such as ``ID_1_edema`` into image and class, where a column of 0 and 1, or of masks,
    has a row for every image and every class, and the images are called by the first part.
    """
    roles = {options.image_column, *options.label_columns, *options.class_columns}
    names = [name for name in frame.columns if name not in options.ignore]
    if len(names) != 2 or roles - {None, *names}:
        return frame, options
    ids, value = (Column(name, frame.columns[name]) for name in names)
    masks = re.fullmatch("encodedpixels|rle|masks?", value.plain) and "" in value.cells
    if len(ids.filled) != len(ids.codes) or options.value_column:
        return frame, options
    if not (masks or value.is_flag()):
        return frame, options
    parts = [cell.rpartition("_") for cell in map(str, frame.columns[ids.name])]
    images, classes = {p[0] for p in parts}, {p[2] for p in parts}
    every = len(images) * len(classes) == len(parts) and min(len(images), len(classes)) > 1
    if not every or "" in images | classes:
        return frame, options
    finder = finder or Finder(Path(frame.source).parent)
    some = parts[:: max(1, len(parts) // 20)]
    if not all(finder.fits(p[0], near=near) for p in some) or any(
        finder.fits("_".join([p[0], p[2]]), near=near) for p in some
    ):
        return frame, options
    ends = f"end of {ids.name}"
    columns = frame.columns.assign(**{ids.name: [p[0] for p in parts], ends: [p[2] for p in parts]})
    if masks:  # blank where the class is absent
        columns[value.name] = [str(int(bool(cell))) for cell in frame.columns[value.name]]
    if plan is None:
        options = replace(
            options, image_column=ids.name, label_columns=(ends,), value_column=value.name,
            class_columns=(),
        )  # fmt: skip
    return frame._replace(columns=columns), options


class Reader:
    """Read the labels of a table by its plan."""

    def __init__(
        self, planner: Planner, plan: ReadingPlan, table: Table, codes, class_names, options
    ):
        self.columns, self.frame, self.plan = planner.columns, planner.frame, plan
        self.table, self.codes, self.class_names = table, codes, class_names
        self.N, self.options = len(table.images), options
        self.repeats = len(codes) > self.N

    def error(self, row: int, text: str) -> InputError:
        """Make the error of a row."""
        return InputError(f"{self.frame.source}, {self.frame.places[int(row)]}: {text}")

    @property
    def source(self) -> str:
        """What messages call the table."""
        return self.frame.source

    @property
    def rows(self) -> Sequence[str]:
        """What messages call each row."""
        return self.frame.places

    def labels(self) -> tuple[Table, LabelMatrix]:
        """Read the labels."""
        parts = []
        names = self.class_names
        negative = self.plan.negative_class
        if names is not None and negative is not None and negative not in names:
            names = (*names, negative)
        if self.plan.classes:
            parts.append(self._from_classes(names))
        if self.plan.labels:
            parts.append(self._from_cells(names))
        matrix = parts[0] if len(parts) == 1 else _side_by_side(*parts)
        self._say(matrix)
        if negative is not None:
            matrix = self._without(matrix, negative)
        return self.table, matrix

    def _say(self, labels: LabelMatrix) -> None:
        found = [n for n in labels.class_names if NEGATIVE.fullmatch(plain(n))]
        among = f", {listed(found)} among them" if found and not self.plan.negative_class else ""
        said = f"{labels.num_classes:,} classes{among}"
        if labels.class_names[0] == "class 0" and labels.num_classes > 2 and not labels.counts[0]:
            said += ", class 0 of no image: are they counted from 1?"
        for column in self.plan.labels:
            self.plan.notes[f"labels {column}"] = said
            said = ""
        if not self.plan.labels and among:
            self.plan.notes["classes"] = among.lstrip(", ")

    def _without(self, labels: LabelMatrix, name: str) -> LabelMatrix:
        """Leave a negative class out; its images hold none of the others, known for sure."""
        if name not in labels.class_names:
            raise InputError(
                f"{self.source}: negative_class {quote(name)} is no class"
                f"{nearest(name, labels.class_names)}; there are {names_of(labels.class_names, 20)}"
            )
        at = labels.class_names.index(name)
        kept = [c for c in range(labels.num_classes) if c != at]
        if not kept:
            raise InputError(f"{self.source}: {quote(name)} is the only class; give others")
        names = [labels.class_names[c] for c in kept]
        matrix = labels.matrix.tocsc()[:, kept].tocsr()
        if not labels.has_unknown:
            return LabelMatrix(matrix, names)
        rows = np.diff(labels.matrix[:, [at]].indptr) == 0
        unknown = labels.unknown.tocsc()[:, kept].tocsr().multiply(rows[:, None]).tocsr()
        return LabelMatrix(matrix, names, unknown=csr_array(unknown))

    # --- columns of 0 and 1 ---

    def _from_classes(self, class_names) -> LabelMatrix:
        names = list(self.plan.classes)
        table, given = self.frame, class_names is not None
        if given and not self.plan.labels:
            for name in class_names:
                if name not in self.columns:
                    near = nearest(name, [n for n in self.columns if n != self.plan.image])
                    raise InputError(
                        f"{table.source}: class {quote(name)} has no column{near}; add it"
                    )
            for name, column in self.columns.items():
                free = name in self.plan.ignored and not column.is_plain
                if free and column.is_flag() and name not in self.options.ignore:
                    text = (
                        f"column {quote(name)} of 0 and 1 is no class{nearest(name, class_names)}"
                    )
                    raise InputError(
                        f"{table.source}: {text}; drop or rename it, or say --ignore {quote(name)}"
                    )
            names = list(class_names)
        else:
            check_spelling(table.source, dict.fromkeys(names, "a column"))
        states = np.stack([self._states(self.columns[n]) for n in names], axis=1)  # (rows, C)
        if self.repeats:
            states = self._joined(states)
        elif not np.array_equal(self.codes, np.arange(self.N)):
            order = np.empty_like(self.codes)
            order[self.codes] = np.arange(self.N)
            states = states[order]
        unknown = states < 0
        options = {"unknown": csr_array(unknown)} if unknown.any() else {}
        return LabelMatrix(csr_array(states == 1), names, **options)

    def _states(self, column: Column) -> np.ndarray:
        """``(rows,)`` int8: 1 present, 0 absent, -1 unknown."""
        given = [(k, STATES[v]) for k, v in self.plan.values.items() if v in STATES]
        given = meanings(self.options.values) + given
        states = np.empty(len(column.cells), np.int8)
        for i, cell in enumerate(column.cells):
            state = meaning_of(canonical(cell), given)
            if state is None:
                word = canonical(cell) or "blank"
                means = quote(word + "=unknown")
                if "1" not in column.vocabulary:  # such as 255
                    means = f"{quote(word + '=1')} or --values {means}"
                if word.isdecimal():
                    means += " or if it counts, --values '>=1=1'"
                raise self.error(
                    column.first[i],
                    f"column {quote(column.name)} holds {quote(cell)}, neither 0 nor 1; correct it,"
                    f" or say what it means: --values {means}, or leave it out: --ignore "
                    f"{quote(column.name)}",
                )
            states[i] = state
        return states[column.codes]

    def _joined(self, states: np.ndarray) -> np.ndarray:
        """Join the rows of each image by what their readers say."""
        ones, zeros = (
            np.stack([np.bincount(self.codes, column == v, self.N) for column in states.T], axis=1)
            for v in (1, 0)
        )
        how = self.plan.readers
        if how is None:
            self._ask_readers((ones > 0) & (zeros > 0))
        if how == "majority":
            return np.where(ones > zeros, 1, np.where(zeros > ones, 0, -1)).astype(np.int8)
        if how == "agree":
            both = (ones > 0) & (zeros > 0)
            return np.where(both, -1, np.where(ones > 0, 1, np.where(zeros > 0, 0, -1))).astype(
                np.int8
            )
        return np.where(ones > 0, 1, np.where(zeros > 0, 0, -1)).astype(np.int8)

    def _ask_readers(self, differ: np.ndarray) -> None:
        row = self._repeated()
        image = self.table.images[self.codes[row]]
        before = self.frame.places[int(np.flatnonzero(self.codes == self.codes[row])[0])]
        by = f" by column {quote(self.plan.reader)}" if self.plan.reader else ""
        raise self.error(
            row,
            f"image {quote(image)} is on {before} already{by}; keep one row, or say how rows of an "
            "image are joined: --readers any or --readers majority or --readers agree",
        )

    def _repeated(self) -> int:
        """The first row whose image an earlier row has."""
        seen = np.zeros(self.N, bool)
        first = np.full(self.N, len(self.codes))
        first[self.codes[::-1]] = np.arange(len(self.codes) - 1, -1, -1)
        seen = first[self.codes] < np.arange(len(self.codes))
        return int(np.flatnonzero(seen)[0])

    # --- columns of labels ---

    def _from_cells(self, class_names) -> LabelMatrix:
        readings = []
        for name, mark in self.plan.labels.items():
            column = self.columns[name]
            cells = dict(zip(column.cells, map(int, column.first), strict=True))
            found = reading.read(self, cells, class_names, mark or self._single(column))
            self.plan.labels[name] = found.mark
            readings.append((column, found))
        self._check_own_class(readings)
        self._check_alike(readings)
        width = max(found.width for _, found in readings)
        first: dict[str, int] = {}  # row where a label occurs first
        for column, found in readings:
            for cell, row in zip(column.cells, column.first, strict=True):
                for label in found.parts.get(cell, ()):
                    first[label] = min(first.get(label, int(row)), int(row))
        first = dict(sorted(first.items(), key=lambda item: item[1]))
        column_of, names = find_classes(self, first, class_names, width)
        per_row = None  # (rows, C) labels
        for column, found in readings:
            lists = [[column_of[n] for n in found.parts.get(c, ())] for c in column.cells]
            part = _lists_matrix(lists, len(names))[column.codes]
            per_row = part if per_row is None else per_row + part
        if self.plan.value:
            return self._affirmed(per_row, names)
        per_image = per_row
        if self.repeats:
            self._check_repeats(per_row, [found for _, found in readings])
            per_image = self._gather() @ per_row
        elif not np.array_equal(self.codes, np.arange(self.N)):
            per_image = self._gather() @ per_row
        return LabelMatrix(csr_array((per_image > 0).astype(np.int8)), names)

    def _single(self, column: Column) -> str | None:
        """``"none"``, if a cell is one label: another column numbers them, or rows repeat images
        and no mark but a space is in any.
        """
        marks = {mark for cell in column.filled for mark in reading.SEPARATORS if mark in cell}
        if not marks <= {" "} or column.is_number or column.is_list:
            return None
        others = [self.columns[n] for n in self.plan.ignored if self.columns[n].is_number]
        numbered = any(Planner.parallel([column, other]) for other in others)
        if numbered or (self.repeats and not reading.are_tags(column.filled)):
            return "none"
        return None

    def _check_own_class(self, readings) -> None:
        """Refuse names of which each image has its own: an id, or a text."""
        for column, found in readings:
            own = len(column.filled) == len(column.codes) >= 20 and not self.options.separator
            if own and found.mark == "none" and self.class_names is None and not self.repeats:
                raise InputError(
                    f"{self.source}: column {quote(column.name)} holds {len(column.filled):,} "
                    f"labels for {self.N:,} images, a class each; say which column holds the "
                    "labels (--label-columns), or what separates them (--separator)"
                )

    def _check_alike(self, readings) -> None:
        """Refuse columns of which one holds places in vectors, and another names."""
        widths = {found.width for _, found in readings}
        if len(widths) > 1:
            names = [quote(column.name) for column, _ in readings]
            raise InputError(
                f"{self.source}: columns {' and '.join(names)} do not both hold vectors of 0 and 1 "
                f"of one length; choose one: {' or '.join(f'--label-columns {n}' for n in names)}"
            )

    def _gather(self) -> csr_array:
        rows = len(self.codes)
        ones = np.ones(rows, np.int32)
        return csr_array((ones, (self.codes, np.arange(rows))), shape=(self.N, rows))

    def _check_repeats(self, per_row: csr_array, readings) -> None:
        """Rows of one image are joined if they hold one label each; few of them are a slip."""
        counts = np.bincount(self.codes, minlength=self.N)
        several = counts > 1
        single = all(
            found.mark == "none"
            or (
                (found.mark == " " or all(cell[:1] == "{" for cell in found.parts))
                and all(len(p) < 2 for p in found.parts.values())
            )
            for found in readings
        )
        numbers = np.diff(per_row.indptr)
        single = single and bool((numbers[several[self.codes]] == 1).all())
        least = 0 if self.options.separator or self.plan.readers else 0.1
        if self.plan.readers == "any":
            single = True
        if not single or several.sum() < least * self.N:
            row = self._repeated()
            image = self.table.images[self.codes[row]]
            image = self.columns[self.plan.image].cells[self.columns[self.plan.image].codes[row]]
            before = self.frame.places[int(np.flatnonzero(self.codes == self.codes[row])[0])]
            raise self.error(
                row,
                f"image {quote(image)} is on {before} already; keep one row; or, if every row "
                "gives one label, separator 'none'; or, to join the rows, --readers any",
            )
        self.plan.notes["rows"] = "one label per row"

    def _affirmed(self, per_row: csr_array, names) -> LabelMatrix:
        """Read labels that a column affirms or denies, row by row."""
        states = self._states(self.columns[self.plan.value])
        found = {}
        for state in (1, 0, -1):
            rows = np.flatnonzero(states == state)
            ones = np.ones(len(rows), np.int32)
            gather = csr_array((ones, (self.codes[rows], rows)), shape=(self.N, len(states)))
            found[state] = csr_array((gather @ per_row) > 0).astype(np.int32)
        both = csr_array(found[1].multiply(found[0]))
        if both.nnz:
            how = self.plan.readers
            if how is None:
                image = int(np.flatnonzero(np.diff(both.indptr))[0])
                c = int(both.indices[both.indptr[image]])
                raise InputError(
                    f"{self.source}: image {quote(self.table.images[image])} both holds and lacks "
                    f"{quote(names[c])} by column {quote(self.plan.value)}; keep one row, or say "
                    "how rows are joined: --readers any or --readers agree"
                )
            if how == "any":
                found[0] = csr_array(found[0] - both)
            else:
                found[1] = csr_array(found[1] - both)
                found[0] = csr_array(found[0] - both)
            for part in found.values():
                part.eliminate_zeros()
        self.plan.notes["rows"] = f"one label per row, affirmed by {quote(self.plan.value)}"
        denied = (states == 0).any()
        unlisted = self.plan.values.setdefault("unlisted", "unknown" if denied else "absent")
        if unlisted == "unknown":
            return LabelMatrix(found[1], names, known=csr_array((found[1] + found[0]) > 0))
        unknown = found[-1] - found[-1].multiply((found[1] + found[0]) > 0)
        return LabelMatrix(found[1], names, unknown=csr_array(unknown > 0))


def _lists_matrix(lists: list[list[int]], classes: int) -> csr_array:
    """``(len(lists), classes)`` of how often each list holds each class."""
    indptr = np.concatenate([[0], np.cumsum([len(found) for found in lists], dtype=np.int64)])
    indices = np.fromiter((c for found in lists for c in found), np.int64, int(indptr[-1]))
    matrix = csr_array((np.ones(len(indices), np.int32), indices, indptr), (len(lists), classes))
    matrix.sum_duplicates()
    return matrix


def _side_by_side(first: LabelMatrix, second: LabelMatrix) -> LabelMatrix:
    """Join the classes of columns with those of labels; a class of both is present by either."""
    names = list(dict.fromkeys([*first.class_names, *second.class_names]))
    column = {name: c for c, name in enumerate(names)}
    matrix, unknown = 0, 0
    for part in (first, second):
        to = [column[name] for name in part.class_names]
        C = len(part.class_names)
        move = csr_array((np.ones(C, np.int32), (np.arange(C), to)), shape=(C, len(names)))
        matrix, unknown = matrix + part.matrix @ move, unknown + part.unknown @ move
    unknown = csr_array((unknown > 0).astype(np.int8) - ((unknown > 0).multiply(matrix > 0)))
    return LabelMatrix(
        csr_array((matrix > 0).astype(np.int8)), names, unknown=csr_array(unknown > 0)
    )
