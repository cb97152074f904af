"""Roboflow: the multi-label export, with ``_classes.csv`` in each split's folder."""

import csv
import io
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_text
from ltml.data.layouts import Part, Reading, Tree, by_split, layout

_PATTERNS = "_classes.csv", "*/_classes.csv"
_LIMIT = 2**28


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has a ``_classes.csv``."""
    found = tree.match(*_PATTERNS)
    return f"a Roboflow multi-label export: {tree.list(found)}" if found else None


@layout("roboflow")
def load(tree: Tree) -> Reading:
    """Load Roboflow's multi-label classification export.

    The root holds ``train/_classes.csv``, ``valid/_classes.csv`` and ``test/_classes.csv``, or some
    of them, each beside its images: a column of file names, then one of 0 and 1 for each class.
    Further arguments are those of :func:`ltml.data.layouts.assemble`.

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    found = tree.match(*_PATTERNS)
    if not found:
        raise InputError(
            f"{tree.root} has no _classes.csv; give the folder of a multi-label CSV export"
        )
    classes, parts = None, {}
    for split, path in by_split(found, tree.root).items():
        names, parts[split] = _read(path)
        if classes is not None and sorted(names) != sorted(classes):
            differ = ", ".join(map(quote, sorted(set(names) ^ set(classes))[:10]))
            raise InputError(
                f"{path}: its classes differ from those of {found[0]} in {differ}; export all "
                "splits at once"
            )
        classes = classes or names
    return Reading(recognises(tree), parts, classes)


def _read(path: Path) -> tuple[tuple[str, ...], Part]:
    reader = csv.reader(io.StringIO(read_text(path, limit=_LIMIT)), skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
    if len(rows) < 2 or len(rows[0][1]) < 2:
        raise InputError(f"{path} holds no image with a class; export it again")
    names = check_class_names(rows[0][1][1:], where=f"{path}, line 1")
    images, labels, where, seen = [], [], [], {}
    for line, row in rows[1:]:
        place = f"line {line}"
        if len(row) != len(names) + 1:
            raise InputError(f"{path}, {place}: there are {len(row)} cells, not {len(names) + 1}")
        for name, cell in zip(names, row[1:], strict=True):
            if cell not in ("0", "1"):
                raise InputError(
                    f"{path}, {place}: class {quote(name)} has {quote(cell)}; give 0 or 1"
                )
        if seen.setdefault(row[0], place) != place:
            raise InputError(
                f"{path}, {place}: image {quote(row[0])} is on {seen[row[0]]} already; keep one"
            )
        images.append(row[0])
        where.append(place)
        labels.append([name for name, cell in zip(names, row[1:], strict=True) if cell == "1"])
    return names, Part(path, images, labels, where, folders=[path.parent])
