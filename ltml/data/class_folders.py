"""A folder for each class, or for each combination of labels, such as ``blue_dress``."""

from collections import Counter
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.data.finder import IMAGE_SUFFIXES
from ltml.data.kinds import kind_of
from ltml.data.layouts import Part, Reading, Tree, layout

_NO_CLASS = {"images", "image", "img", "imgs", "data", "masks", "labels", "annotations", "photos"}
_NO_CLASS |= {"jpegimages", "all", "unlabeled", "unlabelled"}
_MARKS = ("_", "-", "+", ",", "&", " ")


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has folders of images whose names may be classes."""
    splits = _folders(tree)
    if not splits:
        return None
    folders = list(next(iter(splits.values())))
    return f"a folder for each class: {', '.join(folders[:3])}{'...' if folders[3:] else ''}"


def _folders(tree: Tree) -> dict[str, dict[str, str]]:
    """Split -> class folder's name -> its path relative to the root."""
    top: dict[str, dict[str, str]] = {}
    for folder in sorted(tree.images):
        parts = folder.split("/") if folder else []
        kind = kind_of(parts[0]) if parts else None
        if len(parts) == (2 if kind else 1):
            top.setdefault(parts[0] if kind else "all", {})[parts[-1]] = folder
    if len(top) > 1:
        top.pop("all", None)
    names = {name for folders in top.values() for name in folders}
    odd = {n for n in names if n.lower() in _NO_CLASS or n.lower().startswith("images_")}
    return {} if len(names) < 2 or odd else top


@layout("class-folders")
def load(tree: Tree, *, separator: str | None = None) -> Reading:
    """Load a tree in which each folder of images is a class, or names several joined.

    The folders are directly under the root, or under a folder for each split (``train/cat``).
    Further arguments are those of :func:`ltml.data.layouts.assemble`.

    Args:
        tree: the root.
        separator: text between the labels in the name of a folder, such as ``"_"`` in
            ``blue_dress``, or ``"none"`` if each name is one class. Default: found from the names.

    Raises:
        InputError: if there is no such folder, or the names may be read in two ways.
    """
    splits = _folders(tree)
    if not splits:
        raise InputError(
            f"{tree.root} has no folder of images for each class; give a table of labels, such as "
            "train.csv with the columns image,labels"
        )
    names = sorted({name for folders in splits.values() for name in folders})
    mark = separator or _separator(tree.root, names)
    if mark == "none":
        labels = {name: [name] for name in names}
    else:
        labels = {name: [w.strip() for w in name.split(mark) if w.strip()] for name in names}
    parts = {}
    for split, folders in splits.items():
        images, rows = [], []
        for name, folder in folders.items():
            files = sorted(
                p.name for p in (tree.root / folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES
            )
            images += [f"{folder}/{file}" for file in files]
            rows += [labels[name]] * len(files)
        parts[split] = Part(tree.root, images, rows)
    how = recognises(tree)
    if mark != "none":
        how += f", whose labels are joined by {quote(mark)}"
    return Reading(how, parts)


def _separator(root: Path, names: list[str]) -> str:
    """Choose what joins labels in the names, or ask where both readings are plausible.

    Joined names recombine few words: each word stands in several of them.
    """
    for mark in _MARKS:
        split = [name.split(mark) for name in names]
        joined = [words for words in split if len(words) > 1]
        if not joined:
            continue
        words = Counter(word for parts in split for word in parts)
        again = sum(words.values()) / len(words)  # folders of a word
        if again >= 1.5 and len({len(parts) for parts in split}) == 1:
            return mark
        if again >= 1.2 and len(joined) > len(names) / 2:
            one = next(name for name in names if mark in name)
            raise InputError(
                f"{root}: folder {quote(one)} may be one class, or "
                f"{' + '.join(map(quote, one.split(mark)))}; choose with --separator none "
                f"or --separator {quote(mark)}, in Python separator="
            )
    return "none"
