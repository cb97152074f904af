"""COCO: any instances file with its images, and the long-tailed benchmark COCO-LT."""

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_json, read_list
from ltml.data.splits import LongTailData, Rows, find_list, is_file

_FIELDS = {  # and their types; those of _UNIQUE identify an entry
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
}
_UNIQUE = {("images", "id"), ("images", "file_name"), ("categories", "id")}
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
    splits = [split for split in (train_split, test_split, val_split) if split is not None]
    return LongTailData("coco", *(rows(root, split).split() for split in splits))


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
        id_list: the published list of training ids; see :func:`read_lt_ids`. Default:
            ``longtail2017/img_id.txt``, ``longtail2017/img_id.pkl`` or ``img_id.txt`` under
            ``root``.
        test_split, val_split: splits, as for :func:`load`.
    """
    train = lt_rows(root, id_list).split()
    splits = [split for split in (test_split, val_split) if split is not None]
    return LongTailData("coco-lt", train, *(rows(root, split).split() for split in splits))


class Instances(NamedTuple):
    """What an instances file says: image id -> entry, class names, image id -> class indices."""

    images: dict[int, dict]
    class_names: tuple[str, ...]
    labels: dict[int, set[int]]


def read_instances(path: str | Path) -> Instances:
    """Read a COCO instances file.

    Raises:
        InputError: naming the file and the entry, if it is no instances file or contradicts itself.
    """
    # 450 MB for train2017, mostly masks.
    dataset, seen = read_json(path, limit=None, drop=("segmentation",)), {}
    for key, fields in _FIELDS.items():
        if not isinstance(dataset, dict) or not isinstance(dataset.get(key), list):
            raise InputError(f"{path} is not a COCO instances file: it has no list {key!r}")
        for i, entry in enumerate(dataset[key]):
            for field, kind in fields.items():
                value = entry.get(field) if isinstance(entry, dict) else None
                wrong = None
                if type(value) is not kind:  # not isinstance: true is no id
                    wrong = f"; give {kind.__name__}"
                elif (key, field) in _UNIQUE:
                    same = posixpath.normpath(value) if kind is str else value  # ./1.jpg is 1.jpg
                    if seen.setdefault((key, field, same), i) != i:
                        wrong = f", as {key}[{seen[key, field, same]}] has; give each its own"
                if wrong:
                    raise InputError(f"{path}: {key}[{i}] has {field} {quote(value)}{wrong}")
    images = {entry["id"]: entry for entry in dataset["images"]}
    categories = sorted(dataset["categories"], key=lambda entry: entry["id"])
    column = {entry["id"]: c for c, entry in enumerate(categories)}
    labels = {}
    for i, entry in enumerate(dataset["annotations"]):
        image, category, box = (entry[field] for field in _FIELDS["annotations"])
        if image not in images or category not in column:
            what = f"image {quote(image)} and category {quote(category)}"
            raise InputError(f"{path}: annotations[{i}] is of {what}, not both of which are listed")
        # the comparison fails for not-a-number and infinity
        if len(box) != 4 or not all(type(v) in (int, float) and abs(v) < 1e9 for v in box):
            raise InputError(f"{path}: annotations[{i}]'s bbox is not [x, y, width, height]")
        if box[2] > 0 < box[3]:
            labels.setdefault(image, set()).add(column[category])
    names = check_class_names([entry["name"] for entry in categories], where=str(path))
    return Instances(images, names, labels)


def find_instances(root: str | Path, split: str) -> Path:
    """Find the instances file of a split."""
    folder = Path(root, "annotations")
    if is_file(path := folder / f"instances_{split}.json"):
        return path
    there = ", ".join(sorted(p.stem[10:] for p in folder.glob("instances_*.json")))
    raise InputError(
        f"split {quote(split)} has no instances_SPLIT.json in {folder}; "
        f"{f'there are {there}' if there else 'give the folder of COCO as root'}"
    )


def image_folder(root: str | Path, split: str) -> Path:
    """Folder of a split's images."""
    plain, nested = Path(root, split), Path(root, "images", split)
    return nested if nested.is_dir() and not plain.is_dir() else plain


def rows(root: str | Path, split: str, only: dict[int, str] | None = None) -> Rows:
    """Find the images of a split; ``only`` maps image ids to the places that name them."""
    listing, folder = find_instances(root, split), image_folder(root, split)
    found, read = read_instances(listing), {}
    for image, where in (dict.fromkeys(found.images, listing) if only is None else only).items():
        name = found.images.get(image, {}).get("file_name", image)
        read[f"{split}/{name}"] = partial(_read, folder, found, image, where)
    return Rows(listing, found.class_names, read)


def _read(folder: Path, found: Instances, image: int, where) -> tuple[Path, list[int]]:
    if image not in found.images:
        raise InputError(f"{where}: image {image} is not in the instances file; correct the list")
    path = folder / found.images[image]["file_name"]
    if not is_file(path):
        name = quote(found.images[image]["file_name"])
        raise InputError(f"{where}: the file of image {image}, {name} in {folder}, is missing")
    return path, sorted(found.labels.get(image, ()))


def read_lt_ids(path: str | Path) -> dict[int, str]:
    """Read the published COCO-LT list: an image of train2017 on each line.

    Accepted are ``554625``, ``000000554625``, ``000000554625.jpg`` and
    ``train2017/000000554625.jpg``.

    Returns:
        Image id -> the file and line that names it, for messages.

    Raises:
        InputError: naming the line, if it is of another form, or repeats an image.
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
    """Find COCO-LT's training images; see :func:`load_coco_lt`."""
    id_list = id_list or find_list([Path(root)], *_LT_LISTS)
    return rows(root, "train2017", read_lt_ids(id_list))._replace(source=id_list)
