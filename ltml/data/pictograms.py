"""The embedded data set: scenes of pictograms with the label counts of VOC-LT, drawn on the spot.

Nothing is downloaded. The symbols are glyphs of DejaVu Sans, the font that matplotlib ships.
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ltml.data import LongTailData, Split
from ltml.errors import InputError
from ltml.labels import LabelMatrix

__all__ = ["GLYPHS", "PROFILE", "Scenes", "draw_scenes", "export_coco", "load"]

# name: (glyph, VOC-LT count it gets at scale 1, theme). Counts do not follow the alphabet, and
# look-alikes (knight, castle, crown; star, flower, gear, snowflake) are spread over them.
# Themes stand for the indoor and outdoor photos of VOC: classes of one theme share images.
_CLASSES = {
    "aeroplane": ("\u2708", 249, "out"),
    "anchor": ("\u2693", 34, "out"),
    "castle": ("\u265c", 14, "out"),
    "cat": ("\U0001f431", 100, "in"),
    "crown": ("\u265b", 4, "in"),
    "cup": ("\u2615", 479, "in"),
    "envelope": ("\u2709", 64, "in"),
    "flag": ("\u2691", 20, "out"),
    "flower": ("\u273f", 240, "in"),
    "gear": ("\u2699", 6, "out"),
    "hammer": ("\u2692", 17, "out"),
    "knight": ("\u265e", 11, "in"),
    "note": ("\u266b", 48, "in"),
    "pencil": ("\u270e", 7, "in"),
    "scissors": ("\u2702", 82, "in"),
    "skull": ("\u2620", 8, "out"),
    "snowflake": ("\u2744", 5, "out"),
    "star": ("\u2605", 29, "out"),
    "telephone": ("\u260e", 154, "in"),
    "umbrella": ("\u2602", 775, "any"),
}
GLYPHS = {name: glyph for name, (glyph, _, _) in _CLASSES.items()}
PROFILE = {name: count for name, (_, count, _) in _CLASSES.items()}  # sums to 2346 labels
_NAMES = tuple(_CLASSES)
_THEME = np.array([("any", "in", "out").index(theme) for _, _, theme in _CLASSES.values()])
_DISTRACTORS = "?%@&8\u25cf\u25a0\u25b2\u271a\u2794\u266f\u00a7"

_LABELS_PER_IMAGE = 2346 / 1142  # of VOC-LT
_HEAD = 6  # classes with at least 100 images in VOC-LT, by which every image there is anchored
_MOST_LABELS = 4  # on one image: more do not fit side by side
_OTHER_THEME = 0.15  # weight of placing a label in an image of the other theme
_PULL = 2.0  # weight of the commonest class's images for the rarer classes

_SIZES = np.linspace(0.32, 0.46, 8)  # of a symbol, as shares of the image side
_ANGLES = np.linspace(-28, 28, 13)  # degrees
_CANDIDATES = 12  # places tried for a symbol; the one with least overlap is taken


@dataclass(frozen=True)
class Scenes:
    """Drawn images, and where each pictogram stands on them.

    Args:
        images: uint8 ``(N, 3, S, S)``.
        labels: ``(N, 20)``.
        boxes: int64 ``(M, 6)``, rows ``(image, class, x, y, width, height)`` in pixels, ordered by
            image; a pictogram drawn twice has two rows.
    """

    images: np.ndarray
    labels: LabelMatrix
    boxes: np.ndarray


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


def draw_scenes(
    labels: Iterable[np.ndarray], *, image_size: int = 40, clutter: float = 3.0, seed=0
) -> Scenes:
    """Draw one scene for each list of class indices.

    Scene ``i`` depends on its labels, ``i`` and the options alone, not on the other scenes.

    Args:
        labels: class indices of every image, numbered as in :data:`GLYPHS`.
        image_size: side of the square images in pixels.
        clutter: mean number of distractors on an image.
        seed: an integer, or a sequence of them.
    """
    labels = list(labels)
    bank = _glyph_bank(image_size)
    images = np.empty((len(labels), 3, image_size, image_size), dtype=np.uint8)
    boxes = []
    for i, classes in enumerate(labels):
        rng = np.random.default_rng([*np.atleast_1d(seed), i])
        canvas, dark = _background(rng, image_size)
        # Symbols are placed before clutter is drawn, so that their places do not depend on it.
        symbols = _place_symbols(rng, classes, bank, image_size, dark)
        for _ in range(rng.poisson(clutter)):
            _draw_distractor(rng, canvas, bank, dark)
        for s in symbols:
            _blend(canvas, s.mask, s.x, s.y, s.colour)
            boxes.append((i, s.label, s.x, s.y, s.mask.shape[1], s.mask.shape[0]))
        images[i] = np.rint(np.clip(canvas, 0, 1) * 255)
    return Scenes(
        images,
        LabelMatrix.from_lists(labels, _NAMES),
        np.array(boxes, dtype=np.int64).reshape(-1, 6),
    )


class _Symbol(NamedTuple):
    label: int
    mask: np.ndarray
    x: int
    y: int
    colour: np.ndarray


@lru_cache(maxsize=4)
def _glyph_bank(image_size: int) -> list[list[list[np.ndarray]]]:
    """Masks in [0, 1] by glyph (classes, then distractors), size and angle, cropped to the ink."""
    return [
        [[_shrink(image, share * image_size / side) for image in turned] for share in _SIZES]
        for side, turned in _large_glyphs()
    ]


@lru_cache(maxsize=1)
def _large_glyphs() -> list[tuple[float, list[Image.Image]]]:
    """Side and turned images of each glyph, at 96 points: the slow part, alike for all sizes."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(path), 96)
    glyphs = []
    for glyph in [*GLYPHS.values(), *_DISTRACTORS]:
        large = Image.new("L", (288, 288))
        # A little bolder than the font, for outlines to survive at 14 pixels.
        ImageDraw.Draw(large).text((144, 144), glyph, 255, font, anchor="mm", stroke_width=1)
        left, top, right, bottom = large.getbbox()
        side = (max(right - left, bottom - top) + ((right - left) * (bottom - top)) ** 0.5) / 2
        turned = [large.rotate(angle, Image.Resampling.BICUBIC) for angle in _ANGLES]
        glyphs.append((side, [image.crop(image.getbbox()) for image in turned]))
    return glyphs


def _shrink(image: Image.Image, ratio: float) -> np.ndarray:
    width, height = (max(2, round(side * ratio)) for side in image.size)
    mask = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    mask = np.where(mask < 0.04, 0, mask)  # faint fringes would only widen the boxes
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mask.setflags(write=False)  # shared by all scenes
    return mask


def _colour(rng, lightness: float, chroma: float) -> np.ndarray:
    """``(3, 1, 1)`` RGB of the given lightness and a random hue."""
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    return np.clip(lightness + chroma * np.cos(hue), 0, 1).astype(np.float32)[:, None, None]


def _background(rng, size: int) -> tuple[np.ndarray, bool]:
    """Draw ``(3, S, S)``, a soft gradient of two colours with noise; say whether it is dark."""
    dark = bool(rng.random() < 0.5)
    lightness = rng.uniform(0.12, 0.38) if dark else rng.uniform(0.62, 0.9)
    first = _colour(rng, lightness, 0.12)
    second = _colour(rng, lightness + rng.uniform(-0.12, 0.12), 0.12)
    y, x = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + (x * np.cos(angle) + y * np.sin(angle)) / 1.5
    noise = rng.standard_normal((3, size, size), dtype=np.float32)
    return first + (second - first) * ramp + 0.03 * noise, dark


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres, from -0.5 to 0.5: ``y`` as a column, ``x`` as a row."""
    centres = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return centres[:, None], centres[None, :]


def _place_symbols(rng, classes, bank, size: int, dark: bool) -> list[_Symbol]:
    classes = rng.permutation(np.asarray(classes, dtype=np.int64))
    if 0 < len(classes) < 3 and rng.random() < 0.2:
        classes = np.append(classes, rng.choice(classes))  # one of them stands there twice
    largest = len(_SIZES) if len(classes) < 4 else len(_SIZES) // 2  # a crowd stands closer
    symbols, taken = [], np.empty((0, 4))
    for label in classes.tolist():
        mask = bank[label][rng.integers(largest)][rng.integers(len(_ANGLES))]
        h, w = mask.shape
        corner = (rng.random((_CANDIDATES, 2)) * (size - w + 1, size - h + 1)).astype(np.int64)
        x, y = corner[:, :1], corner[:, 1:]
        left, top, right, bottom = taken.T
        overlap = np.maximum(np.minimum(x + w, right) - np.maximum(x, left), 0) * np.maximum(
            np.minimum(y + h, bottom) - np.maximum(y, top), 0
        )
        x, y = corner[overlap.sum(1).argmin()].tolist()
        taken = np.vstack([taken, (x, y, x + w, y + h)])
        lightness = rng.uniform(0.75, 0.95) if dark else rng.uniform(0.05, 0.25)
        symbols.append(_Symbol(label, mask, x, y, _colour(rng, lightness, 0.3)))
    return symbols


def _draw_distractor(rng, canvas: np.ndarray, bank, dark: bool) -> None:
    """Draw a line, a blob or a glyph of no class, of less contrast than the symbols."""
    size = canvas.shape[-1]
    colour = _colour(rng, rng.uniform(0.2, 0.7) if dark else rng.uniform(0.3, 0.8), 0.25)
    kind = rng.integers(3)
    if kind == 0:
        masks = bank[len(GLYPHS) + rng.integers(len(_DISTRACTORS))]
        mask = masks[rng.integers(len(_SIZES) // 2)][rng.integers(len(_ANGLES))]
        x, y = (rng.random(2) * (size - np.array(mask.shape[::-1]) + 1)).astype(int)
        _blend(canvas, 0.6 * mask, x, y, colour)
        return
    y, x = _grid(size)
    angle, (x0, y0) = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5, 2)
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
    if kind == 1:  # a line a pixel or so wide, of limited length
        outside = np.maximum(np.abs(across), np.abs(along) - rng.uniform(0.1, 0.4))
        mask = np.clip(40 * (rng.uniform(0.015, 0.03) - outside) + 0.5, 0, 1)
    else:
        length, width = rng.uniform(0.06, 0.2, 2)
        mask = np.exp(-((along / length) ** 2) - (across / width) ** 2)
    _blend(canvas, 0.6 * mask, 0, 0, colour)


def _blend(canvas: np.ndarray, mask: np.ndarray, x: int, y: int, colour: np.ndarray) -> None:
    part = canvas[:, y : y + mask.shape[0], x : x + mask.shape[1]]
    part += mask * (colour - part)
