"""Images in two splits: found by path, by bytes, by pixels, and nearly."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import ltml
from ltml import InputError, LabelMatrix, LongTailData, Recipe, Split, fit
from ltml.cli import main
from ltml.data.leaks import find_copies, find_near_copies
from ltml.data.loader import Loader


def picture(seed, size=64):
    """A smooth picture, as photos are: noise on 6 x 6 points, enlarged."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Ten photos to train on and ten to test on, in two classes."""
    for name, first in (("train", 0), ("test", 10)):
        (tmp_path / name).mkdir()
        rows = []
        for i in range(10):
            picture(first + i).save(tmp_path / name / f"{i}.png")
            rows.append(f"{name}/{i}.png,{'cat' if i % 2 else 'dog'}\n")
        (tmp_path / f"{name}.csv").write_text("image,labels\n" + "".join(rows))
    return tmp_path


def probe(folder, *options):
    args = ["probe", str(folder), "--backbone", "small", "--weights", "None", "--quiet"]
    return main([*args, "--data", "folder", "--out", str(folder / "run"), "--overwrite", *options])


def test_clean_splits_pass_without_a_word(folder, caplog, capsys):
    assert probe(folder) == 0
    assert "images of the" not in caplog.text + capsys.readouterr().err
    assert "leaks" not in ltml.Run.load(folder / "run").summary


def test_the_split_that_was_trained_on_is_no_test_split(folder, capsys):
    assert probe(folder, "--test-split", "train") == 2
    assert "10 of 10 images of the test split are the same files" in capsys.readouterr().err
    assert probe(folder, "--test-split", "train", "--allow-leaks") == 0
    split = ltml.load("folder", root=folder).train
    recipe = Recipe.probe(backbone="small", weights=None)
    with pytest.raises(InputError, match="10 of 10 images of the test split are the same files"):
        fit(recipe, data=LongTailData("mine", split, split), out=folder / "r", progress=False)
    assert not (folder / "r").exists()


def test_copies_under_other_names_are_an_error_unless_allowed(folder, capsys, caplog):
    (folder / "test" / "3.png").write_bytes((folder / "train" / "7.png").read_bytes())
    assert probe(folder) == 2
    error = capsys.readouterr().err
    assert "1 of 10 images of the test split are copies, byte for byte" in error
    assert "test 'test/3.png' and train 'train/7.png'" in error
    assert not (folder / "run").exists()
    assert probe(folder, "--allow-leaks") == 0
    assert "copies, byte for byte" in caplog.text
    leaks = ltml.Run.load(folder / "run").summary["leaks"]
    assert leaks == [{"splits": ["train", "test"], "how": "bytes", "images": 1}]


def test_a_lossless_copy_in_another_format_is_exact(folder, capsys):
    picture(7).save(folder / "test" / "3.png", compress_level=0)
    assert probe(folder) == 2
    assert "show, pixel for pixel," in capsys.readouterr().err


@pytest.mark.parametrize("how", ["smaller", "jpeg", "brighter"])
def test_near_copies_are_said(folder, how, caplog):
    image = picture(7)
    if how == "smaller":
        image.resize((40, 40)).save(folder / "test" / "3.png")
    elif how == "jpeg":
        image.save(folder / "test" / "3.png", "JPEG", quality=50)
    else:
        image.point(lambda v: min(255, v + 3)).save(folder / "test" / "3.png")
    assert probe(folder) == 0
    assert "1 of 10 images of the test split look nearly like" in caplog.text
    assert "test 'test/3.png' and train 'train/7.png'" in caplog.text


def test_copies_in_the_validation_split_are_found(folder, capsys):
    rows = (folder / "train.csv").read_text()
    (folder / "val.csv").write_text(rows.replace("train/", "val/"))
    (folder / "val").mkdir()
    for i in range(10):
        picture(30 + i).save(folder / "val" / f"{i}.png")
    (folder / "val" / "0.png").write_bytes((folder / "test" / "5.png").read_bytes())
    assert probe(folder, "--val-split", "val") == 2
    assert "of the test split are copies, byte for byte, of images of the val" in (
        capsys.readouterr().err
    )


def test_arrays_in_memory_are_compared_too(tiny, tmp_path):
    images = tiny.test.images.clone()
    images[5] = tiny.train.images[3]
    data = LongTailData("mine", tiny.train, Split(images, tiny.test.labels, tiny.test.ids))
    recipe = Recipe(steps=2, batch_size=8, warmup=0)
    with pytest.raises(InputError, match="1 of 80 images of the test split show, pixel for pixel"):
        fit(recipe, data=data, out=tmp_path / "r", progress=False)


def test_only_files_of_one_size_are_read(folder, monkeypatch):
    read = []
    monkeypatch.setattr("ltml.data.leaks._digest", lambda file: read.append(file) or file)
    files = {n: [str(folder / n / f"{i}.png") for i in range(10)] for n in ("train", "test")}
    sizes = {n: {(folder / n / f"{i}.png").stat().st_size for i in range(10)} for n in files}
    find_copies(files)
    shared = sizes["train"] & sizes["test"]
    assert {(folder / f).stat().st_size for f in read} == shared


def test_links_are_the_files_they_lead_to(folder):
    (folder / "link.png").symlink_to(folder / "train" / "1.png")
    files = {"train": [str(folder / "train" / "1.png")], "test": [str(folder / "link.png"), ""]}
    (leak,) = find_copies(files)
    assert (leak.how, leak.first.tolist(), leak.second.tolist()) == ("file", [0], [0])


def _near(images, **options):
    loaders = {}
    for name, some in images.items():
        split = Split(some, LabelMatrix(torch.ones(len(some), 1)), range(len(some)))
        loaders[name] = Loader(split, image_size=some[0].shape[-1], **options)
    return find_near_copies(list(images), loaders, [])


def test_unlike_pictures_are_not_taken_for_copies():
    """Flat ones share their hash, and noise shares nothing."""
    flat = torch.stack([torch.full((3, 32, 32), v, dtype=torch.uint8) for v in (0, 60, 120)])
    other = torch.stack([torch.full((3, 32, 32), v, dtype=torch.uint8) for v in (30, 90, 200)])
    assert not _near({"train": flat, "test": other})
    noise = torch.randint(0, 256, (2, 50, 3, 32, 32), dtype=torch.uint8)
    assert not _near({"train": noise[0], "test": noise[1]})


def test_pictograms_have_no_copies(tiny, caplog):
    caplog.set_level(logging.INFO)
    assert not _near({name: split.images for name, split in tiny.splits.items()})


@pytest.mark.parametrize("keep", ["memory", "files"])
def test_copies_of_another_size_and_quality_are_found_kept_or_not(tmp_path, keep):
    random = torch.Generator().manual_seed(0)
    splits = {"train": [], "test": []}
    for i in range(12):
        coarse = torch.rand(3, 6, 6, generator=random)
        smooth = F.interpolate(coarse[None], (90, 120), mode="bicubic")[0].clamp(0, 1)
        picture = Image.fromarray((255 * smooth).byte().permute(1, 2, 0).numpy())
        picture.save(tmp_path / f"{i}.png")
        splits["train" if i < 6 else "test"].append(tmp_path / f"{i}.png")
        if i in (2, 4):
            picture.resize((100, 75)).save(tmp_path / f"copy{i}.jpg", quality=70)
            splits["test"].append(tmp_path / f"copy{i}.jpg")
    loaders = {
        name: Loader(
            Split(files, LabelMatrix(torch.ones(len(files), 1)), range(len(files))),
            image_size=64,
            keep="memory" if name == "train" else keep,
        )
        for name, files in splits.items()
    }
    (leak,) = find_near_copies(["train", "test"], loaders, [])
    names = [splits["test"][j].stem for j in leak.second]
    assert (leak.how, leak.first.tolist(), names) == ("nearly", [2, 4], ["copy2", "copy4"])


def test_what_is_held_out_does_not_depend_on_the_recipes_seed(folder, tmp_path):
    labels = LabelMatrix([[1, 0], [0, 1]] * 10)
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    split = Split(images, labels, [str(i) for i in range(20)])
    test = Split(255 - images, labels, split.ids)
    ids = []
    for seed in (0, 1):
        recipe = Recipe.probe(backbone="small", weights=None, holdout=0.3, seed=seed)
        data = LongTailData("mine", split, test)
        run = fit(recipe, data=data, out=tmp_path / str(seed), progress=False)
        ids.append(run.scores("val").ids)
    assert ids[0] == ids[1]
    old = {"data": "folder", "holdout": 0.3, "seed": 5}  # as runs of before were cut
    assert Recipe.from_dict(old).holdout_seed == 5
    assert Recipe.from_dict({**old, "holdout": 0.0}).holdout_seed == 0
