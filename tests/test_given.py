"""Data that a training is given: its record tells which they are, and no others pass for them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import ltml
from ltml import InputError, LabelMatrix, LongTailData, Recipe, Run, Split, fit, resume
from ltml.data.holdout import with_holdout
from ltml.data.loader import Loader, in_memory
from ltml.training.setup import data_of, load_data, told

QUICK = Recipe(steps=2, batch_size=8, image_size=16, warmup=0, device="cpu", allow_leaks=True)
FIELDS = ("data", "root", "data_options", "train_split", "val_split", "test_split", "holdout")


def photos(folder, names="abcdefgh", seed=0):
    """A table of images of noise, and the images, all of one size in bytes."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for name in names:
        pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.bmp")
    rows = [f"{name}.bmp,{'cat;dog' if i % 2 else 'cat'}" for i, name in enumerate(names)]
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text("image,labels\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return photos(tmp_path / "photos")


def own(data=None):
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    split = Split(images, LabelMatrix(np.arange(12)[:, None] % 4 <= [3, 1]), [*"abcdefghijkl"])
    return LongTailData("pictograms" if data is None else data, split, split)


def same(one, two):
    return all(
        one.splits[name].digest == two.splits[name].digest
        and one.splits[name].content == two.splits[name].content
        for name in one.splits.keys() | two.splits.keys()
    )


LOADED = {
    "options": ({"scale": 0.05, "test_images": 40, "image_size": 16}, {}),
    "a seed": ({"scale": 0.05, "test_images": 40, "seed": 3}, {"data_options": {"scale": 0.2}}),
    "numbers as text": ({"scale": "0.05", "test_images": "40"}, {"lr": 0.1}),
    "another data set": ({"scale": 0.05, "test_images": 40}, {"data": "voc", "root": "/nowhere"}),
    "another split": ({"scale": 0.05, "test_images": 40}, {"train_split": "b", "test_split": "c"}),
    "a validation split": ({"scale": 0.05, "test_images": 40}, {"val_split": "v"}),
    "a name": ({"scale": 0.05, "test_images": 40}, {"data": "mine"}),
}


@pytest.mark.parametrize(("options", "named"), LOADED.values(), ids=LOADED)
def test_a_recipe_of_loaded_data_loads_the_same_again(options, named):
    data = ltml.load("pictograms", **options)
    recipe = told(replace(QUICK, **named), data)
    recipe.check()
    assert same(load_data(recipe), data)


@pytest.mark.parametrize("holdout", [0.0, 0.25])
@pytest.mark.parametrize("groups", [None, [3, 1], "terciles"])
@pytest.mark.parametrize("keep", [lambda data: data, lambda data: in_memory(data, 16)])
def test_what_a_recipe_cut_is_in_the_record(folder, holdout, groups, keep):
    made = replace(QUICK, data="auto", root=str(folder), holdout=holdout, groups=groups)
    data = keep(load_data(made))
    assert told(made, data) == made  # in its own words
    found = told(QUICK, data)
    assert same(load_data(found), data)
    assert load_data(found).train.labels.bounds == data.train.labels.bounds
    assert (found.holdout, found.groups) == (holdout, groups)


def test_the_groups_of_the_recipe_are_those_of_the_training(folder, tmp_path):
    data = load_data(replace(QUICK, data="auto", root=str(folder), groups="terciles"))
    run = fit(replace(QUICK, groups=[3, 1]), data=data, out=tmp_path / "run", progress=False)
    assert run.recipe["groups"] == [3, 1]
    assert run.bounds == (3, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: own(),
        lambda data: own("mine"),
        lambda data: replace(data, train=data.train.subset(range(5, 50))),
        lambda data: with_holdout(data, 0.2),
        lambda data: replace(data, val=data.test),
    ],
)
def test_data_of_ones_own_are_loaded_by_no_recipe(tiny, change):
    data = change(tiny)
    recipe = told(replace(QUICK, root="/nowhere", data_options={"scale": 9}, holdout=0.3), data)
    assert recipe.data == f"own {data.name}"
    assert (recipe.root, recipe.data_options) == (None, {})
    assert recipe.holdout == (0.3 if data.val is None else 0)
    with pytest.raises(InputError, match=r"were given to the training.*as data="):
        load_data(recipe)
    assert told(recipe, data) == recipe


def test_resume_and_data_of_ask_for_data_of_ones_own(tmp_path):
    data, out = own(), tmp_path / "run"

    def stop(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(replace(QUICK, steps=4), data=data, out=out, progress=False, on_epoch=stop)
    with pytest.raises(InputError, match="give them once more, as data="):
        resume(out, progress=False)
    run = resume(out, data=data, progress=False)
    assert run.summary["steps"] == 4
    assert run.recipe["data"] == "own pictograms"
    with pytest.raises(InputError, match="give them once more, as data="):
        data_of(run)
    assert data_of(run, data) is not None
    assert run.recipe["augment"] == "shift"  # by its name; other tensors are mirrored as well
    other = fit(QUICK, data=own("mine"), out=tmp_path / "b", progress=False)
    assert other.recipe["augment"] == "light"


def test_a_run_of_loaded_data_needs_no_data(tiny, tmp_path):
    run = fit(QUICK, data=tiny, out=tmp_path / "run", progress=False)
    assert same(data_of(run), tiny)
    again = fit(Recipe.from_dict(run.recipe), out=tmp_path / "again", progress=False)
    assert again.metrics.equals(run.metrics)
    assert again.setting == run.setting


def of_bank(recipe, data, out):
    return fit(recipe, data=ltml.bank(recipe, data, progress=False), out=out, progress=False)


def plainly(recipe, data, out):
    return fit(recipe, data=data, out=out, progress=False)


REPLACED = {
    "all": (lambda folder: photos(folder, seed=1), "train"),
    "one, of another size": (
        lambda folder: Image.new("RGB", (30, 20)).save(folder / "c.bmp"),
        "train",
    ),
}


@pytest.mark.parametrize("train", [plainly, of_bank])
@pytest.mark.parametrize(("change", "split"), REPLACED.values(), ids=REPLACED)
def test_photos_replaced_under_their_names_are_noticed(folder, tmp_path, train, change, split):
    recipe = replace(QUICK, data="auto", root=str(folder))
    run = train(recipe, load_data(recipe), tmp_path / "run")
    assert run.recipe["data"] == "auto"
    data_of(run)
    data_of(run, in_memory(load_data(recipe), 16))
    change(folder)
    with pytest.raises(InputError, match=f"images in the {split} split were replaced"):
        data_of(run)
    config = json.loads((run.path / "config.json").read_text())
    del config["data"]["content"]  # as of an older version
    (run.path / "config.json").write_text(json.dumps(config))
    data_of(Run.load(run.path))


@pytest.mark.parametrize("kind", ["tensor", "PIL", "array"])
def test_images_replaced_in_memory_are_noticed(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)

    def data(pixels):
        images = {
            "tensor": lambda: torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
            "PIL": lambda: [Image.fromarray(each) for each in pixels],
            "array": lambda: list(pixels.copy()),
        }[kind]()
        split = Split(images, LabelMatrix(np.arange(12)[:, None] % 4 <= [3, 1]), [*"abcdefghijkl"])
        return LongTailData("mine", split, split)

    run = fit(QUICK, data=data(pixels), out=tmp_path / "run", progress=False)
    data_of(run, data(pixels))
    pixels[5, 3, 3] ^= 1
    with pytest.raises(InputError, match="images in the train split were replaced"):
        data_of(run, data(pixels))


def test_a_training_that_goes_on_notices_replaced_photos(folder, tmp_path):
    recipe = replace(QUICK, data="auto", root=str(folder), steps=4)

    def stop(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, out=tmp_path / "run", progress=False, on_epoch=stop)
    shutil.copytree(folder, tmp_path / "kept")
    photos(folder, seed=1)
    with pytest.raises(InputError, match="images in the train split were replaced"):
        resume(tmp_path / "run", progress=False)
    for file in (tmp_path / "kept").iterdir():
        shutil.copy(file, folder)
    assert resume(tmp_path / "run", progress=False).summary["steps"] == 4


@pytest.mark.parametrize("kind", ["files", "tensor", "PIL", "held out"])
@pytest.mark.parametrize(("kept", "wanted"), [(8, 32), (32, 8), (16, 16)])
def test_images_kept_at_one_size_are_those_of_any_other(folder, kind, kept, wanted):
    data = load_data(Recipe(data="auto", root=str(folder)))
    if kind == "tensor":
        data = own()
    elif kind == "PIL":
        images = [Image.open(path) for path in data.train.images]
        data = replace(data, train=replace(data.train, images=images))
    memory = in_memory(data, kept)
    if kind == "held out":
        data, memory = with_holdout(data, 0.3), with_holdout(memory, 0.3)
    for name in data.splits:
        plain, found = (Loader(d.splits[name], image_size=wanted) for d in (data, memory))
        assert torch.equal(plain.pixels, found.pixels)
        assert memory.splits[name].files == data.splits[name].files
        assert memory.splits[name].content == data.splits[name].content
