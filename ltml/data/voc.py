"""PASCAL VOC: any VOCdevkit tree, and the long-tailed benchmark VOC-LT."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltml.data import LongTailData, Split
from ltml.errors import InputError
from ltml.files import Root, check_class_names, check_name, quote, read_list, read_text
from ltml.labels import LabelMatrix

__all__ = ["VOC_CLASSES", "load", "load_voc_lt", "read_annotation"]

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
VOC_CLASSES = tuple(_NAMES.split())

_MAX_XML_BYTES = 4 * 2**20  # VOC's largest annotation has 20 kB
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_LT_LISTS = (
    "longtail2012/img_id.txt",
    "img_id.txt",
    "VOC2012/img_id.txt",
    "VOC2012/ImageSets/Main/img_id.txt",
)


@dataclass(frozen=True)
class Devkit:
    """Folder that bounds every look-up, and the trees (VOC2007, VOC2012, ...) inside it."""

    root: Root
    trees: dict[str, Path]  # name -> path relative to the root

    @classmethod
    def find(cls, root: str | Path) -> "Devkit":
        """Accept a VOCdevkit, the folder that holds it, or one of its trees."""
        root = Root(root)
        if _is_tree(root.path):
            return cls(root, {root.path.resolve().name: Path()})
        for folder in (root.path, root.path / "VOCdevkit"):
            try:
                trees = sorted(path for path in folder.iterdir() if _is_tree(path))
            except OSError:  # no such folder, or not ours to list
                continue
            if trees:
                return cls(root, {tree.name: tree.relative_to(root.path) for tree in trees})
        raise InputError(
            f"{root.path} holds no VOC tree (a folder such as VOC2012 with Annotations, ImageSets "
            "and JPEGImages); give the VOCdevkit folder"
        )

    def image_set(self, split: str) -> tuple[Path, list[str]]:
        """File of image ids that ``split`` names, and the trees its images may be in."""
        split = str(split)
        if split.endswith(".txt"):
            for path in (Path(split), self.root.path / split):
                if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on too long a name
                    return path, list(self.trees)
            raise InputError(f"split {quote(split)} is not a file, nor one in {self.root.path}")
        named, _, name = split.rpartition("/")
        check_name(name, where=f"split {quote(split)}")
        if named and named not in self.trees:
            raise InputError(
                f"split {quote(split)}: there is no {quote(named)} in {self.root.path}; "
                f"it has {', '.join(self.trees)}"
            )
        found, sets = {}, []
        for tree in [named] if named else self.trees:
            folder = self.trees[tree] / "ImageSets" / "Main"
            path = self.root.find(folder / f"{name}.txt", where=f"split {quote(split)}")
            if path is not None:
                found[tree] = path
            sets += sorted(
                path.stem
                for path in (self.root.path / folder).glob("*.txt")
                if "_" not in path.stem
            )
        if not found:
            raise InputError(
                f"split {quote(split)} needs the image set {self.root.path / folder / name}.txt, "
                "which is missing; "
                + (f"there are {', '.join(sets[:10])}" if sets else "that folder has no image set")
            )
        if len(found) > 1:
            raise InputError(
                f"split {quote(split)} is in several trees; give one of "
                + ", ".join(f"{tree}/{name}" for tree in found)
            )
        (tree,) = found
        return found[tree], [tree]

    def annotated(self, name: str, trees: list[str], *, where: str) -> tuple[Path, Path]:
        """Annotation and image of one id."""
        check_name(name, where=where)
        found = {}
        for tree in trees:
            path = self.root.find(self.trees[tree] / "Annotations" / f"{name}.xml", where=where)
            if path is not None:
                found[tree] = path
        if not found:
            folder = self.root.path / self.trees[trees[0]] / "Annotations"
            raise InputError(
                f"{where}: {quote(name)} has no annotation {folder / name}.xml; "
                "add it, or take the line out"
            )
        if len(found) > 1:
            raise InputError(
                f"{where}: {quote(name)} is in {' and '.join(found)}; name the tree in the split"
            )
        ((tree, annotation),) = found.items()
        folder = self.trees[tree] / "JPEGImages"
        for suffix in _SUFFIXES:
            image = self.root.find(folder / f"{name}{suffix}", where=where)
            if image is not None:
                return annotation, image
        raise InputError(
            f"{where}: {quote(name)} has no image {self.root.path / folder / name}.jpg; "
            "add it, or take the line out"
        )


def _is_tree(path: Path) -> bool:
    return (path / "Annotations").is_dir() or (path / "ImageSets").is_dir()


def read_annotation(path: str | Path) -> list[str]:
    """Read the class name of every object in a VOC annotation, difficult ones too.

    A document type is refused before parsing, so no entity can be declared, let alone expand.

    Returns:
        One name for each object, at least one, in the order of the file.

    Raises:
        InputError: naming the file, if it is no annotation or holds no object.
    """
    text = read_text(path, limit=_MAX_XML_BYTES)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares a document type or an entity; take the declaration out")
    try:
        # From text, not bytes: an encoding that the file declares cannot hide anything from us.
        annotation = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path} is not well-formed XML: {error}") from None
    if annotation.tag != "annotation":
        raise InputError(f"{path} holds <{quote(annotation.tag)[1:-1]}>, not VOC's <annotation>")
    names = [_name_of(path, i, entry) for i, entry in enumerate(annotation.findall("object"), 1)]
    if not names:
        raise InputError(
            f"{path} has no <object>, so the image has no label; take it out of the image set"
        )
    # One that stands deeper, or in a namespace, would be lost silently.
    lost = sum(entry.tag.rpartition("}")[2] == "object" for entry in annotation.iter()) - len(names)
    if lost:
        raise InputError(
            f"{path}: {lost} <object> not directly in <annotation>; put each there, with no xmlns"
        )
    return names


def _name_of(path, number: int, entry: ElementTree.Element) -> str:
    """Class of an object; its parts have names too, but deeper."""
    names = entry.findall("name")
    name = (names[0].text or "").strip() if names else ""
    if not name:
        raise InputError(f"{path}: object {number} has no <name>; give it one")
    if len(names) > 1 or len(names[0]):
        raise InputError(f"{path}: object {number} has not one plain <name>; give it one")
    return name


def _read_split(devkit: Devkit, listing: Path, trees: list[str], classes: Sequence[str]) -> Split:
    column = {name: c for c, name in enumerate(classes)}
    images, lists, ids = [], [], []
    for line, name in read_list(listing):
        annotation, image = devkit.annotated(name, trees, where=f"{listing}, line {line}")
        objects = set(read_annotation(annotation))
        unknown = sorted(objects - column.keys())
        if unknown:
            more = ", ..." if len(classes) > len(VOC_CLASSES) else ""
            raise InputError(
                f"{annotation}: class {quote(unknown[0])} is not among the {len(classes)} classes "
                f"{', '.join(classes[: len(VOC_CLASSES)])}{more}; correct it, or give classes="
            )
        images.append(image)
        lists.append([column[name] for name in objects])
        ids.append(name)
    return Split(images, LabelMatrix.from_lists(lists, classes), ids)


def load(
    *,
    root: str | Path,
    train_split: str = "train",
    test_split: str = "val",
    classes: Sequence[str] = VOC_CLASSES,
) -> LongTailData:
    """Load two image sets of a VOCdevkit tree.

    An image has a label for every class that one of its objects has, difficult ones too. Images are
    returned as paths, to be decoded by the loader.

    Args:
        root: the VOCdevkit folder, the folder that holds it, or one tree such as ``VOC2012``.
        train_split: image set for training: ``"train"`` for ``ImageSets/Main/train.txt``,
            ``"VOC2007/trainval"`` to choose among several trees, or the path of any ``.txt`` file
            with an id on each line (flags after it are ignored, so VOC's per-class sets name the
            same images).
        test_split: image set for testing.
        classes: class names, in column order.

    Raises:
        InputError: naming the file and line, if anything is missing, broken or outside ``root``.
    """
    classes = check_class_names(classes, where="classes")
    devkit = Devkit.find(root)
    train, test = (
        _read_split(devkit, *devkit.image_set(split), classes)
        for split in (train_split, test_split)
    )
    return LongTailData("voc", train, test)


def find_lt_list(devkit: Devkit, given: str | Path | None = None) -> Path:
    """Find the file of VOC-LT's training ids, unless it is given; VOC2012 must be there."""
    if "VOC2012" not in devkit.trees:
        raise InputError(
            f"{devkit.root.path} has no VOC2012, where VOC-LT's training images are; it has "
            f"{', '.join(devkit.trees)}; give the VOCdevkit folder"
        )
    if given is not None:
        return Path(given)
    top = devkit.trees["VOC2012"].parent
    for folder in (top, Path()):
        for name in _LT_LISTS:
            path = devkit.root.find(folder / name, where="VOC-LT's list")
            if path is not None:
                return path
    raise InputError(
        "VOC-LT's list of training ids is missing; put img_id.txt at "
        f"{devkit.root.path / top / _LT_LISTS[0]} or give its path as id_list="
    )


def load_voc_lt(
    *, root: str | Path, id_list: str | Path | None = None, test_split: str = "VOC2007/test"
) -> LongTailData:
    """Load VOC-LT: 1142 long-tailed training images of VOC2012, and the 4952 of VOC2007's test set.

    References:
        Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
        Datasets, ECCV 2020, https://arxiv.org/abs/2007.09654

    Args:
        root: the VOCdevkit folder with ``VOC2012`` and ``VOC2007``, or the folder that holds it.
        id_list: the published list of training ids, one on each line, read as text. Default:
            ``longtail2012/img_id.txt`` or ``img_id.txt`` under ``root``.
        test_split: image set for testing.

    Raises:
        InputError: naming the file and line, if anything is missing, broken or outside ``root``.
    """
    devkit = Devkit.find(root)
    train = _read_split(devkit, find_lt_list(devkit, id_list), ["VOC2012"], VOC_CLASSES)
    test = _read_split(devkit, *devkit.image_set(test_split), VOC_CLASSES)
    return LongTailData("voc-lt", train, test)
