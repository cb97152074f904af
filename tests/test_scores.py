"""Scores that a run keeps, the mistakes among them, and the thresholds chosen on them."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve

import ltml
from ltml import InputError, Recipe, Recorder, Run, fit
from ltml.core.metrics import average_precision
from ltml.data.holdout import with_holdout
from ltml.runs.scores import FILE

TINY = Recipe(batch_size=16, steps=20, warmup=5, device="cpu")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return fit(TINY, data=with_holdout(tiny, 0.3), out=out, progress=False)


@pytest.fixture(scope="module")
def probed(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "p"
    return ltml.probe(tiny, backbone="small", weights=None, out=out, progress=False)


def test_stored_scores_make_the_reported_numbers(run, probed, tiny):
    for each in (run, probed):
        found = each.scores()
        assert found.ids == tuple(tiny.test.ids)
        assert np.array_equal(found.targets, tiny.test.labels.dense())
        ap = average_precision(torch.from_numpy(found.logits), torch.from_numpy(found.targets))
        reported = each.classes.set_index("class").ap.loc[list(tiny.class_names)]
        assert np.allclose(ap, reported, atol=1e-6, equal_nan=True)
        predicted = each.predict(tiny.test, device="cpu", progress=False)
        assert np.allclose(found.probabilities, predicted, atol=1e-6)


def test_validation_and_left_out_training_images_are_kept_where_there_are_any(run, probed, tiny):
    assert len(run.scores("val")) + run.config["data"]["train_images"] == len(tiny.train)
    assert probed.scores("train").ids == tuple(tiny.train.ids)
    with pytest.raises(InputError, match="keeps scores of test and val, not of train"):
        run.scores("train")
    with pytest.raises(InputError, match="split 'vall' is unknown"):
        run.scores("vall")


def test_mistakes_are_all_labels_on_the_wrong_side_of_the_threshold(run):
    scores, table = run.scores(), run.mistakes(thresholds=0.3)
    p, y = scores.probabilities, scores.targets
    wrong = {(i, c) for i, c in np.argwhere((p >= 0.3) != (y == 1))}
    column = {name: c for c, name in enumerate(scores.class_names)}
    assert {(i, column[c]) for i, c in zip(table["index"], table["class"], strict=True)} == wrong
    assert len(table) == len(wrong)
    assert (table.kind == "miss").equals(table.given == 1)
    assert (table.margin.diff().dropna() <= 0).all()  # the worst first
    row = table.iloc[0]
    c = column[row["class"]]
    assert row["rank"] == 1 + (scores.logits[:, c] > row.score).sum()
    assert row.given_labels == tuple(np.array(scores.class_names)[y[row["index"]] == 1])
    assert row.predicted_labels == tuple(np.array(scores.class_names)[p[row["index"]] >= 0.3])
    groups = run.classes.set_index("class").group
    assert (table.group == groups.loc[table["class"]].to_numpy()).all()


def test_mistakes_can_be_narrowed(run):
    whole = run.mistakes(thresholds=0.3)
    tail = run.mistakes(thresholds=0.3, group="tail", kind="miss")
    expected = whole[(whole.group == "tail") & (whole.kind == "miss")]
    pd.testing.assert_frame_equal(tail, expected.reset_index(drop=True))
    name = whole["class"].iloc[0]
    assert set(run.mistakes(classes=[name], thresholds=0.3)["class"]) == {name}
    worst = run.mistakes(thresholds=0.3, per_class=1)
    assert not worst.duplicated(["class", "kind"]).any()
    first = whole.drop_duplicates(["class", "kind"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(worst, first)
    for options, message in (
        ({"kind": "misses"}, "did you mean 'miss'"),
        ({"group": "tails"}, "did you mean 'tail'"),
        ({"classes": ["no"]}, "class 'no' is unknown"),
        ({"thresholds": {"no": 0.5}}, "class 'no' is unknown"),
        ({"thresholds": 50}, r"give one in \[0, 1\]"),
        ({"per_class": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            run.mistakes(**options)


def test_no_mistake_is_an_empty_table(run):
    perfect = run.mistakes(thresholds=1.0, kind="false alarm")
    assert perfect.empty
    assert list(perfect) == list(run.mistakes())


def test_thresholds_have_the_largest_f1_on_the_scores_they_were_chosen_on(run, probed):
    for each, split in ((run, "val"), (probed, "train")):
        scores, table = each.scores(split), each.thresholds
        assert each.classes.threshold.notna().all()
        for c, name in enumerate(scores.class_names):
            p, y = scores.probabilities[:, c], scores.targets[:, c]
            row = table.loc[name]
            assert row.positives == y.sum()
            if not y.any():
                assert row.chosen_on == "all classes"
                continue
            assert row.chosen_on == split
            precision, recall, _ = precision_recall_curve(y, p)
            best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
            assert f1_score(y, p >= row.threshold) == pytest.approx(best)


def test_thresholds_are_those_of_the_model_that_was_kept(tiny, tmp_path):
    recipe = Recipe(batch_size=16, steps=40, warmup=0, lr=0.3, keep="best", device="cpu")
    data = with_holdout(tiny, 0.3)
    run = fit(recipe, data=data, out=tmp_path / "run", progress=False)
    assert run.summary["kept_epoch"] < len(run.metrics)  # else this shows nothing
    predicted = run.predict(data.val, device="cpu", progress=False)
    assert np.allclose(run.scores("val").probabilities, predicted, atol=1e-6)


WRONG = [[0.5] * 3, "x", "high", True, [True] * 20, {"cat": "high"}, {"cat": [0.5]}, object()]
WRONG += [-0.1, 1.1, float("nan"), np.full((2, 20), 0.5), torch.ones(3), [None] * 20, 1j]


@pytest.mark.parametrize("wrong", WRONG)
def test_thresholds_are_numbers_one_or_one_a_class(run, wrong):
    for use in (run.threshold_of_class, lambda x: run.mistakes(thresholds=x)):
        with pytest.raises(InputError, match=r"threshold.*give one") as error:
            use(wrong)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "right", [0.25, np.float32(0.25), "0.25", [0.25] * 20, torch.full((20,), 0.25), Fraction(1, 4)]
)
def test_thresholds_may_be_of_any_numeric_type(run, right):
    assert (run.threshold_of_class(right) == 0.25).all()


def test_without_validation_or_refit_there_are_no_thresholds(tiny, tmp_path):
    run = fit(TINY, data=tiny, out=tmp_path / "run", progress=False)
    assert run.thresholds is None
    assert "threshold" not in run.classes
    assert (run.threshold_of_class() == 0.5).all()


def test_unknown_labels_are_no_mistakes(tmp_path):
    labels = ltml.LabelMatrix([[1, 0], [0, 1]], ["cat", "dog"])
    targets = torch.tensor([[1, np.nan], [0, 1]])
    with Recorder(tmp_path / "run", labels) as recorder:
        recorder.keep_scores("test", torch.tensor([[-3.0, 4.0], [2.0, -1.0]]), targets, ["a", "b"])
        recorder.epoch()
    run = Run.load(tmp_path / "run")
    assert np.array_equal(run.scores().targets, targets, equal_nan=True)
    table = run.mistakes()
    assert table[["image", "class", "kind"]].to_numpy().tolist() == [
        ["a", "cat", "miss"],
        ["b", "cat", "false alarm"],
        ["b", "dog", "miss"],
    ]
    assert table.margin.tolist() == [3, 2, 1]


def test_a_loop_of_ones_own_keeps_names_files_and_probabilities(tmp_path):
    labels = ltml.LabelMatrix([[1, 0], [0, 1]], ["cat", "dog"])
    photo = tmp_path / "a.jpg"
    photo.touch()
    p = torch.tensor([[0.9, 0.2], [0.4, 1.0]])
    with Recorder(tmp_path / "run", labels) as recorder:
        recorder.epoch(p, labels.dense(), images=[photo, "b"])
    found = Run.load(tmp_path / "run").scores()
    assert found.ids == (str(photo), "b")
    assert found.paths == (str(photo), "")
    assert np.allclose(found.probabilities, p)
    with Recorder(tmp_path / "logits", labels) as recorder:
        recorder.epoch(p, labels.dense(), logits=True)
    assert np.allclose(Run.load(tmp_path / "logits").scores().logits, p)
    with (
        pytest.raises(InputError, match="1 images for 2 rows of scores"),
        Recorder(tmp_path / "short", labels) as recorder,
    ):
        recorder.epoch(p, labels.dense(), images=["b"])


def test_a_run_without_scores_says_how_to_get_them(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    (old / FILE).unlink()
    with pytest.raises(InputError, match=f"make them with: ltml evaluate {old}"):
        Run.load(old).mistakes()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", "cut", "bent"])
def test_damaged_scores_are_an_error_of_one_line(run, tmp_path, damage):
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    whole = (folder / FILE).read_bytes()
    if damage == "cut":
        damage = whole[: len(whole) // 2]
    elif damage == "bent":
        at = whole.index(b"test_logits.npy") + 400  # behind the array's header
        damage = whole[:at] + bytes(64) + whole[at + 64 :]
    (folder / FILE).write_bytes(damage)
    with pytest.raises(InputError, match="is damaged"):
        Run.load(folder).scores()


def test_labels_follow_from_probabilities(run, tiny):
    names = list(tiny.class_names)
    table = pd.DataFrame(np.zeros((3, 20)), index=["a", "b", "c"], columns=names)
    table.loc["a", names[2]] = table.loc["a", names[0]] = 0.9
    table.loc["c"] = np.nan
    found = run.labels(table, 0.5)
    assert found.loc[["a", "b"]].tolist() == [f"{names[0]}; {names[2]}", ""]
    assert pd.isna(found["c"])


def test_large_splits_are_kept_in_half_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("ltml.runs.scores._MOST", 3)
    labels = ltml.LabelMatrix([[1, 0], [0, 1]])
    logits = torch.tensor([[1.0001, -2.0], [3.0, 0.5]])
    with Recorder(tmp_path / "run", labels) as recorder:
        recorder.epoch(logits, labels.dense())
    found = Run.load(tmp_path / "run").scores().logits
    assert np.array_equal(found, logits.half().float())


def test_files_of_photos_are_kept_through_a_bank(tmp_path, tiny):
    from PIL import Image

    for i in range(12):
        Image.fromarray(tiny.train.images[i].permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(12)]
    for split in ("train", "test"):
        Path(tmp_path, f"{split}.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    recipe = Recipe(data="folder", root=str(tmp_path), freeze=-1, steps=2, allow_leaks=True)
    run = fit(recipe, out=tmp_path / "run", progress=False)
    assert run.scores().ids == tuple(f"{i}.png" for i in range(12))
    assert run.scores().paths == tuple(str(tmp_path / f"{i}.png") for i in range(12))
    json.dumps(run.mistakes().drop(columns="path").to_dict("records"), default=int)
