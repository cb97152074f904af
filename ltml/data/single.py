"""One table of labels on its own, without the splits around it."""

from collections.abc import Sequence
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, read_text
from ltml.data.finder import Finder
from ltml.data.plan import ReadingOptions
from ltml.data.reader import read
from ltml.data.splits import Split, is_file
from ltml.data.tables import open_table


def load_table(
    path: str | Path,
    class_names: Sequence[str] | None = None,
    *,
    root: str | Path | None = None,
    separator: str | None = None,
    **reading,
) -> Split:
    """Make a split of one table of labels.

    Args:
        path: the table; see :func:`ltml.data.folder.read_label_csv`.
        class_names: names in column order; default: those found.
        root: folder that its images lie in; default: the table's own.
        separator: text between the labels of a cell.
        reading: more options of :class:`ltml.data.plan.ReadingOptions`.

    Raises:
        InputError: if the table cannot be read, or an image is missing.
    """
    path = Path(path)
    options = ReadingOptions.of(separator=separator, **reading)
    finder = Finder(path.parent if root is None else root, pattern=options.image_pattern)
    near = {"finder": finder, "near": path.parent}
    table, labels, plan = read(open_table(path), class_names, options, **near)
    plan.log(table, labels)
    files = finder.find(
        table.images, near=path.parent, place=lambda row: f"{table.source}, {table.rows[row]}"
    )
    return Split(files, labels, list(table.images))


def find_table(root: str | Path, split: str) -> Path:
    """Find the table of labels of a folder's split, with or without its ending.

    Raises:
        InputError: if there is none.
    """
    path = next((p for p in (Path(root, split), Path(root, f"{split}.csv")) if is_file(p)), None)
    if path is None:
        there = ", ".join(sorted(file.name for file in Path(root).glob("*.csv"))[:10])
        there = f"there are {there}: give one of them" if there else "give the table of labels"
        raise InputError(f"{str(root)!r} has no {split}.csv; {there}")
    return path


def class_names_of(root: str | Path) -> tuple[str, ...] | None:
    """Class names that a folder lists in ``classes.txt``, if it does."""
    listing = Path(root, "classes.txt")
    if not is_file(listing):
        return None
    names = [line.strip() for line in lines_of(read_text(listing).rstrip())]
    return check_class_names(names, where=str(listing))
