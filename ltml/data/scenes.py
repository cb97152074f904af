"""Draw scenes of pictograms: glyphs of DejaVu Sans, the font that matplotlib ships."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ltml.data import Split
from ltml.labels import LabelMatrix

__all__ = ["GLYPHS", "Scenes", "draw_scenes"]

GLYPHS = {
    **{"aeroplane": "\u2708", "anchor": "\u2693", "castle": "\u265c", "cat": "\U0001f431"},
    **{"crown": "\u265b", "cup": "\u2615", "envelope": "\u2709", "flag": "\u2691"},
    **{"flower": "\u273f", "gear": "\u2699", "hammer": "\u2692", "knight": "\u265e"},
    **{"note": "\u266b", "pencil": "\u270e", "scissors": "\u2702", "skull": "\u2620"},
    **{"snowflake": "\u2744", "star": "\u2605", "telephone": "\u260e", "umbrella": "\u2602"},
}
_DISTRACTORS = "?%@&8\u25cf\u25a0\u25b2\u271a\u2794\u266f\u00a7"

_SIZES = np.linspace(0.32, 0.46, 8)  # of a symbol, as shares of the image side
_ANGLES = np.linspace(-28, 28, 13)  # degrees
_CANDIDATES = 12  # places tried for a symbol; the one with least overlap is taken


@dataclass(frozen=True, eq=False, repr=False)
class Scenes(Split):
    """A split of drawn images that knows where each pictogram is."""

    boxes: np.ndarray  # int64 (M, 6), rows (image, class, x, y, width, height) in pixels


def draw_scenes(
    labels: Iterable[np.ndarray], *, image_size: int = 40, clutter: float = 3.0, seed=0, name=""
) -> Scenes:
    """Draw one scene for each list of class indices.

    Scene ``i`` depends on its labels, ``i`` and the options alone, not on the other scenes.

    Args:
        labels: class indices of every image, numbered as in :data:`GLYPHS`.
        image_size: side of the square images in pixels.
        clutter: mean number of distractors on an image.
        seed: an integer, or a sequence of them.
        name: of the split, for the images' ids.
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
    return Scenes(
        torch.from_numpy(images),
        LabelMatrix.from_lists(labels, tuple(GLYPHS)),
        [f"{name}/{i:06d}" for i in range(len(labels))],
        np.array(boxes, dtype=np.int64).reshape(-1, 6),
    )


@lru_cache(maxsize=4)
def _glyph_bank(image_size: int) -> list[list[list[np.ndarray]]]:
    """Masks in [0, 1] by glyph (classes, then distractors), size and angle, cropped to the ink."""
    sizes = _SIZES * image_size
    return [
        [[_shrink(image, size / side) for image in turned] for size in sizes]
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
