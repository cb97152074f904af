"""Long-tailed multi-label data sets, by name."""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ltml.errors import InputError
from ltml.labels import LabelMatrix

__all__ = ["DATASETS", "LongTailData", "Split", "load"]

# name -> module:function(root=..., train_split=..., test_split=..., **options); imported on use, so
# that pycocotools is needed only by those who read COCO files.
DATASETS = {
    "pictograms": "ltml.data.pictograms:load",
    "voc": "ltml.data.voc:load",
    "voc-lt": "ltml.data.voc:load_voc_lt",
    "folder": "ltml.data.folder:load",
    "coco": "ltml.data.coco:load",
    "coco-lt": "ltml.data.coco:load_coco_lt",
}


@dataclass(frozen=True)
class Split:
    """One split of a data set: images and their labels.

    Args:
        images: uint8 tensor ``(N, 3, H, W)``, or ``N`` paths of image files, decoded by the loader.
        labels: ``(N, C)``.
        ids: ``N`` names by which messages and reports call the images.
    """

    images: Tensor | Sequence[Path]
    labels: LabelMatrix
    ids: Sequence[str]

    def __post_init__(self):
        sizes = len(self.images), len(self.labels), len(self.ids)
        if len(set(sizes)) != 1:
            raise InputError(
                "images, labels and ids number {}, {}, {}; give as many".format(*sizes)
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index) -> "Split":
        """The given images (integer indices or a mask), in the given order."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index
        if isinstance(self.images, Tensor):
            images = self.images[index]
        else:
            images = [self.images[i] for i in index]
        return Split(images, self.labels.subset(index), [self.ids[i] for i in index])


@dataclass(frozen=True)
class LongTailData:
    """A data set with a long-tailed training split. Groups are always those of ``train``."""

    name: str
    train: Split
    test: Split

    def __post_init__(self):
        if self.train.labels.class_names != self.test.labels.class_names:
            raise InputError(f"{self.name}: train and test have different class names")
        for name, split in (("train", self.train), ("test", self.test)):
            if not split.labels.counts.any():
                raise InputError(
                    f"{self.name}: the {name} split has {len(split)} images and no label; "
                    "check the split's name and the class list"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """``C`` names in column order."""
        return self.train.labels.class_names


def load(name: str = "pictograms", *, root: str | Path | None = None, **options) -> LongTailData:
    """Load a data set by name.

    Args:
        name: one of :data:`DATASETS`.
        root: folder of the data; the embedded ``pictograms`` need none.
        options: keyword options of the data set's own loader, such as ``train_split``.

    Raises:
        InputError: if the name, the root or an option is unknown, or the data are broken.

    Example:
        >>> data = load("pictograms", scale=0.1, image_size=24)
        >>> data.train.images.shape[1:]
        torch.Size([3, 24, 24])
    """
    if name not in DATASETS:
        raise InputError(f"data {name!r} is unknown; choose from {', '.join(DATASETS)}")
    if root is not None and not Path(root).is_dir():
        raise InputError(f"root {str(root)!r} is not a folder; give the folder that holds the data")
    module, function = DATASETS[name].split(":")
    try:
        loader = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != "pycocotools":
            raise
        raise InputError(
            f"data {name!r} needs pycocotools; install it with: pip install 'ltml[coco]'"
        ) from error
    if root is not None:
        options["root"] = Path(root)
    try:
        inspect.signature(loader).bind(**options)
    except TypeError as error:
        raise InputError(f"data {name!r}: {error}; give it, or leave it out") from error
    return loader(**options)
