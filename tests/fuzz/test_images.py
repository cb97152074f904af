"""Image files of every kind that turns up, and of none: the right pixels or one error."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzz, mutated, outcome
from PIL import Image

from ltml import InputError, LabelMatrix, Split
from ltml.data.fetch import check_image
from ltml.data.loader import Loader, decode_image
from ltml.runs.recipe import Recipe
from ltml.training.setup import completed

N = 16  # side of the images, and of what they are decoded to: nothing is resized
rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (N, N)).astype(np.uint8)
RGB = rng.integers(0, 256, (N, N, 3)).astype(np.uint8)
ALPHA = rng.integers(0, 256, (N, N, 1)).astype(np.uint8)
DEEP = rng.integers(0, 65536, (N, N, 3)).astype(np.uint16)
INDEX = rng.integers(0, 4, (N, N)).astype(np.uint8)
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [10, 200, 30], [255, 255, 255]], np.uint8)
SMOOTH = np.tile(np.linspace(20, 235, N), (N, 1))  # what JPEG keeps
SMOOTH = np.stack([SMOOTH, SMOOTH.T, 255 - SMOOTH], -1).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def png(rows: np.ndarray, bits: int, colour: int, *chunks: bytes, size=None) -> bytes:
    """A PNG by its specification; ``size``: width and height that the header says."""
    height, width = rows.shape[:2]
    rows = rows.astype(f">u{max(bits // 8, 1)}").reshape(height, -1)
    if bits < 8:
        flat = np.unpackbits(rows[..., None], axis=-1)[..., -bits:]
        lines = [np.packbits(line).tobytes() for line in flat.reshape(height, -1)]
    else:
        lines = [line.tobytes() for line in rows]
    header = struct.pack(">IIBBBBB", *(size or (width, height)), bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunks)
        + data
        + chunk(b"IEND", b"")
    )


def saved(pixels, kind: str, mode: str | None = None, **options) -> bytes:
    """Bytes that Pillow writes."""
    image = Image.fromarray(pixels)
    if mode is not None:
        image = Image.frombytes(mode, image.size, pixels.tobytes())
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def grey(values) -> np.ndarray:
    return np.repeat(np.asarray(values, float)[..., None], 3, -1)


def animated() -> bytes:
    frames = [Image.fromarray(frame) for frame in (GREY, 255 - GREY)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


def on_white(pixels, alpha) -> np.ndarray:
    """What a viewer shows of a picture that is partly transparent."""
    pixels, share = np.asarray(pixels, float), np.asarray(alpha, float) / 255
    share = share.reshape(*pixels.shape[:2], 1)
    return pixels * share + 255 * (1 - share)


PLTE, TRNS = chunk(b"PLTE", PALETTE.tobytes()), chunk(b"tRNS", bytes([0, 128, 255]))
INKS = np.concatenate([RGB, ALPHA], -1)
PAPER = (255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255
FLAT_INKS = np.full((N, N, 4), (200, 30, 90, 40), np.uint8)
FLAT_PAPER = (255.0 - FLAT_INKS[..., :3]) * (255.0 - FLAT_INKS[..., 3:]) / 255
DEEP_GREY = grey(DEEP[..., 0]) / 257
SEEN = np.array([0, 128, 255, 255], np.uint8)  # what TRNS says of the palette
TRNS_7, GREY_7 = chunk(b"tRNS", b"\0\7"), 255 * (GREY != 7)
DEEP_KEY = chunk(b"tRNS", int(DEEP[0, 0, 0]).to_bytes(2, "big"))
DEEP_KEYED = on_white(DEEP_GREY, 255 * (DEEP[..., 0] != DEEP[0, 0, 0]))
DEEP_LA = on_white(DEEP_GREY, DEEP[..., 1] / 257)
DEEP_INKS = np.dstack([DEEP, DEEP[..., :1]])
DEEP_RGBA = on_white(DEEP / 257.0, DEEP[..., 0] / 257)
KEY = chunk(b"tRNS", b"".join(bytes([0, value]) for value in RGB[0, 0]))
KEYED = 255 * (RGB[0, 0] != RGB).any(-1)
BEST = {"quality": 95, "subsampling": 0}
# name -> bytes, the pixels they stand for, and how far off a right decoder may be
KINDS = {
    "grey": (png(GREY, 8, 0), grey(GREY), 0),
    "1-bit grey": (png(INDEX % 2, 1, 0), grey(INDEX % 2) * 255, 0),
    "2-bit grey": (png(INDEX, 2, 0), grey(INDEX) * 85, 0),
    "4-bit grey": (png(GREY % 16, 4, 0), grey(GREY % 16) * 17, 0),
    "16-bit grey": (png(DEEP[..., 0], 16, 0), grey(DEEP[..., 0]) / 257, 1),
    "grey with a transparent value": (png(GREY, 8, 0, TRNS_7), on_white(grey(GREY), GREY_7), 0),
    "grey and alpha": (png(np.dstack([GREY, ALPHA]), 8, 4), on_white(grey(GREY), ALPHA), 1),
    "16-bit grey and alpha": (png(DEEP[..., :2], 16, 4), DEEP_LA, 2),
    "RGB": (png(RGB, 8, 2), RGB, 0),
    "RGB with a transparent colour": (png(RGB, 8, 2, KEY), on_white(RGB, KEYED), 0),
    "RGB and alpha": (png(INKS, 8, 6), on_white(RGB, ALPHA), 1),
    "16-bit grey with a transparent value": (png(DEEP[..., 0], 16, 0, DEEP_KEY), DEEP_KEYED, 1),
    "16-bit RGB": (png(DEEP, 16, 2), DEEP / 257.0, 1),
    "16-bit RGB and alpha": (png(DEEP_INKS, 16, 6), DEEP_RGBA, 2),
    "palette": (png(INDEX, 8, 3, PLTE), PALETTE[INDEX], 0),
    "2-bit palette": (png(INDEX, 2, 3, PLTE), PALETTE[INDEX], 0),
    "transparent palette": (png(INDEX, 8, 3, PLTE, TRNS), on_white(PALETTE[INDEX], SEEN[INDEX]), 1),
    "1-bit TIFF": (saved(INDEX > 1, "TIFF"), grey(INDEX > 1) * 255, 0),
    "16-bit TIFF": (saved(DEEP[..., 0], "TIFF"), grey(DEEP[..., 0]) / 257, 1),
    "big-endian TIFF": (saved(DEEP[..., 0].astype(">u2"), "TIFF", "I;16B"), DEEP_GREY, 1),
    "32-bit TIFF of 16 bits": (saved(DEEP[..., 0].astype(np.int32), "TIFF"), DEEP_GREY, 1),
    "floating-point TIFF": (saved((GREY / 255).astype(np.float32), "TIFF"), grey(GREY), 0),
    "CMYK TIFF": (saved(INKS, "TIFF", "CMYK"), PAPER, 1.5),
    "CMYK JPEG": (saved(FLAT_INKS, "JPEG", "CMYK", quality=95), FLAT_PAPER, 4),
    "grey JPEG": (saved(SMOOTH[..., 0], "JPEG", quality=95), grey(SMOOTH[..., 0]), 4),
    "JPEG": (saved(SMOOTH, "JPEG", **BEST), SMOOTH, 6),
    "progressive JPEG": (saved(SMOOTH, "JPEG", progressive=True, **BEST), SMOOTH, 6),
    "BMP": (saved(RGB, "BMP"), RGB, 0),
    "WebP": (saved(RGB, "WEBP", lossless=True), RGB, 0),
    "animated GIF": (animated(), grey(GREY), 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_has_its_pixels(tmp_path, kind):
    """Colours are those of the specification, whatever the depth; transparent means white."""
    content, wanted, off = KINDS[kind]
    path = tmp_path / "a.jpg"  # whatever the suffix says
    path.write_bytes(content)
    pixels = decode_image(path, N)
    assert (pixels.shape, pixels.dtype) == ((3, N, N), torch.uint8)
    assert np.abs(pixels.permute(1, 2, 0).numpy() - np.asarray(wanted, float)).max() <= off
    check_image(path)


UPRIGHT = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "16-bit PNG", "16-bit TIFF", "palette"])
@pytest.mark.parametrize("orientation", [*UPRIGHT, 0, 9, 65535])
def test_turned_photos_stand_upright(tmp_path, orientation, kind):
    """Every EXIF orientation is undone, at every depth; one that does not exist is none."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (SMOOTH, 6) if kind == "JPEG" else (RGB, 0)
    if kind.startswith("16-bit"):
        content = saved(DEEP[..., 0], kind[7:], exif=exif)
        stored = grey(DEEP[..., 0]) / 257, 1
    elif kind == "palette":
        content = png(INDEX, 8, 3, PLTE, TRNS, chunk(b"eXIf", exif.tobytes()[6:]))
        stored = on_white(PALETTE[INDEX], SEEN[INDEX]), 1
    else:
        options = BEST if kind == "JPEG" else {}
        content = saved(stored[0], kind, exif=exif, **options)
    (tmp_path / "a").write_bytes(content)
    pixels = decode_image(tmp_path / "a", N).permute(1, 2, 0).numpy()
    wanted = UPRIGHT.get(orientation, UPRIGHT[1])(np.asarray(stored[0], float))
    assert np.abs(pixels - wanted).max() <= stored[1]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (2, 20_000)])
def test_extreme_shapes_are_squeezed(tmp_path, shape, bits):
    """One pixel fills the square; a line of 20,000 becomes its own means."""
    top = 2**bits - 1
    ramp = np.linspace(0, top, max(shape)).astype(int) if max(shape) > 1 else np.array([top // 3])
    rows = np.broadcast_to(ramp if shape[0] < shape[1] else ramp[:, None], shape)
    path = tmp_path / "a.png"
    path.write_bytes(png(rows, bits, 0))
    pixels = decode_image(path, 10).numpy().astype(float)
    if max(shape) == 1:
        assert (np.abs(pixels - 85) <= 1).all()
        return
    wanted = (np.arange(10) + 0.5) * 25.5
    wanted = np.broadcast_to(wanted if shape[0] < shape[1] else wanted[:, None], (3, 10, 10))
    inner = (..., slice(1, 9), slice(1, 9))  # at the edges fewer pixels are averaged
    assert np.abs(pixels - wanted)[inner].max() <= 1.5
    assert np.abs(pixels - wanted).max() <= 10


JPEG = KINDS["JPEG"][0]
SIZE_AT = JPEG.index(b"\xff\xc0") + 5
BROKEN = {
    "empty": b"",
    "text": b"this is no image\n",
    "HTML": b"<!DOCTYPE html><html>404</html>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "cut JPEG": JPEG[: len(JPEG) * 2 // 3],
    "JPEG header": JPEG[: SIZE_AT + 4],
    "cut PNG": png(RGB, 8, 2)[:-200],
    "PNG header": png(RGB, 8, 2)[:33],
    "PNG without data": png(RGB, 8, 2)[:33] + chunk(b"IEND", b""),
    "PNG checksum": png(RGB, 8, 2).replace(b"IHDR\0\0\0\x10", b"IHDR\0\0\0\x11"),
    "too wide for its data": png(RGB, 8, 2, size=(N * 100, N)),
    "no width": png(RGB, 8, 2, size=(0, N)),
    "bomb": png(GREY, 8, 0, size=(30_000, 30_000)),
    "lesser bomb": png(GREY, 8, 0, size=(10_000, 10_000)),
    "long bomb": png(GREY, 8, 0, size=(2**31 - 1, 1)),
    "JPEG bomb": JPEG[:SIZE_AT] + b"\xff" * 4 + JPEG[SIZE_AT + 4 :],
    "bomb of text": png(GREY, 8, 0, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
    "bomb of a profile": png(GREY, 8, 0, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))),
    "cut GIF": KINDS["animated GIF"][0][:30],
    "negative": saved(np.full((N, N), -1, np.int32), "TIFF"),
    "32-bit": saved(np.full((N, N), 70_000, np.int32), "TIFF"),
    "floating-point": saved(np.full((N, N), 1.5, np.float32), "TIFF"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_image_is_named(tmp_path, what):
    """One error with the file's name, from the decoder, the loader and the check of a data set."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(BROKEN[what])
    assert outcome(decode_image, path, N) is None
    split = Split([path], LabelMatrix([[1]]), ["photo"])
    assert outcome(lambda p: Loader(split, image_size=N), path) is None
    completed(Recipe(), split)  # which looks at some images' sizes, and leaves errors to the loader
    if what not in ("negative", "32-bit", "floating-point"):  # no benchmark has such files
        assert outcome(check_image, path) is None


@pytest.mark.parametrize("name", ["folder", "missing.jpg", "n" * 300, "nul\0.jpg"])
def test_what_is_no_file_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for read in (lambda path: decode_image(path, N), check_image):
        with pytest.raises(InputError, match=r"folder|missing|nnn|nul"):
            read(tmp_path / name)


@pytest.fixture
def few_pixels(monkeypatch):
    """Let no mutated header ask for half a gigabyte."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**20)


@pytest.mark.parametrize("strict", [True, False])
@given(data=st.data())
@fuzz(200)
def test_damaged_images_are_decoded_or_named(few_pixels, tmp_path_factory, strict, data):
    """No damage makes Pillow raise what is not caught, warnings as errors or not."""
    content = data.draw(mutated(KINDS[data.draw(st.sampled_from(sorted(KINDS)))][0]))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore")
        pixels = outcome(decode_image, path, 8)
        outcome(check_image, path)
    assert pixels is None or (pixels.shape, pixels.dtype) == ((3, 8, 8), torch.uint8)
