"""Unknown labels of training and test images, through everything that reads labels."""

from dataclasses import replace

import numpy as np
import pytest

import ltml
from ltml import LabelMatrix, Recipe, fit, probe, record_features, suspects
from ltml.plots.photos import differences
from ltml.plots.report import write_report
from ltml.runs.run import Run
from ltml.training.arrays import features_from

SMALL = {"backbone": "small", "device": "cpu"}


@pytest.fixture(scope="module")
def blank(tiny):
    """Pictograms of which a third of the entries is unknown, and nothing but positives of one
    class, and no entry at all of another."""
    rng = np.random.default_rng(0)

    def of(split):
        dense = split.labels.dense().numpy().astype(float)
        hidden = rng.random(dense.shape) < 1 / 3
        hidden[:, 3] = dense[:, 3] == 0
        hidden[:, 5] = True
        dense[hidden] = np.nan
        return replace(split, labels=LabelMatrix(dense, split.labels.class_names))

    return replace(tiny, train=of(tiny.train), test=of(tiny.test))


RUNS = {
    "plain": Recipe(steps=3, batch_size=16, interference=True, **SMALL),
    "negative": Recipe(steps=3, batch_size=16, unknown="negative", **SMALL),
    "best": Recipe(
        **{"steps": 16, "batch_size": 16, "holdout": 0.2, "keep": "best"},
        **{"record_scores": True, "evaluate_every": 1},
        **SMALL,
    ),
    "refit": Recipe.method(steps=3, batch_size=16, holdout=0.2, refit=True, **SMALL),
}


@pytest.fixture(scope="module")
def runs(blank, tmp_path_factory):
    out = tmp_path_factory.mktemp("unknown")
    made = {n: fit(r, data=blank, out=out / n, progress=False) for n, r in RUNS.items()}
    made["probe"] = probe(blank, weights=None, out=out / "probe", progress=False, **SMALL)
    return made


@pytest.mark.parametrize("name", [*RUNS, "probe"])
def test_runs_are_evaluated_on_what_is_known(runs, blank, name):
    run, known = runs[name], blank.test.labels.known().numpy()
    kept, made = (ltml.evaluate(run, data, progress=False) for data in ("test", blank.test))
    for found in (kept, made):
        assert np.array_equal(np.isnan(found.scores.targets), ~known)
        classes = found.classes.set_index("class").loc[list(blank.class_names)]
        assert classes.ap.isna().to_numpy().tolist() == (blank.test.labels.counts == 0).tolist()
    assert kept.groups.mAP["all"] == pytest.approx(run.summary["mAP"])
    assert np.allclose(kept.scores.logits, made.scores.logits, atol=1e-3)
    assert len(run.predict(blank.test, progress=False)) == len(blank.test)
    wrong = run.mistakes()
    column = wrong["class"].map(blank.class_names.index)
    assert len(wrong)
    assert known[wrong["index"], column].all()
    if run.thresholds is not None:
        assert run.thresholds.threshold.between(0, 1).sum() >= 19


def test_figures_pages_and_tables_take_unknown_labels(runs, blank, tmp_path):
    page = write_report(list(runs.values()), tmp_path / "r.html", labels=blank.train.labels)
    assert all(name in page.read_text() for name in runs)
    assert len(differences(runs["plain"], runs["negative"]))
    history = runs["best"].score_history("train")
    assert np.isfinite(history.logits).all()
    assert np.isfinite(Run.load(runs["plain"].path).per_class.grad_neg).all()


def test_suspects_features_and_banks_take_unknown_labels(runs, blank):
    maps = ltml.bank(Recipe(**SMALL), blank, progress=False)
    for data in (blank, maps):
        found = suspects(data, backbone="small", weights=None, device="cpu", progress=False)
        assert found.table()["suspicion"].between(0, 1).all()
    record = record_features(runs["plain"], data=blank, device="cpu")
    for table in (record.diversity(), features_from(maps).diversity()):
        assert not table.empty
