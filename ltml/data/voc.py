"""PASCAL VOC: any VOCdevkit tree, and the long-tailed benchmark VOC-LT."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_list, read_text
from ltml.data.splits import LongTailData, Rows, find_list, is_file

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def load(
    *,
    root: str | Path,
    train_split: str = "train",
    test_split: str = "val",
    val_split: str | None = None,
    classes: Sequence[str] = VOC_CLASSES,
) -> LongTailData:
    """Load image sets of a VOCdevkit tree.

    An image has a label for every class that one of its objects has, difficult ones too.

    Args:
        root: the VOCdevkit folder, the folder that holds it, or one tree such as ``VOC2012``.
        train_split: image set for training: ``"train"`` for ``ImageSets/Main/train.txt``,
            ``"VOC2007/trainval"`` to choose among several trees, or the path of any ``.txt`` file
            with an id on each line (flags after it, as in VOC's per-class sets, are ignored).
        test_split, val_split: image sets for testing and validation.
        classes: class names, in column order.

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    classes = check_class_names(classes, where="classes")
    splits = [split for split in (train_split, test_split, val_split) if split is not None]
    return LongTailData("voc", *(rows(root, split, classes).split() for split in splits))


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
        raise InputError(f"{root} has no VOC2012, where VOC-LT's training images are")
    top = trees["VOC2012"].parent
    return find_list([top / "longtail2012", top, Path(root), trees["VOC2012"]], "img_id.txt")


def find_trees(root: str | Path) -> dict[str, Path]:
    """Find the trees (VOC2007, VOC2012, ...) in a VOCdevkit, or in the folder that holds it."""
    root = Path(root)
    for folders in ([root.absolute()], root.glob("*"), root.glob("VOCdevkit/*")):
        if trees := {p.name: p for p in sorted(folders) if (p / "Annotations").is_dir()}:
            return trees
    raise InputError(
        f"{root} holds no VOC tree (a folder such as VOC2012 with Annotations, ImageSets and "
        "JPEGImages); give the VOCdevkit folder"
    )


def rows(root: str | Path, split: str | Path, classes: Sequence[str] = VOC_CLASSES) -> Rows:
    """Find the images of a split; see :func:`load`."""
    trees = find_trees(root)
    if str(split).endswith(".txt") or isinstance(split, Path):
        found = [(p, trees) for p in (Path(split), Path(root, split)) if is_file(p)][:1]
    else:
        tree, _, name = split.rpartition("/")
        files = {t: trees[t] / f"ImageSets/Main/{name}.txt" for t in trees if tree in ("", t)}
        found = [(path, {t: trees[t]}) for t, path in files.items() if is_file(path)]
    if len(found) != 1:
        sets = [(t, p.stem) for t in trees for p in trees[t].glob("ImageSets/Main/*.txt")]
        names = ", ".join(sorted(f"{t}/{name}" for t, name in sets if "_" not in name))
        raise InputError(
            f"split {quote(str(split))} is in {len(found)} trees of {root}; "
            f"give one of {names}, or a file of ids"
        )
    ((listing, trees),) = found
    classes, lines = tuple(classes), read_list(listing)
    wheres = {name: f"{listing}, line {line}" for line, name in lines}
    read = {name: partial(_read, name, where, trees, classes) for name, where in wheres.items()}
    return Rows(listing, classes, read)


def _read(name: str, where: str, trees: dict, classes: tuple) -> tuple[Path, list[int]]:
    found = [path for path in trees.values() if is_file(path / f"Annotations/{name}.xml")]
    if len(found) != 1:
        raise InputError(
            f"{where}: {quote(name)} is annotated in {len(found)} of {', '.join(trees)}; "
            + ("name the tree in the split" if found else "add it, or leave the image out")
        )
    annotation, folder = found[0] / f"Annotations/{name}.xml", found[0] / "JPEGImages"
    image = next(filter(is_file, (folder / f"{name}{suffix}" for suffix in _SUFFIXES)), None)
    if image is None:
        raise InputError(f"{where}: {quote(name)} has no image in {folder}; add or remove it")
    objects = set(read_annotation(annotation))
    if unknown := objects.difference(classes):
        raise InputError(
            f"{annotation}: class {quote(min(unknown))} is not among the {len(classes)} classes "
            f"{', '.join(classes[:20])}; correct it, or give classes="
        )
    return image, sorted(map(classes.index, objects))


def read_annotation(path: str | Path) -> list[str]:
    """Read the class name of every object in a VOC annotation, difficult ones too.

    A document type is refused before parsing, so no entity can be declared, let alone expand.

    Returns:
        One name for each object, at least one, in the order of the file.

    Raises:
        InputError: naming the file, if it is no annotation or holds no object.
    """
    text = read_text(path, limit=4 * 2**20)  # VOC's largest has 20 kB
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares a document type or an entity; remove the declaration")
    try:
        # From text, not bytes: an encoding that the file declares cannot hide anything from us.
        annotation = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path} is not well-formed XML: {error}") from None
    objects = annotation.findall("object")
    # One that is nested, or in a namespace, would be lost silently.
    everywhere = sum(entry.tag.rpartition("}")[2] == "object" for entry in annotation.iter())
    if annotation.tag != "annotation" or not objects or len(objects) < everywhere:
        raise InputError(f"{path} does not hold its <object>s directly in an <annotation>")
    names = [entry.findall("name") for entry in objects]  # their parts have names too, but deeper
    for number, found in enumerate(names, 1):
        if len(found) != 1 or len(found[0]) or not (found[0].text or "").strip():
            raise InputError(f"{path}: object {number} has no single plain <name>; give it one")
    return [name.text.strip() for (name,) in names]
