"""CVAT: tags, or shapes, of images in an XML file."""

import re
from pathlib import Path
from typing import Literal

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote
from ltml.data.layouts import Part, Reading, Tree, by_split, head_of, layout
from ltml.data.xml import parse

_LIMIT = 2**30
Kinds = Literal["tags", "shapes", "all"]
_SHAPES = ("box", "polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton")


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has CVAT's ``annotations.xml``."""
    found = _cvat_files(tree)
    return f"a CVAT export for images: {tree.list(found)}" if found else None


def _cvat_files(tree: Tree) -> list[Path]:
    def fits(path: Path) -> bool:
        text = head_of(path)
        return "<annotations" in text and bool(re.search("<(image|meta)[ >]", text))

    return [path for path in tree.match("*.xml", "*/*.xml") if fits(path)]


@layout("cvat")
def load(tree: Tree, *, kinds: Kinds | None = None) -> Reading:
    """Load CVAT's export *CVAT for images* (XML 1.1): the tags of each image, or its shapes.

    Images are in ``images/`` beside ``annotations.xml``, or anywhere under the root. The splits are
    the subsets of a project's export. Further arguments are those of
    :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the export.
        kinds: ``"tags"``, ``"shapes"`` (boxes, polygons, masks...) or ``"all"``, where both are
            there. Default: whichever there are.

    Raises:
        InputError: naming the file and image, if anything is missing or may be read in two ways.
    """
    found = _cvat_files(tree)
    if not found:
        raise InputError(
            f"{tree.root} has no annotations.xml of CVAT; export the task as CVAT for images 1.1"
        )
    names: dict[str, None] = {}
    parts: dict[str, Part] = {}
    for name, path in by_split(found, tree.root).items():
        root = parse(path, limit=_LIMIT)
        if root.findall("track"):
            raise InputError(f"{path} is of a video; export the task as CVAT for images 1.1")
        names.update(dict.fromkeys(e.text or "" for e in root.findall("meta//label/name")))
        images = root.findall("image")
        if not images:
            raise InputError(f"{path} holds no <image>; export the task as CVAT for images 1.1")
        groups: dict[str, list] = {}
        for i, image in enumerate(images):
            if not image.get("name"):
                raise InputError(f"{path}: image {i} has no name; export the task again")
            tags = [e.get("label", "") for e in image.findall("tag")]
            shapes = [e.get("label", "") for e in image if e.tag in _SHAPES]
            row = image.get("name"), tags, shapes
            groups.setdefault(image.get("subset") or name, []).append(row)
        kept = choose_kind(path, [row for rows in groups.values() for row in rows], kinds)
        for subset, rows in groups.items():
            if subset in parts:
                raise InputError(f"{path}: subset {quote(subset)} is in {parts[subset].source} too")
            folders = [path.parent / "images" / subset, path.parent / "images"]
            parts[subset] = part_of(path, rows, kept, folders)
    used = {label for part in parts.values() for row in part.labels for label in row}
    # The labels of shapes alone are no classes of the tags, and the other way round.
    classes = [n for n in names if n in used] + sorted(used - names.keys())
    return Reading(recognises(tree), parts, check_class_names(classes, where=str(found[0])))


def choose_kind(path: Path, rows: list, kinds: str | None) -> str:
    """Choose what gives the labels of rows ``(image, tags, shapes)``, or ask."""
    tags, shapes = (sum(len(row[i]) for row in rows) for i in (1, 2))
    if kinds is None and tags and shapes:
        raise InputError(
            f"{path} holds {tags:,} tags and {shapes:,} shapes; choose with --data-options "
            "kinds=tags, kinds=shapes or kinds=all, in Python kinds="
        )
    kept = kinds or ("shapes" if shapes else "tags")
    if not {"tags": tags, "shapes": shapes, "all": tags + shapes}[kept]:
        raise InputError(
            f"{path} holds no {kept if kept != 'all' else 'tag'}; annotate some images"
        )
    return kept


def part_of(path: Path, rows: list, kept: str, folders: list[Path]) -> Part:
    """Make a split of rows ``(image, tags, shapes)``."""
    labels = [
        {*(tags if kept != "shapes" else ()), *(shapes if kept != "tags" else ())}
        for _, tags, shapes in rows
    ]
    return Part(path, [row[0] for row in rows], labels, folders=folders)
