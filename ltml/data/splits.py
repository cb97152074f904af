"""What every data set is: splits of images and labels."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.labels import LabelMatrix
from ltml.data.image import read_image

if TYPE_CHECKING:  # torch takes seconds to import, which checking data need not wait for
    from PIL.Image import Image
    from torch import Tensor

    from ltml.data.plan import ReadingPlan

# What a checksum of images reads at most: it is made often, and shall cost less than a second.
_READ = 64  # files, or images of other kinds
_FIRST_BYTES = 2**18  # of a file
_HASHED = 2**28  # bytes of a tensor


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Hold one split of a data set: images and their labels.

    Args:
        images: uint8 tensor ``(N, 3, H, W)``, or a sequence of ``N`` image files, PIL images,
            arrays or tensors; see :mod:`ltml.data.image`.
        labels: ``(N, C)``.
        ids: ``N`` names by which messages and reports call the images.
        originals: images that ``images`` were made of, where these are decoded or feature maps.

    Example:
        >>> labels = LabelMatrix([[1, 0], [1, 1]], ["cat", "dog"])
        >>> split = Split(["a.jpg", "b.jpg"], labels, ["a", "b"])
        >>> split.subset([1]).ids
        ['b']
    """

    images: "Tensor | Sequence[Path | Image]"
    labels: LabelMatrix
    ids: Sequence[str]
    originals: "Tensor | Sequence[Path | Image] | None" = field(default=None, kw_only=True)

    def __post_init__(self):
        sizes = len(self.images), len(self.labels), len(self.ids)
        if len(set(sizes)) != 1:
            raise InputError(
                "images, labels and ids number {}, {} and {}; give one each".format(*sizes)
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return repr(self.labels).replace("LabelMatrix", "Split", 1)

    @property
    def files(self) -> list[str]:
        """Absolute path of each image, ``""`` where it is none; empty for images in memory."""
        images = self._originals
        if hasattr(images, "dtype"):
            return []
        paths = [p if isinstance(p, str | os.PathLike) else None for p in images]
        return ["" if p is None else os.path.abspath(p) for p in paths]  # noqa: PTH100 - of text

    @property
    def digest(self) -> str:
        """Short checksum of the images' names and labels, in order."""
        labels, found = self.labels, hashlib.blake2b(digest_size=8)
        for array in (labels.matrix.indptr, labels.matrix.indices, labels.known_counts):
            found.update(np.asarray(array, dtype="<i8").tobytes())
        found.update(
            "\0".join(map(str, (*labels.class_names, *self.ids))).encode("utf-8", "replace")
        )
        return found.hexdigest()

    @property
    def content(self) -> str:
        """Short checksum of the images themselves, after what they are: ``files:``, ``pixels:`` (of
        one tensor) or ``images:``. Of files the sizes of all count, and the first bytes of some; of
        large tensors, and of other images, some as well."""
        images, found = self._originals, hashlib.blake2b(digest_size=8)
        some = range(0, len(images), max(1, -(-len(images) // _READ)))
        if hasattr(images, "dtype"):
            kind, step = "pixels", max(1, -(-images.nbytes // _HASHED))
            flat = np.asarray(images).reshape(len(images), -1)
            for i in range(0, len(flat), 1024):
                found.update(np.ascontiguousarray(flat[i : i + 1024, ::step]))
        elif all(files := self.files):
            kind = "files"
            for file in files:
                with suppress(OSError):  # a missing one is named when it is read
                    found.update(b"%d " % os.stat(file).st_size)  # noqa: PTH116 - of text
            for i in some:
                with suppress(OSError), open(files[i], "rb") as file:  # noqa: PTH123 - of text
                    found.update(file.read(_FIRST_BYTES))
        else:
            kind = "images"
            for i in some:
                with suppress(Exception):  # a broken one is named when it is read
                    found.update(np.asarray(read_image(images[i])).tobytes())
        return f"{kind}:{found.hexdigest()}"

    @property
    def _originals(self) -> "Tensor | Sequence[Path | Image]":
        return self.images if self.originals is None else self.originals

    def subset(self, index) -> "Split":
        """Select images by integer indices or a mask, in the given order."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index
        images, originals = (_taken(each, index) for each in (self.images, self.originals))
        labels, ids = self.labels.subset(index), [self.ids[i] for i in index]
        return Split(images, labels, ids, originals=originals)


@dataclass(frozen=True, eq=False, repr=False)
class LongTailData:
    """Hold a data set with a long-tailed training split, by whose counts classes are grouped.

    Args:
        name: name of the data set in reports.
        train: split to train on.
        test: split to test on.
        val: split to choose settings on, if there is one.
        plan: plan by which the training table was read, if one was; runs keep it.
        layout: how a layout of files was read, if one was, and the splits taken from it; runs keep
            it: ``{"how": "a Roboflow export: ...", "splits": {"train": "train", "test": "val"}}``.
        source: fields of a recipe that loads the same data, set by :func:`ltml.load`; None for
            data of one's own, which is also what :func:`dataclasses.replace` makes of any.

    Raises:
        InputError: if the splits' class names differ, or a split has no label.

    Example:
        >>> split = Split(["a.jpg"], LabelMatrix([[1, 0]], ["cat", "dog"]), ["a"])
        >>> LongTailData("mine", split, split).class_names
        ('cat', 'dog')
    """

    name: str
    train: Split
    test: Split
    val: Split | None = None
    plan: "ReadingPlan | None" = None
    layout: dict | None = field(default=None, kw_only=True)
    source: dict | None = field(default=None, init=False)

    def __post_init__(self):
        for name, split in self.splits.items():
            ours, theirs = self.class_names, split.labels.class_names
            if ours != theirs:
                differ = ", ".join(map(quote, sorted(set(ours) ^ set(theirs))[:10]))
                raise InputError(
                    f"{self.name}: the classes of the train split ({len(ours)}) and the {name} "
                    f"split ({len(theirs)}) differ in {differ or 'their order'}; make them the same"
                )
            if not split.labels.counts.any():
                raise InputError(
                    f"{self.name}: the {name} split has {len(split)} images and no label; "
                    "check the split's name and the class list"
                )

    def from_source(self, source: dict | None) -> "LongTailData":
        """Say which fields of a recipe load these data; returns them."""
        object.__setattr__(self, "source", source)
        return self

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name, ``train`` first."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def class_names(self) -> tuple[str, ...]:
        """``C`` names in column order."""
        return self.train.labels.class_names

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={split!r}" for name, split in self.splits.items())
        return f"LongTailData({self.name!r}, {parts})"

    def _repr_html_(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,} images" for name, split in self.splits.items())
        return f"<p>{escape(self.name)}: {sizes}</p>" + self.train.labels._repr_html_()


def _taken(images, index: np.ndarray):
    if images is None or hasattr(images, "dtype"):
        return None if images is None else images[index]
    return [images[i] for i in index]


class Rows(NamedTuple):
    """A split as its reader finds it: ``read`` returns path and class indices of each image."""

    source: Path
    class_names: tuple[str, ...]
    read: dict[str, Callable[[], tuple[Path, list[int]]]]

    def split(self) -> Split:
        """Read every image's labels."""
        found = [read() for read in self.read.values()]
        labels = LabelMatrix.from_lists([row for _, row in found], self.class_names)
        return Split([path for path, _ in found], labels, list(self.read))


def find_list(folders: Iterable[Path], *names: str) -> Path:
    """Find the list of training ids of a long-tailed benchmark."""
    places = [folder / name for folder in folders for name in names]
    for path in filter(is_file, places):
        return path
    raise InputError(
        f"the list of training ids is missing; put it at {places[0]} or give its path as id_list="
    )


def is_file(path: str | Path) -> bool:
    """Whether there is such a file, whatever name a list gives it."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises on too long a name
