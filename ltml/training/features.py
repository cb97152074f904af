"""Record what a trained model makes of each class's images in the run's folder."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import v2

from ltml.core.errors import InputError
from ltml.core.files import write_atomically
from ltml.core.labels import LabelMatrix
from ltml.core.options import Bounds, fitted
from ltml.data.loader import Loader
from ltml.data.splits import LongTailData
from ltml.runs.features import FILE, SCHEMA, SPLITS, FeatureRecord, token
from ltml.runs.run import Run
from ltml.training.network import Classifier
from ltml.training.passes import passed
from ltml.training.setup import data_of

_THUMBNAIL = 48  # largest side in pixels
_AT_ONCE = 2**26  # numbers (B, C, D) in memory at a time


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
        per_class: largest number of positives of a class in a split, sampled at random.
        neighbors: number of nearest images kept for each positive.
        device: auto (cuda, else mps, else cpu), or a torch device.

    Raises:
        InputError: if the run has no weights, or the data are not the run's.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    kind = Annotated[int, Bounds("(-inf, 1e6]")]
    per_class = fitted("per_class", per_class, kind)
    neighbors = fitted("neighbors", neighbors, kind)
    if per_class < 2 or neighbors < 1:
        raise InputError(
            f"per_class={per_class}, neighbors={neighbors}: give at least 2, and at least 1"
        )
    image_model = run.model(device=device)
    model, target = image_model.classifier, next(image_model.parameters()).device
    data = data_of(run, data)
    arrays = {
        "schema": np.array(SCHEMA),
        "run": np.array(token(run)),
        "class_names": np.array(data.class_names, dtype=str),
    }
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
        held = part.labels.fill_unknown().dense().numpy()
        found |= {"index": index.astype(np.int64), "labels": held}
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
    C, device = loader.split.labels.num_classes, loader.device
    cls, position = torch.from_numpy(cls.astype(np.int64)), torch.from_numpy(position)
    starts = torch.searchsorted(cls, torch.arange(C))
    slot = torch.arange(len(cls)) - starts[cls]  # rank within the class
    slots = int(slot.max()) + 1 if len(slot) else 0
    mean, std = (
        torch.tensor(value, device=device).view(3, 1, 1)
        for value in (model.backbone.mean, model.backbone.std)
    )
    D = model.head.classifier.in_features
    most = max(1, _AT_ONCE // (C * D))
    options = {"batch_size": most if most < 16 else None, "name": "features"}

    own = torch.zeros(C, slots, D, device=device)  # each class's features of its positives
    score, thumbnails = torch.zeros(len(cls)), []
    for index, images, maps in passed(model.backbone, loader, **options):
        feature_map, rows = maps[:, 0].float(), torch.isin(position, index).nonzero().flatten()
        seen = model.head.features(feature_map).expand(-1, C, -1)  # (B, C, D)
        c, b = cls[rows].to(device), (position[rows] - index[0]).to(device)
        own[c, slot[rows].to(device)] = seen[b, c]
        score[rows] = model.head(feature_map)[b, c].float().cpu()
        thumbnails.append(_thumbnails(images[:, 0] * std + mean))

    unit = torch.nn.functional.normalize(own, dim=-1)
    best = torch.full((C, slots, k), -math.inf, device=device)
    where = torch.full((C, slots, k), -1, device=device)
    for index, _, maps in passed(model.backbone, loader, **options):
        rows = torch.isin(position, index).nonzero().flatten()
        seen = model.head.features(maps[:, 0].float()).expand(-1, C, -1)
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
