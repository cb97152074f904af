"""A trained network, used: its scores are those that fit evaluated with."""

import numpy as np
import pytest
import torch
from PIL import Image

import ltml
from ltml import InputError, Recipe, fit
from ltml.cli import main
from ltml.data.loader import Loader
from ltml.training import passes, train


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    recipe = Recipe(batch_size=16, steps=20, warmup=5, diversity="dem", device="cpu")
    return fit(recipe, data=tiny, out=tmp_path_factory.mktemp("runs") / "a", progress=False)


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(tiny.test.images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def expected(run, tiny):
    """The scores as training evaluates them."""
    model = train.build_model(
        Recipe.from_dict(run.recipe), tiny.train.labels.counts, len(tiny.train)
    )
    model.load_state_dict(run.state_dict())
    return passes.evaluate(model, Loader(tiny.test, image_size=24))[0]


def test_a_split_and_a_folder_of_files_score_as_in_training(run, tiny, photos, expected):
    wanted = expected.sigmoid().numpy()
    for images in (tiny.test, photos, sorted(photos.iterdir())):
        table = run.predict(images, device="cpu", progress=False)
        assert list(table) == list(tiny.class_names)
        assert np.allclose(table, wanted, atol=1e-6)
    ap = train.average_precision(torch.tensor(table.to_numpy()), tiny.test.labels.dense())
    assert np.nanmean(ap) == pytest.approx(run.summary["mAP"], abs=1e-6)


def test_the_model_takes_images_as_people_have_them(run, tiny, expected):
    model = run.model()
    assert not model.training
    images = tiny.test.images[:4]
    with torch.no_grad():
        for given in (images, images.float() / 255):
            assert torch.allclose(model(given), expected[:4], atol=1e-5)
        assert torch.allclose(model(images[0]), expected[:1], atol=1e-5)
        large = torch.nn.functional.interpolate(images.float() / 255, scale_factor=3)
        large = (255 * large).round() / 255
        small = [  # as Pillow resizes each channel
            [
                Image.fromarray(c.byte().numpy()).resize((24, 24), Image.Resampling.BILINEAR)
                for c in image
            ]
            for image in (255 * large).round()
        ]
        small = torch.tensor(np.array([[np.asarray(c) for c in image] for image in small]))
        assert torch.equal(model(large), model(small))
    with pytest.raises(InputError, match=r"shape is \(5, 8, 8\)"):
        model(torch.zeros(2, 5, 8, 8))


def test_gradients_reach_the_pixels(run, tiny):
    images = (tiny.test.images[:2].float() / 255).requires_grad_()
    run.model()(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_arrays_tensors_and_pictures_are_scored(run, tiny, expected):
    pixels = tiny.test.images[:3]
    arrays = [image.permute(1, 2, 0).numpy() for image in pixels]
    wanted = expected[:3].sigmoid().numpy()
    for given in (pixels, arrays, [Image.fromarray(array) for array in arrays]):
        assert np.allclose(run.predict(given, device="cpu", progress=False), wanted, atol=1e-6)
    one = run.predict(arrays[1], device="cpu", progress=False)
    assert np.allclose(one, wanted[1:2], atol=1e-6)


def test_the_command_writes_and_prints(run, photos, expected, tmp_path, capsys):
    files = sorted(photos.iterdir())
    args = ["predict", run.path, *files[:2], "--csv", tmp_path / "p.csv", "--top", 2, "--quiet"]
    assert main([str(arg) for arg in args]) == 0
    import pandas as pd

    table = pd.read_csv(tmp_path / "p.csv", index_col="image")
    labels = table.pop("labels")
    assert np.allclose(table, expected[:2].sigmoid(), atol=1e-5)
    assert labels.fillna("").tolist() == run.labels(table).tolist()
    out, err = capsys.readouterr()
    assert "from 0.5, since the run has no thresholds" in err
    first = out.splitlines()[0]
    best = table.iloc[0].nlargest(2).index.tolist()
    assert first.startswith(str(files[0]))
    assert all(name in first for name in best)


def test_one_threshold_overrides_those_of_the_run(run, photos, tmp_path, capsys):
    file = sorted(photos.iterdir())[0]
    (tmp_path / "other").mkdir()
    args = ["predict", str(run.path), str(file), "--top", "20", "--quiet", "--thresholds"]
    assert main([*args, "0"]) == 0
    assert capsys.readouterr().out.count("*") == 20
    assert main([*args, "1"]) == 0
    out, err = capsys.readouterr()
    assert "*" not in out + err
    assert main([*args, "50"]) == 2
    # A table of the user's own labels has the same columns, but for the last.
    mine = tmp_path / "mine.csv"
    mine.write_text(f"image,{','.join(run.config['data']['class_names'])}\n")
    assert main([*args[:-1], "--csv", str(mine)]) == 2


def test_missing_images_are_named(run, tmp_path):
    with pytest.raises(InputError, match="no image file"):
        run.predict(tmp_path, progress=False)
    with pytest.raises(InputError, match=r"gone\.png"):
        run.predict(tmp_path / "gone.png", progress=False)
    with pytest.raises(InputError, match="no image was given"):
        run.predict([], progress=False)


def test_a_damaged_photo_does_not_cost_the_others(run, photos, expected, tmp_path, caplog, capsys):
    good, bad = sorted(photos.iterdir())[:2], tmp_path / "bad.jpg"
    bad.write_bytes(good[0].read_bytes()[:200])
    table = run.predict([good[0], bad, good[1]], device="cpu", progress=False)
    assert np.allclose(table.iloc[[0, 2]], expected[:2].sigmoid(), atol=1e-6)
    assert table.loc[str(bad)].isna().all()
    assert "bad.jpg" in caplog.text
    assert main(["predict", str(run.path), str(good[0]), str(bad), "--quiet"]) == 0
    assert capsys.readouterr().out.count("%") == 5  # of the good one alone
    with pytest.raises(InputError, match="none of the 1 images can be decoded"):
        run.predict(bad, progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters' own
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_exported_model_scores_the_same(run, tmp_path, suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = run.export(tmp_path / f"model{suffix}")  # checks itself against the model
    assert path.stat().st_size > 10_000
    with pytest.raises(InputError, match="neither"):
        run.export(tmp_path / "model.bin")


def test_float_images_that_are_not_in_0_to_1_are_refused(run, tiny):
    images = tiny.test.images[:2]
    given = images.float(), (images / 255 - 0.45) / 0.22, images.permute(0, 2, 3, 1).float().numpy()
    for wrong in (*given, list(given[2])):
        with pytest.raises(InputError, match=r"float images span .*give values in \[0, 1\]"):
            run.predict(wrong, progress=False)


def test_maps_of_a_bank_are_scored_by_the_head(run, tiny, expected):
    maps = ltml.bank(run, tiny, progress=False)
    table = run.predict(maps.test, device="cpu", progress=False)
    assert np.allclose(table, expected.sigmoid(), atol=1e-2)  # kept in half precision


@pytest.mark.slow
def test_each_timm_tag_has_its_own_normalisation(tiny, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    make = timm.create_model  # no network: random weights under the tag's configuration

    def offline(name, pretrained=False, **options):
        return make(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    name, tag = "timm/vit_small_patch16_224", "dino"
    options = {"image_size": 32, "steps": 1, "batch_size": 8, "warmup": 0, "device": "cpu"}
    done = fit(
        Recipe(backbone=name, weights=tag, **options), data=tiny, out=tmp_path / "a", progress=False
    )
    other = timm.get_pretrained_cfg(f"vit_small_patch16_224.{tag}")
    assert done.model().classifier.backbone.mean == tuple(other.mean)
    ap = train.average_precision(
        torch.tensor(done.predict(tiny.test, device="cpu", progress=False).to_numpy()),
        tiny.test.labels.dense(),
    )
    assert np.nanmean(ap) == pytest.approx(done.summary["mAP"], abs=1e-4)
