"""PASCAL VOC: any VOCdevkit tree, and the long-tailed benchmark VOC-LT."""

import glob
import re
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, quote, read_list, read_text
from ltml.core.options import Bounds
from ltml.data.kinds import kind_of
from ltml.data.layouts import Part, Reading, Tree, assemble, head_of
from ltml.data.splits import LongTailData, Rows, find_list, is_file
from ltml.data.xml import parse

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_MAIN, _YEAR = "ImageSets/Main", re.compile("VOC20[0-9]{2}")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has a VOC tree, or VOC's annotations in any folder."""
    if trees := _trees(tree.root):
        return f"PASCAL VOC: {', '.join(map(tree.say, list(trees.values())[:3]))}"
    if folders := _xml_folders(tree):
        return f"VOC annotations: {', '.join(list(folders)[:3])}"
    return None


def load(
    *,
    root: str | Path,
    train_split: str | Path | None = None,
    test_split: str | Path | None = None,
    val_split: str | Path | None = None,
    classes: str | Sequence[str] | None = None,
    difficult: Literal["present", "absent", "unknown"] = "present",
    test_fraction: Annotated[float, Bounds("(0, 1)")] = 0.2,
    missing: Literal["error", "skip"] = "error",
    image_pattern: str | None = None,
) -> LongTailData:
    """Load image sets of a VOCdevkit tree, or any folders of VOC annotations.

    An image has a label for every class that one of its objects has; one without objects has none.
    Where a tree has no annotations, the labels are those of the sets ``CLASS_SPLIT.txt``: 1 for
    present, -1 for absent, 0 for difficult. Without image sets, each folder of annotations is a
    split.

    Args:
        root: the VOCdevkit folder, the folder that holds it, or one tree such as ``VOC2012``.
        train_split: image set for training: ``"train"`` for ``ImageSets/Main/train.txt``,
            ``"VOC2007/trainval"`` to choose among several trees, or the path of any ``.txt`` file
            with an id on each line (flags after it, as in VOC's per-class sets, are ignored).
            Default: train, else trainval.
        test_split: image set for testing. Default: val after train, else test; test where
            there are train, val and test alone.
        val_split: image set for validation. Default: val in that case, else none.
        classes: class names in column order, or ``"found"`` for those that are found, sorted.
            Default: VOC's 20 if no other is found; those found in a tree that is not VOC's.
        difficult: meaning of difficult objects alone, for a class of an image: ``"present"``,
            ``"absent"`` or ``"unknown"``.
        test_fraction: fraction of the images to hold out to test on, where there is one set only.
        missing: ``"error"``, or ``"skip"`` to leave out images without a file.
        image_pattern: path of the image called ``{}``, as for :class:`ltml.data.finder.Finder`.

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    if classes is not None and not isinstance(classes, str):
        classes = check_class_names(classes, where="classes")
    elif classes not in (None, "found"):
        classes = check_class_names(classes.split(","), where="classes")
    tree, trees = Tree(Path(root)), _trees(root)
    parts: dict[str, Part] = {}
    found: dict[str, Path] = {}  # class -> the first file that has it
    if trees and (sets := _sets(trees)):
        splits = _defaults(sets, train_split, test_split, val_split)
        for split in filter(None, splits):
            parts[str(split)] = _set_part(root, trees, split, difficult, found)
        train_split, test_split, val_split = (s if s is None else str(s) for s in splits)
    elif folders := _xml_folders(tree):
        for name, paths in folders.items():
            parts[name] = _folder_part(tree, paths, difficult, found)
    else:
        find_trees(root)  # raises where there is none
        raise InputError(f"{root} has neither image sets nor annotations; add Annotations/*.xml")
    if not found:
        raise InputError(f"{root}: no image holds an object; annotate some")
    names = _classes(found, classes, ours=any(_YEAR.fullmatch(name) for name in trees))
    return assemble(
        "voc",
        Reading(recognises(tree) or "PASCAL VOC", parts, names),
        tree,
        train_split=train_split,
        test_split=test_split,
        val_split=val_split,
        test_fraction=test_fraction,
        missing=missing,
        image_pattern=image_pattern,
    )


def _defaults(sets: Sequence[str], train, test, val) -> tuple:
    if train is None:
        several = [name for name in ("train", "trainval") if name in sets]
        alone = len(set(sets)) == 1 and kind_of(sets[0]) is None
        train = several[0] if several else sets[0] if alone else "train"
    own = {"val", "test"} <= set(sets) and "trainval" not in sets
    if own and train == "train" and test is val is None:
        test, val = "test", "val"  # of one's own; of VOC's years, only the first has a test set
    if test is None:
        after = ("val", "test") if str(train).rpartition("/")[2] == "train" else ("test",)
        test = next((name for name in after if name in sets and name != val), None)
    if test is None and len(set(sets)) > 1 and val is None:
        test = "val"  # which is reported as missing
    return train, test, val


def _trees(root: str | Path) -> dict[str, Path]:
    try:
        return find_trees(root)
    except InputError:
        return {}


def _sets(trees: dict[str, Path]) -> list[str]:
    """Names of the image sets, without those of single classes."""
    found = [path.stem for tree in trees.values() for path in sorted(tree.glob(f"{_MAIN}/*.txt"))]
    return [name for name in found if not _is_class_set(name, found)]


def _is_class_set(name: str, names: Collection[str]) -> bool:
    return "_" in name and name.rpartition("_")[2] in names


def _set_part(root, trees: dict, split: str | Path, difficult: str, found: dict) -> Part:
    """Read an image set: from annotations, or from the sets of the classes."""
    listing, trees = _find_set(root, trees, split)
    lines = read_list(listing)
    where = [f"line {line}" for line, _ in lines]
    names = [name for _, name in lines]
    if not any((tree / "Annotations").is_dir() for tree in trees.values()):
        places, rows = [listing] * len(names), _class_sets(listing, names)
    else:
        pairs = zip(names, where, strict=True)
        places = [_annotation(name, f"{listing}, {place}", trees) for name, place in pairs]
        rows = list(map(read_objects, places))
    folders = [tree / "JPEGImages" for tree in trees.values()]
    _note(found, places, rows)
    return _part(listing, names, rows, where, folders, difficult)


def _class_sets(listing: Path, names: list[str]) -> list[list[tuple[str, bool]]]:
    """Objects of each image by the flags of ``CLASS_SPLIT.txt``: 1, -1, or 0 for difficult."""
    rows: dict[str, list] = {name: [] for name in names}
    paths = sorted(listing.parent.glob(f"*_{glob.escape(listing.stem)}.txt"))
    if not paths:
        raise InputError(
            f"{listing}: there are neither annotations nor sets such as cat_{listing.stem}.txt "
            "beside it; add one or the other"
        )
    for path in paths:
        for number, line in enumerate(lines_of(read_text(path)), 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in ("1", "-1", "0") or words[0] not in rows:
                raise InputError(
                    f"{path}, line {number}: {quote(line)} is no image of {listing.name} with 1, "
                    "-1 or 0; correct it"
                )
            if words[1] != "-1":
                rows[words[0]].append((path.stem[: -len(listing.stem) - 1], words[1] == "0"))
    return [rows[name] for name in names]


def _xml_folders(tree: Tree) -> dict[str, list[Path]]:
    """Split -> annotations, of trees without image sets."""
    folders: dict[Path, list[Path]] = {}
    for path in tree.match("*.xml", "*/*.xml", "*/*/*.xml", "*/*/*/*.xml"):
        folders.setdefault(path.parent, []).append(path)
    found: dict[str, list[Path]] = {}
    for folder, paths in folders.items():
        if re.search(r"<annotation[\s>]", head_of(paths[0])):
            inside = [p.name for p in (folder, *folder.parents) if p.is_relative_to(tree.root)]
            name = next((n for n in inside if kind_of(n)), folder.name)
            found.setdefault(name, []).extend(paths)
    return found


def _folder_part(tree: Tree, paths: list[Path], difficult: str, found: dict) -> Part:
    rows = [read_objects(path) for path in paths]
    _note(found, paths, rows)
    folder = paths[0].parent
    folders = [folder, folder.parent / "JPEGImages", folder.parent / "images"]
    where = [tree.say(path) for path in paths]
    return _part(folder, [path.stem for path in paths], rows, where, folders, difficult)


def _note(found: dict, places: list[Path], rows: list) -> None:
    for place, objects in zip(places, rows, strict=True):
        for name, _ in objects:
            found.setdefault(name, place)


def _part(source, names: list, rows: list, where: list, folders: list, difficult: str) -> Part:
    """Make a split of images and their objects."""
    labels, unknown = [], []
    for objects in rows:
        sure = {name for name, hard in objects if not hard}
        hard = {name for name, _ in objects} - sure
        labels.append(sure | hard if difficult == "present" else sure)
        unknown.append(hard)
    return Part(
        source,
        names,
        labels,
        where,
        unknown=unknown if difficult == "unknown" else None,
        folders=folders,
    )


def _classes(found: dict[str, Path], classes, ours: bool) -> tuple[str, ...]:
    given = classes is not None and classes != "found"
    known = classes if given else VOC_CLASSES
    strange = sorted(found.keys() - set(known))
    if not strange and classes != "found":
        return tuple(known)
    if given or (ours and classes is None and set(found) & set(VOC_CLASSES)):
        raise InputError(
            f"{found[strange[0]]}: class {quote(strange[0])} is not among the {len(known)} classes "
            f"{', '.join(known[:20])}; correct it, or take all that are found with "
            "--data-options classes=found, in Python classes='found'"
        )
    return tuple(sorted(found))


def load_voc_lt(
    *,
    root: str | Path,
    id_list: str | Path | None = None,
    test_split: str = "VOC2007/test",
    val_split: str | None = None,
) -> LongTailData:
    """Load VOC-LT: 1142 long-tailed training images of VOC2012, and the 4952 of VOC2007's test set.

    See Wu et al., ECCV 2020, https://arxiv.org/abs/2007.09654.

    Args:
        root: the VOCdevkit folder with ``VOC2012`` and ``VOC2007``, or the folder that holds it.
        id_list: the published list of training ids, one on each line, read as text. Default:
            ``longtail2012/img_id.txt`` or ``img_id.txt`` under ``root``.
        test_split, val_split: image sets, as for :func:`load`.
    """
    splits = Path(id_list or find_lt_list(root)), test_split, val_split
    splits = [rows(root, split).split() for split in splits if split is not None]
    return LongTailData("voc-lt", *splits)


def find_lt_list(root: str | Path) -> Path:
    """Find the file of VOC-LT's training ids."""
    trees = find_trees(root)
    if "VOC2012" not in trees:
        raise InputError(
            f"{root} has no VOC2012, where VOC-LT's training images are; add it, or give the "
            "folder that holds it"
        )
    top = trees["VOC2012"].parent
    return find_list([top / "longtail2012", top, Path(root), trees["VOC2012"]], "img_id.txt")


def find_trees(root: str | Path) -> dict[str, Path]:
    """Find the trees (VOC2007, VOC2012, ...) in a VOCdevkit, or in the folder that holds it."""
    root = Path(root)
    for folders in ([root.absolute()], root.glob("*"), root.glob("VOCdevkit/*")):
        if trees := {p.name: p for p in sorted(folders) if _is_tree(p)}:
            return trees
    raise InputError(
        f"{root} holds no VOC tree (a folder such as VOC2012 with Annotations, ImageSets and "
        "JPEGImages); give the VOCdevkit folder"
    )


def _is_tree(path: Path) -> bool:
    has = (path / "Annotations").is_dir(), any(path.glob(f"{_MAIN}/*.txt"))
    return has[1] or (has[0] and any(path.glob("Annotations/*.xml")))


def rows(root: str | Path, split: str | Path, classes: Sequence[str] = VOC_CLASSES) -> Rows:
    """Find the images of a split; see :func:`load`."""
    listing, trees = _find_set(root, find_trees(root), split)
    classes, lines = tuple(classes), read_list(listing)
    wheres = {name: f"{listing}, line {line}" for line, name in lines}
    read = {name: partial(_read, name, where, trees, classes) for name, where in wheres.items()}
    return Rows(listing, classes, read)


def _find_set(root, trees: dict[str, Path], split: str | Path) -> tuple[Path, dict[str, Path]]:
    """Find the file of an image set, and the trees that its images may be in."""
    if str(split).endswith(".txt") or isinstance(split, Path):
        found = [(p, trees) for p in (Path(split), Path(root, split)) if is_file(p)][:1]
    else:
        tree, _, name = split.rpartition("/")
        files = {t: trees[t] / f"{_MAIN}/{name}.txt" for t in trees if tree in ("", t)}
        found = [(path, {t: trees[t]}) for t, path in files.items() if is_file(path)]
    if len(found) != 1:
        sets = [(t, p.stem) for t in trees for p in trees[t].glob(f"{_MAIN}/*.txt")]
        known = {name for _, name in sets}
        sets = [(t, name) for t, name in sets if not _is_class_set(name, known)]
        names = ", ".join(sorted(f"{t}/{name}" for t, name in sets))
        raise InputError(
            f"split {quote(str(split))} is in {len(found)} trees of {root}; "
            f"give one of {names}, or a file of ids"
        )
    return found[0]


def _annotation(name: str, where: str, trees: dict[str, Path]) -> Path:
    found = [path for path in trees.values() if is_file(path / f"Annotations/{name}.xml")]
    if len(found) != 1:
        raise InputError(
            f"{where}: {quote(name)} is annotated in {len(found)} of {', '.join(trees)}; "
            + ("keep it in one of them" if found else "add it, or leave the image out")
        )
    return found[0] / f"Annotations/{name}.xml"


def _read(name: str, where: str, trees: dict, classes: tuple) -> tuple[Path, list[int]]:
    annotation = _annotation(name, where, trees)
    folder = annotation.parent.parent / "JPEGImages"
    image = next(filter(is_file, (folder / f"{name}{suffix}" for suffix in _SUFFIXES)), None)
    if image is None:
        raise InputError(f"{where}: {quote(name)} has no image in {folder}; add or remove it")
    objects = set(read_annotation(annotation))
    if unknown := objects.difference(classes):
        raise InputError(
            f"{annotation}: class {quote(min(unknown))} is not among the {len(classes)} classes "
            f"{', '.join(classes[:20])}; correct it"
        )
    return image, sorted(map(classes.index, objects))


def read_annotation(path: str | Path) -> list[str]:
    """Read the class name of every object in a VOC annotation, difficult ones too.

    Returns:
        One name for each object, in the order of the file; none for an image without objects.

    Raises:
        InputError: naming the file, if it is no annotation.
    """
    return [name for name, _ in read_objects(path)]


def read_objects(path: str | Path) -> list[tuple[str, bool]]:
    """Read class name and difficulty of every object in a VOC annotation.

    Raises:
        InputError: naming the file, if it is no annotation.
    """
    annotation = parse(path, limit=4 * 2**20)  # VOC's largest has 20 kB
    objects = annotation.findall("object")
    # One that is nested, or in a namespace, would be lost silently.
    everywhere = sum(entry.tag.rpartition("}")[2] == "object" for entry in annotation.iter())
    if annotation.tag != "annotation" or len(objects) < everywhere:
        raise InputError(
            f"{path} does not hold its <object>s directly in an <annotation>; put them there"
        )
    found = []
    for number, entry in enumerate(objects, 1):
        names = entry.findall("name")  # an object's parts have names too, but deeper
        if len(names) != 1 or len(names[0]) or not (names[0].text or "").strip():
            raise InputError(f"{path}: object {number} has no single plain <name>; give it one")
        hard = (entry.findtext("difficult") or "0").strip().lower() in ("1", "true")
        found.append((names[0].text.strip(), hard))
    return found
