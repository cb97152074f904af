"""The data sets by name."""

import importlib
import inspect
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.options import build, choose
from ltml.data.splits import LongTailData

# name -> module:function, imported on use; its keyword-only parameters are the data set's options
DATASETS = {
    "pictograms": "ltml.data.pictograms:load",
    "voc": "ltml.data.voc:load",
    "voc-lt": "ltml.data.voc:load_voc_lt",
    "folder": "ltml.data.folder:load",
    "coco": "ltml.data.coco:load",
    "coco-lt": "ltml.data.coco:load_coco_lt",
}


def load(name: str = "pictograms", *, root: str | Path | None = None, **options) -> LongTailData:
    """Load a data set by name.

    Args:
        name: one of :data:`DATASETS`.
        root: folder of the data; the embedded ``pictograms`` need none.
        options: keyword options of the data set's own loader, such as ``train_split``.

    Raises:
        InputError: if the name, the root or an option is unknown, or the data are broken.

    Example:
        >>> load("pictograms", scale=0.1, image_size=24).train
        Split(115 images, 20 classes: 0 head, 4 medium, 16 tail)
    """
    module, function = choose("data", name, DATASETS).split(":")
    loader = getattr(importlib.import_module(module), function)
    takes_root = "root" in inspect.signature(loader).parameters
    if takes_root and root is None:
        raise InputError(f"data {name!r} needs root: give the folder that holds the data")
    if root is not None and not takes_root:
        raise InputError(f"data {name!r} takes no root; leave it out")
    if root is not None and not Path(root).is_dir():
        raise InputError(f"root {str(root)!r} is not a folder; give the folder that holds the data")
    return build(loader, f"data {name!r}", options, root=root)
