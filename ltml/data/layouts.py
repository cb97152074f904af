"""Which layout a folder of images and labels has, and what the readers of all layouts share."""

import importlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote
from ltml.core.labels import LabelMatrix
from ltml.core.options import Bounds, check_options
from ltml.data.finder import IMAGE_SUFFIXES, Finder
from ltml.data.holdout import holdout_split
from ltml.data.kinds import kind_of
from ltml.data.splits import LongTailData, Split, is_file

_LOG = logging.getLogger(__name__)
_TABLES = ("csv", "tsv", "csv.gz", "tsv.gz", "xlsx", "parquet", "jsonl")
_DEPTH = 3  # folders below the root in which files of labels are looked for


@dataclass
class Part:
    """One split as its files name it, before an image is looked for.

    Args:
        source: file or folder that messages name.
        images: ``N`` images as written.
        labels: class names of each image.
        where: name of each image's entry in messages.
        known: class names that were verified on each image. Default: all.
        unknown: class names that are unknown on each image. Default: none.
        folders: folders in which the images are looked for first.
        ids: names of the images in reports. Default: as written.
        also: other names of the images, for those not found by the first.
        classes: class names in column order, where the split's own file lists them.
    """

    source: Path
    images: Sequence[str]
    labels: Sequence[Collection[str]]
    where: Sequence[str] | None = None
    known: Sequence[Collection[str]] | None = None
    unknown: Sequence[Collection[str]] | None = None
    folders: Sequence[Path] = ()
    ids: Sequence[str] | None = None
    also: Sequence[str] | None = None
    classes: Sequence[str] | None = None

    def entry(self, i: int) -> str:
        """What messages call an image's entry."""
        return self.where[i] if self.where is not None else f"image {quote(self.images[i])}"

    def subset(self, index: Sequence[int]) -> "Part":
        """Select images."""
        new = {"source": self.source, "folders": self.folders, "classes": self.classes}
        for name in ("images", "labels", "where", "known", "unknown", "ids", "also"):
            values = getattr(self, name)
            new[name] = None if values is None else [values[i] for i in index]
        return Part(**new)


@dataclass
class Tree:
    """What lies under a folder: its files, and how many images each folder has.

    Args:
        root: folder of the data.

    Attributes:
        files: paths relative to the root, down to three folders, sorted.
        images: folder relative to the root (``""`` the root itself) -> image files in it.
    """

    root: Path
    files: list[str] = field(init=False)
    images: Counter = field(init=False)

    def __post_init__(self):
        self.root, self.files, self.images = Path(self.root), [], Counter()
        top = os.fspath(self.root)
        for folder, folders, files in os.walk(top, followlinks=True):
            inside = os.path.relpath(folder, top).replace(os.sep, "/")
            inside = "" if inside == "." else f"{inside}/"
            if inside.count("/") >= _DEPTH:
                folders.clear()
            folders[:] = sorted(f for f in folders if f[0] != "." and f != "__MACOSX")
            for file in files:
                if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 - a million files
                    self.images[inside.rstrip("/")] += 1
                elif file[0] != ".":
                    self.files.append(inside + file)
        self.files.sort()

    def match(self, *patterns: str) -> list[Path]:
        """Paths of the files of which a pattern such as ``*/*.json`` fits, folder by folder."""
        wanted = [pattern.lower().split("/") for pattern in patterns]
        found = []
        for file in self.files:
            parts = file.lower().split("/")
            for pattern in wanted:
                if len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)):
                    found.append(self.root / file)
                    break
        return found

    def say(self, path: Path) -> str:
        """Path as a sentence names it."""
        return (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )

    def list(self, paths: Sequence[Path]) -> str:
        """Name a few paths."""
        names = ", ".join(map(self.say, paths[:3]))
        return f"{names} and {len(paths) - 3} more" if len(paths) > 3 else names


def head_of(path: Path, size: int = 2**16) -> str:
    """Return the beginning of a text file, or ``""`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def split_name(path: Path, root: Path) -> str:
    """Name of the split that a file of labels holds: a word of its name, or its folder's name."""
    stem = path.name.split(".")[0] if path.name[0] != "_" else ""
    for word in re.split(r"[^A-Za-z0-9]+", stem):
        if kind_of(word):
            return word
    folder = path.parent
    while folder != root and folder.is_relative_to(root):
        if kind_of(folder.name):
            return folder.name
        folder = folder.parent
    return re.sub("^(instances|annotations|labels)[_.-]", "", stem) or path.parent.name


def by_split(
    paths: Iterable[Path], root: Path, named: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Name -> file of each split; files that would share a name go by their own.

    Args:
        paths: files of labels.
        root: folder of the data set.
        named: files that say their split in full, whose names no other file takes.
    """
    short: dict[str, list[Path]] = {}
    stems: Counter = Counter()
    for path in paths:
        short.setdefault(split_name(path, root), []).append(path)
        stems[path.stem] += 1
    found = dict(named or {})
    for name, files in short.items():
        if len(files) == 1 and name not in found:
            found[name] = files[0]
            continue
        for path in files:
            alone = stems[path.stem] == 1 and path.stem not in found
            whole = path.relative_to(root).with_suffix("").as_posix()
            found[path.stem if alone else whole] = path
    return found


def choose_splits(
    names: Sequence[str], where: str, train: str | None, test: str | None, val: str | None
) -> tuple[str, str | None, str | None]:
    """Choose the splits to train, test and validate on; None where there is none.

    Of names such as train, valid and test each has its role. Without a test split it is the
    validation split that is tested on.

    Raises:
        InputError: if a given split is not there, or there are several to choose from.
    """
    there = ", ".join(names)
    for option, given in (("train_split", train), ("test_split", test), ("val_split", val)):
        if given is not None and given not in names:
            near = [name for name in names if name.lower() == given.lower()]
            hint = f"; did you mean {quote(near[0])}?" if near else ""
            raise InputError(
                f"split {quote(given)} ({option}) is not in {where}{hint}; there are {there}"
            )

    def only(kind: str, role: str) -> str | None:
        taken = {train, val if role == "test" else None}
        found = [name for name in names if kind_of(name) == kind and name not in taken]
        if len(found) > 1:
            raise InputError(
                f"{where} has several splits that may be the {role} split: {', '.join(found)}; "
                f"choose with --{role}-split, in Python {role}_split="
            )
        return found[0] if found else None

    if train is None:
        one = len(names) == 1 and kind_of(names[0]) in (None, "train")
        train = names[0] if one else only("train", "train")
        if train is None and len(names) == 1:
            raise InputError(
                f"{where} has only the split {there}; train on a part of it and test on the rest "
                f"with --train-split {there}, in Python train_split={there!r}"
            )
        if train is None:
            raise InputError(
                f"{where} has the splits {there}; choose with --train-split and --test-split, in "
                "Python train_split= and test_split="
            )
    if test is None:
        test = only("test", "test")
        if test is not None and val is None:
            val = only("val", "val")
        elif test is None:
            test = only("val", "test")
    if test is None and len(names) > 1 and val is None:
        raise InputError(
            f"{where} has the splits {there}; choose the one to test on with --test-split, in "
            "Python test_split="
        )
    return train, test, val


class Reading(NamedTuple):
    """What a reader found: what it read, its splits, and the class names where files list them.

    A split that is costly to read may be a function that does so.
    """

    how: str
    parts: Mapping[str, Part | Callable[[], Part]]
    classes: Sequence[str] | None = None


def layout(name: str) -> Callable:
    """Make a data set's ``load`` of a function that reads a :class:`Tree` into a :class:`Reading`.

    The loader has the options of the function and those of :func:`assemble`.

    Args:
        name: name of the data set in reports.
    """
    common = [p for p in signature(assemble).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def wrap(read: Callable[..., Reading]) -> Callable[..., LongTailData]:
        @wraps(read)
        def load(*, root: str | Path, **options) -> LongTailData:
            options = check_options(load, f"data {name!r}", options, "root")
            shared = {p.name: options.pop(p.name) for p in common if p.name in options}
            tree = Tree(Path(root))
            return assemble(name, read(tree, **options), tree, **shared)

        own = [p for p in signature(read).parameters.values() if p.kind is p.KEYWORD_ONLY]
        first = Parameter("root", Parameter.KEYWORD_ONLY, annotation=str | Path)
        every = [first, *common, *own]
        load.__signature__ = Signature(every, return_annotation=LongTailData)
        load.__annotations__ = {p.name: p.annotation for p in every}
        del load.__wrapped__  # whose annotations would be read instead
        return load

    return wrap


def assemble(
    name: str,
    reading: Reading,
    tree: Tree,
    *,
    train_split: str | None = None,
    test_split: str | None = None,
    val_split: str | None = None,
    test_fraction: Annotated[float, Bounds("(0, 1)")] = 0.2,
    missing: Literal["error", "skip"] = "error",
    image_pattern: str | None = None,
) -> LongTailData:
    """Make the splits of a data set from what its reader found, and log how it was read.

    Args:
        name: name of the data set.
        reading: parts that were found. Without class names in it, these are all labels, sorted.
        tree: folder under which the images are.
        train_split, test_split, val_split: names of parts. Default: see :func:`choose_splits`.
        test_fraction: fraction of the images to hold out to test on, where there is one part only.
        missing: ``"error"``, or ``"skip"`` to leave out images without a file.
        image_pattern: path of the image called ``{}``, as for :class:`ltml.data.finder.Finder`.

    Raises:
        InputError: naming the file and entry, if anything is missing or broken.
    """
    chosen = choose_splits(list(reading.parts), str(tree.root), train_split, test_split, val_split)
    parts = {name: reading.parts[name] for name in dict.fromkeys(filter(None, chosen))}
    parts = {name: part() if callable(part) else part for name, part in parts.items()}
    classes, source = reading.classes, parts[chosen[0]].source
    if classes is None and parts[chosen[0]].classes is None:
        found: set[str] = set()
        for part in parts.values():
            for names in (part.labels, part.known, part.unknown):
                found.update(*(names or ()))
        classes = sorted(found)
        if not classes:
            raise InputError(f"{source} holds no label; give some")
    if classes is not None:
        classes = check_class_names(classes, where=str(source))
    finder, splits, notes = Finder(tree.root, pattern=image_pattern), {}, []
    for role, split in zip(("train", "test", "val"), chosen, strict=True):
        if split is not None:
            splits[role], skipped = _split(parts[split], split, classes, finder, missing)
            notes += [f"{skipped:,} images of {split} left out, whose files are missing"] * (
                skipped > 0
            )
    check_apart(name, splits, dict(zip(("train", "test", "val"), chosen, strict=True)))
    if "test" not in splits:
        whole = splits["train"]
        train, test = holdout_split(whole.labels, test_fraction, seed=0)
        if not whole.labels.subset(test).counts.any():
            raise InputError(
                f"{source} has {len(whole):,} images, too few to hold out a labelled part of them "
                f"(test_fraction={test_fraction:g}); label more, or give a split to test on"
            )
        splits |= {"train": whole.subset(train), "test": whole.subset(test)}
        notes.append(
            f"no test split is named, so {len(test):,} images are held out to test on "
            f"(test_fraction={test_fraction:g})"
        )
    roles = {role: s for role, s in zip(("train", "test", "val"), chosen, strict=True) if s}
    data = LongTailData(name, **splits, layout={"how": reading.how, "splits": roles})
    _say(reading.how, data, notes)
    return data


def _split(
    part: Part, name: str, classes: tuple | None, finder: Finder, missing: str
) -> tuple[Split, int]:
    paths = _find(part, name, finder, optional=missing == "skip")
    here = [i for i, path in enumerate(paths) if path is not None]
    skipped = len(paths) - len(here)
    if skipped:
        part, paths = part.subset(here), [paths[i] for i in here]
    classes = part.classes if part.classes is not None else classes
    column = {name: c for c, name in enumerate(classes)}
    options = {}
    for option in ("known", "unknown"):
        if (given := getattr(part, option)) is not None:
            options[option] = [[column[name] for name in names] for names in given]
    for i, names in enumerate(part.labels):
        if strange := set(names) - column.keys():
            raise InputError(
                f"{part.source}: {part.entry(i)} has label {quote(min(strange))}, which is none of "
                f"the {len(classes)} classes {', '.join(classes[:20])}; correct it, or add it"
            )
    lists = [[column[name] for name in names] for names in part.labels]
    labels = LabelMatrix.from_lists(lists, classes, **options)
    return Split(paths, labels, list(part.ids or part.images)), skipped


def check_apart(name: str, splits: Mapping[str, Split], names: Mapping[str, str | None]) -> None:
    """Raise if an image is in two splits, unless one part was given for both."""
    seen: dict[Path, str] = {}
    for role, split in splits.items():
        twice = [path for path in split.images if names[seen.get(path, role)] != names[role]]
        if twice:
            other = names[seen[twice[0]]]
            few = ", ".join(quote(path.name) for path in twice[:3])
            count = f"{len(twice):,} images are" if twice[1:] else "1 image is"
            raise InputError(
                f"{name}: {count} in both splits {quote(other)} and {quote(names[role])}, such as "
                f"{few}; leave them out of one"
            )
        for path in split.images:
            seen.setdefault(path, role)


def _say(how: str, data: LongTailData, notes: list[str]) -> None:
    sizes = [f"{split} {len(part):,} images" for split, part in data.splits.items()]
    bare = sum(
        int((np.diff(part.labels.matrix.indptr) == 0).sum()) for part in data.splits.values()
    )
    notes = [f"{bare:,} image{'s' * (bare > 1)} without a label"] * (bare > 0) + notes
    if getattr(data.train.labels, "has_unknown", False):
        known = data.train.labels.known_counts.sum() / max(np.prod(data.train.labels.shape), 1)
        notes.append(f"{100 * (1 - known):.3g} % of the entries to train on are unknown")
    text = "; ".join([", ".join(sizes), *notes])
    _LOG.info("read as %s; %d classes; %s", how, len(data.class_names), text)


def _find(part: Part, split: str, finder: Finder, optional: bool) -> list[Path | None]:
    """Find the files of a part's images; None for those without one, if they are optional.

    Raises:
        InputError: naming the first image without a file, or of two files that may be meant.
    """
    near = next((folder for folder in part.folders if folder.is_dir()), finder.root)
    names: list[str | None] = []
    for name, other in zip(part.images, part.also or part.images, strict=True):
        both = dict.fromkeys((name, other))
        names.append(next((n for n in both if finder.fits(n, near=near)), None))
    here = [i for i, name in enumerate(names) if name is not None]
    found = finder.find(
        [names[i] for i in here],
        near=near,
        split=split,
        place=lambda row: f"{part.source}, {part.entry(here[row])}",
    )
    paths: list[Path | None] = [None] * len(names)
    for i, path in zip(here, found, strict=True):
        paths[i] = path if is_file(path) else None  # a broken link has a name, but nothing else
    # Among images of their own split, one that is found in another split's folder is another photo.
    strange: dict[str, set[str]] = {}  # folder -> its parts that name another split
    astray = []
    for i in here:
        folder = os.path.dirname(paths[i] or "")  # noqa: PTH120 - a million times
        if folder not in strange:
            strange[folder] = _other_splits(kind_of(split), Path(folder), finder.root)
        if strange[folder] and not any(part in names[i] for part in strange[folder]):
            astray.append(i)
    if len(astray) < len(here):
        for i in astray:
            paths[i] = None
    lost = [i for i, path in enumerate(paths) if path is None]
    if lost and len(lost) == len(paths):
        raise InputError(
            f"{part.source}: none of its {len(paths):,} images, such as {quote(part.images[0])}, "
            f"is under {finder.root}; give the folder that holds both as root"
        )
    if lost and not optional:
        others = f" (and {len(lost) - 1:,} more)" if lost[1:] else ""
        raise InputError(
            f"{part.source}: the file of {part.entry(lost[0])}, {quote(part.images[lost[0]])} "
            f"in {near}, is missing{others}; add it, or leave such images out with "
            "--data-options missing=skip, in Python missing='skip'"
        )
    return paths


def _other_splits(kind: str | None, folder: Path, root: Path) -> set[str]:
    """Parts of a folder's path below the root that name another split than that of a kind."""
    inside = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    return {part for part in inside if kind and kind_of(part) not in (None, kind)}


def recognised(root: str | Path, modules: Mapping[str, str]) -> dict[str, str]:
    """Name -> sentence of each layout that the folder has.

    Args:
        root: folder of the data.
        modules: layout's name -> module, whose ``recognises`` is asked.
    """
    tree = Tree(Path(root))
    found = {}
    for name, module in modules.items():
        if sentence := importlib.import_module(module).recognises(tree):
            found[name] = sentence
    return found


def find_layout(root: str | Path, modules: Mapping[str, str]) -> str:
    """Name of the one layout that a folder has; tables and folders of classes come last.

    Args:
        root: folder of the data.
        modules: layout's name -> module, as for :func:`recognised`.

    Raises:
        InputError: if it has several.
    """
    found = recognised(root, modules)
    if len(found) > 1 and "class-folders" in found:
        del found["class-folders"]  # any tree of images in folders looks so
    if len(found) > 1:
        each = "; ".join(f"--data {name}: {sentence}" for name, sentence in found.items())
        raise InputError(f"{root} may be read as several data sets; choose one of {each}")
    tables = Tree(Path(root)).match(*(f"{top}*.{kind}" for kind in _TABLES for top in ("", "*/")))
    if not found and not tables:
        inside = [p for p in sorted(Path(root).glob("*")) if p.is_dir() and p.name[0] != "."][:10]
        each = {path: recognised(path, modules) for path in inside}
        for path, below in each.items():
            if below:
                what = next(iter(below.values()))
                raise InputError(
                    f"{root} has no table of labels and no known layout, but {path} has ({what}); "
                    f"give that as root: --root {path}"
                )
    if not found or (tables and list(found) == ["class-folders"]):
        return "folder"
    return next(iter(found))


def json_keys(path: Path, keys: Iterable[str]) -> bool:
    """Whether a JSON file of any size has all these keys, by their text alone."""
    import mmap

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(re.search(rb"%s\s*:" % json.dumps(key).encode(), text) for key in keys)
    except (OSError, ValueError):  # unreadable, or empty
        return False
