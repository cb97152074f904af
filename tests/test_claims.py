"""The table of claims follows from what was measured, and no sentence compares without a row."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
PLACES = [ROOT / "README.md", *sorted(ROOT.glob("book/guide/*.md"))]
PLACES += [*sorted(ROOT.glob("notebooks/*.ipynb")), *sorted(ROOT.glob("ltml/**/*.py"))]
MARK = re.compile(r"<!-- claim: ([\w-]+) -->|\[claim: ([\w-]+)\]")


def _script():
    spec = importlib.util.spec_from_file_location("claims", ROOT / "figures" / "claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


claims = _script()
TABLE = pd.read_csv(ROOT / "figures" / "claims.csv")


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.01, 3, "holds"),
        (-3, -0.01, "fails"),
        (-1, 1, "not told from chance"),
        (0, 1, "not told from chance"),
        (-1, 0, "not told from chance"),
        (np.nan, np.nan, "not told from chance"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, high, says):
    assert claims.verdict(low, high) == says


def test_the_interval_is_that_of_a_paired_t_test():
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    found = claims.over_seeds(a - b)
    reference = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((reference.low, reference.high))
    assert found["seeds"] == 5
    alone = claims.over_seeds([3.0])
    assert np.isnan(alone["low"])
    assert alone["verdict"] == "not told from chance"


def test_the_bootstrap_covers_the_standard_error_of_a_mean():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=(2, 400, 1))
    found = claims.over_photos(lambda x, y: x.mean(), ours, theirs, np.zeros((400, 1)))
    error = (ours - theirs).std() / 20
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found["seeds"] == 0


def test_the_committed_table_is_what_the_measurements_say():
    pd.testing.assert_frame_equal(TABLE, claims.judge(), atol=0.011)
    assert list(TABLE) == claims.COLUMNS
    again = [claims.verdict(*ends) for ends in zip(TABLE.low, TABLE.high, strict=True)]
    close = TABLE[["low", "high"]].abs().min(axis=1) < 0.01  # rounded
    assert (TABLE.verdict.eq(again) | close).all()
    keys = claims.COLUMNS[:7]
    assert not TABLE.duplicated(keys).any()


def test_pairs_differ_in_the_claimed_part_alone():
    rows = [
        {"sampler": s, "loss": x, "diversity": "off", "classifier": "own", "seed": seed}
        for s in ("uniform", "class-aware")
        for x in ("bce", "dgb")
        for seed in range(2)
    ]
    table = pd.DataFrame(rows).assign(data="d", network="n", stage="fine-tuned", steps=9)
    table["mAP"] = 10.0 * (table.sampler == "class-aware") + (table.loss == "dgb") + table.seed
    table["tail"] = np.nan  # a set without tail classes has no rows of it
    found = pd.DataFrame(claims.pairs_of(table))
    assert set(found.metric) == {"mAP"}
    by = found.groupby("claim").difference.agg(["mean", "count"])
    assert by.loc["balanced-sampling"].tolist() == [10, 2]
    assert by.loc["dgb"].tolist() == [1, 2]


def test_marked_sentences_have_rows_and_count_them_right():
    """A marker ends a sentence; "in 3 of 7 rows" before it is counted in the table."""
    marked = {}
    for path in PLACES:
        text, end = path.read_text(encoding="utf-8"), 0
        for found in MARK.finditer(text):
            name = found[1] or found[2]
            assert name in set(TABLE.claim), f"{path.name}: no row of {name!r} in claims.csv"
            marked.setdefault(name, []).append((path.name, text[end : found.start()]))
            end = found.end()
    assert marked
    counts = claims.counted(TABLE).groupby("claim")[["holds", "of"]]
    for name, sentences in marked.items():
        right = {(row.holds, row.of) for row in counts.get_group(name).itertuples()}
        for where, sentence in sentences:
            for holds, of in re.findall(r"in (\d+) of (\d+) comparisons", sentence)[-1:]:
                assert (int(holds), int(of)) in right, f"{where}: {name}: {holds} of {of}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_measurement_loses_the_running_cell_alone(tmp_path):
    from ltml.data.pictograms import export_coco

    export_coco(tmp_path / "t", scale=0.05, image_size=24, test_images=40)
    command = [sys.executable, "-m", "ltml.cli", "ablate", "--data", "coco"]
    command += ["--root", str(tmp_path / "t"), "--train-split", "train", "--test-split", "test"]
    command += ["--holdout", "0.2", "--steps", "30", "--batch-size", "8", "--seeds", "2"]
    command += ["--rates", "0.001", "0.01", "--only", "uniform/*/off"]
    command += ["--out", str(tmp_path / "grid")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def finished():
        return {p.parent.name: p.stat().st_mtime_ns for p in tmp_path.glob("grid/*/summary.json")}

    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(finished()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = finished()
    assert 3 <= len(before) < 30
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = finished()
    assert len(after) > len(before)
    assert {name: after[name] for name in before} == before  # none was trained again


def test_closed_forms_are_compared_over_photos(tmp_path):
    import ltml

    data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=60)
    held = ltml.data.holdout.with_holdout(data, 0.3, seed=0)
    bank = ltml.bank(ltml.Recipe(), held, progress=False)
    runs = [
        ltml.probe(bank, out=tmp_path / name, diversity=name, progress=False)
        for name in ("attention", "off")
    ]
    options = {"backbone": "small", "weights": None, "image_size": 32, "diversity": "off"}
    runs.append(ltml.probe(held, out=tmp_path / "larger", progress=False, **options))
    found = claims.of_photos(*runs)
    compared = ["class-attention", "larger-images"]
    assert found.claim.tolist() == [*compared, *compared, "thresholds"]
    sizes = found[found.claim == "larger-images"]
    assert set(sizes.setting) == {"closed form, 32 px"}
    assert set(sizes.against) == {"closed form, 24 px"}
    larger = 100 * (runs[2].summary["mAP"] - runs[1].summary["mAP"])
    assert sizes.difference.iloc[0] == pytest.approx(larger, abs=0.01)
    assert (found.low < found.high).all()
    whole = 100 * (runs[0].summary["mAP"] - runs[1].summary["mAP"])
    tail = 100 * (runs[0].summary["tail"] - runs[1].summary["tail"])
    assert found.difference[[0, 2]].tolist() == pytest.approx([whole, tail], abs=0.01)
