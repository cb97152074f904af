"""The embedded data set: scenes of pictograms with the label counts of VOC-LT, drawn on the spot.

Nothing is downloaded. See :mod:`ltml.data.scenes` for how a scene is drawn.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltml.data import LongTailData, Split
from ltml.data.scenes import Scenes, draw_scenes
from ltml.errors import InputError

__all__ = ["PROFILE", "export_coco", "load"]

# name: (VOC-LT count it gets at scale 1, theme). Counts do not follow the alphabet, and
# look-alikes (knight, castle, crown; star, flower, gear, snowflake) are spread over them.
# Themes stand for the indoor and outdoor photos of VOC: classes of one theme share images.
_CLASSES = {
    "aeroplane": (249, "out"),
    "anchor": (34, "out"),
    "castle": (14, "out"),
    "cat": (100, "in"),
    "crown": (4, "in"),
    "cup": (479, "in"),
    "envelope": (64, "in"),
    "flag": (20, "out"),
    "flower": (240, "in"),
    "gear": (6, "out"),
    "hammer": (17, "out"),
    "knight": (11, "in"),
    "note": (48, "in"),
    "pencil": (7, "in"),
    "scissors": (82, "in"),
    "skull": (8, "out"),
    "snowflake": (5, "out"),
    "star": (29, "out"),
    "telephone": (154, "in"),
    "umbrella": (775, "any"),
}
PROFILE = {name: count for name, (count, _) in _CLASSES.items()}  # sums to 2346 labels
_NAMES = tuple(_CLASSES)
_THEME = np.array([("any", "in", "out").index(theme) for _, theme in _CLASSES.values()])

_LABELS_PER_IMAGE = 2346 / 1142  # of VOC-LT
_HEAD = 6  # classes with at least 100 images in VOC-LT, by which every image there is anchored
_MOST_LABELS = 4  # on one image: more do not fit side by side
_OTHER_THEME = 0.15  # weight of placing a label in an image of the other theme
_PULL = 2.0  # weight of the commonest class's images for the rarer classes


def load(
    *,
    scale: float = 2.0,
    image_size: int = 40,
    clutter: float = 3.0,
    imbalance: float = 1.0,
    test_images: int = 1500,
    seed: int = 0,
    **unknown,
) -> LongTailData:
    r"""Draw the pictogram data set: a long-tailed training split and a balanced test split.

    Class :math:`c`, which has :math:`n_c` of the 2346 labels of VOC-LT (775 down to 4), gets
    exactly

    .. math:: \max\Bigl(1,\ \operatorname{round}\Bigl(
        2346\, s\, \frac{n_c^{\gamma}}{\sum_k n_k^{\gamma}}\Bigr)\Bigr)

    training images, with :math:`s` = ``scale`` and :math:`\gamma` = ``imbalance``, on about
    :math:`1142\, s` images. As in VOC-LT an image has two labels on average, and at the default
    ``imbalance`` every image of a rarer class also holds one of the six commonest. In the test
    split every class is equally frequent. Equal options give equal pixels.

    Args:
        scale: size of the training split, as a multiple of VOC-LT. 2 gives 2284 images.
        image_size: side of the square images in pixels, at least 16.
        clutter: mean number of distractors (lines, blobs, other glyphs) on an image; symbols stay
            where they are when it changes.
        imbalance: exponent on VOC-LT's profile, 0 (balanced) to 1.5; 1 is VOC-LT's. The number of
            images does not depend on it.
        test_images: size of the test split, at least 10.
        seed: of all randomness; training and test split use separate streams of it.
        unknown: refused, by name.

    Raises:
        InputError: if an option is unknown or out of range.

    Example:
        >>> data = load(scale=1, image_size=32, test_images=100)
        >>> data.train.labels.counts.max(), data.train.labels.counts.min()
        (np.int64(775), np.int64(4))
        >>> data.train.images.shape
        torch.Size([1142, 3, 32, 32])
    """
    options = dict(
        scale=scale,
        image_size=image_size,
        clutter=clutter,
        imbalance=imbalance,
        test_images=test_images,
        seed=seed,
    )
    splits = _draw_splits(options | unknown)
    return LongTailData(
        "pictograms",
        *(
            Split(
                torch.from_numpy(scenes.images),
                scenes.labels,
                [f"{name}/{i:06d}" for i in range(len(scenes.labels))],
            )
            for name, scenes in splits.items()
        ),
    )


def export_coco(out: str | Path, **options) -> Path:
    """Write the data set that :func:`load` returns as PNGs and COCO instances files.

    The folder holds ``train/*.png``, ``test/*.png``, ``annotations/instances_train.json`` and
    ``annotations/instances_test.json``, with a box for every pictogram. It appears whole or not at
    all.

    Args:
        out: folder to make; it may exist if it is empty.
        options: those of :func:`load`.

    Returns:
        ``out`` as a path.

    Raises:
        InputError: if an option is bad, or ``out`` holds something or cannot be written.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"out {str(out)!r} exists and is not an empty folder; give a new folder")
    splits = _draw_splits(options)
    # Written beside its place and renamed, so that a failure leaves no half-written data set.
    partial = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.partial")
    try:
        (partial / "annotations").mkdir(parents=True)
        for name, scenes in splits.items():
            _write_coco_split(partial, name, scenes)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise InputError(
            f"out {str(out)!r} cannot be written ({error.strerror or error}); give another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write_coco_split(root: Path, name: str, scenes: Scenes) -> None:
    (root / name).mkdir()
    size = scenes.images.shape[-1]
    images = []
    for i, pixels in enumerate(scenes.images):
        file_name = f"{i:06d}.png"
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(
            root / name / file_name
        )
        images.append({"id": i + 1, "file_name": file_name, "width": size, "height": size})
    annotations = [
        {
            "id": k + 1,
            "image_id": image + 1,
            "category_id": label + 1,
            "bbox": [x, y, w, h],
            "area": w * h,
            "iscrowd": 0,
        }
        for k, (image, label, x, y, w, h) in enumerate(scenes.boxes.tolist())
    ]
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(_NAMES)]
    content = {
        "info": {"description": "ltml pictograms"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def _draw_splits(options: dict) -> dict[str, Scenes]:
    """Check the options of :func:`load`, fill in defaults and draw both splits."""
    defaults = load.__kwdefaults__
    for name in options:
        if name not in defaults:
            raise InputError(
                f"pictograms have no option {name!r}; choose from {', '.join(defaults)}"
            )
    o = defaults | options
    # (option, whole number?, least, most); the upper bounds keep a slip from filling the memory.
    bounds = [
        ("scale", False, 0.01, 100),
        ("image_size", True, 16, 512),
        ("clutter", False, 0, 50),
        ("imbalance", False, 0, 1.5),  # beyond, one class would need more images than there are
        ("test_images", True, 10, 10**6),
        ("seed", True, 0, 2**63 - 1),
    ]
    for name, whole, least, most in bounds:
        kind = (int, np.integer) if whole else (int, float, np.integer, np.floating)
        ok = isinstance(o[name], kind) and not isinstance(o[name], bool)
        if not (ok and least <= o[name] <= most):
            noun = "a whole number" if whole else "a number"
            raise InputError(
                f"pictograms option {name} is {o[name]!r}; give {noun} from {least} to {most}"
            )
    total = sum(PROFILE.values()) * o["scale"]
    share = np.array(list(PROFILE.values()), dtype=float) ** o["imbalance"]
    counts = np.maximum(1, np.rint(total * share / share.sum())).astype(np.int64)
    test = np.full(len(_NAMES), max(1, round(o["test_images"] * _LABELS_PER_IMAGE / len(_NAMES))))
    plans = {
        "train": (counts, max(counts.max(), round(counts.sum() / _LABELS_PER_IMAGE))),
        "test": (test, o["test_images"]),
    }
    splits = {}
    for stream, (name, (n, images)) in enumerate(plans.items()):
        pull = _PULL ** o["imbalance"] if name == "train" else 1.0
        lists = _label_lists(n, images, pull, np.random.default_rng([o["seed"], stream]))
        splits[name] = draw_scenes(
            lists, image_size=o["image_size"], clutter=o["clutter"], seed=(o["seed"], stream)
        )
    return splits


def _label_lists(counts, num_images, pull, rng) -> list[np.ndarray]:
    """Deal labels to images: column sums are exactly ``counts``, no image is empty.

    First every image gets one label of a common class (its anchor), which settles its theme. Then
    the remaining labels, commonest class first, go to images by weights: more to images of their
    theme, and the rarer ones more to images with the commonest class, as in VOC-LT, where 92 % of
    the tail's images show a person.
    """
    order = np.argsort(-counts, kind="stable")
    # Six anchor classes suffice for VOC-LT's profile; flatter profiles need more of them.
    enough = np.searchsorted(np.cumsum(counts[order]), 1.25 * num_images) + 1
    anchors = order[: max(_HEAD, enough)]
    quota = np.zeros_like(counts)
    quota[anchors[0]] = counts[anchors[0]]
    others, rest = anchors[1:], num_images - counts[anchors[0]]
    exact = rest * counts[others] / counts[others].sum()
    quota[others] = exact.astype(np.int64)
    quota[
        others[np.argsort(quota[others] - exact, kind="stable")[: rest - quota[others].sum()]]
    ] += 1

    Y = np.zeros((num_images, len(counts)), dtype=bool)
    anchor = rng.permutation(np.repeat(np.arange(len(counts)), quota))
    Y[np.arange(num_images), anchor] = True
    theme = _THEME[anchor]
    theme[theme == 0] = rng.choice([1, 2], p=[0.6, 0.4], size=(theme == 0).sum())
    for rank, c in enumerate(order):
        weight = np.where((_THEME[c] == 0) | (theme == _THEME[c]), 1.0, _OTHER_THEME)
        if rank >= _HEAD:
            weight = np.where(Y[:, order[0]], pull, 1.0) * weight
        # Exponential keys: the smallest ones are a weighted draw without replacement.
        key = rng.exponential(size=num_images) / weight
        key[Y[:, c] | (Y.sum(1) >= _MOST_LABELS)] = np.inf
        Y[np.argsort(key)[: counts[c] - quota[c]], c] = True
    return [np.flatnonzero(row) for row in Y]
