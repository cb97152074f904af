"""Rank labels that look wrong: those that the closed form contradicts when it has not seen them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor, nn

from ltml.core.devices import choose_device
from ltml.core.discriminant import SHRINKAGES, SharedCovariance
from ltml.core.errors import InputError
from ltml.core.options import checked, choose
from ltml.data.catalog import load
from ltml.data.loader import Loader
from ltml.data.single import class_names_of, find_table, load_table
from ltml.data.splits import LongTailData, Split
from ltml.runs.recipe import Positive, Recipe
from ltml.training.bank import Bank
from ltml.training.network import Classifier, make_backbone
from ltml.training.passes import pooled_features
from ltml.training.setup import completed

GIVEN = {"absent": 0.0, "present": 1.0, "unknown": np.nan}
_MOST = 1_000_000  # rows of a table of all pairs


@dataclass(frozen=True, eq=False, repr=False)
class Suspects:
    """Every label of a split beside what all other images say of it.

    Args:
        ids: ``N`` names of the images.
        files: ``N`` image files, ``""`` where there is none.
        class_names: ``C`` names.
        given: ``(N, C)`` float: 1 present, 0 absent, NaN unknown.
        score: ``(N, C)`` raw leave-one-out prediction: about 0 without and 1 with the class. It is
            not standardised by class, which would make the least unlikely image of every class
            look like one of it.
        suspicion: ``(N, C)`` in [0, 1]; see :func:`suspects`.
    """

    ids: tuple[str, ...]
    files: tuple[str, ...]
    class_names: tuple[str, ...]
    given: np.ndarray
    score: np.ndarray
    suspicion: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{self._of(name).sum():,} {name}" for name in GIVEN)
        return f"Suspects({len(self):,} images, {len(self.class_names)} classes: {sizes})"

    def _repr_html_(self) -> str:
        return self.table(limit=20).to_html(index=False)

    def _of(self, given: str) -> np.ndarray:
        wanted = choose("given", given, GIVEN)
        return np.isnan(self.given) if np.isnan(wanted) else self.given == wanted

    def table(
        self,
        given: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        per_class: int | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Tabulate pairs of an image and a class, the most suspect first.

        Args:
            given: ``"absent"``: labels that may be missing; ``"present"``: labels that may be
                false; ``"unknown"``: labels that are probably present; default: all.
            classes: names of the classes to look at; default: all.
            per_class: largest number of rows of each class; default: all.
            limit: largest number of rows in all; default: a million.

        Returns:
            a row per pair: image, class, given (1, 0 or NaN), score, suspicion.
        """
        mask = np.ones(self.score.shape, bool) if given is None else self._of(given)
        if classes is not None:
            column = {name: c for c, name in enumerate(self.class_names)}
            wanted = [choose("class", name, column) for name in classes]
            mask &= np.isin(np.arange(len(self.class_names)), wanted)
        for name, value in (("per_class", per_class), ("limit", limit)):
            if value is not None and value < 1:
                raise InputError(f"{name}={value}: give at least 1")
        i, c = np.nonzero(mask)
        order = np.lexsort((i, c, -self.suspicion[i, c]))
        i, c = i[order], c[order]
        if per_class is not None:
            kept = (pd.Series(c).groupby(c).cumcount() < per_class).to_numpy()
            i, c = i[kept], c[kept]
        i, c = (x[: limit or _MOST] for x in (i, c))
        columns = {
            "image": np.array(self.ids, dtype=object)[i],
            "class": np.array(self.class_names, dtype=object)[c],
            "given": self.given[i, c],
            "score": self.score[i, c],
            "suspicion": self.suspicion[i, c],
        }
        return pd.DataFrame(columns).astype({"given": "Int64"})


@checked
def suspects(
    data: LongTailData | Split | str | Path,
    /,
    *,
    backbone: str = "resnet50",
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    shrinkage: Positive | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    **options,
) -> Suspects:
    r"""Rank the labels of a training split by how far all its other images contradict them.

    A frozen backbone gives each image (and its mirror image) a feature; a classifier in closed form
    that was fitted without the image predicts its labels. No network is trained: the
    leave-one-out scores of all images follow from one solve; see
    :class:`ltml.core.discriminant.SharedCovariance`. With :math:`\mu_\pm, \sigma_\pm` the mean and
    deviation of the scores :math:`s` of all labels given as present and absent, over all classes,

    .. math::
        \text{suspicion} = \Phi\Bigl(\frac{s - \mu_+}{\sigma_+}\Bigr)
        \text{ of absent and unknown, } \quad
        \Phi\Bigl(\frac{\mu_- - s}{\sigma_-}\Bigr) \text{ of present labels:}

    about the share of the labels of the other kind that look less like it. Among labels of one kind
    this is the order of the scores.

    Args:
        data: a data set, whose training split is taken; a split; a
            :class:`~ltml.training.bank.Bank`, whose features are used as they are; or a folder, of
            which ``train.csv`` and the images are enough, or the table of labels itself.
        backbone: name of the backbone; see :class:`ltml.Recipe`.
        weights: weights of the backbone; see :class:`ltml.Recipe`.
        image_size: side of the square input in pixels; default: what suits images and backbone.
        shrinkage: shrinkage of the covariance; default: that of least leave-one-out error.
        device: auto (cuda, else mps, else cpu), or a torch device.
        progress: whether to show progress bars.
        options: options of a folder: ``data``, ``train_split`` and ``separator``, as of
            :func:`ltml.probe`.

    Raises:
        InputError: if the data or weights cannot be read.

    Example:
        >>> import ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> found = suspects(data, backbone="small", weights=None, progress=False)
        >>> found.table("absent", limit=3).columns.tolist()
        ['image', 'class', 'given', 'score', 'suspicion']
    """
    if isinstance(data, str | Path):
        data = load_train(data, **options)
    elif options:
        raise InputError(f"{next(iter(options))} is an option of a folder's loader; leave it out")
    train = data if isinstance(data, Split) else data.train
    if isinstance(data, Bank):
        features = torch.cat([part.float().mean((3, 4)) for part in train.images.split(512)])
    else:
        settings = {"backbone": backbone, "weights": weights, "image_size": image_size}
        features = _features(train, Recipe(**settings, device=device), progress)
    score = left_out(features, train.labels.dense(), shrinkage=shrinkage)
    given = train.labels.dense().float().numpy()
    ids, files = tuple(map(str, train.ids)), tuple(train.files or [""] * len(train))
    return Suspects(ids, files, train.labels.class_names, given, score, suspicion(given, score))


def load_train(
    root: str | Path,
    /,
    *,
    data: str = "folder",
    train_split: str | None = None,
    separator: str | None = None,
) -> Split:
    """Load the training split alone: of a folder with a table for it, the table, or a data set.

    Args:
        root: folder of the data, or the table of labels itself.
        data: name of the data set.
        train_split: name of the split to train on.
        separator: text between the labels of a table's cell.
    """
    if data == "folder":
        path = Path(root)
        if not path.is_file():
            path = find_table(root, train_split or "train")
        return load_table(path, class_names_of(path.parent), separator=separator)
    both = {} if train_split is None else {"train_split": train_split, "test_split": train_split}
    return load(data, root=root, **both).train


def left_out(features: Tensor, targets: Tensor, *, shrinkage: float | None = None) -> np.ndarray:
    """Predict each image's labels by the closed form of all others.

    Args:
        features: ``(N, D)``; or ``(N, V, D)``, with the views of an image, which are averaged.
        targets: ``(N, C)`` of 0 and 1, NaN where unknown.
        shrinkage: shrinkage of the covariance; default: that of least leave-one-out error.

    Returns:
        ``(N, C)`` float64, about 0 without and 1 with the class.
    """
    x = F.normalize(features.double(), dim=-1)
    x = x if x.ndim == 2 else x.mean(1)
    dim = x.shape[1]
    if len(x) < dim:  # rotated into as few coordinates as there are images: inner products stay
        x = torch.linalg.qr(x.mT, mode="r").R.mT
    classifier = SharedCovariance(targets.shape[1], x.shape[1])
    classifier.update(x, targets)
    # Relative to the mean variance over all coordinates that there were.
    shrinkages = [s * x.shape[1] / dim for s in (SHRINKAGES if shrinkage is None else [shrinkage])]
    y, least, best = targets.to(x).unsqueeze(1), np.inf, None
    for scores in classifier.leave_one_out(x, targets, shrinkages):
        error = (y - scores).square().nanmean().item()
        if error < least or best is None:
            least, best = error, scores
    return best.squeeze(1).numpy()


def suspicion(given: np.ndarray, score: np.ndarray) -> np.ndarray:
    """How suspect labels ``(N, C)`` are by their scores, in [0, 1]; see :func:`suspects`."""

    def unlike(kind: float, sign: int) -> np.ndarray:
        scores = score[given == kind]
        if len(scores) < 2:
            return np.full_like(score, 0.5)
        return norm.cdf(sign * (score - scores.mean()) / max(scores.std(), 1e-12))

    return np.where(given == 1, unlike(0, -1), unlike(1, 1))


def _features(split: Split, recipe: Recipe, progress: bool) -> Tensor:
    """Average-pooled features ``(N, V, D)`` of every image and of its mirror image."""
    size, recipe = recipe.image_size, completed(replace(recipe, augment="light"), split)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # of a backbone without weights
        backbone = make_backbone(
            recipe.backbone, weights=recipe.weights, image_size=recipe.image_size
        )
    backbone = backbone.to(choose_device(recipe.device), memory_format=torch.channels_last)
    loader = Loader(
        split,
        image_size=size or recipe.image_size,
        device=choose_device(recipe.device),
        augment="light",
        mean=backbone.mean,
        std=backbone.std,
        progress=progress,
    )
    model = Classifier(backbone.requires_grad_(False), nn.Identity())
    return pooled_features(model, loader, progress=progress)[0]
