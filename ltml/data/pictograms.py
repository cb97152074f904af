"""The embedded data set: scenes of pictograms with the label counts of VOC-LT."""

import json
import numbers
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ltml.data import LongTailData
from ltml.data.scenes import GLYPHS, Scenes, draw_scenes
from ltml.errors import InputError
from ltml.options import build

__all__ = ["PROFILE", "export_coco", "load"]

# VOC-LT's counts for the classes of GLYPHS. They do not follow the alphabet, and look-alikes
# (knight, castle, crown; star, flower, gear, snowflake) are spread over them.
_COUNTS = (249, 34, 14, 100, 4, 479, 64, 20, 240, 6, 17, 11, 48, 7, 82, 8, 5, 29, 154, 775)
PROFILE = dict(zip(GLYPHS, _COUNTS, strict=True))  # 2346 labels
# Themes stand for the indoor (1) and outdoor (2) photos of VOC: classes of one theme share images;
# umbrellas (0) are everywhere.
_THEME = np.array([2, 2, 2, 1, 1, 1, 1, 2, 1, 2, 2, 1, 1, 1, 1, 2, 2, 2, 1, 0])

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
) -> LongTailData:
    r"""Draw the pictogram data set: a long-tailed training split and a balanced test split.

    Class :math:`c`, which has :math:`n_c` of the 2346 labels of VOC-LT (775 down to 4), gets

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

    Raises:
        InputError: if an option is out of range.

    Example:
        >>> data = load(scale=1, image_size=32, test_images=100)
        >>> data.train.labels.counts.max(), data.train.labels.counts.min()
        (np.int64(775), np.int64(4))
    """
    for name, value, kind, least, most in (  # upper bounds keep a slip from filling the memory
        ("scale", scale, numbers.Real, 0.01, 100),
        ("image_size", image_size, numbers.Integral, 16, 512),
        ("clutter", clutter, numbers.Real, 0, 50),
        ("imbalance", imbalance, numbers.Real, 0, 1.5),  # beyond, a class would fill every image
        ("test_images", test_images, numbers.Integral, 10, 10**6),
        ("seed", seed, numbers.Integral, 0, 2**63 - 1),
    ):
        if not (isinstance(value, kind) and least <= value <= most):
            noun = "a whole number" if kind is numbers.Integral else "a number"
            raise InputError(
                f"pictograms option {name} is {value!r}; give {noun} from {least} to {most}"
            )
    share = np.array(_COUNTS, dtype=float) ** imbalance
    train = np.maximum(1, np.rint(sum(_COUNTS) * scale * share / share.sum())).astype(np.int64)
    train_images = max(train.max(), round(train.sum() / _LABELS_PER_IMAGE))
    test = np.full(len(train), max(1, round(test_images * _LABELS_PER_IMAGE / len(train))))
    plans = ("train", train, train_images, _PULL**imbalance), ("test", test, test_images, 1.0)
    splits = []
    for stream, (name, counts, images, pull) in enumerate(plans):
        lists = _label_lists(counts, images, pull, np.random.default_rng([seed, stream]))
        options = {"image_size": image_size, "clutter": clutter, "seed": (seed, stream)}
        splits.append(draw_scenes(lists, name=name, **options))
    return LongTailData("pictograms", *splits)


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
    first, *others = order[: max(_HEAD, enough)]
    quota = np.zeros_like(counts)
    quota[first] = counts[first]
    exact = (num_images - counts[first]) * counts[others] / counts[others].sum()
    quota[others] = exact.astype(np.int64)
    largest = np.argsort(quota[others] - exact, kind="stable")[: num_images - quota.sum()]
    quota[np.array(others)[largest]] += 1

    Y = np.zeros((num_images, len(counts)), dtype=bool)
    anchor = rng.permutation(np.repeat(np.arange(len(counts)), quota))
    Y[np.arange(num_images), anchor] = True
    theme = _THEME[anchor]
    theme[theme == 0] = rng.choice([1, 2], p=[0.6, 0.4], size=(theme == 0).sum())
    for rank, c in enumerate(order):
        weight = np.where((_THEME[c] == 0) | (theme == _THEME[c]), 1.0, _OTHER_THEME)
        if rank >= _HEAD:
            weight = np.where(Y[:, order[0]], pull, 1.0) * weight
        # Exponential keys: the smallest ones are a weighted sample without replacement.
        key = rng.exponential(size=num_images) / weight
        key[Y[:, c] | (Y.sum(1) >= _MOST_LABELS)] = np.inf
        Y[np.argsort(key)[: counts[c] - quota[c]], c] = True
    return [np.flatnonzero(row) for row in Y]


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
    data = build(load, "data 'pictograms'", options)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            part = Path(folder, "part")
            (part / "annotations").mkdir(parents=True)
            for name, scenes in data.splits.items():
                _write_coco_split(part, name, scenes)
            if out.exists():
                out.rmdir()
            part.rename(out)
    except OSError as error:
        raise InputError(
            f"out {str(out)!r} cannot be written ({error.strerror or error}); give another folder"
        ) from error
    return out


def _write_coco_split(root: Path, name: str, scenes: Scenes) -> None:
    (root / name).mkdir()
    size, files = scenes.images.shape[-1], [f"{i:06d}.png" for i in range(len(scenes))]
    for file, pixels in zip(files, scenes.images.permute(0, 2, 3, 1), strict=True):
        Image.fromarray(pixels.numpy()).save(root / name / file)
    content = {
        "info": {"description": "ltml pictograms"},
        "images": [
            {"id": i, "file_name": file, "width": size, "height": size}
            for i, file in enumerate(files, 1)
        ],
        "annotations": [
            {"id": k, "image_id": image + 1, "category_id": label + 1,
             "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            for k, (image, label, x, y, w, h) in enumerate(scenes.boxes.tolist(), 1)
        ],
        "categories": [{"id": c, "name": name} for c, name in enumerate(GLYPHS, 1)],
    }  # fmt: skip
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
