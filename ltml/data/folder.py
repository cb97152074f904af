"""Your own data: images below a folder, with a table of labels for each split or for all."""

import csv
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, quote, read_json, read_text
from ltml.core.labels import LabelMatrix
from ltml.core.options import Bounds, fitted
from ltml.data.finder import Finder
from ltml.data.holdout import holdout_split
from ltml.data.kinds import kind_of
from ltml.data.plan import (
    NoLabelsError,
    Planner,
    ReadingOptions,
    ReadingPlan,
    canonical,
    listed,
    split_kind,
)
from ltml.data.reader import read
from ltml.data.splits import LongTailData, Split, is_file
from ltml.data.tables import SUFFIXES, Frame, Table, open_table, plain

_LOG = logging.getLogger(__name__)
_PARTITION = {"0": "train", "1": "val", "2": "test"}  # as CelebA's list_eval_partition has them
_SMALL = 20 * 2**20  # bytes of a table that may name classes or splits


def load(
    *,
    root: str | Path,
    train_split: str | None = None,
    test_split: str | None = None,
    val_split: str | None = None,
    test_fraction: Annotated[float, Bounds("(0, 1)")] | None = None,
    image_column: str | None = None,
    label_columns: str | Sequence[str] = (),
    class_columns: str | Sequence[str] = (),
    value_column: str | None = None,
    split_column: str | None = None,
    reader_column: str | None = None,
    ignore: str | Sequence[str] = (),
    separator: str | None = None,
    values: str | dict | None = None,
    negative_class: str | None = None,
    readers: str | None = None,
    image_pattern: str | None = None,
    join: str | Sequence[str] = (),
    plan: ReadingPlan | dict | None = None,
) -> LongTailData:
    """Load a folder of your own images.

    Tables are read as they are published: what each column means is found from names and values,
    and logged; where that is in doubt, one question names the options that answer it. Images are
    found wherever they lie below ``root``; see :class:`ltml.data.finder.Finder`.

    Args:
        root: folder with a table for each split (``train.csv``, or one table in a folder
            ``train/``), or with one table for all and a column, or lists such as
            ``train_list.txt``, that name the split; and, optionally, ``classes.txt`` with a class
            name on each line. Without it the classes are those of the training images.
        train_split: name of the training table with or without its ending, or of the split in a
            table for all. Default: ``train``, or the table that there is.
        test_split: name of the test split. Default: ``test``, if there is one.
        val_split: name of the validation split. Default: that of a table for all, if it has one.
        test_fraction: fraction of the images to hold out to test on, every class kept on both
            sides, in place of a test split. Default: 0.2, where no test split is named.
        image_column: see :class:`ltml.data.plan.ReadingOptions`, as for all options up to
            ``image_pattern``.
        label_columns: columns of labels.
        class_columns: columns of 0 and 1, one for each class.
        value_column: column that affirms or denies the label of its row.
        split_column: column of the split.
        reader_column: column of who annotated the row.
        ignore: columns to leave out.
        separator: text between the labels of a cell; see
            :func:`ltml.data.folder.read_label_csv`.
        values: meanings of values, such as ``{"-1": "unknown", "blank": 0}``.
        negative_class: class that means none of the others.
        readers: ``"any"``, ``"majority"`` or ``"agree"``.
        image_pattern: path of the image called ``{}``.
        join: more tables, whose columns are added by the columns that they have in common.
        plan: plan of reading tables, from ``data.plan`` of an earlier reading, perhaps changed.

    Raises:
        InputError: naming the file and line, if anything is missing, broken or in doubt.
    """
    options = ReadingOptions.of(
        image_column=image_column,
        label_columns=label_columns,
        class_columns=class_columns,
        value_column=value_column,
        split_column=split_column,
        reader_column=reader_column,
        ignore=ignore,
        separator=separator,
        values=values,
        negative_class=negative_class,
        readers=readers,
        image_pattern=image_pattern,
    )
    names = {"train": train_split or "train", "val": val_split, "test": test_split or "test"}
    names = {kind: name for kind, name in names.items() if name is not None}
    if test_fraction is not None:
        test_fraction = fitted("test_fraction", test_fraction, Annotated[float, Bounds("(0, 1)")])
        names.pop("test")
    given = {"train": train_split is not None, "test": test_split is not None}
    join = [join] if isinstance(join, str) else list(join)
    return _Folder(Path(root), options, names, given, test_fraction, join, plan).load()


class _Folder:
    """One reading of a folder."""

    def __init__(self, root: Path, options, names, given, test_fraction, join, plan):
        self.root, self.options, self.names, self.plan = root, options, names, plan
        self.given = given  # whether the names were
        self.test_fraction, self.join = test_fraction, join
        if plan is not None:
            self.plan = ReadingPlan.from_dict(plan)
        self.finder = Finder(
            root, pattern=options.image_pattern or (plan and self.plan.image_pattern)
        )
        self.class_names, self.listing = None, root / "classes.txt"
        self.plans: dict[str, ReadingPlan] = {}
        self.said: list[str] = []

    def load(self) -> LongTailData:
        if is_file(self.listing):
            names = [line.strip() for line in lines_of(read_text(self.listing).rstrip())]
            self.class_names = check_class_names(names, where=str(self.listing))
        paths = {kind: _find_table(self.root, name) for kind, name in self.names.items()}
        # One table that was named for several splits, and names none itself: whether that may be
        # is asked of a training.
        same = len(paths) > 1 and len(set(self.names.values())) == 1 and all(paths.values())
        same = same and not self._names_splits(paths["train"])
        for kind in ("train", "test"):
            if paths.get(kind, "") is None and not self.given[kind]:
                paths[kind] = self._of_kind(kind, paths)
        if paths["train"] is None:
            paths = self._one_for_all(paths)
        elif paths.get("test", "") is None and self._names_splits(paths["train"]):
            paths = dict.fromkeys(paths, paths["train"])
        elif paths.get("test", "") is None and not self.given["test"]:
            if paths.get("val"):
                del paths["test"]
            else:
                paths = dict.fromkeys({"test": None, **paths}, paths["train"])
        files = set(paths.values())
        if len(files) == 1 and len(paths) > 1 and not same:
            splits = self._split_rows(paths["train"], self._opened(paths["train"]))
        else:
            splits = {}
            for kind in sorted(paths, key="train val test".index):
                if paths[kind] is None:
                    raise self._no_table(self.names[kind])
                splits[kind] = self._one_split(kind, paths[kind])
        if "test" not in splits:
            splits |= self._cut_test(splits["train"])
        names = self._described(splits["train"].labels.class_names, files)
        if names is not None:
            splits = {
                kind: replace(split, labels=LabelMatrix(split.labels, names))
                for kind, split in splits.items()
            }
        plans = list(self.plans.values())
        for name, plan in self.plans.items():
            _LOG.info("%s\n  %s", name, str(plan).replace("\n", "\n  "))
        for line in dict.fromkeys(self.said):
            _LOG.info("  %s", line)
        return LongTailData(
            "folder", splits["train"], splits["test"], splits.get("val"), plan=plans[0]
        )

    # --- which files ---

    def _one_for_all(self, paths) -> dict[str, Path]:
        """Where no file is called as the training split: the folder's only table is for all."""
        joined = [self.root / name for name in self.join]
        tables = [path for path in _tables(self.root) if path not in joined]
        tables = tables or [p for p in self._lists(".txt", ".json") if self._holds_labels(p)]
        tables = tables or [p for p in _tables_below(self.root) if self._holds_labels(p)]
        tables = tables or [p for p in self._lists(".txt", at="*/*") if self._holds_labels(p)]
        tables = [path for path in tables if not self._is_help(path, tables)]
        if len(tables) > 1:
            tables = [path for path in tables if self._holds_labels(path)] or tables
        if len(tables) != 1 or self.given["train"]:
            raise self._no_table(self.names["train"])
        return dict.fromkeys({"test": None, **paths}, tables[0])

    def _of_kind(self, kind: str, paths: dict[str, Path | None]) -> Path | None:
        """The only table whose name says that it is of a split: of validation, if not of testing.

        Tables that hold no labels are none, unless they are called as the split is.
        """
        for each in (kind, "val") if kind == "test" else (kind,):
            found = [p for p in _tables(self.root) if kind_of(p.name.split(".")[0]) == each]
            for folder in _folders(self.root):
                if kind_of(folder.name) == each and len(inside := _tables(folder)) == 1:
                    found += inside
            if not found and not _tables(self.root):
                below = _tables_below(self.root)
                found = [p for p in below if kind_of(p.name.split(".")[0]) == each]
            found = [p for p in found if p not in paths.values() and self._holds_labels(p)]
            if len(found) == 1:
                if each != kind:
                    file = found[0].relative_to(self.root).as_posix()
                    self.said.append(f"test: {file}, as there is no test split")
                named = [found[0].parent.name, found[0].name.split(".")[0]]
                self.names[kind] = next(name for name in named if kind_of(name) == each)
                return found[0]
        return None

    def _holds_labels(self, path: Path) -> bool:
        """Whether a table is one of images and labels, or may be, once a question is answered."""
        try:
            if path.stat().st_size < _SMALL:
                frame = open_table(path)
                Planner(frame, self.class_names, self.options, self.finder, path.parent).make()
        except NoLabelsError:
            return False
        except InputError:  # a question, which is asked when the table is read
            return True
        return True

    def _lists(self, *suffixes: str, at: str = "*") -> list[Path]:
        """Files that may be tables, and are something else as often."""
        found = [p for p in sorted(self.root.glob(at)) if p.suffix in suffixes and is_file(p)]
        return [path for path in found if path != self.listing]

    def _names_splits(self, path: Path) -> bool:
        """Whether a table has a column of splits, so that it is one for all."""
        try:
            options, plan = self.options, self.plan
            frame = self._opened(path)
            near = {"finder": self.finder, "near": path.parent}
            found = read(frame, None, options, plan=plan, labelled=False, **near)[2]
        except InputError:  # which the reading itself will raise
            return False
        return found.split is not None

    def _is_help(self, path: Path, tables: list[Path]) -> bool:
        """Whether a table only names splits or classes, beside one of labels."""
        name = plain(path.name)
        words = ("partition", "split", "samplesubmission", "classdescription", "classes", "bbox")
        return len(tables) > 1 and any(word in name for word in words)

    def _no_table(self, split: str) -> InputError:
        found = _tables(self.root) or _tables_below(self.root)
        found = [path.relative_to(self.root).as_posix() for path in found]
        there = ", ".join(found[:10])
        remedy = f"there are {there}" if there else "write it, with the columns image,labels"
        if there:
            kind = "test" if split == self.names.get("test") else "train"
            remedy += f": name one by --{kind}-split"
            if kind == "test":
                remedy += ", or hold out training images to test on by --test-fraction 0.2"
            elif joined := self._may_join():
                remedy += f", or join two: {joined}"
        return InputError(
            f"split {quote(split)} needs {self.root / split}.csv, which is missing; {remedy}"
        )

    def _may_join(self) -> str | None:
        """Options that join a table of images, best one that deals out splits, to one of labels."""
        tables = [p for p in _tables(self.root) if p.stat().st_size < _SMALL][:6]
        found = []
        for images, labels in permutations(tables, 2) if not self.join else ():
            try:
                both = self._merged(open_table(images), open_table(labels))
                plan = Planner(both, None, self.options, self.finder, images.parent).make()
                if not set(plan.labels) | set(plan.classes) <= set(open_table(labels).columns):
                    continue
                self.finder.find(both.columns[plan.image].iloc[:20].tolist(), near=images.parent)
            except InputError:
                continue
            name = images.relative_to(self.root).as_posix()
            found.append((plan.split is None, f"--train-split {name} --join {labels.name}"))
        return min(found)[1] if found else None

    def _opened(self, path: Path) -> Frame:
        """Open a table, and add the columns of those that are joined to it."""
        frame = open_table(path)
        for name in self.join:
            other = open_table(_find_table(self.root, name) or self.root / name)
            common = [column for column in frame.columns if column in other.columns]
            frame = self._merged(frame, other)
            self.said.append(f"joined: {Path(other.source).name}, by {', '.join(common)}")
        return frame

    @staticmethod
    def _merged(frame: Frame, other: Frame) -> Frame:
        """Add another table's columns by those that both have."""
        common = [column for column in frame.columns if column in other.columns]
        if not common:
            theirs = ", ".join(map(quote, other.columns))
            raise InputError(
                f"{other.source} has no column in common with {frame.source}; its columns are "
                f"{theirs}: rename one"
            )
        added = other.columns.astype(object)
        twice = added.duplicated(common)
        if twice.any():
            row = int(np.flatnonzero(twice)[0])
            raise InputError(
                f"{other.source}, {other.places[row]}: {quote(added[common[0]].iloc[row])} is "
                "there already; keep one row of each"
            )
        columns = frame.columns.astype(object).merge(added, on=common, how="left")
        lost = columns[added.columns.difference(common)].isna().any(axis=1).to_numpy()
        if lost.any():
            row = int(np.flatnonzero(lost)[0])
            raise InputError(
                f"{frame.source}, {frame.places[row]}: {quote(columns[common[0]].iloc[row])} "
                f"is not in {other.source} ({int(lost.sum()):,} rows are not); add it, or drop "
                "the rows"
            )
        return frame._replace(columns=columns)

    # --- one table for each split ---

    def _one_split(self, kind: str, path: Path) -> Split:
        frame, options = self._opened(path), self._learned()
        first = next(iter(self.plans.values()), None)  # of the images to train on
        if first is not None:
            labels = {*first.labels, *first.classes}
            if options.image_column is None and first.image in frame.columns:
                options = replace(options, image_column=first.image)
        try:
            table, labels, plan = read(
                frame, self.class_names, options, finder=self.finder, near=path.parent,
                plan=self.plan,
            )  # fmt: skip
        except InputError:
            if first is None or not labels.isdisjoint(frame.columns):
                raise
            remedy = "leave it out"
            if kind == "test":
                remedy = "hold out training images to test on: --test-fraction 0.2"
            raise InputError(
                f"{path} has no labels, of the columns {listed(sorted(labels))} that images to "
                f"train on have; add them, or {remedy}"
            ) from None
        self.class_names = labels.class_names
        split = self._with_images(table, labels, path, self.names[kind])
        self._note_images(plan, split)
        self.plans[path.relative_to(self.root).as_posix() if path.is_relative_to(self.root)
                   else str(path)] = plan  # fmt: skip
        return split

    def _learned(self) -> ReadingOptions:
        """What values mean in the training table, they mean in the others."""
        known = {}
        for plan in self.plans.values():
            known |= {k or "blank": v for k, v in plan.values.items() if "," not in k}
        said = ",".join(f"{key}={state}" for key, state in known.items())
        given = self.options.values
        return replace(self.options, values=f"{given or ''},{said}") if said else self.options

    def _with_images(self, table: Table, labels, path: Path, split: str | None) -> Split:
        files = self.finder.find(
            table.images,
            near=path.parent,
            split=split,
            place=lambda row: f"{table.source}, {table.rows[row]}",
        )
        return Split(files, labels, list(table.images))

    def _note_images(self, plan: ReadingPlan, split: Split) -> None:
        plan.notes["image"] = f"found in {self.finder.where(split.images)}"

    # --- one table for all ---

    def _split_rows(self, path: Path, frame: Frame) -> dict[str, Split]:
        """Read a table of all images, and deal them out by a column, by lists, or at random."""
        table, labels, plan = read(
            frame, self.class_names, self.options, finder=self.finder, near=path.parent,
            plan=self.plan,
        )  # fmt: skip
        kinds = self._kinds_by_column(frame, plan, table)
        if kinds is None:
            kinds = self._kinds_by_lists(path, table, plan)
        if kinds is None and self.test_fraction is None:
            kinds = self._kinds_by_folders(table)
        if kinds is None and (self.test_fraction is not None or not self.given["test"]):
            kinds = np.full(len(table.images), "train", dtype=object)
        if kinds is None:
            split = self._with_images(table, labels, path, None)
            raise InputError(
                f"{path} has {len(split):,} images, found in {self.finder.where(split.images)}, "
                "and does not say which are to train on and which to test on; say which column "
                "does by --split-column, write lists of images train_list.txt and test_list.txt, "
                "or hold some out by --test-fraction 0.2"
            )
        if "test" in self.names and (kinds == "val").any() and not (kinds == "test").any():
            kinds = np.where(kinds == "val", "test", kinds)
            self.said.append("test: the validation images, as there are no test images")
        found, pattern = {}, self.options.image_pattern or ""
        for kind in ("train", "val", "test"):
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                places = [table.rows[row] for row in rows]
                part = Table(table.source, places, [table.images[row] for row in rows])
                name = self.names.get(kind, kind) if "{split}" in pattern else kind
                found[kind] = self._with_images(part, labels.subset(rows), path, name)
        for kind in ("train", "test") if self.given["test"] else ("train",):
            if kind not in found and kind in self.names:
                raise InputError(
                    f"{path}: no image is in the {kind} split {quote(self.names[kind])}; name "
                    f"another by --{kind}-split"
                    + (", or give --test-fraction 0.2" if kind == "test" else "")
                )
        self._note_images(plan, found["train"])
        sizes = ", ".join(f"{kind} {len(split):,}" for kind, split in found.items())
        left = len(table.images) - sum(map(len, found.values()))
        plan.notes["split"] = sizes + (f" ({left:,} images in none)" if left else "")
        if plan.split is None and len(found) > 1:
            self.said.append(f"split: {plan.notes['split']}")
        self.plans[path.name] = plan
        return found

    def _kinds_by_column(self, frame: Frame, plan: ReadingPlan, table: Table):
        """``(N,)`` of the kind of each image's split, by the table's column; None without one."""
        if plan.split is None:
            plan.split = self._joined_split(frame, plan)
            if self.plan is not None and self.plan.split not in (None, plan.split):
                raise InputError(
                    f"{frame.source}: plan.split: there is no column {quote(self.plan.split)}; "
                    f"choose from {listed(list(frame.columns))}, or None"
                )
            if plan.split is None:
                return None
        codes, distinct = pd.factorize(frame.columns[plan.split], use_na_sentinel=False)
        words = ["" if word is None or word != word else str(word) for word in distinct]
        kind_of = self._meaning_of_splits(plan.split, words)
        row_kinds = np.array([kind_of.get(word) or "" for word in words], dtype=object)[codes]
        images, _ = pd.factorize(pd.Series(frame.columns[plan.image].array).map(_normal))
        kinds = np.full(len(table.images), "", dtype=object)
        kinds[images[::-1]] = row_kinds[::-1]
        differ = np.unique(images[kinds[images] != row_kinds])
        if len(differ):
            some = ", ".join(quote(table.images[i]) for i in differ[:3])
            raise InputError(
                f"{frame.source}: {len(differ):,} images are in two splits by column "
                f"{quote(plan.split)}, such as {some}; keep each in one"
            )
        return kinds

    def _meaning_of_splits(self, column: str, words: list[str]) -> dict[str, str]:
        name = plain(column)
        names = list(self.names.values())
        asked = {plain(n): kind for kind, n in self.names.items() if names.count(n) == 1}
        found = {word: asked[plain(word)] for word in words if plain(word) in asked}
        values = {canonical(word) for word in words}
        flags = values <= {"0", "1", "true", "false", "yes", "no", ""}
        for word in words:
            if word in found:
                continue
            on = canonical(word) in ("1", "true", "yes")
            if split_kind(word):
                found[word] = split_kind(word)
            elif flags and re.match("is|in|for", name):
                kind = split_kind(re.sub("^(is|in|for)", "", name)) or "test"
                other = "train" if kind != "train" else "test"
                found[word] = kind if on else other
            elif flags and split_kind(name.strip(",")) == "train":
                found[word] = "train" if on else "test"
            elif values <= set(_PARTITION) and len(values) > 1 and "partition" in name:
                found[word] = _PARTITION[canonical(word)]
        if "train" not in found.values() and {"test", "val"} & set(found.values()):
            found = {word: found.get(word, "train") for word in words}  # one fold is tested on
        if "train" not in found.values():
            there = ", ".join(map(quote, words[:10]))
            raise InputError(
                f"column {quote(column)} holds {there}; say which to test on, such as --test-split "
                f"{quote(words[0])}: all others are trained on"
            )
        return found

    def _joined_split(self, frame: Frame, plan: ReadingPlan) -> str | None:
        """Add each image's split from a small table beside, such as list_eval_partition.csv."""
        beside = [*_tables(self.root), *self._lists(".txt")]
        if frame.source not in map(str, self.root.glob("*")):
            beside += [*_tables_below(self.root), *self._lists(".txt", at="*/*")]
        for path in beside:
            if str(path) == frame.source or path.stat().st_size > _SMALL:
                continue
            try:
                other = open_table(path)
                word = next((w for w in ("partition", "split") if w in plain(path.stem)), None)
                if other.note and word:  # without a header; its name says what it holds
                    other = other._replace(columns=other.columns.rename(columns={"labels": word}))
                options = ReadingOptions.of(
                    image_column=plan.image if plan.image in other.columns else None
                )
                _, _, theirs = read(other, None, options, labelled=False)
            except InputError:
                continue  # some other table of the user's
            if theirs.split is None:
                continue
            column = other.columns.drop_duplicates(theirs.image).set_index(theirs.image)
            split = frame.columns[plan.image].astype(object).map(column[theirs.split])
            if split.notna().all():
                frame.columns[f"{theirs.split} of {path.name}"] = split.astype(object)
                return f"{theirs.split} of {path.name}"
        return None

    def _kinds_by_lists(self, path: Path, table: Table, plan: ReadingPlan):
        """Kinds by files such as train_val_list.txt, which list images of a split."""
        stems = {}
        for i, image in enumerate(table.images):
            stems.setdefault(_stem(image), i)
        kinds, used, twice = np.full(len(table.images), "", dtype=object), [], {}
        for file in sorted(self.root.glob("*.txt")):
            words = [w for w in plain(file.stem).replace("list", " ").split() if w]
            kind = next((k for k in map(_list_kind, words) if k), None)
            if kind is None or file == self.listing:
                continue
            lines = [line.split()[0] for line in lines_of(read_text(file)) if line.strip()]
            rows = [stems[_stem(line)] for line in lines if _stem(line) in stems]
            if not rows:
                continue
            for row in rows:
                if kinds[row] not in ("", kind):
                    twice.setdefault(row, file.name)
            kinds[rows] = kind
            used.append(file.name)
        if twice:
            some = ", ".join(quote(table.images[row]) for row in list(twice)[:3])
            raise InputError(
                f"{path}: {len(twice):,} images are in two lists of {', '.join(used)}, such as "
                f"{some}; keep each in one"
            )
        if not used:
            return None
        plan.notes["table"] = f"split by {', '.join(used)}"
        return kinds

    def _kinds_by_folders(self, table: Table):
        """Kinds by the folders that images are said to be in, such as ``train/`` and ``test/``."""
        folders = [image.replace("\\", "/").split("/")[:-1] for image in table.images]
        kinds = [next(filter(None, map(kind_of, parts)), None) for parts in folders]
        if None in kinds or len(set(kinds)) < 2 or "train" not in kinds:
            return None
        self.said.append("split: by the folders of the images")
        return np.array(kinds, dtype=object)

    # --- afterwards ---

    def _cut_test(self, train: Split) -> dict[str, Split]:
        fraction = self.test_fraction or 0.2
        kept, held = holdout_split(train.labels, fraction)
        why = "" if self.test_fraction else "no test split is named, so "
        self.said.append(
            f"split: {why}{len(held):,} of {len(train):,} images are held out to test on "
            f"(test_fraction={fraction:g})"
        )
        return {"train": train.subset(kept), "test": train.subset(held)}

    def _described(self, names: tuple[str, ...], used: set) -> list[str] | None:
        """Class names by a table of codes and names beside, such as class-descriptions.csv."""
        if is_file(self.listing):
            return None
        numbered = names == tuple(f"class {c}" for c in range(len(names)))
        codes = [str(c) for c in range(len(names))] if numbered else list(names)
        for path in (*sorted(self.root.glob("*.csv")), *sorted(self.root.glob("*.json"))):
            if path in used or path.stat().st_size > _SMALL:
                continue
            try:
                rows = _pairs(path)
            except (csv.Error, InputError):
                continue
            if not rows or {len(row) for row in rows} - {2}:
                continue
            for a, b in ((0, 1), (1, 0)):
                described = {row[a]: row[b] for row in rows}
                new = [described.get(code, name) for code, name in zip(codes, names, strict=True)]
                known = sum(code in described for code in codes)
                whole = known == len(codes) or (numbered and known > 0.5 * len(codes))
                if whole and len(set(new)) == len(new) and new != list(names) and all(new):
                    if all(name.replace(".", "").isdecimal() for name in new):
                        continue
                    self.said.append(f"class names: from {path.name}")
                    return new
        return None


def _pairs(path: Path) -> list[list[str]]:
    """The rows of a small table, or the keys and values of an object of text."""
    if path.suffix == ".json":
        found = read_json(path)
        flat = isinstance(found, dict) and all(isinstance(v, str | int) for v in found.values())
        rows = [[key, str(value)] for key, value in found.items()] if flat else []
    else:
        rows = list(csv.reader(lines_of(read_text(path)), strict=True))
    return [[cell.strip() for cell in row] for row in rows if row]


def _normal(image) -> str:
    import posixpath

    return posixpath.normpath(str(image))


def _stem(image: str) -> str:
    name = image.replace("\\", "/").rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _list_kind(word: str) -> str | None:
    """The split that a list's file name speaks of: ``train_val_list`` is training."""
    for kind in ("train", "test", "val"):
        if word.startswith(kind) or word.endswith(kind):
            return kind
    return split_kind(word)


def _tables(root: Path) -> list[Path]:
    """The tables that lie in a folder."""
    suffixes = [suffix for suffix in SUFFIXES if suffix not in (".txt", ".json")]
    found = [p for p in sorted(root.glob("*")) if p.name.lower().endswith(tuple(suffixes))]
    return [path for path in found if is_file(path) and path.name[0] != "."]


def _folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*")) if path.name[0] != "." and path.is_dir()]


def _tables_below(root: Path) -> list[Path]:
    """The tables in the folders of a folder."""
    return [table for folder in _folders(root) for table in _tables(folder)]


def _find_table(root: Path, split: str) -> Path | None:
    """The table of a split: a file of its name, or the only one in a folder of its name."""
    names = (split, *(f"{split}{suffix}" for suffix in SUFFIXES))
    found = next((root / name for name in names if is_file(root / name)), None)
    if found is None and "\0" not in split and (root / split).is_dir():
        tables = _tables(root / split)
        if len(tables) > 1:
            there = ", ".join(path.name for path in tables[:10])
            raise InputError(
                f"split {quote(split)}: {root / split} holds several tables ({there}); name one, "
                f"such as {split}/{tables[0].name}"
            )
        found = tables[0] if tables else None
    return found


def read_label_csv(
    path: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    separator: str | None = None,
    **reading,
) -> tuple[list[str], LabelMatrix]:
    """Read the labels of a split from a table; no image is touched.

    What each column means is found from names and values (see :func:`ltml.data.reader.read_plan`),
    and logged. Labels are given in one of these forms:

    - a column ``labels``, ``tags``, ``class`` or the like holds all labels of the image: names, or
      class indices from 0, separated by ``;``, ``|``, ``,`` or spaces, as a list, or as a vector of
      0 and 1; or several columns do, ``label``, ``label_2``...;
    - it holds one label, and an image has a row for each of its labels, which a column ``value`` or
      ``Confidence`` of 0 and 1 may affirm or deny;
    - each class has a column of 0 and 1; blanks and -1 beside them are unknown.

    How labels are separated is found from the whole file. ``;`` and ``|`` separate, unless they
    stand in signs such as ``;)`` only; commas and spaces may be parts of names. Where the class
    names are not known, these separate if some cell consists of labels that other cells hold alone,
    and there are fewer labels than distinct cells: for single labels, one name would be made of
    other names, and the names would outnumber their words. Spaces also separate where words are
    joined by underscores. Otherwise the reader asks.

    Args:
        path: the file: CSV, TSV or a list of images and labels, also compressed (``.gz``); Excel
            (``.xlsx``), Parquet, or a JSON object per line (``.jsonl``).
        class_names: names in column order. Default: the names found, sorted, or in the order of
            their columns; for indices ``"class 0"`` up to the largest found.
        separator: text between the labels of a cell, such as ``";"`` or ``" "``; ``"none"`` if
            each cell is one label, ``"lists"`` or ``"vectors"``. Default: found from the file.
        reading: more options of :class:`ltml.data.plan.ReadingOptions`, such as ``image_column``.

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
    options = ReadingOptions.of(separator=separator, **reading)
    table, labels, plan = read(open_table(Path(path)), class_names, options)
    plan.log(table, labels)
    return list(table.images), labels
