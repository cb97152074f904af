"""Lists of images: PaddleClas's lines of path and labels, and NUS-WIDE's files of classes."""

import re
from collections.abc import Sequence
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, quote, read_text
from ltml.data.kinds import kind_of
from ltml.data.layouts import Part, Reading, Tree, by_split, head_of, layout

_LIMIT = 2**30
_LINE = re.compile(
    r"(?P<image>\S.*?\.(?:jpe?g|png|bmp|gif|tiff?|webp))[ \t]+(?P<labels>\d[\d, \t]*)", re.I
)
_NAMES = ("label.txt", "labels.txt", "label_list.txt", "*label_list.txt", "classes.txt")
_NAMES += ("class_names.txt", "class_id_map*.txt")
_CLASS = re.compile(r"labels_(?P<name>.+?)(?:_(?P<split>train|test))?\.txt", re.IGNORECASE)


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has such lists."""
    if nus := _nus_files(tree):
        return f"NUS-WIDE: {tree.list(next(iter(nus.values()))[1])}"
    found = _lists(tree)
    return (
        f"lists of paths and labels, as PaddleClas has them: {tree.list(found)}" if found else None
    )


def _lists(tree: Tree) -> list[Path]:
    def fits(path: Path) -> bool:
        lines = [line for line in head_of(path, 8192).splitlines()[:5] if line.strip()]
        return bool(lines) and _LINE.fullmatch(lines[0].strip()) is not None

    def names_splits(path: Path) -> bool:  # as CelebA's list_eval_partition.txt numbers them
        return "partition" in path.stem.lower()

    found = tree.match("*.txt", "*/*.txt", "*.lst")
    return [path for path in found if fits(path) and not names_splits(path)]


@layout("lists")
def load(tree: Tree, *, classes: str | Sequence[str] | None = None) -> Reading:
    """Load lists of images with their labels on each line, or NUS-WIDE.

    A line holds a path, a tab or space, and 0 or 1 for each class, separated by commas or spaces
    (``photos/1.jpg<TAB>0,1,0``), or indices of classes from 0. NUS-WIDE has the images in
    ``ImageList/TrainImagelist.txt`` and ``TestImagelist.txt``, and for each class a file
    ``Labels_CLASS_Train.txt`` with 0 or 1 on the line of each image. Further arguments are those of
    :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the lists, and of the images.
        classes: class names in column order. Default: those of ``label_list.txt``, ``labels.txt``
            or ``classes.txt`` under the root, else ``"class 0"``, ``"class 1"``...

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    if nus := _nus_files(tree):
        return _nus_wide(tree, nus, classes)
    found = _lists(tree)
    if not found:
        raise InputError(
            f"{tree.root} has no list whose lines are a path and its labels, such as "
            "photos/1.jpg<TAB>0,1,0"
        )
    read = {split: _read(path) for split, path in by_split(found, tree.root).items()}
    rows = [row for _, _, rows in read.values() for row in rows]
    lengths, values = {len(row) for row in rows}, {value for row in rows for value in row}
    # Vectors repeat 0 or 1 in a line, as indices never do.
    vectors = (
        len(lengths) == 1 and values <= {0, 1} and any(len(set(row)) < len(row) for row in rows)
    )
    names, where = _class_names(tree, classes)
    if not vectors:
        for path, lines, some in read.values():
            for line, row in zip(lines, some, strict=True):
                if len(set(row)) < len(row):
                    raise InputError(
                        f"{path}, {line[0]}: an index stands twice; give 0 or 1 for each class on "
                        "every line, or distinct indices"
                    )
        if lengths == {2} and values == {0, 1}:
            path, lines, _ = next(iter(read.values()))
            raise InputError(
                f"{path}, {lines[0][0]}: 0 1 may be two indices or a 0 and a 1; list one label "
                "alone on some line, or the classes as columns of a table"
            )
    count = lengths.pop() if vectors else max(values, default=0) + 1
    if names is None:
        names = [f"class {c}" for c in range(count)]
    if len(names) < count or (vectors and len(names) != count):
        raise InputError(f"{where} has {len(names)} classes, the lists {count}; give one name each")
    parts = {}
    for split, (path, lines, some) in read.items():
        labels = [
            {names[c] for c, flag in enumerate(row) if flag} if vectors else {names[c] for c in row}
            for row in some
        ]
        folders = [path.parent, path.parent / "images"]
        parts[split] = Part(
            path, [line[1] for line in lines], labels, [line[0] for line in lines], folders=folders
        )
    return Reading(recognises(tree), parts, names)


def _read(path: Path) -> tuple[Path, list[tuple[str, str]], list[list[int]]]:
    """Return place and image of each line, and its numbers."""
    lines, rows, seen = [], [], {}
    for number, line in enumerate(lines_of(read_text(path, limit=_LIMIT)), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"{path}, line {number}: {quote(line)} is no path with its labels, such as "
                "photos/1.jpg<TAB>0,1,0"
            )
        if seen.setdefault(match["image"], number) != number:
            raise InputError(
                f"{path}, line {number}: image {quote(match['image'])} is on line "
                f"{seen[match['image']]} already; keep one"
            )
        lines.append((f"line {number}", match["image"]))
        rows.append([int(word[:9]) for word in re.findall(r"\d+", match["labels"])])
        if max(rows[-1]) > 100_000:
            raise InputError(f"{path}, line {number}: {max(rows[-1])} is too large for an index")
    return path, lines, rows


def _class_names(tree: Tree, classes) -> tuple[Sequence[str] | None, str]:
    if classes is not None:
        return check_class_names(classes, where="classes"), "classes"
    found = [path for path in tree.match(*_NAMES) if path not in _lists(tree)]
    if not found:
        return None, ""
    names = []
    for line in lines_of(read_text(found[0]).strip()):
        number, _, rest = line.strip().partition(" ")
        # "0 cat" as PaddleClas writes it, "cat" as others do
        names.append(rest.strip() if number == str(len(names)) and rest else line.strip())
    return check_class_names(names, where=str(found[0])), str(found[0])


def _nus_files(tree: Tree) -> dict[str, tuple[Path, list[Path]]]:
    """Split -> the list of images, and the files of the classes."""
    lists = {}
    for path in tree.match("*imagelist*.txt", "imagelist/*.txt"):
        lists[kind_of(re.sub("image", " image", path.stem.lower())) or "all"] = path
    classes: dict[str, list[Path]] = {}
    for path in tree.match("labels_*.txt", "*/labels_*.txt", "*/*/labels_*.txt"):
        if match := _CLASS.fullmatch(path.name):
            classes.setdefault((match["split"] or "all").lower(), []).append(path)
    both = {split: (lists[split], classes[split]) for split in lists.keys() & classes.keys()}
    if len(both) > 1:  # the whole repeats the two
        both.pop("all", None)
    return dict(sorted(both.items()))


def _nus_wide(tree: Tree, files: dict, chosen: Sequence[str] | None) -> Reading:
    parts, first = {}, None
    for split, (listing, paths) in files.items():
        text = read_text(listing, limit=_LIMIT)
        images = [line.strip() for line in lines_of(text) if line.strip()]
        names = {_CLASS.fullmatch(path.name)["name"]: path for path in paths}
        if first is not None and names.keys() != first.keys():
            differ = ", ".join(sorted(names.keys() ^ first.keys())[:10])
            raise InputError(f"{tree.root}: {differ} has labels of one split only; add the others")
        first = first or names
        labels: list[list[str]] = [[] for _ in images]
        for name, path in names.items():
            flags = read_text(path, limit=_LIMIT).split()
            if len(flags) != len(images) or not {*flags} <= {"0", "1"}:
                raise InputError(
                    f"{path} does not hold 0 or 1 for each of the {len(images):,} images of "
                    f"{listing}; fetch it again"
                )
            for row, flag in zip(labels, flags, strict=True):
                if flag == "1":
                    row.append(name)
        where = [f"line {i}" for i in range(1, len(images) + 1)]
        parts[split] = Part(listing, images, labels, where, folders=[tree.root / "Flickr"])
    return Reading(
        recognises(tree), parts, check_class_names(chosen or sorted(first), where="classes")
    )
