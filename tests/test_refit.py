"""The second stage: a head re-fitted in closed form, on a backbone part of the way back."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import ltml
from ltml import InputError, Recipe, Run, fit
from ltml.cli import main
from ltml.core.heads import HEADS
from ltml.data.loader import Loader
from ltml.runs.run import table_of
from ltml.training import train
from ltml.training.network import Classifier, SmallConvNet, make_backbone
from ltml.training.passes import evaluate, pooled_features
from ltml.training.refit import interpolate, refit
from ltml.training.train import CHECKPOINT, Training

TRAINED = Recipe(batch_size=16, steps=20, warmup=5, lr=3e-3)


def network(name="off", classes=20):
    torch.manual_seed(0)
    return Classifier(SmallConvNet(), HEADS[name](256, classes)).eval()


@pytest.fixture(scope="module")
def mirrored(tiny):
    return Loader(tiny.train, image_size=24, augment="light")


def test_features_are_those_of_each_image_and_of_its_mirror_image(tiny, mirrored):
    model = network()
    features, maps = pooled_features(model, mirrored, sample=20, batch_size=50)
    images, _ = next(mirrored.batches([[3, 60]]))
    with torch.no_grad():
        for view, batch in enumerate((images, images.flip(3))):
            expected = model.backbone(batch).mean((2, 3))
            assert torch.allclose(features[[3, 60], view], expected, atol=1e-6)
    assert 15 <= len(maps) <= 25


def test_training_images_are_scored_by_fits_without_them(tiny, mirrored):
    """Up to each class's scale and bias: the ridge regression of all others, refitted for each."""
    model = network()
    found = refit(model, mirrored, shrinkage=0.3).left_out.double().numpy()
    x = F.normalize(pooled_features(model, mirrored)[0].double(), dim=2).numpy()  # (N, 2, D)
    y = tiny.train.labels.dense().double().numpy()
    rows = x.reshape(-1, 256)
    strength = len(rows) * 0.3 * np.trace(np.cov(rows.T, bias=True)) / 256
    for i in (0, 50):
        others = np.delete(x, i, 0).reshape(-1, 256)
        Y = np.repeat(np.delete(y, i, 0), 2, 0)
        # An intercept that is not shrunk, by an augmented column without a penalty.
        A = np.column_stack([others, np.ones(len(others))])
        ridge = strength * np.diag([1.0] * 256 + [0.0])
        coefficients = np.linalg.solve(A.T @ A + ridge, A.T @ Y)
        expected = np.column_stack([x[i], np.ones(2)]) @ coefficients
        if i == 0:
            first = expected.mean(0)
    slope = (found[50] - found[0]) / (expected.mean(0) - first)
    assert (slope > 0).all()
    third = np.delete(x, 80, 0).reshape(-1, 256)
    A = np.column_stack([third, np.ones(len(third))])
    coefficients = np.linalg.solve(A.T @ A + ridge, A.T @ np.repeat(np.delete(y, 80, 0), 2, 0))
    expected = (np.column_stack([x[80], np.ones(2)]) @ coefficients).mean(0)
    assert np.allclose(found[0] + slope * (expected - first), found[80], atol=1e-3)


def test_scores_are_ridge_regression_on_features_of_length_one(tiny, mirrored):
    model, shrinkage = network(), 0.3
    head, used, _ = refit(model, mirrored, shrinkage=shrinkage)
    assert used == shrinkage
    x = F.normalize(pooled_features(model, mirrored)[0].double(), dim=2).flatten(0, 1).numpy()
    y = tiny.train.labels.dense().double().repeat_interleave(2, 0).numpy()
    mean, covariance = x.mean(0), np.cov(x.T, bias=True)
    ridge = covariance + shrinkage * np.trace(covariance) / 256 * np.eye(256)
    expected = (x - mean) @ np.linalg.solve(ridge, (x - mean).T @ (y - y.mean(0)))
    logits = evaluate(model, Loader(tiny.train, image_size=24), [head])[0].double().numpy()
    for c in range(20):  # up to each class's scale and bias
        assert np.corrcoef(logits[:, c], expected[::2, c])[0, 1] > 1 - 1e-6


def test_attention_keeps_the_scale_that_was_calibrated(tiny, mirrored):
    """Regressed on the logits of average pooling, those of attention have slope 1."""
    pooled = refit(network(), mirrored, shrinkage=1.0)
    attention = refit(network("attention"), mirrored, shrinkage=1.0)
    plain = Loader(tiny.train, image_size=24)
    a, b = evaluate(network(), plain, [pooled.head, attention.head])
    slope = ((a - a.mean(0)) * (b - b.mean(0))).sum(0) / (b - b.mean(0)).square().sum(0)
    assert torch.allclose(slope, torch.ones(20), atol=0.02)
    assert torch.allclose(a.mean(0), b.mean(0), atol=0.02)


def test_several_heads_are_scored_as_each_alone(tiny):
    model, other = network(), network("attention").head
    loader = Loader(tiny.test, image_size=24)
    both = evaluate(model.train(), loader, [model.head, other])
    assert model.training
    assert torch.equal(both[0], evaluate(model, loader)[0])
    assert torch.equal(both[1], evaluate(Classifier(model.backbone, other), loader)[0])


def test_half_way_back_is_the_mean():
    one, two = network().backbone, make_backbone("small")
    start = {key: value.clone() for key, value in two.state_dict().items()}
    expected = {key: (a + start[key]) / 2 for key, a in one.state_dict().items()}
    interpolate(one, start, 0.5)
    for key, value in one.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, expected[key]), key


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.manual_seed(1)
    torch.save(SmallConvNet().state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def two_stages(weights):
    return replace(TRAINED, weights=weights, refit=True, interpolation=0.5, diversity="attention")


@pytest.fixture(scope="module")
def run(tiny, two_stages, tmp_path_factory):
    return fit(two_stages, data=tiny, out=tmp_path_factory.mktemp("runs") / "a", progress=False)


def test_a_record_has_every_classifier_and_ends_with_the_last(run, tiny, two_stages, tmp_path):
    stages = pd.read_csv(run.path / "stages.csv")
    assert stages.classifier.unique().tolist() == ["own", "refit", "interpolated"]
    ap = stages.set_index(["classifier", "class"]).ap
    last = run.classes.set_index("class").ap
    assert np.allclose(ap["interpolated"][last.index], last, equal_nan=True)
    plain = replace(two_stages, refit=False, interpolation=0.0)
    plain = fit(plain, data=tiny, out=tmp_path / "plain", progress=False)
    own = plain.classes.set_index("class").ap
    assert np.allclose(ap["own"][own.index], own, equal_nan=True)


def test_the_model_is_the_final_network(run, tiny):
    scores = torch.tensor(run.predict(tiny.test, progress=False).to_numpy())
    ap = ltml.average_precision(scores, tiny.test.labels.dense())
    assert np.nanmean(ap) == pytest.approx(run.summary["mAP"], abs=1e-4)


def test_a_training_resumed_ends_in_the_same_second_stage(
    run, tiny, two_stages, tmp_path, monkeypatch
):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "second_stage", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(two_stages, data=tiny, out=tmp_path / "b", progress=False)
    assert (tmp_path / "b" / CHECKPOINT).exists()
    monkeypatch.undo()
    ltml.resume(tmp_path / "b", data=tiny, progress=False)
    for name in ("stages.csv", "per_class.csv", "metrics.csv"):
        assert (tmp_path / "b" / name).read_bytes() == (run.path / name).read_bytes(), name


def test_a_probe_is_a_run_without_training(tiny, weights, tmp_path):
    out = tmp_path / "probe"
    run = ltml.probe(tiny, backbone="small", weights=weights, out=out, progress=False)
    assert run.summary["steps"] == 0
    assert pd.read_csv(out / "stages.csv").classifier.unique().tolist() == ["refit"]
    state = torch.load(weights, weights_only=True)
    assert torch.equal(run.state_dict()["backbone.0.weight"], state["0.weight"])
    scores = torch.tensor(Run.load(out).predict(tiny.test, progress=False).to_numpy())
    ap = ltml.average_precision(scores, tiny.test.labels.dense())
    assert np.nanmean(ap) == pytest.approx(run.summary["mAP"], abs=1e-4)


def test_a_split_is_scored_once_by_all_networks_of_a_backbone(tiny, tmp_path, monkeypatch):
    """One pass for the trained and the re-fitted head, and none before it."""
    passes, real = [], train.evaluate

    def counting(model, loader, *args, **options):
        passes.append(len(loader.split))
        return real(model, loader, *args, **options)

    monkeypatch.setattr(train, "evaluate", counting)
    recipe = replace(TRAINED, steps=4, refit=True, holdout=0.3)  # less than an epoch
    fit(recipe, data=tiny, out=tmp_path / "run", progress=False)
    assert len(passes) == 2  # of the test and of the validation split
    assert len(tiny.test) in passes


def test_images_are_tested_refitted_and_predicted_at_the_test_size(tiny, two_stages, tmp_path):
    """Without steps it is the only size, and trained at another the network has the same steps."""
    fitted = replace(two_stages, steps=0, warmup=0)
    large = fit(replace(fitted, image_size=32), data=tiny, out=tmp_path / "32", progress=False)
    two = replace(fitted, image_size=24, test_size=32)
    two = fit(two, data=tiny, out=tmp_path / "24-32", progress=False)
    assert np.allclose(two.scores("test").logits, large.scores("test").logits, atol=1e-5)
    assert np.allclose(two.scores("train").logits, large.scores("train").logits, atol=1e-5)
    predicted = Run.load(two.path).predict(tiny.test, progress=False).to_numpy()
    assert np.allclose(predicted, two.scores("test").probabilities, atol=2e-3)  # kept in half

    trained = [
        fit(replace(TRAINED, steps=4, warmup=0, image_size=24, test_size=size), data=tiny,
            out=tmp_path / f"{size}", progress=False)
        for size in (None, 40)
    ]  # fmt: skip
    one, other = (run.state_dict() for run in trained)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert trained[0].summary["mAP"] != trained[1].summary["mAP"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refit": True, "interpolation": 0.5}, "goes back to pretrained weights"),
        ({"freeze": -1, "test_size": 32}, "give image_size=32 alone"),
        ({"interpolation": 0.5, "weights": "x"}, "give weights, and refit"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_half_a_second_stage_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**changes).check()


def test_heads_score_in_single_precision_where_the_backbone_does_not(tiny):
    model = network()
    model.backbone.precision = "bfloat16"
    (scores,) = evaluate(model, Loader(tiny.test, image_size=24))
    assert not torch.equal(scores, scores.bfloat16().float())  # else images tie


def test_a_run_without_training_draws_its_figures(tmp_path, capsys):
    args = ["train", "--steps", "0", "--refit", "--image-size", "24", "--quiet", "--device", "cpu"]
    args += ["--data-options", "scale=0.1", "test_images=60", "--out", tmp_path / "run"]
    assert main([str(arg) for arg in args]) == 0
    assert (tmp_path / "run/figures/class_ap.svg").is_file()
    assert "refit" in Run.load(tmp_path / "run").stages.classifier.tolist()


def test_the_table_holds_the_validation_of_the_network_that_is_kept(tiny, tmp_path):
    recipe = replace(TRAINED, keep="best", refit=True, holdout=0.3, lr=0.1, steps=24, warmup=0)
    run = fit(recipe, data=tiny, out=tmp_path / "run", progress=False)
    val = run.stages[run.stages.classifier == "refit"].val_ap.mean()
    assert table_of([run]).val_mAP[0] == pytest.approx(100 * val, abs=0.01)
