"""Read what a trained model makes of each class's images, from the run's folder."""

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ltml.core.errors import InputError
from ltml.core.metrics import feature_diversity
from ltml.core.options import choose
from ltml.runs.run import Run

FILE, SCHEMA = "features.npz", 1
SPLITS = ("train", "test")


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
        labels: ``(K, C)`` uint8, 1 where a class is known to be present.
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

    def check(self, num_classes: int) -> None:
        """Raise a ValueError unless sizes and indices fit together."""
        M, K, k = len(self.cls), len(self.index), self.neighbors.shape[-1]
        sizes = {"features": M, "image": M, "score": M, "labels": K, "thumbnails": K}
        for name, size in sizes.items():
            if len(getattr(self, name)) != size:
                raise ValueError(f"{name} has {len(getattr(self, name))} rows, not {size}")
        if self.neighbors.shape != (M, k) or self.similarity.shape != (M, k):
            raise ValueError("neighbors and similarity do not fit the rows")
        for name, least, end in (("cls", 0, num_classes), ("image", 0, K), ("neighbors", -1, K)):
            values = getattr(self, name)
            if values.size and not least <= values.min() <= values.max() < end:
                raise ValueError(f"{name} lies outside 0 to {end - 1}")


@dataclass(frozen=True)
class FeatureRecord:
    """Features of a run's classes, read from the ``features.npz`` of its folder.

    Args:
        name: name of the run.
        classes: a row per class in the model's order: class, group, count (training images).
        splits: ``{"train": ..., "test": ...}``.

    Example:
        >>> record = FeatureRecord.load("runs/demo/method")  # doctest: +SKIP
        >>> record.diversity(measure="vendi").value  # doctest: +SKIP
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
                if (schema := int(archive["schema"])) > SCHEMA:
                    raise ValueError(f"schema {schema} of a later ltml")
                if "run" in archive and str(archive["run"]) != token(run):  # since 0.6
                    raise ValueError("it is of another training")
                names = archive["class_names"].tolist()
                splits = {
                    split: SplitFeatures(
                        *(archive[f"{split}_{f.name}"] for f in fields(SplitFeatures))
                    )
                    for split in SPLITS
                }
            classes = run.classes.set_index("class").loc[names, ["group", "count"]].reset_index()
            for part in splits.values():
                part.check(len(classes))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{str(path)!r} is damaged, or not a record of this run ({error}); {remedy}"
            ) from error
        return FeatureRecord(run.name, classes, splits)

    def split(self, name: str) -> SplitFeatures:
        """One split's part."""
        return choose("split", name, self.splits)

    def index(self, name: str) -> int:
        """Column of a class."""
        return choose("class", name, {n: i for i, n in enumerate(self.classes["class"])})

    @property
    def common_size(self) -> int:
        """The default sample size of :meth:`diversity`: one fewer than the smallest class of at
        least three has in either split, at most 50. Train and test compare at it."""
        parts = self.splits.values()
        counts = np.stack([np.bincount(p.cls, minlength=len(self.classes)) for p in parts])
        return max(2, int(min([50, *(counts[counts >= 3] - 1)])))

    def diversity(
        self, *, measure: str = "vendi", split: str = "test", size: int | None = None
    ) -> pd.DataFrame:
        """Measure each class's diversity at one sample size.

        Args:
            measure: a name of :data:`ltml.core.metrics.DIVERSITY`.
            split: ``"train"`` or ``"test"``.
            size: number of samples in a subset; default :attr:`common_size`.

        Returns:
            a row a class, by descending count: class, group, count (training images), split,
            measure, recorded (positives), size, value, error; see
            :func:`ltml.core.metrics.feature_diversity`.
        """
        part = self.split(split)
        one_hot = torch.from_numpy(part.cls[:, None] == np.arange(len(self.classes))).int()
        table = feature_diversity(
            torch.from_numpy(_rotated(part)),
            one_hot,
            measure=measure,
            size=self.common_size if size is None else size,
        ).rename(columns={"count": "recorded"})
        out = pd.concat([self.classes.assign(split=split, measure=measure), table], axis=1)
        return out.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)


def token(run: Run) -> str:
    """Tell the trainings that one folder may have held apart."""
    text = json.dumps([run.recipe, run.summary], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
