"""A run from a loop that never called fit."""

import json
import os
from dataclasses import replace

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


def test_groups_are_those_of_the_whole_table_and_other_ones_are_not_lined_up(tmp_path, caplog):
    lists = [[c] for c, n in enumerate([120, 60, 25, 19]) for _ in range(n)]
    labels = ltml.LabelMatrix.from_lists(lists, list("abcd"))
    half = np.arange(0, len(labels), 2)
    runs = {}
    for name, part in {
        "whole": labels,
        "half": labels.grouped().subset(half),
        "regrouped": labels.subset(half),
        "terciles": labels.grouped("terciles"),
    }.items():
        with Recorder(tmp_path / name, part) as recorder:
            recorder.epoch()
        runs[name] = Run.load(tmp_path / name)
    groups = {name: run.classes.group.tolist() for name, run in runs.items()}
    assert groups["half"] == groups["whole"] == ["head", "medium", "medium", "tail"]
    assert runs["half"].config["data"]["group_counts"] == [120, 60, 25, 19]
    assert runs["terciles"].bounds == (60, 25)
    caplog.set_level("WARNING", "ltml")
    table_of([runs["whole"], runs["half"]])
    assert not caplog.messages
    table_of([runs["whole"], runs["regrouped"]])
    assert (
        "'whole' and 'regrouped' have 2 classes in other groups, such as 'a'" in caplog.messages[0]
    )
    table_of([runs["half"], runs["terciles"]])
    assert "by other counts (100 and 20, 60 and 25)" in caplog.messages[1]


def test_a_recipe_groups_the_whole_training_split_before_a_holdout(tiny, tmp_path, caplog):
    from ltml.training.setup import held_out

    whole = tiny.train.labels
    data = held_out(Recipe(groups=(20, 5), holdout=0.3), tiny)
    expected = whole.grouped((20, 5)).group_of_class().tolist()
    assert data.train.labels.group_of_class().tolist() == expected
    assert len(data.train) < len(tiny.train)
    again = held_out(Recipe(groups="terciles"), data)  # the counts stay those of the whole
    assert again.train.labels.bounds == whole.grouped("terciles").bounds
    caplog.set_level("WARNING", "ltml")
    recipe = Recipe(groups=[2000, 1000], steps=1, warmup=0, batch_size=8, device="cpu")
    run = fit(recipe, data=tiny, out=tmp_path / "run", progress=False)
    assert run.classes.group.unique().tolist() == ["tail"]
    assert "20 of 20 classes are tail by the bounds of 2000 and 1000" in caplog.text
    for wrong in ([1, 2], [1], "thirds", [1.5, 1]):
        with pytest.raises(InputError, match="groups is"):
            Recipe(groups=wrong).check()


@pytest.mark.parametrize("unknown", ["ignore", "negative"])
def test_a_recipe_says_what_unknown_labels_are(tiny, tmp_path, unknown):
    """A probe with unknown labels as negatives is that of labels which say so."""
    Y = tiny.train.labels.dense().float()
    hidden = torch.rand(Y.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    labels = ltml.LabelMatrix(Y.masked_fill(hidden, torch.nan), tiny.class_names)

    def probed(name, labels, **changes):
        data = replace(tiny, train=replace(tiny.train, labels=labels))
        recipe = Recipe(steps=0, refit=True, device="cpu", **changes)
        return fit(recipe, data=data, out=tmp_path / name, progress=False)

    run = probed("run", labels, unknown=unknown)
    filled = probed("filled", labels.fill_unknown())
    same = np.allclose(run.classes.ap, filled.classes.ap, equal_nan=True)
    assert same == (unknown == "negative")
    known = dict(zip(labels.class_names, labels.known_counts, strict=True))
    assert run.classes.set_index("class").known.to_dict() == known
    assert run.setting != filled.setting


def recorded(out, **options):
    targets = torch.tensor([[1, 0], [0, 1], [1, 1]])
    with Recorder(out, targets, overwrite=True, **options) as recorder:
        logits = torch.zeros(3, 2, requires_grad=True)
        recorder.watch(logits, targets)
        logits.sigmoid().sum().backward()
        recorder.epoch()
    return Run.load(out)


@pytest.mark.parametrize("value", [torch.device("cpu"), {1}, torch.nn.Identity(), object(), b"x"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"deep": (x,)}])
def test_settings_that_json_cannot_hold_leave_the_old_run(value, wrap, tmp_path):
    recorded(tmp_path / "run", settings={"seed": 1})
    with pytest.raises(InputError, match=r"settings\['odd'\].*JSON cannot hold"):
        recorded(tmp_path / "run", settings={"odd": wrap(value)})
    assert Run.load(tmp_path / "run").recipe == {"seed": 1}


def test_settings_may_have_a_recipes_names(tmp_path):
    settings = {"data": 3, "sampler": ["mine"], "loss": {"a": 1}, "diversity": None, "lr": "fast"}
    run = recorded(tmp_path / "run", settings=settings)
    assert run.recipe == settings
    for use in (run.model, lambda: ltml.record_features(run)):
        with pytest.raises(InputError, match="loop of your own"):
            use()


def test_a_loop_that_broke_off_is_run_again_not_resumed(tmp_path):
    recorded(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(InputError, match="run its loop again"):
        Run.load(tmp_path / "run")
    with pytest.raises(InputError, match="run that loop again"):
        ltml.resume(tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_process_that_was_forked_leaves_the_record(tmp_path):
    """As Lightning's ddp_fork has it: the parent enters, a child trains and ends."""
    targets = torch.tensor([[1, 0], [0, 1]])
    with Recorder(tmp_path / "run", targets) as recorder:
        if (child := os.fork()) == 0:
            recorder.epoch(scores=targets.float(), targets=targets)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    run = Run.load(tmp_path / "run")
    assert run.summary["mAP"] == 1
    assert not (tmp_path / "run" / ".lock").exists()
