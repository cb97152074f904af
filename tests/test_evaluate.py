"""A run, evaluated on its own splits and on other labelled images."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_score, recall_score

import ltml
from ltml import InputError, LabelMatrix, Recipe, Run, Split, fit
from ltml.cli import main
from ltml.core.metrics import calibration
from ltml.runs.scores import FILE


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny data set as files with tables."""
    root = tmp_path_factory.mktemp("data")
    for name, split in (("train", tiny.train), ("val", tiny.test), ("test", tiny.test)):
        rows = ["image,labels"]
        for i, pixels in enumerate(split.images):
            file = f"{name}{i}.png"
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(root / file)
            labels = [split.labels.class_names[c] for c in split.labels[i]]
            rows.append(f"{file},{';'.join(labels)}")
        (root / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    recipe = Recipe(data="folder", root=str(folder), val_split="val", steps=20, allow_leaks=True)
    return fit(recipe, out=tmp_path_factory.mktemp("runs") / "a", progress=False)


def test_numbers_are_those_of_scikit_learn_at_the_runs_thresholds(run):
    found = ltml.evaluate(run, progress=False)
    scores, classes = run.scores(), found.classes.set_index("class")
    made = scores.probabilities >= run.threshold_of_class()
    for c, name in enumerate(scores.class_names):
        y = scores.targets[:, c]
        if made[:, c].any():
            assert classes.precision[name] == pytest.approx(precision_score(y, made[:, c]))
        if y.any():
            assert classes.recall[name] == pytest.approx(recall_score(y, made[:, c]))
    assert found.groups.loc["all", "mAP"] == pytest.approx(run.summary["mAP"], abs=1e-6)
    assert found.groups.loc["all", "AUROC"] == pytest.approx(run.summary["AUROC"], abs=1e-6)
    assert np.allclose(
        classes.auroc, run.classes.set_index("class").auroc, atol=1e-6, equal_nan=True
    )
    p, y = torch.from_numpy(scores.probabilities), torch.from_numpy(scores.targets)
    groups = {"tail": np.flatnonzero(classes.loc[list(scores.class_names)].group == "tail")}
    table = calibration(p, y, groups=groups).groupby("group").error.first()
    assert found.groups.calibration_error["tail"] == pytest.approx(table["tail"])
    assert found.groups.index.tolist() == ["all", *found.classes.group.unique()]


def test_a_table_and_a_split_of_other_images_count_as_the_runs_own(run, folder, tiny):
    own = ltml.evaluate(run, progress=False)
    for data in (folder / "test.csv", str(folder / "test.csv"), tiny.test):
        found = ltml.evaluate(run, data, progress=False)
        pd.testing.assert_frame_equal(found.groups, own.groups, rtol=1e-5)
    assert "Evaluation(80 images: mAP " in repr(found)


def test_classes_that_a_split_does_not_annotate_are_unknown(run, tiny):
    names = tiny.class_names[:3]
    labels = LabelMatrix(tiny.test.labels.dense()[:, [2, 0, 1]], [names[c] for c in (2, 0, 1)])
    part = Split(tiny.test.images, labels, tiny.test.ids)
    found = ltml.evaluate(run, part, progress=False).classes.set_index("class")
    whole = ltml.evaluate(run, tiny.test, progress=False).classes.set_index("class")
    assert np.allclose(found.ap[list(names)], whole.ap[list(names)], equal_nan=True)
    assert found.ap.drop(list(names)).isna().all()
    assert found.auroc.drop(list(names)).isna().all()
    strange = Split(tiny.test.images, LabelMatrix(tiny.test.labels.matrix), tiny.test.ids)
    with pytest.raises(InputError, match="class 'class 0' of the images is none of the 20 classes"):
        ltml.evaluate(run, strange, progress=False)


def test_an_old_run_gets_its_scores_by_being_evaluated(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run.path, old)
    for name in (FILE, "thresholds.csv"):
        (old / name).unlink()
    with pytest.raises(InputError, match=f"make them with: ltml evaluate {old}"):
        Run.load(old).scores()
    assert main(["evaluate", str(old), "--quiet"]) == 0
    for split in ("test", "val"):
        made = Run.load(old).scores(split)
        assert np.allclose(made.logits, run.scores(split).logits, atol=1e-4)
        assert made.paths == run.scores(split).paths
    assert np.allclose(Run.load(old).thresholds.threshold, run.thresholds.threshold, atol=1e-4)


def test_the_command_prints_and_writes(run, folder, tmp_path, capsys):
    csv = tmp_path / "classes.csv"
    for _ in range(2):  # the second replaces what the first wrote
        args = [str(run.path), str(folder / "test.csv"), "--csv", str(csv), "--quiet"]
        assert main(["evaluate", *args, "--thresholds", "0.3"]) == 0
    out = capsys.readouterr().out
    assert "80 images" in out
    assert "calibration_error" in out
    table = pd.read_csv(csv)
    assert (table.threshold == 0.3).all()
    found = ltml.evaluate(run, thresholds=0.3, progress=False)
    assert np.allclose(table.recall, found.classes.recall, atol=1e-6, equal_nan=True)
    csv.write_text("mine")
    assert main(["evaluate", str(run.path), "--csv", str(csv), "--quiet"]) == 2
    assert csv.read_text() == "mine"


def test_mistakes_of_the_user_are_named(run, tmp_path, capsys):
    assert main(["evaluate", str(run.path), "testt", "--quiet"]) == 2
    assert "'testt' is no file; give a table of labels, or one of test, val" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", str(run.path), "train", "--quiet"]) == 2
    assert "keeps scores of test and val" in capsys.readouterr().err
    table = Path(tmp_path, "t.csv")
    table.write_text("image,labels\na.png,nothing\n")
    assert main(["evaluate", str(run.path), str(table), "--quiet"]) == 2
    assert "'nothing' is none of the 20 classes" in capsys.readouterr().err
