"""COCO: any instances file with its images, and the long-tailed benchmark COCO-LT."""

import contextlib
import io
import math
import posixpath
import re
from pathlib import Path

from ltml.data import LongTailData, Split
from ltml.errors import InputError
from ltml.files import Root, check_class_names, check_name, quote, read_json, read_list
from ltml.labels import LabelMatrix

__all__ = ["load", "load_coco_lt", "read_instances"]

_FIELDS = {
    "images": {"id": int, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
}
# The published COCO-LT list is plain text under both names; it is never unpickled. (A stray
# longtail2017img_id.pkl lies beside it, which is another split.)
_LT_LISTS = ("longtail2017/img_id.txt", "longtail2017/img_id.pkl", "img_id.txt")
_LT_ID = re.compile(r"(?:\./)?(?:train2017/)?([0-9]{1,12})(?:\.jpg)?")


def read_instances(path: str | Path):
    """Read a COCO instances file into pycocotools' index, every entry checked.

    Returns:
        ``pycocotools.coco.COCO``; segmentation masks are left out to save memory.

    Raises:
        InputError: naming the file and the entry, if it is no instances file or contradicts itself.
    """
    from pycocotools.coco import COCO

    # 450 MB for train2017, mostly masks.
    dataset = read_json(path, limit=None, drop=("segmentation",))
    _check(path, dataset)
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco


def _check(path, dataset):
    """Raise unless ``dataset`` is an instances file in which every reference resolves."""
    if not isinstance(dataset, dict):
        raise InputError(f"{path} holds {quote(dataset)}, not a COCO instances file (an object)")
    for key, fields in _FIELDS.items():
        entries = dataset.get(key)
        if not isinstance(entries, list):
            raise InputError(
                f"{path} is not a COCO instances file: {key!r} "
                + ("is missing" if key not in dataset else "is not a list")
            )
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {key}[{i}] is {quote(entry)}; give an object")
            for field, kind in fields.items():
                # type(), not isinstance(): true is no id.
                if type(entry.get(field)) is not kind:
                    raise InputError(
                        f"{path}: {key}[{i}] has "
                        + (f"{field} {quote(entry[field])}" if field in entry else f"no {field!r}")
                        + f"; give {'an integer' if kind is int else f'a {kind.__name__}'}"
                    )
    for key, field in (("images", "id"), ("images", "file_name"), ("categories", "id")):
        seen = {}
        for i, entry in enumerate(dataset[key]):
            value = entry[field]
            if field == "file_name":
                value = posixpath.normpath(value)  # ./1.jpg is 1.jpg
            if seen.setdefault(value, i) != i:
                raise InputError(
                    f"{path}: {key}[{i}] has the {field} {quote(value)} of {key}[{seen[value]}]; "
                    "give each its own"
                )
    check_class_names([entry["name"] for entry in dataset["categories"]], where=f"{path}")
    images = {entry["id"] for entry in dataset["images"]}
    categories = {entry["id"] for entry in dataset["categories"]}
    for i, entry in enumerate(dataset["annotations"]):
        if entry["image_id"] not in images:
            raise InputError(
                f"{path}: annotations[{i}] is of image {quote(entry['image_id'])}, "
                "which is not among its images"
            )
        if entry["category_id"] not in categories:
            raise InputError(
                f"{path}: annotations[{i}] has category {quote(entry['category_id'])}, "
                "which is not among its categories"
            )
        box = entry["bbox"]
        if len(box) != 4 or not all(type(v) in (int, float) and _finite(v) for v in box):
            raise InputError(
                f"{path}: annotations[{i}] has a bbox that is not [x, y, width, height] in pixels"
            )
        if type(entry.setdefault("id", i)) is not int:  # pycocotools indexes by it
            raise InputError(
                f"{path}: annotations[{i}] has id {quote(entry['id'])}; give an integer"
            )


def _finite(value) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond a float
        return False


def find_instances(root: Root, split: str) -> Path:
    """Find the instances file of a split."""
    check_name(split, where=f"split {quote(split)}")
    listing = root.find(f"annotations/instances_{split}.json", where=f"split {quote(split)}")
    if listing is None:
        folder = root.path / "annotations"
        there = sorted(path.stem[10:] for path in folder.glob("instances_*.json"))
        raise InputError(
            f"split {quote(split)} needs {folder}/instances_{split}.json, which is missing; "
            + (f"there are {', '.join(there[:10])}" if there else "give COCO's folder as root")
        )
    return listing


def image_folder(root: Root, split: str) -> str:
    """Folder of a split's images, relative to the root."""
    return split if (root.path / split).is_dir() else f"images/{split}"


def labels_of(coco, image: int) -> list[int]:
    """Categories with a box of some area in the image, crowds too."""
    boxes = coco.imgToAnns.get(image, ())
    return [b["category_id"] for b in boxes if b["bbox"][2] > 0 and b["bbox"][3] > 0]


def _read_split(
    root: Root, split: str, only: dict[int, str] | None = None
) -> tuple[Split, dict[int, str]]:
    """Read one split and its categories; ``only`` maps image ids to the places that name them."""
    listing = find_instances(root, split)
    coco = read_instances(listing)
    category_ids = sorted(coco.getCatIds())
    column = {category: c for c, category in enumerate(category_ids)}
    if only is None:
        image_ids = coco.getImgIds()
        if not image_ids:
            raise InputError(f"{listing} has no images; give a split with images")
    else:
        image_ids = list(only)
        for image, where in only.items():
            if image not in coco.imgs:
                raise InputError(f"{where}: there is no image {image} in {listing}")
    folder = image_folder(root, split)
    images, lists, ids = [], [], []
    for image in image_ids:
        where = f"{listing}: image {quote(image)}"
        name = check_name(coco.imgs[image]["file_name"], where=where, folders=True)
        path = root.find(f"{folder}/{name}", where=where)
        if path is None:
            raise InputError(
                f"{where}: {root.path / folder / name} is missing; add it, or correct the list"
            )
        images.append(path)
        lists.append([column[category] for category in labels_of(coco, image)])
        ids.append(f"{split}/{name}")
    names = [coco.cats[category]["name"] for category in category_ids]
    split = Split(images, LabelMatrix.from_lists(lists, names), ids)
    return split, dict(zip(category_ids, names, strict=True))


def _check_same_categories(
    root: Root, train: str, test: str, of_train: dict[int, str], of_test: dict[int, str]
):
    for category in sorted(of_train.keys() | of_test.keys()):
        if of_train.get(category) != of_test.get(category):
            raise InputError(
                f"category {quote(category)} is {quote(of_train.get(category))} in the training "
                f"file and {quote(of_test.get(category))} in the test file; make the same of "
                f"{find_instances(root, train)} and {find_instances(root, test)}"
            )


def load(
    *, root: str | Path, train_split: str = "train2017", test_split: str = "val2017"
) -> LongTailData:
    """Load two splits of a folder in COCO's layout.

    An image has a label for every category with a box of some area in it, crowds too; images
    without labels are kept. Columns are the categories by ascending id; images stand in the order
    of the file and are returned as paths, to be decoded by the loader.

    Args:
        root: folder with ``annotations/instances_<split>.json`` and the images in ``<split>/`` or
            ``images/<split>/``.
        train_split: split for training, such as ``"train2017"``.
        test_split: split for testing.

    Raises:
        InputError: naming the file and entry, if anything is missing, broken or outside ``root``.
    """
    root = Root(root)
    train, categories = _read_split(root, train_split)
    test, test_categories = _read_split(root, test_split)
    _check_same_categories(root, train_split, test_split, categories, test_categories)
    return LongTailData("coco", train, test)


def read_lt_ids(path: str | Path) -> dict[int, str]:
    """Read the published COCO-LT list: an image of train2017 on each line.

    It is read as text whatever its name, never unpickled. Accepted are ``554625``,
    ``000000554625``, ``000000554625.jpg`` and ``train2017/000000554625.jpg``.

    Returns:
        Image id -> the file and line that names it, for messages.

    Raises:
        InputError: naming the line, if one is of another form, or the image stands there twice.
    """
    ids = {}
    for line, name in read_list(path):
        where = f"{path}, line {line}"
        match = _LT_ID.fullmatch(name)
        if match is None:
            raise InputError(
                f"{where}: {quote(name)} is no image of train2017; give an id such as 554625 "
                "or a name such as train2017/000000554625.jpg"
            )
        image = int(match[1])
        if image in ids:
            raise InputError(
                f"{where}: image {image} stands on {ids[image].rpartition(', ')[2]} "
                "already; keep one"
            )
        ids[image] = where
    return ids


def find_lt_list(root: Root) -> Path:
    """Find the file of COCO-LT's training ids."""
    for name in _LT_LISTS:
        path = root.find(name, where="COCO-LT's list")
        if path is not None:
            return path
    raise InputError(
        f"COCO-LT's list of training ids is missing; put it at {root.path / _LT_LISTS[0]} "
        "or give its path as id_list="
    )


def load_coco_lt(
    *, root: str | Path, id_list: str | Path | None = None, test_split: str = "val2017"
) -> LongTailData:
    """Load COCO-LT: 1909 long-tailed training images of train2017, and the 5000 of val2017.

    Only the listed training images need to be on the disk. The 48 test images without a label are
    kept.

    References:
        Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
        Datasets, ECCV 2020, https://arxiv.org/abs/2007.09654

    Args:
        root: COCO's folder, as for :func:`load`.
        id_list: the published list of training ids; see :func:`read_lt_ids`. Default:
            ``longtail2017/img_id.txt``, ``longtail2017/img_id.pkl`` (plain text all the same) or
            ``img_id.txt`` under ``root``.
        test_split: split for testing.

    Raises:
        InputError: naming the file and entry, if anything is missing, broken or outside ``root``.
    """
    root = Root(root)
    id_list = find_lt_list(root) if id_list is None else id_list
    train, categories = _read_split(root, "train2017", read_lt_ids(id_list))
    test, test_categories = _read_split(root, test_split)
    _check_same_categories(root, "train2017", test_split, categories, test_categories)
    return LongTailData("coco-lt", train, test)
