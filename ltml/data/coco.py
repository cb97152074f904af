"""COCO: any instances file with its images, and the long-tailed benchmark COCO-LT."""

import posixpath
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_json, read_list
from ltml.data.layouts import Part, Reading, Tree, by_split, json_keys, layout
from ltml.data.splits import LongTailData, Rows, find_list, is_file

_FIELDS = {  # and their types; those of _UNIQUE identify an entry
    "images": {"id": (int, str), "file_name": (str,)},
    "categories": {"id": (int,), "name": (str,)},
    "annotations": {"image_id": (int, str), "category_id": (int,)},
}
_UNIQUE = {("images", "id"), ("images", "file_name"), ("categories", "id")}
_INSTANCES = re.compile(r"instances_(.+)\.json")
_OTHER = re.compile("(captions|person_keypoints|panoptic|stuff|image_info)_")  # of COCO's own files
# The published COCO-LT list is plain text under both names; it is never unpickled. (A stray
# longtail2017img_id.pkl beside it is another split.)
_LT_LISTS = ("longtail2017/img_id.txt", "longtail2017/img_id.pkl", "img_id.txt")
_LT_ID = re.compile(r"(?:\./)?(?:train2017/)?([0-9]{1,12})(?:\.jpg)?")


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has an instances file."""
    found = _files(tree)
    kinds = {kind for path in found.values() if (kind := _kind_of(path))}
    what = " and ".join(sorted(kinds)) or "a COCO data set"
    return f"{what}: {tree.list(list(found.values()))}" if found else None


def _kind_of(path: Path) -> str | None:
    if json_keys(path, ("neg_category_ids",)):
        return "LVIS"
    if path.name == "_annotations.coco.json":
        return "a Roboflow COCO export"
    return "Objects365" if re.search("objv2|objects365", path.name) else None


def _files(tree: Tree) -> dict[str, Path]:
    """Split -> instances file, whatever it is called."""
    named, others = {}, []
    for path in tree.match("*.json", "*/*.json", "*/*/*.json"):
        name = _INSTANCES.fullmatch(path.name)
        if name and name[1] not in named:
            named[name[1]] = path
        elif name or (not _OTHER.match(path.name) and json_keys(path, _FIELDS)):
            others.append(path)
    return by_split(others, tree.root, named)


@layout("coco")
def load(tree: Tree, *, classes: str | Sequence[str] | None = None) -> Reading:
    """Load a data set with COCO's instances files: COCO itself, LVIS, Objects365, or one's own.

    An image has a label for every category with a box of some area in it, crowds too, or with an
    annotation that has no box; images without labels are kept. Columns are the categories by
    ascending id. LVIS verified a part of the categories on each image; the others are unknown.

    Files are ``annotations/instances_SPLIT.json``, or any ``.json`` with the lists images,
    categories and annotations, down to two folders below the root, whose name or folder says the
    split. Images are in ``SPLIT/``, ``images/SPLIT/`` or beside the file, or found by the last
    parts of their ``file_name`` or ``coco_url``. Further arguments are those of
    :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the data set.
        classes: names of the categories to take, in column order. Default: all.

    Raises:
        InputError: naming the file and entry, if anything is missing or broken.
    """
    files = _files(tree)
    if not files:
        raise InputError(
            f"{tree.root} has no COCO instances file, such as annotations/instances_train.json; "
            "give the folder of COCO as root"
        )
    if classes is not None:
        classes = check_class_names(classes, where="classes")
    parts = {name: partial(_part, tree, name, path, classes) for name, path in files.items()}
    return Reading(recognises(tree), parts)


def _part(tree: Tree, split: str, path: Path, classes: Sequence[str] | None) -> Part:
    found = read_instances(path)
    names = found.class_names
    if classes is not None and (lost := set(classes) - set(names)):
        raise InputError(f"{path} has no category {quote(min(lost))}; choose classes from its own")
    kept = [name for name in classes or names if name not in found.parents]

    def labels(rows: dict[int, set[int]]) -> list[list[str]]:
        chosen = set(kept)
        return [[names[c] for c in rows.get(i, ()) if names[c] in chosen] for i in found.images]

    files = [entry["file_name"] for entry in found.images.values()]
    return Part(
        path,
        files,
        labels(found.labels),
        [f"image {image}" for image in found.images],
        known=None if found.known is None else labels(found.known),
        folders=[image_folder(tree.root, split), path.parent, path.parent / "images"],
        ids=[f"{split}/{file}" for file in files],
        classes=kept,
    )


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
    """What an instances file says.

    ``images`` maps ids to entries, ``labels`` to class indices, ``known`` to those that LVIS
    verified. ``parents`` are names that only group the others, as the first of a Roboflow export.
    """

    images: dict[int, dict]
    class_names: tuple[str, ...]
    labels: dict[int, set[int]]
    known: dict[int, set[int]] | None = None
    parents: frozenset[str] = frozenset()


def read_instances(path: str | Path) -> Instances:
    """Read a COCO instances file.

    Raises:
        InputError: naming the file and the entry, if it is no instances file or contradicts itself.
    """
    # 450 MB for train2017, mostly masks.
    dataset, seen = read_json(path, limit=None, drop=("segmentation",)), {}
    for key, fields in _FIELDS.items():
        if not isinstance(dataset, dict) or not isinstance(dataset.get(key), list):
            raise InputError(f"{path} is not a COCO instances file: it has no list {key!r}; add it")
        for i, entry in enumerate(dataset[key]):
            for field, kinds in fields.items():
                value = entry.get(field) if isinstance(entry, dict) else None
                if field == "file_name" and value is None and isinstance(entry, dict):
                    value = entry["file_name"] = _name_of(path, i, entry)
                wrong = None
                if type(value) not in kinds:  # not isinstance: true is no id
                    wrong = f"; give {kinds[0].__name__}"
                elif (key, field) in _UNIQUE:
                    same = (
                        posixpath.normpath(value) if field == "file_name" else value
                    )  # ./1.jpg is 1.jpg
                    if seen.setdefault((key, field, same), i) != i:
                        wrong = f", as {key}[{seen[key, field, same]}] has; give each its own"
                if wrong:
                    raise InputError(f"{path}: {key}[{i}] has {field} {quote(value)}{wrong}")
    images = {entry["id"]: entry for entry in dataset["images"]}
    categories = sorted(dataset["categories"], key=lambda entry: entry["id"])
    column = {entry["id"]: c for c, entry in enumerate(categories)}
    labels = {}
    for i, entry in enumerate(dataset["annotations"]):
        image, category, box = entry["image_id"], entry["category_id"], entry.get("bbox")
        if image not in images or category not in column:
            what = f"image {quote(image)} and category {quote(category)}"
            raise InputError(
                f"{path}: annotations[{i}] is of {what}, not both of which are listed; list them, "
                "or leave the annotation out"
            )
        if box is not None and box != []:  # without a box, the annotation is of the whole image
            if type(box) is not list or len(box) != 4 or not all(map(_is_length, box)):
                raise InputError(
                    f"{path}: annotations[{i}]'s bbox is not [x, y, width, height]; correct it, or "
                    "leave it out"
                )
            if not box[2] > 0 < box[3]:
                continue
        labels.setdefault(image, set()).add(column[category])
    names = check_class_names([entry["name"] for entry in categories], where=str(path))
    parents = frozenset()
    if Path(path).name == "_annotations.coco.json":
        used = {names[c] for row in labels.values() for c in row}
        above = [(str(e.get("supercategory")), e["name"]) for e in categories]
        groups = {group for group, name in above if group != name}
        parents = frozenset(set(names) & groups - used)
    return Instances(images, names, labels, _verified(path, images, column, labels), parents)


def _is_length(value) -> bool:
    # the comparison fails for not-a-number and infinity
    return type(value) in (int, float) and abs(value) < 1e9


def _name_of(path, i: int, entry: dict) -> str:
    """File name of an image that has an address only: its last two parts."""
    url = entry.get("coco_url")
    name = "/".join(url.split("/")[-2:]) if isinstance(url, str) else ""
    if not name.strip("/"):
        raise InputError(f"{path}: images[{i}] has neither file_name nor coco_url; give one")
    return name


def _verified(path, images: dict, column: dict, labels: dict) -> dict[int, set[int]] | None:
    """Class indices that are known on each image, where a file lists those that are absent.

    Of a category that is not exhaustively annotated, the image is still known to hold it.
    """
    if not any("neg_category_ids" in entry for entry in images.values()):
        return None
    known = {}
    for image, entry in images.items():
        absent = entry.get("neg_category_ids")
        if not isinstance(absent, list) or not all(type(c) is int and c in column for c in absent):
            raise InputError(
                f"{path}: image {image}'s neg_category_ids is no list of categories' ids; give one"
            )
        absent, present = {column[c] for c in absent}, labels.get(image, set())
        if absent & present:
            raise InputError(
                f"{path}: image {image} has an annotation of a category that is among its "
                "neg_category_ids; remove one of them"
            )
        known[image] = absent | present
    return known


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
        raise InputError(
            f"{where}: the file of image {image}, {name} in {folder}, is missing; add it"
        )
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
