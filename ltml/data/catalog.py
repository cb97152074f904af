"""The data sets by name."""

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import as_json
from ltml.core.options import build, choose, defaults_of, fit_options
from ltml.data.layouts import find_layout
from ltml.data.splits import LongTailData

# name -> module:function, imported on use; its keyword-only parameters are the data set's options
DATASETS = {
    "pictograms": "ltml.data.pictograms:load",
    "voc": "ltml.data.voc:load",
    "voc-lt": "ltml.data.voc:load_voc_lt",
    "folder": "ltml.data.folder:load",
    "coco": "ltml.data.coco:load",
    "coco-lt": "ltml.data.coco:load_coco_lt",
    "lvis": "ltml.data.coco:load",
    "objects365": "ltml.data.coco:load",
    "open-images": "ltml.data.openimages:load",
    "roboflow": "ltml.data.roboflow:load",
    "label-studio": "ltml.data.labelstudio:load",
    "cvat": "ltml.data.cvat:load",
    "datumaro": "ltml.data.datumaro:load",
    "fiftyone": "ltml.data.fiftyone:load",
    "yolo": "ltml.data.yolo:load",
    "lists": "ltml.data.lists:load",
    "class-folders": "ltml.data.class_folders:load",
}


def load(name: str = "pictograms", *, root: str | Path | None = None, **options) -> LongTailData:
    """Load a data set by name.

    Args:
        name: one of :data:`DATASETS`, or ``"auto"``: the layout that the root has, which is logged.
        root: folder of the data; the embedded ``pictograms`` need none.
        options: keyword options of the data set's own loader, such as ``train_split``.

    Raises:
        InputError: if the name, the root or an option is unknown, or the data are broken.

    Example:
        >>> load("pictograms", scale=0.1, image_size=24).train
        Split(115 images, 20 classes: 0 head, 4 medium, 16 tail)
    """
    if name != "auto":
        choose("data", name, DATASETS)
    takes_root = name == "auto" or "root" in inspect.signature(_loader(name)).parameters
    if takes_root and root is None:
        raise InputError(f"data {name!r} needs root: give the folder that holds the data")
    if root is not None and not takes_root:
        raise InputError(f"data {name!r} takes no root; leave it out")
    if root is not None and not Path(root).is_dir():
        raise InputError(f"root {str(root)!r} is not a folder; give the folder that holds the data")
    if name == "auto":
        name = find_layout(root, _layouts())
    return build(_loader(name), f"data {name!r}", options, root=root).from_source(
        source_of(name, root, options)
    )


def source_of(name: str, root: str | Path | None, options: Mapping[str, object]) -> dict | None:
    """Say how data are loaded, by the fields of a recipe in their plain form; None if a recipe
    cannot hold it."""
    try:
        options = as_json("data_options", fit_options(_loader(name), options))
    except InputError:
        return None
    if name == "pictograms":  # a recipe that leaves it out has them drawn at its own size
        options = {"image_size": defaults_of(_loader(name))["image_size"], **options}
    splits = {key: options.pop(key, None) for key in ("train_split", "val_split", "test_split")}
    root = None if root is None else os.path.abspath(root)  # noqa: PTH100 - of text
    return {"data": name, "root": root, "data_options": options, **splits}


def _loader(name: str) -> Callable:
    module, function = DATASETS[name].split(":")
    return getattr(importlib.import_module(module), function)


def _layouts() -> dict[str, str]:
    """Name -> module of the layouts that can be recognised; COCO's module reads LVIS too."""
    modules = {place.split(":")[0]: name for name, place in reversed(DATASETS.items())}
    return {
        name: module
        for module, name in modules.items()
        if hasattr(importlib.import_module(module), "recognises")
    }
