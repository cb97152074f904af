import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ltml import FeatureRecord, InputError, Recipe, Run, bank, data, fit, record_features
from ltml.core.metrics import feature_diversity
from ltml.data.loader import Loader
from ltml.runs.features import SplitFeatures

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


def train(folder, tiny, **changes):
    recipe = Recipe(batch_size=16, steps=10, warmup=5, **changes)
    return fit(recipe, data=tiny, out=folder, progress=False)


@pytest.fixture(scope="module", params=["off", "dem"])
def run(request, tiny, tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "a", tiny, diversity=request.param)


@pytest.fixture(scope="module")
def record(run, tiny):
    return record_features(run, data=tiny, per_class=6, neighbors=4)


def everything(run, split):
    """Features of all images for all classes, and scores, in one batch, by the model alone."""
    model = run.model().classifier
    loader = Loader(split, image_size=24)
    ((images, _),) = loader.batches([torch.arange(len(split))])
    with torch.no_grad():
        maps = model.backbone(images)
        features = model.head.features(maps)
        return features.expand(-1, split.labels.num_classes, -1), model.head(maps)


@pytest.mark.parametrize("name", ["train", "test"])
def test_rows_are_what_the_model_makes_of_each_image(run, record, tiny, name):
    split, part = getattr(tiny, name), record.split(name)
    features, scores = everything(run, split)
    image = part.index[part.image]
    assert (split.labels.dense().numpy()[image, part.cls] == 1).all(), "positives alone"
    recorded = np.bincount(part.cls, minlength=20)
    assert recorded.tolist() == np.minimum(split.labels.counts, 6).tolist()
    assert len(set(zip(part.cls, image, strict=True))) == len(image), "no image twice in a class"
    expected = features.numpy()[image, part.cls]
    assert np.allclose(part.features, expected, rtol=2**-11, atol=1e-4)  # half precision rounds so
    assert part.features.dtype == np.float16
    assert np.allclose(part.score, scores.numpy()[image, part.cls], atol=1e-4)
    assert (part.labels == split.labels.dense(part.index).numpy()).all()
    pictures = split.images[part.index].permute(0, 2, 3, 1).numpy()
    assert (part.thumbnails == pictures).all(), "24 px need no shrinking"


@pytest.mark.parametrize("name", ["train", "test"])
def test_nearest_images_are_the_most_similar_ones(run, record, tiny, name):
    split, part = getattr(tiny, name), record.split(name)
    features = everything(run, split)[0][part.index]
    unit = torch.nn.functional.normalize(features, dim=-1).double()
    for row in range(0, len(part.cls), 7):
        c, image = int(part.cls[row]), int(part.image[row])
        similar = (unit[:, c] @ unit[image, c]).numpy()
        similar[image] = -np.inf
        wanted = np.sort(similar)[::-1][:4]
        assert np.allclose(similar[part.neighbors[row]], wanted, atol=1e-5)
        assert np.allclose(part.similarity[row], wanted, atol=1e-3)
        assert image not in part.neighbors[row]


def test_small_batches_find_the_same(run, record, tiny, monkeypatch):
    monkeypatch.setattr("ltml.training.features._AT_ONCE", 20 * 256 * 17)
    first = (run.path / "features.npz").read_bytes()
    again = record_features(run, data=tiny, per_class=6, neighbors=4)
    for name in ("train", "test"):
        a, b = record.split(name), again.split(name)
        assert np.allclose(a.features, b.features, atol=2e-3)
        assert np.allclose(a.similarity, b.similarity, atol=2e-3)
        assert np.allclose(a.score, b.score, atol=1e-4)
    monkeypatch.undo()
    record_features(run, data=tiny, per_class=6, neighbors=4)
    assert (run.path / "features.npz").read_bytes() == first, "the same file each time"
    assert not list(run.path.glob(".*")), "nothing temporary is left"


def test_the_data_set_is_found_by_the_recipe(tiny, tmp_path, monkeypatch):
    """data=None loads what the recipe names."""
    run = train(tmp_path / "run", tiny)
    asked = []
    monkeypatch.setattr(
        "ltml.training.setup.load_data", lambda recipe: asked.append(recipe) or tiny
    )
    record_features(str(run.path), per_class=2)
    assert asked == [Recipe.from_dict(run.recipe)]
    assert FeatureRecord.load(run.path).split("test").features.shape == (40, 256)


def test_diversity_is_that_of_the_positives(run, record, tiny):
    assert record.common_size == 2, "the smallest class of three has three"
    for measure in ("vendi", "effective-rank", "cosine-distance"):
        table = record.diversity(measure=measure, split="test", size=3)
        part = record.split("test")
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(part.cls).long(), 20)
        wanted = feature_diversity(
            torch.from_numpy(part.features.astype(np.float64)), one_hot, measure=measure, size=3
        )
        by_name = table.set_index("class").loc[list(tiny.class_names)]
        assert np.allclose(by_name.value, wanted.value, rtol=1e-6)
        assert np.allclose(by_name.error, wanted.error, rtol=1e-5, equal_nan=True)
        assert table["count"].is_monotonic_decreasing
        assert by_name["count"].tolist() == tiny.train.labels.counts.tolist()
    for options, message in (
        ({"split": "val"}, "split 'val' is unknown.*choose from train, test"),
        ({"measure": "x"}, "measure 'x' is unknown"),
    ):
        with pytest.raises(InputError, match=message):
            record.diversity(**options)
    with pytest.raises(InputError, match="class 'x' is unknown"):
        record.index("x")


def test_large_images_are_kept_small(tmp_path):
    wide = data.load("pictograms", scale=0.1, image_size=72, test_images=40)
    run = train(tmp_path / "run", wide)
    part = record_features(run, data=wide, per_class=2).split("test")
    assert part.thumbnails.shape[1:] == (48, 48, 3)


@pytest.fixture
def copy(run, record, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    return Run.load(tmp_path / "copy")


def test_a_missing_record_names_the_remedy():
    with pytest.raises(
        InputError,
        match=r"run 'baseline' has no features.npz; make it with ltml.record_features\(run\)",
    ):
        FeatureRecord.load(RECORDS / "baseline")


def test_damaged_and_foreign_records_are_refused(copy):
    path = copy.path / "features.npz"
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)

    def write(**changes):
        with path.open("wb") as file:
            np.savez_compressed(file, **(arrays | changes))

    broken = [bytearray(whole) for _ in range(20)]  # found by a checksum, or by the decompression
    for i, content in enumerate(broken):
        content[(i + 1) * len(whole) // 22] ^= 255
    for content in (b"", b"PK\3\4", whole[: len(whole) // 2], *broken, b"not an archive"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged.*ltml.record_features"):
            FeatureRecord.load(copy)
    np.savez(path, schema=np.array([{}], dtype=object))  # a pickle, which is not read
    with pytest.raises(InputError, match=r"damaged, or not a record"):
        FeatureRecord.load(copy)
    for changes, message in (
        ({"schema": np.array(99)}, "schema 99 of a later ltml"),
        ({"class_names": np.array([f"{n}!" for n in arrays["class_names"]])}, "not a record of"),
        ({"train_image": arrays["train_image"] + 10_000}, "image lies outside"),
        ({"test_labels": arrays["test_labels"][:3]}, "labels has 3 rows"),
    ):
        write(**changes)
        with pytest.raises(InputError, match=message):
            FeatureRecord.load(copy)
    write()
    assert isinstance(FeatureRecord.load(copy).split("train"), SplitFeatures)


def test_what_cannot_be_recorded_is_said_and_nothing_written(copy, tiny):
    (copy.path / "features.npz").unlink()
    for options, message in (
        ({"per_class": 1}, "per_class=1"),
        ({"neighbors": 0}, "neighbors=0"),
        ({"device": "nowhere"}, "device 'nowhere'"),
        ({"data": replace(tiny, train=tiny.test)}, "are not those of run 'copy'"),
        ({"data": bank(Recipe.from_dict(copy.recipe), tiny, progress=False)}, "are a bank"),
    ):
        with pytest.raises(InputError, match=message):
            record_features(copy, **({"data": tiny} | options))
    (copy.path / "model.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"does not fit the run's recipe.*train again"):
        record_features(copy, data=tiny)
    (copy.path / "model.pt").unlink()
    with pytest.raises(InputError, match=r"run 'copy' has no model.pt; train it again"):
        record_features(copy, data=tiny)
    assert not list(copy.path.glob("*features*"))


def test_a_record_of_another_training_in_the_folder_is_refused(copy, tiny, tmp_path):
    record_features(copy, data=tiny, per_class=2)
    FeatureRecord.load(copy)
    kept = (copy.path / "features.npz").read_bytes()
    recipe = Recipe.from_dict(copy.recipe | {"seed": 7})
    again = fit(recipe, data=tiny, out=copy.path, overwrite=True, progress=False)
    (again.path / "features.npz").write_bytes(kept)
    with pytest.raises(InputError, match="it is of another training"):
        FeatureRecord.load(again)


def test_the_data_given_to_fit_with_a_holdout_are_those_of_its_features(tiny, tmp_path):
    run = train(tmp_path / "run", tiny, holdout=0.3)
    assert record_features(run, data=tiny, per_class=2).classes["class"].tolist()
