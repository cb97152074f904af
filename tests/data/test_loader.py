import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

from ltml import InputError, LabelMatrix, LongTailData, Split
from ltml.core.devices import free_memory
from ltml.core.seeding import generator
from ltml.data.augment import RandomColor, RandomCrop, RandomShift, _colour, _crop
from ltml.data.loader import MEAN, STD, Loader, in_memory


@pytest.fixture
def files(tmp_path):
    """Twelve smooth photos on disk, with labels."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(12):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        paths.append(tmp_path / f"{i}.png")
        small.resize((50, 40), Image.Resampling.BICUBIC).save(paths[-1])
    labels = LabelMatrix(rng.integers(0, 2, (12, 3)))
    return Split(paths, labels, [p.name for p in paths])


def plain(images):
    """Undo the normalisation."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return images * std + mean


def test_batches_hold_the_right_images_and_targets(files):
    loader = Loader(files, image_size=32)
    index = torch.tensor([3, 0, 3])
    ((images, targets),) = loader.batches([index])
    assert torch.equal(targets, files.labels.dense(index.numpy()).float())
    for image, i in zip(plain(images), index.tolist(), strict=True):
        expected = Image.open(files.images[i]).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.allclose(255 * image.permute(1, 2, 0), np.asarray(expected), atol=1e-2)


@pytest.mark.parametrize("keep", ["device", "memory", "files"])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_wherever_images_are_kept_and_whatever_the_index_batches_are_the_same(files, keep, kind):
    index = [[i, i + 1, 0] for i in range(8)]
    reference = list(Loader(files, image_size=32, keep="memory").batches(map(torch.tensor, index)))
    batches = list(Loader(files, image_size=32, keep=keep).batches(map(kind, index)))
    assert len(batches) == 8
    for ours, theirs in zip(batches, reference, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_pictures_and_tensors_are_images_too(files):
    """PIL images are read as their files are; tensors of another size are resized."""
    pictures = Split([Image.open(path) for path in files.images], files.labels, files.ids)
    ((images, _),) = Loader(pictures, image_size=32).batches([range(12)])
    ((expected, _),) = Loader(files, image_size=32).batches([range(12)])
    assert torch.equal(images, expected)
    pixels = torch.randint(0, 256, (12, 3, 20, 20), dtype=torch.uint8)
    tensors = Split(pixels, files.labels, files.ids)
    for keep in ("memory", "files"):
        ((images, _),) = Loader(tensors, image_size=32, keep=keep).batches([range(12)])
        found = (plain(images) * 255).round()
        # torch before 2.7 rounds some bytes the other way
        assert (found - v2.functional.resize(pixels, 32)).abs().max() <= 1


def test_normalisation_is_that_of_the_backbone(files):
    loader = Loader(files, image_size=32, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    ((ours, _),) = loader.batches([[0]])
    ((theirs, _),) = Loader(files, image_size=32).batches([[0]])
    for c, (m, s) in enumerate([(0.5, 0.5), (0.4, 0.25), (0.3, 0.2)]):
        assert torch.allclose(ours[0, c], (plain(theirs)[0, c] - m) / s, atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("missing", ["sched_getaffinity", "sysconf"])
def test_systems_that_tell_less(files, monkeypatch, missing):
    """macOS has no sched_getaffinity, Windows no sysconf either."""
    monkeypatch.delattr(os, missing)
    ((images, _),) = Loader(files, image_size=32).batches([[0, 1]])
    assert images.shape == (2, 3, 32, 32)


def test_indices_without_end(files):
    """Training asks for batches from an endless sampler, and takes as many as it wants."""
    endless = iter(lambda: [0, 1], None)
    for keep in ("memory", "files"):
        batches = Loader(files, image_size=32, keep=keep).batches(endless)
        assert [len(next(batches)[0]) for _ in range(3)] == [2, 2, 2]
        batches.close()


def test_images_are_decoded_once_for_several_trainings(files):
    data = in_memory(LongTailData("files", files, files, val=files), 32)
    assert isinstance(data.val.images, torch.Tensor)
    ((images, _),) = Loader(data.test, image_size=32).batches([torch.arange(12)])
    ((expected, _),) = Loader(files, image_size=32).batches([torch.arange(12)])
    assert torch.equal(images, expected)
    assert data.train.labels == files.labels


def test_augmentation_depends_on_seed_and_step_only(files):
    loader = Loader(files, image_size=32, augment="strong")
    index = [torch.arange(12)] * 3
    first, second, third = (images for images, _ in loader.batches(index, seed=1))
    assert not torch.equal(first, second)
    ((resumed, _),) = loader.batches(index[:1], seed=1, numbers=[2])
    assert torch.equal(resumed, third)
    ((other, _),) = loader.batches(index[:1], seed=2)
    assert not torch.equal(other, first)


@pytest.mark.parametrize("view", [RandomCrop(zoom=0.5), RandomShift(shift=0.3), RandomColor()])
def test_each_image_has_its_own_view(view):
    view.generator = generator(0, "t", 0)
    image = torch.rand(1, 3, 16, 16).repeat(8, 1, 1, 1)
    out = view(image)
    assert len({tuple(x.flatten().tolist()) for x in out}) > 5


def test_views_without_randomness_are_the_identity_and_its_mirror():
    image = torch.rand(4, 3, 9, 9)
    assert torch.allclose(RandomCrop(zoom=1, flip=0)(image), image, atol=1e-5)
    assert torch.allclose(RandomCrop(zoom=1, flip=1)(image), image.flip(-1), atol=1e-5)
    assert torch.equal(RandomShift(shift=0, flip=0)(image), image)
    assert torch.equal(RandomShift(shift=0, flip=1)(image), image.flip(-1))


def test_shifts_are_whole_and_repeat_the_edge():
    image = torch.arange(2 * 3 * 5 * 7).view(2, 3, 5, 7)
    shift = RandomShift(shift=0.5, flip=0.5)
    shift.generator = generator(0, "t", 1)
    padded = F.pad(image.double(), (4, 4, 4, 4), mode="replicate").long()
    views = [
        view if flip == 0 else view.flip(-1)
        for dy in range(9)
        for dx in range(9)
        for flip in (0, 1)
        for view in [padded[..., dy : dy + 5, dx : dx + 7]]
    ]
    for _ in range(20):
        out = shift(image)
        for i in range(2):
            assert any(torch.equal(out[i], view[i]) for view in views)


def test_zoomed_view_is_torchvisions_crop():
    """A crop at given corners equals torchvision's resized crop of the same corners."""
    image, theta = torch.rand(1, 3, 32, 32), torch.tensor([[[0.5, 0, -0.5], [0, 0.5, -0.5]]])
    expected = v2.functional.resized_crop(image, 0, 0, 16, 16, [32, 32], antialias=False)
    inside = (..., slice(1, -2), slice(1, -2))  # beyond the crop's edge torchvision sees nothing
    assert torch.allclose(_crop(image, theta)[inside], expected[inside], atol=1e-5)


@pytest.mark.parametrize("which", range(3))
def test_colour_factors_are_torchvisions(which):
    image = torch.rand(2, 3, 8, 8)
    factors = torch.ones(3, 2, 1, 1, 1)
    factors[which, 0], factors[which, 1] = 0.7, 1.2
    adjust = [
        v2.functional.adjust_brightness,
        v2.functional.adjust_contrast,
        v2.functional.adjust_saturation,
    ][which]
    out = _colour(image, factors)
    expected = torch.stack([adjust(image[0], 0.7), adjust(image[1], 1.2)])
    assert torch.allclose(out, expected, atol=1e-5)


def test_a_corrupt_file_is_named(files, tmp_path):
    cut = tmp_path / "5.png"
    cut.write_bytes(cut.read_bytes()[:60])
    with pytest.raises(InputError, match=r"5\.png.*cannot be decoded"):
        Loader(files, image_size=32)
    with pytest.raises(InputError, match=r"5\.png.*cannot be decoded"):
        list(Loader(files, image_size=32, keep="files").batches([torch.arange(12)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 2}, "image_size=2"),
        ({"image_size": 32, "keep": "moon"}, "keep='moon'"),
        (
            {"image_size": 32, "augment": "wild"},
            "augment 'wild' is unknown.*none, shift",
        ),
    ],
)
def test_bad_options_are_named(files, options, message):
    with pytest.raises(InputError, match=message):
        Loader(files, **options)


def test_float_images_out_of_range_are_named(files):
    split = Split(torch.rand(12, 3, 32, 32) * 255, files.labels, files.ids)
    with pytest.raises(InputError, match=r"image '.*' ?: float images span .*give values in"):
        Loader(split, image_size=32)


def test_free_memory_counts_what_the_system_would_give_up():
    told = [x for x in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in x]
    available = 1024 * int(told[0].split()[1])
    assert free_memory() == pytest.approx(available, rel=0.2)


@pytest.mark.parametrize("keep", ["memory", "files"])
def test_unknown_labels_are_nan_in_the_targets(keep):
    rng = np.random.default_rng(0)
    Y = rng.integers(0, 2, (12, 3)).astype(np.float32)
    Y[rng.random(Y.shape) < 0.3] = np.nan
    images = torch.zeros(12, 3, 8, 8, dtype=torch.uint8)
    loader = Loader(Split(images, LabelMatrix(Y), range(12)), image_size=8, keep=keep)
    index = [[4, 4, 0], torch.tensor([11, 2])]
    for rows, (_, targets) in zip(index, loader.batches(index), strict=True):
        assert targets.dtype == torch.float32
        np.testing.assert_array_equal(targets.numpy(), Y[rows])
