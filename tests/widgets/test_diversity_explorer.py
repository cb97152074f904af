import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from ltml import FeatureRecord, Run
from ltml.features import SCHEMA, SplitFeatures
from ltml.widgets import explore_diversity

RECORDS = Path(__file__).resolve().parents[2] / "figures" / "records"


def write_record(folder, seed, spread):
    """Put a record of made-up features into a run's folder."""
    run, random = Run.load(folder), np.random.default_rng(seed)
    names = run.config["data"]["class_names"]
    arrays = {"schema": np.array(SCHEMA), "class_names": np.array(names)}
    cls = np.repeat(np.arange(len(names)), 8)
    for split in ("train", "test"):
        M = len(cls)
        labels = np.zeros((M, len(names)), np.uint8)
        labels[np.arange(M), cls] = 1
        features = np.eye(len(names), 32)[cls] + spread * random.standard_normal((M, 32))
        part = SplitFeatures(
            features=features.astype(np.float16),
            cls=cls.astype(np.int32),
            image=np.arange(M, dtype=np.int32),
            score=random.standard_normal(M).astype(np.float32),
            neighbors=np.stack([random.permutation(M)[:8] for _ in range(M)]),
            similarity=np.full((M, 8), 0.5, np.float16),
            index=np.arange(M),
            labels=labels,
            thumbnails=random.integers(0, 255, (M, 16, 16, 3), dtype=np.uint8),
        )
        arrays |= {f"{split}_{k}": v for k, v in dataclasses.asdict(part).items()}
    np.savez(folder / "features.npz", **arrays)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs with records, and one without."""
    root = tmp_path_factory.mktemp("runs")
    for i, name in enumerate(("baseline", "method")):
        shutil.copytree(RECORDS / name, root / name)
        write_record(root / name, i, 0.2 + 0.3 * i)
    shutil.copytree(RECORDS / "baseline", root / "bare")
    return root


def test_it_says_what_the_records_hold(folders):
    page = explore_diversity([folders / "baseline", folders / "method"])
    controls = page.controls
    assert controls["name"].options == tuple(Run.load(folders / "baseline").classes["class"])
    for i, run in enumerate(("baseline", "method")):
        record = FeatureRecord.load(folders / run)
        for split in ("test", "train"):
            for measure in ("vendi", "cosine-distance"):
                before = page.picture.value
                controls["run"].value, controls["split"].value = i, split
                controls["measure"].value, controls["name"].value = measure, "gear"
                assert page.picture.value != before
                table = record.diversity(measure=measure, split=split).set_index("class")
                row = table.loc["gear"]
                assert f"{measure} of {row['size']} of its {row.recorded} recorded" in page.said
                assert f"{run} {row.value:.2f} ± {row.error:.2f}" in page.said
                assert f"gear ({row['count']} training images)" in page.said
                part, c = record.split(split), record.index("gear")
                held = part.labels[part.neighbors[part.cls == c][:, :6], c].mean()
                assert f"{100 * held:.0f} % hold gear" in page.said


def test_another_run_stands_beside(folders):
    page = explore_diversity(folders)  # bare, baseline, method
    before = page.picture.value
    page.controls["beside"].value = 2
    assert page.picture.value != before
    for name in ("baseline", "method"):
        row = FeatureRecord.load(folders / name).diversity().set_index("class")
        row = row.loc[page.controls["name"].value]
        assert f"{name} {row.value:.2f} ± {row.error:.2f}" in page.said


def test_a_run_without_features_says_so_in_place(folders):
    page = explore_diversity(folders)
    alive = page.said
    remedy = "run 'bare' has no features.npz; make it with ltml.record_features(run)"
    for control in ("run", "beside"):
        before = page.controls[control].value
        page.controls[control].value = 0  # bare
        assert page.said == remedy
        assert remedy.replace("'", "&#x27;") in page.text.value
        assert page.picture.layout.display == "none"
        page.controls[control].value = before
        assert page.picture.layout.display is None
        assert page.said == alive


def test_it_opens_on_a_run_that_has_features(folders):
    page = explore_diversity([folders / "bare", folders / "method"])
    assert page.controls["run"].value == 1
    assert "method" in page.said
    page = explore_diversity(folders / "bare")
    assert page.said.startswith("run 'bare' has no features.npz")


def test_runs_of_other_classes_bring_theirs(folders, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders / "method", other)
    table = Run.load(other).per_class
    table["class"] = table["class"].str.upper()
    table.to_csv(other / "per_class.csv", index=False)
    config = other / "config.json"
    names = Run.load(other).config["data"]["class_names"]
    text = config.read_text()
    for name in names:
        text = text.replace(f'"{name}"', f'"{name.upper()}"')
    config.write_text(text)
    write_record(other, 3, 0.3)
    page = explore_diversity([folders / "method", other])
    page.controls["run"].value = 1
    assert page.controls["name"].value.isupper()
    assert page.said.startswith(page.controls["name"].value)
    page.controls["beside"].value = 0
    assert "different classes" in page.said
    page.controls["run"].value = 0
    assert page.said.startswith(page.controls["name"].value)


def test_same_names_are_told_apart_and_missing_runs_named(folders, tmp_path):
    shutil.copytree(folders / "method", tmp_path / "method")
    page = explore_diversity([folders / "method", tmp_path / "method", tmp_path / "none"])
    names = [name for name, _ in page.controls["run"].options]
    assert len(set(names)) == 2
    assert any("none" in getattr(child, "value", "") for child in page.children)


def test_without_any_run_it_says_what_to_do():
    page = explore_diversity([])
    assert page.said.startswith("no run to explore; give runs")
    assert page.picture.layout.display == "none"


def test_scores_are_measured_once(folders, monkeypatch):
    calls = []
    measure = FeatureRecord.diversity
    monkeypatch.setattr(
        FeatureRecord, "diversity", lambda self, **o: calls.append(o) or measure(self, **o)
    )
    page = explore_diversity(folders / "method")
    first = len(calls)
    for name in page.controls["name"].options[:3]:
        page.controls["name"].value = name
    page.controls["split"].value = "train"
    page.controls["split"].value = "test"
    assert len(calls) == first + 1
