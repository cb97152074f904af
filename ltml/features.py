"""What a trained model made of each class's images, read from a run's folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ltml.errors import InputError
from ltml.metrics import feature_diversity
from ltml.runs import Run

__all__ = ["FeatureRecord", "SplitFeatures"]

FILE, SCHEMA = "features.npz", 1
SPLITS = ("train", "test")
# numpy's letters: floating-point numbers and integers, signed or not
_KINDS = {"features": "f", "score": "f", "similarity": "f", "cls": "iu", "image": "iu"}
_KINDS |= {"neighbors": "i", "index": "iu", "labels": "u", "thumbnails": "u"}


@dataclass(frozen=True)
class SplitFeatures:
    """One split's part of a record: ``M`` positives of ``C`` classes on ``K`` distinct images.

    Args:
        features: ``(M, D)`` float16, each positive's feature as its own class sees the image.
        cls: ``(M,)`` class index; rows are sorted by class, then image.
        image: ``(M,)`` position among the ``K`` images.
        score: ``(M,)`` float32, the logit of the row's class on its image.
        neighbors: ``(M, k)`` positions among the ``K`` images, nearest first: the images most
            similar to the row's as its class sees them. They may or may not hold the class. -1
            where there are fewer.
        similarity: ``(M, k)`` float16, their cosine similarity.
        index: ``(K,)`` index of each image in the data set's split.
        labels: ``(K, C)`` uint8 of 0 and 1.
        thumbnails: ``(K, h, w, 3)`` uint8, at most 48 px.
    """

    features: np.ndarray
    cls: np.ndarray
    image: np.ndarray
    score: np.ndarray
    neighbors: np.ndarray
    similarity: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    thumbnails: np.ndarray

    def rows(self, c: int) -> np.ndarray:
        """Rows of one class."""
        return np.flatnonzero(self.cls == c)

    def fault(self, num_classes: int) -> str | None:
        """Say what does not fit together, if anything."""
        for name, kinds in _KINDS.items():
            array = getattr(self, name)
            if array.dtype.kind not in kinds or array.ndim == 0:
                return f"{name} holds {array.dtype} of shape {array.shape}"
        M, K = len(self.cls), len(self.index)
        wanted = {
            "features": (M, None), "image": (M,), "score": (M,), "neighbors": (M, None),
            "similarity": self.neighbors.shape, "labels": (K, num_classes),
            "thumbnails": (K, None, None, 3),
        }  # fmt: skip
        for name, shape in wanted.items():
            given = getattr(self, name).shape
            if len(given) != len(shape) or any(
                b is not None and a != b for a, b in zip(given, shape, strict=True)
            ):
                return f"{name} has shape {given}"
        for name, least, end in (("cls", 0, num_classes), ("image", 0, K), ("neighbors", -1, K)):
            values = getattr(self, name)
            if values.size and not least <= values.min() <= values.max() < end:
                return f"{name} lies outside 0 to {end - 1}"
        return None


@dataclass(frozen=True)
class FeatureRecord:
    """Features of a run's classes, read from the ``features.npz`` of its folder.

    Args:
        name: of the run.
        classes: a row a class in the model's order: class, group, count (training images).
        splits: ``{"train": ..., "test": ...}``.
    """

    name: str
    classes: pd.DataFrame
    splits: dict[str, SplitFeatures]

    @classmethod
    def load(cls, run: Run | str | Path) -> "FeatureRecord":
        """Read the record in a run's folder.

        Raises:
            InputError: if there is none, or it is damaged or not of this run.
        """
        run = run if isinstance(run, Run) else Run.load(run)
        remedy = "make it with ltml.record_features(run)"
        path = run.path / FILE
        if not path.is_file():
            raise InputError(f"run {run.name!r} has no {FILE}; {remedy}")
        try:
            # opened here, since numpy leaves a damaged file open
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            schema, names = int(arrays["schema"]), arrays["class_names"].tolist()
            splits = {
                split: SplitFeatures(
                    **{field: arrays[f"{split}_{field}"] for field in SplitFeatures.__annotations__}
                )
                for split in SPLITS
            }
        except Exception as error:  # numpy raises many kinds over damaged and foreign files
            raise InputError(
                f"{str(path)!r} is damaged, or no record of features ({error}); {remedy}"
            ) from error
        if schema > SCHEMA:
            raise InputError(
                f"{str(path)!r} has schema {schema}, this ltml reads up to {SCHEMA}; update ltml"
            )
        table = run.classes.set_index("class")
        if sorted(names) != sorted(table.index):
            raise InputError(f"{str(path)!r} has other classes than its run; {remedy}")
        for split, part in splits.items():
            if fault := part.fault(len(names)):
                raise InputError(f"{str(path)!r} is damaged ({split} {fault}); {remedy}")
        classes = table.loc[names, ["group", "count"]].reset_index()
        return FeatureRecord(run.name, classes, splits)

    def split(self, name: str) -> SplitFeatures:
        """One split's part.

        Raises:
            InputError: if there is no such split.
        """
        if name not in self.splits:
            raise InputError(f"split={name!r} is unknown; give {' or '.join(self.splits)}")
        return self.splits[name]

    def index(self, name: str) -> int:
        """Column of a class.

        Raises:
            InputError: if there is no such class.
        """
        names = self.classes["class"].tolist()
        if name not in names:
            raise InputError(f"class {name!r} is unknown; choose from {', '.join(names)}")
        return names.index(name)

    @property
    def common_size(self) -> int:
        """The default sample size of :meth:`diversity`: one fewer than the smallest class of at
        least three has in either split, at most 50. Train and test compare at it."""
        counts = np.stack([np.bincount(p.cls, minlength=len(self.classes)) for p in self._parts])
        return max(2, int(min([50, *(counts[counts >= 3] - 1)])))

    @property
    def _parts(self) -> list[SplitFeatures]:
        return list(self.splits.values())

    def diversity(
        self,
        *,
        measure: str = "vendi",
        split: str = "test",
        size: int | None = None,
        repeats: int = 100,
    ) -> pd.DataFrame:
        """Measure each class's diversity at one sample size.

        Args:
            measure: a name of :data:`ltml.metrics.DIVERSITY`.
            split: ``"train"`` or ``"test"``.
            size: samples a subset; default :attr:`common_size`.
            repeats: subsets of each class.

        Returns:
            a row a class, by descending count: class, group, count (training images), split,
            measure, recorded (positives), size, value, error; see
            :func:`ltml.metrics.feature_diversity`.

        Raises:
            InputError: if an option is unknown or out of range.
        """
        part = self.split(split)
        one_hot = torch.from_numpy(part.cls[:, None] == np.arange(len(self.classes))).int()
        table = feature_diversity(
            torch.from_numpy(_rotated(part)),
            one_hot,
            measure=measure,
            size=self.common_size if size is None else size,
            repeats=repeats,
        ).rename(columns={"count": "recorded"})
        out = pd.concat([self.classes.assign(split=split, measure=measure), table], axis=1)
        return out.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)


def _rotated(part: SplitFeatures) -> np.ndarray:
    """Turn each class's features into as few coordinates as it has rows: ``(M, most rows)``.

    Every measure of diversity depends on inner products inside a class alone, which a rotation
    keeps; 50 coordinates are measured much sooner than 2048.
    """
    rows = [part.rows(c) for c in np.unique(part.cls)]
    out = np.zeros((len(part.cls), max((len(r) for r in rows), default=0)))
    for r in rows:
        triangle = np.linalg.qr(part.features[r].astype(np.float64).T, mode="r")
        out[r, : len(triangle)] = triangle.T
    return out
