"""COCO: any instances file with its images, and the long-tailed benchmark COCO-LT."""

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ltml.data import LongTailData, Rows, find_list, is_file
from ltml.errors import InputError
from ltml.files import check_class_names, quote, read_json, read_list

__all__ = ["load", "load_coco_lt", "read_instances", "read_lt_ids"]

# The published COCO-LT list is plain text under both names; it is never unpickled. (A stray
# longtail2017img_id.pkl beside it is another split.)
_LT_LISTS = ("longtail2017/img_id.txt", "longtail2017/img_id.pkl", "img_id.txt")
_LT_ID = re.compile(r"(?:\./)?(?:train2017/)?([0-9]{1,12})(?:\.jpg)?")


def load(
    *,
    root: str | Path,
    train_split: str = "train2017",
    test_split: str = "val2017",
    val_split: str | None = None,
) -> LongTailData:
    """Load splits of a folder in COCO's layout.

    An image has a label for every category with a box of some area in it, crowds too; images
    without labels are kept. Columns are the categories by ascending id.

    Args:
        root: folder with ``annotations/instances_<split>.json`` and the images in ``<split>/`` or
            ``images/<split>/``; a ``file_name`` may be an absolute path.
        train_split, test_split, val_split: the splits' names.

    Raises:
        InputError: naming the file and entry, if anything is missing or broken.
    """
    splits = (train_split, test_split, val_split)
    return LongTailData("coco", *(s if s is None else rows(root, s).split() for s in splits))


def load_coco_lt(
    *,
    root: str | Path,
    id_list: str | Path | None = None,
    test_split: str = "val2017",
    val_split: str | None = None,
) -> LongTailData:
    """Load COCO-LT: 1909 long-tailed training images of train2017, and the 5000 of val2017.

    Only the listed training images need to be on the disk. See Wu et al., ECCV 2020,
    https://arxiv.org/abs/2007.09654.

    Args:
        root: COCO's folder, as for :func:`load`.
        id_list: the published list of training ids. Default: ``longtail2017/img_id.txt``,
            ``longtail2017/img_id.pkl`` or ``img_id.txt`` under ``root``.
        test_split, val_split: splits, as for :func:`load`.
    """
    train, test = lt_rows(root, id_list).split(), rows(root, test_split).split()
    val = None if val_split is None else rows(root, val_split).split()
    return LongTailData("coco-lt", train, test, val)


class Instances(NamedTuple):
    """What an instances file says."""

    images: dict[int, str]  # id -> file name
    class_names: tuple[str, ...]
    labels: dict[int, set[int]]  # image id -> class indices


def read_instances(path: str | Path) -> Instances:
    """Read a COCO instances file, or name the entry that is wrong."""
    # 450 MB for train2017, mostly masks.
    dataset, where = read_json(path, limit=None, drop=("segmentation",)), "all of it"

    def entries(key: str):
        nonlocal where
        where = key
        for i, entry in enumerate(dataset[key]):
            where = f"{key}[{i}]"
            yield entry

    images, files, categories, labels = {}, set(), {}, {}
    try:
        for entry in entries("images"):
            name = posixpath.normpath(entry["file_name"])  # ./1.jpg is 1.jpg
            if entry["id"] in images or name in files:
                raise ValueError("its id or file_name is another image's too")
            images[entry["id"]] = entry["file_name"]
            files.add(name)
        for entry in entries("categories"):
            if entry["id"] in categories:
                raise ValueError("its id is another category's too")
            categories[entry["id"]] = entry["name"]
        column = {category: c for c, category in enumerate(sorted(categories))}
        for entry in entries("annotations"):
            image, category = entry["image_id"], entry["category_id"]
            if image not in images or category not in column:
                raise ValueError(f"image {image} or category {category} is not in the file")
            _, _, width, height = entry["bbox"]
            if width > 0 < height:
                labels.setdefault(image, set()).add(column[category])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {where} is not as in COCO: {repr(error)[:200]}") from None
    names = [categories[category] for category in column]
    return Instances(images, check_class_names(names, where=str(path)), labels)


def image_folder(root: str | Path, split: str) -> Path:
    """Folder of a split's images."""
    plain, nested = Path(root, split), Path(root, "images", split)
    return nested if nested.is_dir() and not plain.is_dir() else plain


def rows(root: str | Path, split: str, only: dict[int, str] | None = None) -> Rows:
    """Find the images of a split; ``only`` maps image ids to the places that name them."""
    folder, listing = image_folder(root, split), Path(root, f"annotations/instances_{split}.json")
    if not is_file(listing):
        there = ", ".join(sorted(p.stem[10:] for p in listing.parent.glob("instances_*.json")))
        raise InputError(
            f"split {quote(split)} has no instances_SPLIT.json in {listing.parent}; "
            f"{f'there are {there}' if there else 'give the folder of COCO as root'}"
        )
    found = read_instances(listing)
    only = dict.fromkeys(found.images, listing) if only is None else only
    read = {
        f"{split}/{found.images.get(image, image)}": partial(_read, folder, found, image, where)
        for image, where in only.items()
    }
    return Rows(listing, found.class_names, read)


def _read(folder: Path, found: Instances, image: int, where) -> tuple[Path, list[int]]:
    name = found.images.get(image)
    if name is None:
        raise InputError(f"{where}: image {image} is not in the instances file; correct the list")
    if not is_file(folder / name):
        raise InputError(f"{where}: image {image}, {quote(name)} in {folder}, is missing")
    return folder / name, sorted(found.labels.get(image, ()))


def read_lt_ids(path: str | Path) -> dict[int, str]:
    """Read the published COCO-LT list: an image of train2017 on each line.

    Accepted are ``554625``, ``000000554625.jpg`` and ``train2017/000000554625.jpg``.

    Returns:
        Image id -> the file and line that names it, for messages.
    """
    ids = {}
    for line, name in read_list(path):
        where, match = f"{path}, line {line}", _LT_ID.fullmatch(name)
        if match is None:
            raise InputError(f"{where}: {quote(name)} is no image of train2017, such as 554625")
        if ids.setdefault(int(match[1]), where) != where:
            raise InputError(f"{where}: image {int(match[1])} is on an earlier line too; keep one")
    return ids


def lt_rows(root: str | Path, id_list: str | Path | None = None) -> Rows:
    """Find COCO-LT's training images."""
    id_list = id_list or find_list([Path(root)], *_LT_LISTS)
    return rows(root, "train2017", read_lt_ids(id_list))._replace(source=id_list)
