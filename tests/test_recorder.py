"""A run from a loop that never called fit."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ltml
from ltml import InputError, Recipe, Recorder, Run, fit, plots
from ltml.runs.run import table_of
from ltml.training.passes import evaluate
from ltml.training.train import Training


def test_a_plain_loop_leaves_the_run_that_fit_leaves(tiny, tmp_path):
    """The same network, batches and steps as fit's, by hand."""
    recipe = Recipe(batch_size=16, steps=20, warmup=5, evaluate_every=1, device="cpu")
    theirs = fit(recipe, data=tiny, out=tmp_path / "fit", progress=False)
    recipe = Recipe.from_dict(theirs.recipe)
    parts = Training(recipe, tiny, tmp_path / "x", ltml.training.train.Ranks(), False)
    model, optimizer, labels = parts.model.train(), parts.optimizer, tiny.train.labels
    batches = parts.train.batches(iter(parts.sampler), seed=0)
    with Recorder(tmp_path / "own", labels, name="pictograms") as recorder:
        recorder.ledger.watch_classifier(model.head.classifier.weight)
        for end in parts.ends:
            for step in range(recorder.step, end):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * ltml.training.train.lr_factor(
                        recipe, step, parts.steps
                    )
                images, targets = next(batches)
                logits = model(images)
                loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
                recorder.watch(logits, targets, loss=loss)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                optimizer.step()
            recorder.epoch(evaluate(model, parts.test)[0], tiny.test.labels.dense())
    ours = Run.load(tmp_path / "own")
    columns = ["step", "train_loss", "mAP", "head", "medium", "tail"]
    assert np.allclose(ours.metrics[columns], theirs.metrics[columns], rtol=1e-5, equal_nan=True)
    columns = ["ap", "grad_pos", "grad_neg", "grad_weight"]
    assert np.allclose(ours.per_class[columns], theirs.per_class[columns], rtol=1e-4)
    assert ours.summary["gradient_imbalance"] == pytest.approx(
        theirs.summary["gradient_imbalance"], rel=1e-4
    )
    assert ours.config["data"]["test_images"] == len(tiny.test)
    plots.gradient_magnitudes(ours)
    assert table_of([ours, theirs]).loss.isna().tolist() == [True, False]


def test_epochs_without_scores_are_recorded(tmp_path):
    labels = ltml.LabelMatrix([[1, 0], [0, 1]])
    logits = torch.zeros(2, 2, requires_grad=True)
    with Recorder(tmp_path / "run", labels, settings={"loss": "mine"}) as recorder:
        recorder.watch(logits, labels.dense())
        logits.sum().backward()
        recorder.epoch()
    run = Run.load(tmp_path / "run")
    assert run.metrics.mAP.isna().all()
    assert run.metrics.train_loss.isna().all()  # no loss was given
    assert run.classes.grad_pos.tolist() == [1, 1]
    assert run.recipe == {"loss": "mine"}
    with pytest.raises(InputError, match="loop of your own"):
        run.model()


def test_gradients_that_were_not_watched_are_unknown(tmp_path):
    labels = ltml.LabelMatrix([[1, 0], [0, 1]])
    with Recorder(tmp_path / "run", labels) as recorder:
        recorder.epoch(scores=torch.eye(2), targets=labels.dense())
    run = Run.load(tmp_path / "run")
    assert run.summary["mAP"] == 1
    assert run.per_class.grad_pos.isna().all()
    assert run.metrics.train_loss.isna().all()
    with pytest.raises(InputError, match="holds no record of its gradients"):
        plots.gradient_heatmap(run)


def test_a_loop_that_fails_leaves_no_finished_run(tmp_path):
    labels = ltml.LabelMatrix([[1, 0], [0, 1]])

    def failing():
        with Recorder(tmp_path / "run", labels) as recorder:
            recorder.epoch()
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        failing()
    with pytest.raises(InputError, match="has not finished"):
        Run.load(tmp_path / "run")
    with pytest.raises(InputError, match="holds another run"), Recorder(tmp_path / "run", labels):
        pass
    with Recorder(tmp_path / "run", labels, overwrite=True) as recorder:
        recorder.epoch()
    assert Run.load(tmp_path / "run").name == "run"


def test_interference_is_recorded_read_and_resumed(tiny, tmp_path):
    recipe = Recipe(batch_size=16, steps=16, warmup=5, interference=True, device="cpu")
    run = fit(recipe, data=tiny, out=tmp_path / "run", progress=False)
    with np.load(run.path / "interference.npz") as record:
        assert record["epoch"].tolist() == run.metrics.epoch.tolist()
        cosine, norm = record["cosine"], record["norm"]
    assert np.allclose(np.diagonal(cosine, axis1=1, axis2=2), 1, atol=1e-5)
    assert (np.abs(cosine) <= 1 + 1e-5).all()
    assert (norm > 0).all()
    plain = fit(
        Recipe(batch_size=16, steps=16, warmup=5, device="cpu"),
        data=tiny,
        out=tmp_path / "plain",
        progress=False,
    )
    assert plain.per_class.equals(run.per_class)  # recording changes no number


def test_settings_of_a_loop_of_your_own_are_what_you_like(tmp_path):
    settings = {"warmup": 0.1, "freeze": True, "backbone": "mine", "lr": np.float32(0.5)}
    with Recorder(tmp_path / "run", [[1, 0], [0, 1]], settings=settings) as recorder:
        recorder.epoch()
    assert Run.load(tmp_path / "run").recipe == settings


def test_classes_without_a_positive_are_named_after_a_resumption(tmp_path):
    first, second = (Recorder(tmp_path / name, [[1, 0], [0, 1]]) for name in "ab")
    first.out.mkdir()
    first.epoch(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    second.load_state_dict(first.state_dict())
    second.out.mkdir()
    second.finish()
    summary = json.loads((tmp_path / "b/summary.json").read_text())
    assert summary["classes_without_positives"] == ["class 1"]


def test_unknown_labels_are_counted_and_scored_where_known(tmp_path):
    nan = float("nan")
    labels = ltml.LabelMatrix([[1, nan], [0, 1], [0, nan]], ["cat", "dog"])
    y = torch.tensor([[1, nan], [nan, 1], [0, 0]])
    scores = torch.tensor([[0.9, 0.9], [0.95, 0.4], [0.1, 0.1]])
    with Recorder(tmp_path / "run", labels) as recorder:
        recorder.epoch(scores, y)
    run = Run.load(tmp_path / "run")
    classes = run.classes.set_index("class")
    assert classes.known.to_dict() == {"cat": 3, "dog": 1}
    assert classes.negatives.to_dict() == {"cat": 2, "dog": 0}
    assert classes.test_known.to_dict() == {"cat": 2, "dog": 2}
    assert classes.test_negatives.to_dict() == {"cat": 1, "dog": 1}
    assert classes.ap.to_dict() == {"cat": 1.0, "dog": 1.0}
    with Recorder(tmp_path / "known", labels.fill_unknown()) as recorder:
        recorder.epoch(scores, y.nan_to_num())
    assert "known" not in Run.load(tmp_path / "known").classes


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, np.ndarray.tolist, pd.DataFrame])
def test_an_epoch_takes_what_people_hold(form, tmp_path):
    scores, y = np.array([[0.9, 0.2], [0.1, 0.7], [0.6, 0.1]]), np.array([[1, 0], [0, 1], [0, 0]])
    with Recorder(tmp_path / "run", form(y)) as recorder:
        row = recorder.epoch(form(scores), form(y), val_scores=form(scores), val_targets=form(y))
    assert row["mAP"] == row["val_mAP"] == 1
    assert Run.load(tmp_path / "run").config["data"]["test_counts"] == [1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scores": np.eye(2)}, "targets is missing; give scores and targets"),
        ({"val_scores": np.eye(2)}, "val_targets is missing"),
        ({"targets": np.eye(2)}, "scores is missing"),
        ({"scores": np.eye(2), "targets": np.eye(3)}, r"scores \(2, 2\) and targets \(3, 3\)"),
        ({"scores": np.eye(3), "targets": np.eye(3)}, "3 columns for 2 classes"),
        ({"scores": np.eye(2), "targets": -np.eye(2)}, "targets holds -1.0 at image 0, class 0"),
    ],
)
def test_scores_that_do_not_fit_are_refused_before_anything_is_recorded(given, message, tmp_path):
    with Recorder(tmp_path / "run", np.eye(2)) as recorder:
        with pytest.raises(InputError, match=message):
            recorder.epoch(**given)
        assert recorder.epochs == 0
        recorder.epoch()
