"""What an image is: whichever way the same image comes in, it gets the same scores."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ltml
from ltml import InputError, LabelMatrix, Recipe, Split, fit
from ltml.data.image import IMAGE_SUFFIXES, read_image

rng = np.random.default_rng(0)
H, W = 37, 52  # neither a square, nor what the network takes
GREY = (rng.integers(0, 256, (H, W)) // 2 + np.arange(W) * 2).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
ALPHA = np.where(np.arange(W) < 20, 0, rng.integers(0, 256, (H, W))).astype(np.uint8)
RGBA, LA = np.dstack([RGB, ALPHA]), np.dstack([GREY, ALPHA])
CHANNELS = {"grey": GREY, "grey and alpha": LA, "RGB": RGB, "RGBA": RGBA}

TYPES = {
    "uint8": lambda x: x,
    **{
        kind: lambda x, kind=kind: x.astype(kind)
        for kind in ("int16", "uint16", ">i2", "int32", "uint32", "int64", ">i8", "uint64")
    },
    **{
        f"{kind} of 16 bits": lambda x, kind=kind: x.astype(kind) * 257
        for kind in ("uint16", "int32", "uint32", "int64")
    },
    **{
        f"{kind} in [0, 1]": lambda x, kind=kind: (x / 255).astype(kind)
        for kind in ("float16", "float32", "float64", ">f4")
    },
}
LAYOUTS = {
    "(H, W, C)": lambda x: x,
    "(C, H, W)": lambda x: np.moveaxis(np.atleast_3d(x), -1, 0),
    "(H, W, C), negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "(H, W, C), every second": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "(H, W, C), column by column": np.asfortranarray,
    "(H, W, 1)": np.atleast_3d,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    recipe = Recipe(batch_size=16, steps=20, warmup=5, device="cpu")
    return fit(recipe, data=tiny, out=tmp_path_factory.mktemp("runs") / "a", progress=False)


@pytest.fixture(scope="module")
def wanted(run):
    """Probabilities of each picture, as a PIL image."""
    return {name: scores(run, [Image.fromarray(x)]) for name, x in CHANNELS.items()}


def scores(run, images) -> np.ndarray:
    return run.predict(images, device="cpu", progress=False).to_numpy()


def everywhere(run, image) -> list[np.ndarray]:
    """The probabilities of an array or tensor, whichever door it takes."""
    split = Split([image], LabelMatrix([[1] * 20], run.config["data"]["class_names"]), ["a"])
    with torch.no_grad():
        found = [scores(run, image), scores(run, [image]), scores(run, split)]
        found += [scores(run, image[None])] if image.ndim == 3 else []
        return [*found, run.model()([image]).sigmoid().numpy()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_arrays_of_every_type_and_layout(run, wanted, channels, kind, layout):
    image = LAYOUTS[layout](TYPES[kind](CHANNELS[channels]))
    assert np.array_equal(read_image(image), read_image(Image.fromarray(CHANNELS[channels])))
    if layout == "(C, H, W)" and kind in ("uint8", "int64", "float32 in [0, 1]"):
        for found in everywhere(run, image):
            assert np.abs(found - wanted[channels]).max() < 1e-6


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kind", [*TYPES, "bfloat16"])
def test_tensors_of_every_type(run, wanted, channels, kind):
    first = torch.from_numpy(np.ascontiguousarray(LAYOUTS["(C, H, W)"](CHANNELS[channels])))
    if kind == "bfloat16":
        image = first.to(torch.bfloat16) / 255
        off = read_image(image), read_image(image.float())
        assert np.array_equal(*off)
        return
    array = TYPES[kind](first.numpy())
    image = torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    assert np.array_equal(read_image(image), read_image(Image.fromarray(CHANNELS[channels])))
    with torch.no_grad():
        alone = run.model()(image).sigmoid().numpy()
        batch = run.model()(torch.stack([image, image])).sigmoid().numpy()
    assert np.abs(alone - wanted[channels]).max() < 1e-6
    assert np.abs(batch - wanted[channels]).max() < 1e-6


def test_booleans_are_black_and_white(run):
    mask = GREY > 90
    shown = scores(run, [Image.fromarray(mask.astype(np.uint8) * 255)])
    pictures = mask, mask[..., None], np.repeat(mask[..., None], 3, -1), torch.from_numpy(mask)
    for image in (*pictures, Image.fromarray(mask)):
        assert np.abs(scores(run, [image]) - shown).max() < 1e-6


MODES = {
    "1": Image.fromarray(GREY > 90),
    "L": Image.fromarray(GREY),
    "LA": Image.fromarray(LA),
    "La": Image.fromarray(LA).convert("La"),
    "P": Image.fromarray(RGB).quantize(50),
    "P of RGBA": Image.fromarray(RGBA).quantize(50),
    "PA": Image.fromarray(GREY).convert("P").convert("PA"),
    "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(RGBA),
    "RGBa": Image.fromarray(RGBA).convert("RGBa"),
    "RGBX": Image.fromarray(RGB).convert("RGBX"),
    "CMYK": Image.fromarray(RGB).convert("CMYK"),
    "YCbCr": Image.fromarray(RGB).convert("YCbCr"),
    "HSV": Image.fromarray(RGB).convert("HSV"),
    "I": Image.fromarray(GREY.astype(np.int32)),
    "I of 16 bits": Image.fromarray(GREY.astype(np.int32) * 257),
    "I;16": Image.fromarray(GREY.astype(np.uint16) * 257),
    "F": Image.fromarray((GREY / 255).astype(np.float32)),
}
FILES = {
    "png": ("1", "L", "LA", "P", "P of RGBA", "RGB", "RGBA", "I;16"),
    "tif": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I", "I of 16 bits", "I;16", "F"),
    "jpg": ("L", "RGB", "CMYK", "YCbCr"),
    "webp": ("RGB", "RGBA"),
    "gif": ("L", "P", "P of RGBA"),
    "bmp": ("1", "L", "RGB", "P"),
    "jp2": ("L", "RGB", "RGBA"),
    "avif": ("RGB",),
    "jfif": ("RGB",),
    "ppm": ("RGB", "L"),
    "tga": ("RGBA", "RGB"),
    "ico": ("RGBA",),
    "dds": ("RGBA",),
    "sgi": ("RGB",),
}


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_mode_are_what_a_viewer_shows(mode):
    """By another way than ours: Pillow's, in RGBA pasted on white."""
    image = MODES[mode]
    if mode[0] in "IF":
        shown = Image.fromarray(GREY).convert("RGB")
    else:
        whole = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGBA"))
        alpha, shown = whole.getchannel("A"), Image.new("RGB", image.size, "white")
        colour = image.convert("RGB") if mode in ("CMYK", "YCbCr", "HSV") else whole.convert("RGB")
        shown.paste(colour, mask=alpha)
    off = np.asarray(read_image(image), int) - np.asarray(shown, int)
    assert np.abs(off).max() <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Hugging Face
@pytest.mark.filterwarnings("ignore:unclosed file")
@pytest.mark.parametrize(("ending", "mode"), [(e, m) for e, modes in FILES.items() for m in modes])
def test_a_file_is_the_same_by_every_way(run, tmp_path, ending, mode):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / f"a.{ending}"
    try:
        MODES[mode].save(path)
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow here does not write it: {error}")
    assert path.suffix in IMAGE_SUFFIXES
    by_path = scores(run, path)
    with Image.open(path) as image:
        image.load()
    names = run.config["data"]["class_names"]
    rows = {"image": [str(path)], "label": [[0]]}
    kinds = {"image": datasets.Image(), "label": datasets.List(datasets.ClassLabel(names=names))}
    hugging = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    ways = [
        [image],
        [str(path)],
        tmp_path,
        [{"bytes": path.read_bytes(), "path": None}],
        [{"bytes": None, "path": str(path)}],
        [np.asarray(read_image(path))],
        Split([path], LabelMatrix([[1] * 20], names), ["a"]),
        ltml.data.from_dataset(hugging),
        ltml.data.from_dataset(hugging.cast_column("image", datasets.Image(decode=False))),
        ltml.data.from_dataset([(image, [0] * 19 + [1])] * 2, class_names=names),
    ]
    if image.mode not in ("P", "CMYK", "YCbCr") and "transparency" not in image.info:
        ways.append([np.asarray(image)])  # which arrays alone do not tell
    for way in ways:
        assert np.abs(scores(run, way)[:1] - by_path).max() < 1e-6
    with Image.open(path) as lazy:
        assert np.abs(scores(run, lazy) - by_path).max() < 1e-6
    for way in ([path], path, image, [image], np.asarray(read_image(path))):
        with torch.no_grad():
            assert np.abs(run.model()(way).sigmoid().numpy() - by_path).max() < 1e-6


@pytest.mark.parametrize("size", [(1200, 900), (448, 448), (90, 30)])
def test_no_file_is_decoded_at_a_fraction_of_its_size(tmp_path, size):
    noise = rng.integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=90)
    with Image.open(tmp_path / "a.jpg") as image:
        image.load()
    assert np.array_equal(read_image(tmp_path / "a.jpg"), np.asarray(image))


def hidden_under(colour) -> list[Image.Image]:
    """A square on what is fully transparent, which hides a colour, as four kinds of picture."""
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[8:24, 8:24] = 200, 30, 30, 255
    whole = Image.fromarray(pixels)
    keyed = Image.fromarray(pixels[..., :3])
    keyed.info["transparency"] = tuple(colour)
    return [whole, whole.quantize(8), whole.convert("RGBa"), keyed]


@pytest.mark.parametrize("colour", [(0, 255, 0), (255, 255, 255), (9, 9, 9)])
@pytest.mark.parametrize("kind", range(4))
def test_a_hidden_colour_does_not_count(colour, kind):
    shown = np.asarray(read_image(hidden_under(colour)[kind]))
    assert np.array_equal(shown, read_image(hidden_under((0, 0, 0))[kind]))
    assert (shown[0, 0] == 255).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(float), "float images span"),
        ((RGB / 255 - 0.45) / 0.22, "not normalised"),
        (np.full((8, 8, 3), np.nan), "float images span nan"),
        (RGB.astype(int) - 100, "integers span -"),
        (RGB.astype(int) * 300, "integers span 1800 to 74700"),
        (RGB + 1j, "type complex128"),
        (np.zeros((8, 8, 5)), r"shape is \(8, 8, 5\)"),
        (np.zeros((5, 8, 8)), r"shape is \(5, 8, 8\)"),
        (np.zeros((0, 8, 3)), r"shape is \(0, 8, 3\)"),
        (torch.rand(3, 8, 8) * 2, "float images span"),
        (torch.zeros(2, 2, 3, 8, 8), r"shape is \(2, 3, 8, 8\)"),
        (np.array(["a", "b"]), "'a' does not exist"),
        (np.full((8, 8, 3), "1"), "type <U1"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(run, image, message):
    with pytest.raises(InputError, match=message) as error:
        run.predict(image, progress=False)
    assert "\n" not in str(error.value)
    if isinstance(image, torch.Tensor) or image.ndim > 1:
        with pytest.raises(InputError, match=message):
            run.model()(image)


@pytest.mark.parametrize("images", [None, 3, 0.5, object(), len, True])
def test_what_holds_no_images_is_refused(run, tiny, images):
    for call in (lambda x: run.predict(x, progress=False), run.model()):
        with pytest.raises(InputError, match=r"images are of type \w+; give paths.*data\.test"):
            call(images)
        with pytest.raises(InputError, match="images are of type LongTailData"):
            call(tiny)


@pytest.mark.parametrize("text", ["", "nowhere", "a\0b", "https://example.org/a.jpg"])
def test_text_that_is_no_path_is_refused(run, text):
    for images in (text, [text]):
        with pytest.raises(InputError, match="does not exist; give image files or folders"):
            run.predict(images, progress=False)


def test_encoded_images_are_those_of_their_file(run, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    content, by_path = path.read_bytes(), scores(run, path)
    for way in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert np.abs(scores(run, way) - by_path).max() < 1e-6
    assert np.abs(scores(run, [path, content]) - by_path).max() < 1e-6
    with path.open("rb") as file, torch.no_grad():
        assert np.abs(run.model()(file).sigmoid().numpy() - by_path).max() < 1e-6
    with pytest.raises(InputError, match=r"the first: image .* cannot be decoded"):
        run.predict(b"no image", progress=False)


def test_a_folder_says_what_was_left_out(run, tmp_path, caplog):
    for ending in ("jfif", "avif", "jp2", "PNG"):
        kind = {"jfif": "JPEG", "jp2": "JPEG2000"}.get(ending, ending)
        Image.fromarray(RGB).save(tmp_path / f"a.{ending}", kind)
    for name in ("notes.txt", "b.csv", "c.csv", ".hidden"):
        (tmp_path / name).write_text("x")
    table = run.predict(tmp_path, progress=False)
    assert [Path(name).suffix for name in table.index] == [".PNG", ".avif", ".jfif", ".jp2"]
    assert "3 files" in caplog.text
    assert "2 .csv, 1 .txt" in caplog.text


def test_a_class_may_be_called_image(tiny, tmp_path):
    names = ("image", "labels", "file_image", *tiny.class_names[3:])
    parts = {
        name: Split(part.images, LabelMatrix(part.labels.dense(), names), part.ids)
        for name, part in tiny.splits.items()
    }
    out = tmp_path / "run"
    fit(Recipe(steps=1, warmup=0), data=ltml.LongTailData("x", **parts), out=out, progress=False)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    from ltml.cli import main

    args = ["predict", out, tmp_path / "a.png", "--csv", tmp_path / "p.csv", "--quiet"]
    for _ in range(2):  # its own table may be replaced
        assert main([str(arg) for arg in args]) == 0
    header = (tmp_path / "p.csv").read_text().splitlines()[0].split(",")
    assert header[:2] == ["file_file_image", "image"]
    assert len(set(header)) == len(header)


def test_pictures_survive_pickling_through_bytes(tmp_path):
    held = io.BytesIO()
    Image.fromarray(RGB).save(held, "PNG")
    assert np.array_equal(read_image({"bytes": held.getvalue(), "path": "x.png"}), RGB)
