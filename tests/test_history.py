"""Logits of every epoch, other tools' logs, and feature diversity of anything."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import ltml
from ltml import InputError, LabelMatrix, Recipe, Recorder, Run, fit
from ltml.core.metrics import average_precision, feature_diversity
from ltml.data.holdout import with_holdout
from ltml.runs.history import FILE
from ltml.runs.logs import scalars

RECIPE = Recipe(batch_size=16, steps=12, warmup=0, evaluate_every=1, record_scores=True)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return fit(RECIPE, data=with_holdout(tiny, 0.3), out=out, progress=False)


def test_each_epochs_scores_make_its_ap(run, tiny):
    history = run.score_history("test")
    assert history.epochs.tolist() == run.metrics.epoch.tolist()
    assert history.ids == tuple(tiny.test.ids)
    for epoch, logits in zip(history.epochs, history.logits, strict=True):
        ap = average_precision(torch.from_numpy(logits).float(), torch.from_numpy(history.targets))
        row = run.metrics.set_index("epoch").mAP[epoch]
        assert np.nanmean(ap) == pytest.approx(row, abs=0.01)  # half precision ties
    assert len(run.score_history("train").ids) == run.config["data"]["train_images"]
    assert run.score_history("val").logits.shape[1] == len(run.scores("val"))


def test_when_labels_are_learned_and_forgotten(tmp_path):
    labels = LabelMatrix([[1, 0], [1, 1]], ["cat", "dog"])
    steps = [[[1, -1], [-1, 1]], [[-1, -1], [1, -1]], [[1, -1], [1, -1]]]
    with Recorder(tmp_path / "run", labels) as recorder:
        for logits in steps:
            recorder.epoch()
            recorder.add_history("train", torch.tensor(logits), labels.dense())
    history = Run.load(tmp_path / "run").score_history()
    table = history.learned().set_index(["image", "class"])
    assert table.loc[("0", "cat")].tolist() == [3, 1, 1]
    assert table.loc[("1", "cat")].tolist() == [2, 2, 0]
    assert table.loc[("1", "dog")].isna().tolist() == [True, False, False]
    assert table.loc[("1", "dog"), "forgotten"] == 1
    assert history.of_class("cat").to_numpy().tolist() == [[1, -1], [-1, 1], [1, 1]]


def test_a_run_without_a_history_says_how_to_get_one(tiny, run, tmp_path):
    plain = fit(Recipe(steps=2, batch_size=8, warmup=0), data=tiny, out=tmp_path, progress=False)
    with pytest.raises(InputError, match="--record-scores"):
        plain.score_history()
    (plain.path / FILE).write_bytes((run.path / FILE).read_bytes()[:3000])
    with pytest.raises(InputError, match="is damaged"):
        plain.score_history()


def test_tensorboard_reads_what_was_logged(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = Recipe(batch_size=16, steps=12, warmup=0, evaluate_every=1)
    for _ in range(2):  # the second replaces the first's events
        run = fit(
            *(recipe,),
            **{"data": tiny, "out": tmp_path / "run", "progress": False},
            log="tensorboard",
            overwrite=True,
        )
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("mAP")]
    assert [step for step, _ in logged] == run.metrics.step.tolist()
    assert np.allclose([value for _, value in logged], run.metrics.mAP)
    assert f"ap/{tiny.class_names[14]}" in events.Tags()["scalars"]


def test_other_tools_are_given_the_same_scalars(tiny, tmp_path, monkeypatch):
    """Stand-ins for wandb and mlflow, which are not installed here."""
    seen = []
    log = SimpleNamespace(log=lambda values, step: seen.append((step, values)))
    log.log_metrics = log.log
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, log)
        run = fit(
            Recipe(steps=2, batch_size=8, warmup=0),
            **{"data": tiny, "out": tmp_path / name, "progress": False, "log": name},
        )
        step, values = seen.pop()
        assert (step, values["mAP"]) == (2, pytest.approx(run.summary["mAP"], rel=1e-5))
        assert set(values) == set(scalars(run))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        Recorder(tmp_path / "x", tiny.train.labels, log="wandb")
    with pytest.raises(InputError, match="did you mean 'mlflow'"):
        Recorder(tmp_path / "x", tiny.train.labels, log="mlfow")


def test_features_of_anything_have_a_diversity(tiny):
    bank = ltml.bank(Recipe(), tiny, progress=False)
    found = ltml.features_from(bank)
    maps = bank.train.images[:, 0].float()
    table = found.diversity().set_index("class").loc[list(tiny.class_names)]
    expected = feature_diversity(maps.mean((2, 3)), tiny.train.labels.dense())
    assert np.allclose(table.value, expected.value, equal_nan=True)
    again = ltml.features_from(maps.numpy(), tiny.train.labels).diversity()
    pd.testing.assert_frame_equal(again, found.diversity())
    for x, y, message in (
        (maps[0], tiny.train.labels, "do not fit labels"),
        (maps, None, "labels are missing"),
        (maps / 0, tiny.train.labels, "infinite or NaN"),
    ):
        with pytest.raises(InputError, match=message):
            ltml.features_from(x, y)
