"""Your own data: a folder of images with a table of labels for each split."""

from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, quote, read_text
from ltml.data.splits import LongTailData, Split, is_file
from ltml.data.tables import Table, read_table


def load(
    *,
    root: str | Path,
    train_split: str = "train",
    test_split: str = "test",
    val_split: str | None = None,
    separator: str | None = None,
) -> LongTailData:
    """Load a folder of your own images.

    Args:
        root: folder with ``<split>.csv`` for each split (see :func:`read_label_csv`) and,
            optionally, ``classes.txt`` with a class name on each line; without it the classes are
            those of the training file. Images are named relative to ``root``, or absolutely.
        train_split: name of the training file, with or without ``.csv``.
        test_split: name of the test file.
        val_split: name of the validation file, if there is one.
        separator: what separates the labels of a cell; see :func:`read_label_csv`.

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    root, class_names, splits = Path(root), None, []
    listing = root / "classes.txt"
    if is_file(listing):
        names = [line.strip() for line in lines_of(read_text(listing).rstrip())]
        class_names = check_class_names(names, where=str(listing))
    for split in (train_split, test_split, val_split):
        if split is None:
            continue
        path = next((p for p in (root / split, root / f"{split}.csv") if is_file(p)), None)
        if path is None:
            there = ", ".join(sorted(file.name for file in root.glob("*.csv"))[:10])
            remedy = f"there are {there}" if there else "write it, with the columns image,labels"
            raise InputError(
                f"split {quote(split)} needs {root / split}.csv, which is missing; {remedy}"
            )
        table, labels = read_table(path, class_names, separator)
        class_names = labels.class_names
        splits.append(Split(find_images(table, root), labels, list(table.images)))
    return LongTailData("folder", *splits)


def find_images(table: Table, root: str | Path) -> list[Path]:
    """Return the image files of a table, once all are known to be there."""
    files = [Path(root, image) for image in table.images]
    missing = [row for row, file in enumerate(files) if not is_file(file)]
    if missing:
        row, others = missing[0], f" (and {len(missing) - 1:,} more)" if missing[1:] else ""
        remedy = "write folders with /" if "\\" in table.images[row] else "add it, or drop the row"
        raise table.error(row, f"image {quote(str(files[row]))} is missing{others}; {remedy}")
    return files
