"""The embedded data set: scenes of pictograms with the label counts of VOC-LT."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.options import Bounds, Seed, build, checked
from ltml.data.splits import LongTailData, Split

# Glyphs of DejaVu Sans, the font that matplotlib ships.
GLYPHS = {
    **{"aeroplane": "\u2708", "anchor": "\u2693", "castle": "\u265c", "cat": "\U0001f431"},
    **{"crown": "\u265b", "cup": "\u2615", "envelope": "\u2709", "flag": "\u2691"},
    **{"flower": "\u273f", "gear": "\u2699", "hammer": "\u2692", "knight": "\u265e"},
    **{"note": "\u266b", "pencil": "\u270e", "scissors": "\u2702", "skull": "\u2620"},
    **{"snowflake": "\u2744", "star": "\u2605", "telephone": "\u260e", "umbrella": "\u2602"},
}
_DISTRACTORS = "?%@&8\u25cf\u25a0\u25b2\u271a\u2794\u266f\u00a7"

# VOC-LT's 2346 labels, dealt out so that look-alikes (knight, castle, crown; star, flower, gear,
# snowflake) are common and rare.
_COUNTS = (249, 34, 14, 100, 4, 479, 64, 20, 240, 6, 17, 11, 48, 7, 82, 8, 5, 29, 154, 775)
# Themes stand for the indoor (1) and outdoor (2) photos of VOC: classes of one theme share images;
# umbrellas (0) are everywhere.
_THEME = np.array([2, 2, 2, 1, 1, 1, 1, 2, 1, 2, 2, 1, 1, 1, 1, 2, 2, 2, 1, 0])

_LABELS_PER_IMAGE = 2346 / 1142  # of VOC-LT
_HEAD = 6  # classes with at least 100 images in VOC-LT, by which every image there is anchored
_MOST_LABELS = 4  # on one image: more do not fit side by side
_OTHER_THEME = 0.15  # weight of placing a label in an image of the other theme
_PULL = 2.0  # weight of the commonest class's images for the rarer classes

_SIZES = np.linspace(0.32, 0.46, 8)  # of a symbol, as shares of the image side
_ANGLES = np.linspace(-28, 28, 13)  # degrees
_CANDIDATES = 12  # places tried for a symbol; the one with least overlap is taken


@checked
def load(
    *,
    # Upper bounds keep a slip from filling the memory.
    scale: Annotated[float, Bounds("[0.01, 100]")] = 2.0,
    image_size: Annotated[int, Bounds("[16, 512]")] = 40,
    clutter: Annotated[float, Bounds("[0, 50]")] = 3.0,
    # Beyond 1.5, a class would fill every image.
    imbalance: Annotated[float, Bounds("[0, 1.5]")] = 1.0,
    test_images: Annotated[int, Bounds("[10, 1e6]")] = 1500,
    seed: Seed = 0,
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
        seed: seed of all randomness; training and test split use separate streams of it.

    Raises:
        InputError: if an option is out of range.

    Example:
        >>> data = load(scale=1, image_size=32, test_images=100)
        >>> sorted(data.train.labels.counts.tolist())[::19]
        [4, 775]
    """
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

    Every image gets one label of a common class (its anchor), which settles its theme. The other
    labels, commonest class first, go to images by weights: more to those of their theme, and rarer
    ones more to those with the commonest class, as VOC-LT's tail to those with persons.
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


@dataclass(frozen=True, eq=False, repr=False)
class Scenes(Split):
    """A split of drawn images that knows where each pictogram is."""

    boxes: np.ndarray  # (M, 6): image, class, x, y, width, height in pixels


def draw_scenes(
    labels: Iterable[np.ndarray], *, image_size: int = 40, clutter: float = 3.0, seed=0, name=""
) -> Scenes:
    """Draw one scene for each list of class indices.

    Scene ``i`` depends on its labels, ``i`` and the options alone, not on the other scenes.
    """
    labels, bank = list(labels), _glyph_bank(image_size)
    images = np.empty((len(labels), 3, image_size, image_size), dtype=np.uint8)
    boxes = []
    for i, classes in enumerate(labels):
        rng = np.random.default_rng([*np.atleast_1d(seed), i])
        canvas, dark = _background(rng, image_size)
        # Symbols are placed before clutter is drawn, so that their places do not depend on it.
        symbols = _place_symbols(rng, classes, bank, image_size, dark)
        for _ in range(rng.poisson(clutter)):
            _draw_distractor(rng, canvas, bank, dark)
        for label, mask, x, y, colour in symbols:
            _blend(canvas, mask, x, y, colour)
            boxes.append((i, label, x, y, mask.shape[1], mask.shape[0]))
        images[i] = np.rint(np.clip(canvas, 0, 1) * 255)
    ids, boxes = [f"{name}/{i:06d}" for i in range(len(labels))], np.array(boxes).reshape(-1, 6)
    matrix = LabelMatrix.from_lists(labels, tuple(GLYPHS))
    return Scenes(torch.from_numpy(images), matrix, ids, boxes)


@lru_cache(maxsize=4)
def _glyph_bank(image_size: int) -> list[list[list[np.ndarray]]]:
    """Masks in [0, 1] by glyph (classes, then distractors), size and angle, cropped to the ink."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font, bank = ImageFont.truetype(str(path), 96), []
    for glyph in [*GLYPHS.values(), *_DISTRACTORS]:
        large = Image.new("L", (288, 288))
        # A little bolder than the font, for outlines to survive at 14 pixels.
        ImageDraw.Draw(large).text((144, 144), glyph, 255, font, anchor="mm", stroke_width=1)
        left, top, right, bottom = large.getbbox()
        side = (max(right - left, bottom - top) + ((right - left) * (bottom - top)) ** 0.5) / 2
        turned = [large.rotate(angle, Image.Resampling.BICUBIC) for angle in _ANGLES]
        turned = [image.crop(image.getbbox()) for image in turned]
        ratios = _SIZES * image_size / side
        bank.append([[_shrink(image, ratio) for image in turned] for ratio in ratios])
    return bank


def _shrink(image: Image.Image, ratio: float) -> np.ndarray:
    width, height = (max(2, round(side * ratio)) for side in image.size)
    mask = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    mask = np.where(mask < 0.04, 0, mask)  # faint fringes would only widen the boxes
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


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


def _place_symbols(rng, classes, bank, size: int, dark: bool) -> list[tuple]:
    """Choose ``(label, mask, x, y, colour)`` of each symbol."""
    classes = rng.permutation(np.asarray(classes, dtype=np.int64))
    if 0 < len(classes) < 3 and rng.random() < 0.2:
        classes = np.append(classes, rng.choice(classes))  # one of them is there twice
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
        symbols.append((label, mask, x, y, _colour(rng, lightness, 0.3)))
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


def export_coco(out: str | Path, **options) -> Path:
    """Write the data set that :func:`load` returns as PNGs and COCO instances files.

    They lie in ``train/``, ``test/`` and ``annotations/``, with a box for every pictogram. The
    folder appears whole or not at all.

    Args:
        out: folder to make; it may exist if it is empty.
        options: those of :func:`load`.

    Raises:
        InputError: if an option is bad, or ``out`` holds something or cannot be written.
    """
    out, data = Path(out), build(load, "data 'pictograms'", options)
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise InputError(f"out {str(out)!r} exists and is not an empty folder; give a new folder")
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


def _write_coco_split(out: Path, name: str, scenes: Scenes) -> None:
    (out / name).mkdir()
    size, files = scenes.images.shape[-1], [f"{i:06d}.png" for i in range(len(scenes))]
    for file, pixels in zip(files, scenes.images.permute(0, 2, 3, 1), strict=True):
        Image.fromarray(pixels.numpy()).save(out / name / file)
    content = {
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
    (out / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
