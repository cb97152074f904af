"""Record what a trained model makes of each class's images in the run's folder; and read it."""

import math
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import v2

from ltml.backbones import Classifier
from ltml.build import held_out, load_data
from ltml.data import LongTailData
from ltml.data.loader import Loader
from ltml.errors import InputError
from ltml.files import write_atomically
from ltml.labels import LabelMatrix
from ltml.metrics import feature_diversity
from ltml.options import choose
from ltml.recipe import Recipe
from ltml.run import Run

__all__ = ["FeatureRecord", "SplitFeatures", "record_features"]

FILE, SCHEMA = "features.npz", 1
SPLITS = ("train", "test")
_THUMBNAIL = 48  # largest side in pixels
_AT_ONCE = 2**26  # numbers (B, C, D) in memory at a time


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
        name: of the run.
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
            measure: a name of :data:`ltml.metrics.DIVERSITY`.
            split: ``"train"`` or ``"test"``.
            size: samples a subset; default :attr:`common_size`.

        Returns:
            a row a class, by descending count: class, group, count (training images), split,
            measure, recorded (positives), size, value, error; see
            :func:`ltml.metrics.feature_diversity`.
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


def record_features(
    run: Run | str | Path,
    *,
    data: LongTailData | None = None,
    per_class: int = 50,
    neighbors: int = 8,
    device: str = "auto",
) -> FeatureRecord:
    """Pass positives of every class through a run's model, and keep what it makes of them.

    Up to ``per_class`` positives of each class, of the training and of the test split, each in its
    plain view, give the class's own feature: class attention's :math:`f_c`, or the average-pooled
    feature, which all classes share. ``features.npz`` in the run's folder holds them as float16,
    with scores, labels, nearest images and small pictures. For the pictograms (20 classes,
    D = 256) it takes 7 MB, most of it pictures. The same run gives the same file.

    Args:
        run: a run, or its folder.
        data: the run's data set; default: loaded as its recipe says.
        per_class: most positives of a class in a split, sampled at random.
        neighbors: nearest images kept for each positive.
        device: auto (cuda, else mps, else cpu), or a torch device.

    Raises:
        InputError: if the run has no weights, or the data are not the run's.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    if per_class < 2 or neighbors < 1:
        raise InputError(
            f"per_class={per_class}, neighbors={neighbors}: give at least 2, and at least 1"
        )
    image_model = run.model(device=device)
    model, target = image_model.classifier, next(image_model.parameters()).device
    recipe = Recipe.from_dict(run.recipe)
    data = load_data(recipe) if data is None else held_out(recipe, data)
    given = dict(zip(data.class_names, data.train.labels.counts.tolist(), strict=True))
    if given != run.classes.set_index("class")["count"].to_dict():
        raise InputError(
            f"data {data.name!r} are not those of run {run.name!r}; give what it was trained on"
        )
    arrays = {"schema": np.array(SCHEMA), "class_names": np.array(data.class_names, dtype=str)}
    for name in SPLITS:
        split = getattr(data, name)
        cls, image = _choose(split.labels, per_class)
        index, position = np.unique(image, return_inverse=True)
        part = split.subset(index)
        loader = Loader(
            part,
            image_size=image_model.image_size,
            device=target,
            mean=model.backbone.mean,
            std=model.backbone.std,
        )
        if loader.maps:
            raise InputError(
                f"data {data.name!r} are a bank, which keeps no images; give the data set itself"
            )
        found = _observe(model, loader, cls, position, min(neighbors, max(len(index) - 1, 1)))
        found |= {"cls": cls.astype(np.int32), "image": position.astype(np.int32)}
        found |= {"index": index.astype(np.int64), "labels": part.labels.dense().numpy()}
        arrays |= {f"{name}_{field}": value for field, value in found.items()}

    def write(path: Path) -> None:
        with path.open("wb") as file:  # numpy would add .npz to a name
            np.savez_compressed(file, **arrays)

    write_atomically(run.path / FILE, write)
    return FeatureRecord.load(run)


def _choose(labels: LabelMatrix, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to ``per_class`` positives of each class: class and image, sorted by them."""
    image, cls = labels.image_of_label(), labels.matrix.indices
    keys = pd.Series(np.random.default_rng(0).random(len(cls)))
    kept = np.flatnonzero(keys.groupby(cls).rank() <= per_class)
    kept = kept[np.argsort(cls[kept], kind="stable")]
    return cls[kept], image[kept]


@torch.no_grad()
def _observe(
    model: Classifier, loader: Loader, cls: np.ndarray, position: np.ndarray, k: int
) -> dict[str, np.ndarray]:
    """Record features, scores and thumbnails in one pass, nearest images in another.

    The features of all images for all classes, (K, C, D), are never in memory at once.
    """
    K, C, device = len(loader.split), loader.split.labels.num_classes, loader.device
    cls, position = torch.from_numpy(cls.astype(np.int64)), torch.from_numpy(position)
    starts = torch.searchsorted(cls, torch.arange(C))
    slot = torch.arange(len(cls)) - starts[cls]  # rank within the class
    slots = int(slot.max()) + 1 if len(slot) else 0
    mean, std = (
        torch.tensor(value, device=device).view(3, 1, 1)
        for value in (model.backbone.mean, model.backbone.std)
    )
    D = model.head.classifier.in_features
    batches = torch.arange(K).split(max(1, min(256, _AT_ONCE // (C * D))))
    of_batch = [torch.isin(position, index).nonzero().flatten() for index in batches]

    own = torch.zeros(C, slots, D, device=device)  # each class's features of its positives
    score, thumbnails = torch.zeros(len(cls)), []
    for index, rows, (images, _) in zip(batches, of_batch, loader.batches(batches), strict=True):
        feature_map = model.backbone(images)
        seen = model.head.features(feature_map).expand(-1, C, -1)  # (B, C, D)
        c, b = cls[rows].to(device), (position[rows] - index[0]).to(device)
        own[c, slot[rows].to(device)] = seen[b, c]
        score[rows] = model.head(feature_map)[b, c].float().cpu()
        thumbnails.append(_thumbnails(images * std + mean))

    unit = torch.nn.functional.normalize(own, dim=-1)
    best = torch.full((C, slots, k), -math.inf, device=device)
    where = torch.full((C, slots, k), -1, device=device)
    for index, rows, (images, _) in zip(batches, of_batch, loader.batches(batches), strict=True):
        seen = model.head.features(model.backbone(images)).expand(-1, C, -1)
        seen = torch.nn.functional.normalize(seen, dim=-1)
        similar = unit @ seen.permute(1, 2, 0)  # (C, slots, B)
        c, b = cls[rows].to(device), (position[rows] - index[0]).to(device)
        similar[c, slot[rows].to(device), b] = -math.inf  # no image is its own neighbour
        both = torch.cat([best, similar], 2)
        places = torch.cat([where, index.to(device).expand(C, slots, -1)], 2)
        best, chosen = both.topk(k, dim=2)
        where = places.gather(2, chosen)
    where = where.masked_fill(best == -math.inf, -1)

    def of_rows(values: Tensor, kind: type) -> np.ndarray:
        return values.cpu()[cls, slot].numpy().astype(kind)

    return {
        "features": of_rows(own, np.float16),
        "score": score.numpy(),
        "neighbors": of_rows(where, np.int32),
        "similarity": of_rows(best, np.float16),
        "thumbnails": np.concatenate(thumbnails),
    }


def _thumbnails(images: Tensor) -> np.ndarray:
    """``(B, 3, S, S)`` in [0, 1] -> ``(B, h, h, 3)`` uint8."""
    if images.shape[-1] > _THUMBNAIL:
        images = v2.functional.resize(images, [_THUMBNAIL, _THUMBNAIL], antialias=True)
    pixels = (255 * images).round().clamp(0, 255).byte()
    return pixels.permute(0, 2, 3, 1).cpu().numpy()
