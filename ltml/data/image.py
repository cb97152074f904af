"""What an image is: one rule for files, pictures, arrays and tensors, wherever they come in.

An image may be a file, by its path, opened, or as bytes; a PIL image, a NumPy array, a tensor (of
whichever library), or an item of Hugging Face that is not decoded yet, ``{"bytes": ..., "path":
...}``. Whichever it is, the same image has the same pixels:

- It stands upright (EXIF), and is RGB of 8 bits. Grey is repeated, CMYK and palettes are converted.
- Whole numbers are of 8 bits where none in the image is above 255, else of 16 bits, 0 to 65535,
  whatever type holds them. Floating-point numbers lie in [0, 1]; booleans are black and white.
  Anything else is refused.
- What is transparent lies on white: the colour that a file hides there does not count.
- Arrays and tensors are ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, with 1 (grey), 2 (grey and
  alpha), 3 (RGB) or 4 (RGBA) channels. Where first and last dimension could both be the channels,
  a tensor's are the first and an array's the last.
- It is decoded whole, then squeezed to the square that a network takes by Pillow's bilinear filter,
  which averages where it shrinks.
"""

import io
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
from PIL import Image, ImageOps
from PIL.Image import Resampling

from ltml.core.errors import InputError

log = logging.getLogger(__name__)
BILINEAR, BOX = Resampling.BILINEAR, Resampling.BOX

Image.init()
# Pillow has a name for these, and no decoder of its own.
_NAMES_ONLY = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF", "EPS"}
_READ = {*Image.OPEN, "MPO"} - _NAMES_ONLY
# Endings of the files that Pillow reads here, such as ".jpg".
IMAGE_SUFFIXES = frozenset(
    end for end, kind in Image.registered_extensions().items() if kind in _READ
)


def read_image(source, name: str | None = None) -> Image.Image:
    """Read an image of any kind, by the rule above.

    Args:
        source: image in any form of this module.
        name: name of the image in messages. Default: its path, or its type.

    Returns:
        a PIL image, RGB, of the image's own size.

    Raises:
        InputError: naming it, if it is missing, broken, or no image.
    """
    held = not isinstance(source, Image.Image) and hasattr(source, "__array__")
    try:
        if isinstance(source, Image.Image):
            return _rgb(source)
        if isinstance(source, Mapping):
            source = source["path"] if source.get("bytes") is None else source["bytes"]
        if isinstance(source, bytes | bytearray | memoryview):
            source = io.BytesIO(source)
        if held:
            return _rgb(_picture(source))
        with Image.open(source) as image:
            return _rgb(image)
    except Exception as error:  # Pillow raises many kinds over damaged files
        reason = str(error) or type(error).__name__
        if held:
            raise InputError(f"image {name or _name(source)}: {reason}") from error
        raise InputError(
            f"image {name or _name(source)} cannot be decoded ({reason}); replace it, or leave it "
            "out"
        ) from error


def square(image: Image.Image, size: int, resample: Resampling = BILINEAR) -> np.ndarray:
    """Squeeze an RGB image to ``(size, size, 3)`` uint8, which keeps every object in view."""
    return np.array(image.resize((size, size), resample))


def size_of(source) -> tuple[int, int]:
    """Width and height of an image; of a file, its header alone is read."""
    if isinstance(source, str | os.PathLike):
        with Image.open(source) as image:
            return image.size
    return (source if isinstance(source, Image.Image) else read_image(source)).size


def each_image(images) -> Iterator:
    """Go through a batch: an array or a tensor ``(N, H, W, C)`` or ``(N, C, H, W)``, or a sequence;
    one image is a batch of itself."""
    kinds = str | bytes | bytearray | memoryview | os.PathLike | Image.Image | Mapping
    one = isinstance(images, kinds) or hasattr(images, "read")
    if one or getattr(images, "ndim", 1) in (0, 2, 3):
        images = [images]
    try:
        return iter(images)
    except TypeError:
        raise InputError(
            f"images are of type {type(images).__name__}; give paths, a folder, pictures, arrays "
            "or tensors, or a split of a data set, such as data.test"
        ) from None


def _rgb(image: Image.Image) -> Image.Image:
    """Turn a picture upright, and to RGB of 8 bits on white."""
    image = ImageOps.exif_transpose(image)
    hidden = image.info.get("transparency")
    if image.mode[0] in "IF":  # of more than 8 bits, which Pillow would clip to 255
        pixels = np.asarray(image)
        image = Image.fromarray(_in_bytes(pixels))
        if isinstance(hidden, int):
            shown = Image.fromarray((pixels != hidden) * np.uint8(255))
            image = Image.merge("LA", (image, shown))
    if image.mode == "La":
        image = image.convert("LA")
    clear = image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if clear or (image.mode == "P" and image.palette.mode == "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _picture(source) -> Image.Image:
    """Make a picture of an array or a tensor."""
    tensor = hasattr(source, "detach")
    if tensor:
        source = source.detach().cpu()
        if str(source.dtype) == "torch.bfloat16":  # which NumPy lacks
            source = source.float()
    pixels = np.asarray(source)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    ends = [n in (1, 2, 3, 4) for n in pixels.shape]
    if len(ends) != 3 or 0 in pixels.shape or not (ends[0] or ends[2]):
        raise ValueError(
            f"its shape is {pixels.shape}; give (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels"
        )
    if ends[0] and (tensor or not ends[2]):
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = np.ascontiguousarray(_in_bytes(pixels))
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _in_bytes(pixels: np.ndarray) -> np.ndarray:
    """Bring pixels of any type and depth to uint8."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"its values are of type {pixels.dtype}; give whole or real numbers")
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind in "iu":
        if low < 0 or high > 65535:
            raise ValueError(f"its integers span {low} to {high}; give 0 to 255, or 0 to 65535")
        if 0 < high < 256 and pixels.dtype.itemsize == 2:
            _say_once("an image of 16 bits has no value above 255; such are read as of 8 bits")
        if high > 255:
            pixels = (pixels.astype(np.uint32) + 128) // 257
        return pixels.astype(np.uint8)
    slack = 1e-4  # what resizing floats leaves
    if not (low >= -slack and high <= 1 + slack):  # NaN fails as well
        raise ValueError(
            f"float images span {low:.3g} to {high:.3g}; give values in [0, 1], not normalised"
        )
    return np.rint(255 * pixels.astype(np.float64)).clip(0, 255).astype(np.uint8)


@cache
def _say_once(text: str) -> None:
    log.warning("%s", text)


def _name(source) -> str:
    if isinstance(source, str | os.PathLike):
        return repr(str(source))
    shape = getattr(source, "shape", None) or getattr(source, "size", None)
    return f"of type {type(source).__name__}" + (
        f" and size {tuple(shape)}" if isinstance(shape, tuple) else ""
    )
