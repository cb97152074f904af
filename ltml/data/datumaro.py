"""Datumaro: items with labels in ``annotations/SUBSET.json``."""

from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_json
from ltml.data.cvat import Kinds, choose_kind, part_of
from ltml.data.layouts import Reading, Tree, by_split, json_keys, layout

_LIMIT = 2**30
_MASKS = ("points", "rle", "counts")


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has Datumaro's files of items."""
    found = _files(tree)
    return f"a Datumaro data set: {tree.list(found)}" if found else None


def _files(tree: Tree) -> list[Path]:
    found = tree.match("annotations/*.json", "*/annotations/*.json")
    return [path for path in found if json_keys(path, ("items", "categories"))]


@layout("datumaro")
def load(tree: Tree, *, kinds: Kinds | None = None) -> Reading:
    """Load a data set in Datumaro's own format: the labels of each item, or those of its shapes.

    The splits are the subsets, ``annotations/SUBSET.json``, whose images are in
    ``images/SUBSET/`` or anywhere under the root. Further arguments are those of
    :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the data set.
        kinds: ``"tags"`` (annotations of type label), ``"shapes"`` (bbox, polygon, mask...) or
            ``"all"``, where both are there. Default: whichever there are.

    Raises:
        InputError: naming the file and item, if anything is missing or may be read in two ways.
    """
    found = _files(tree)
    if not found:
        raise InputError(f"{tree.root} has no annotations/SUBSET.json; give the data set's folder")
    read, names = {}, {}
    for subset, path in by_split(found, tree.root).items():
        content = read_json(path, limit=_LIMIT, drop=_MASKS)
        classes, rows = _read(path, content)
        names.update(dict.fromkeys(classes))
        read[subset] = path, rows, path.parent.parent / "images"
    everything = [row for _, rows, _ in read.values() for row in rows]
    kept = choose_kind(found[0], everything, kinds)
    parts = {
        subset: part_of(path, rows, kept, [folder / subset, folder])
        for subset, (path, rows, folder) in read.items()
    }
    return Reading(recognises(tree), parts, check_class_names(list(names), where=str(found[0])))


def _read(path: Path, content) -> tuple[list[str], list[tuple]]:
    """Class names, and image, labels and labels of shapes of each item."""
    try:
        names = [str(entry["name"]) for entry in content["categories"]["label"]["labels"]]
        items = list(content["items"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} lists no label categories ({type(error).__name__}: {error}); export the data "
            "set in Datumaro's format again"
        ) from None
    rows = []
    for i, item in enumerate(items):
        try:
            media = item.get("image") or item.get("media") or {}
            image = media.get("path") or item["id"]
            tags, shapes = [], []
            for annotation in item["annotations"]:
                index = annotation.get("label_id")
                if index is None:  # a caption, say
                    continue
                if type(index) is not int or not 0 <= index < len(names):
                    raise InputError(
                        f"{path}: item {i} has label_id {quote(index)}; give 0 to {len(names) - 1}"
                    )
                (tags if annotation.get("type") == "label" else shapes).append(names[index])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: item {i} is none of Datumaro's ({type(error).__name__}: {error}); export "
                "the data set again"
            ) from None
        rows.append((str(image), tags, shapes))
    return names, rows
