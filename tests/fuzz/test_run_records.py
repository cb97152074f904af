"""The files of a run: whatever they hold, what training wrote or one error."""

import csv
import io
import json
import math
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import fuzz, mutated, names, outcome, text_of

from ltml import FeatureRecord, InputError, Recipe, Run
from ltml.build import check_recipe
from ltml.card import results_card
from ltml.runs import (
    METRICS,
    PER_CLASS,
    _check_cells,
    _plain_rows,
    read_config,
    table_of,
    write_json,
)

CLASSES = ["cat", "NA", "traffic, light"]
CONFIG = {
    "schema": 1,
    "recipe": asdict(replace(Recipe(steps=4), image_size=40, lr=0.01, backbone_lr=1.0)),
    "data": {"name": "voc", "train_images": 9, "test_images": 5, "labels_per_image": 1.5,
             "class_names": CLASSES, "test_counts": [3, 2, 1]},
}  # fmt: skip
METRICS_CSV = """\
epoch,step,train_loss,mAP,head,medium,tail
1,2,0.211177,0.2747911,0.4726439,,0.1209944
2,4,0.1147148,0.41701,0.6963378,,2.5e-05
"""
PER_CLASS_CSV = """\
epoch,class,group,count,ap,grad_pos,grad_neg,grad_weight
1,cat,head,498,0.1644925,0.2874225,0.2479677,0.9434606
1,NA,tail,6,,0.05040565,0.06046403,0.2785837
1,"traffic, light",tail,2,0,1e-06,0,0
2,cat,head,498,1,0.2874225,0.2479677,0.9434606
2,NA,tail,6,,0.05040565,0.06046403,0.2785837
2,"traffic, light",tail,2,0.5,1e-06,0,0
"""
SUMMARY = {
    "mAP": 0.65, "head": 0.94, "medium": None, "tail": 0.41, "gradient_imbalance": 12.3,
    "seconds": 38.66, "steps": 4, "torch": "2.6", "device": "cpu",
    "classes_without_positives": ["NA"],
}  # fmt: skip
FILES = {
    "config.json": json.dumps(CONFIG, indent=2),
    "metrics.csv": METRICS_CSV,
    "per_class.csv": PER_CLASS_CSV,
    "summary.json": json.dumps(SUMMARY, indent=2),
}
JSON_TOKENS = [
    b'"x"',
    b"[1, 2]",
    b'{"a": 1}',
    b"64.0",
    b"65",
    b'"seed"',
    b'"mAP"',
    b'"recipe"',
    b"2",
]
CSV_TOKENS = [
    b"1",
    b"2",
    b"3",
    b"cat",
    b"head",
    b"hat",
    b"0.5",
    b"1.5",
    b",,",
    b"True",
    b"-0.1",
    b"NA",
]


@pytest.fixture
def run(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    return folder


def load(folder, name, content):
    """The run with one file's content, or None for one error that names the file."""
    for other, text in FILES.items():
        (folder / other).write_text(text)
    (folder / name).write_bytes(content)
    return outcome(lambda _: Run.load(folder), folder / name)


def use(run):
    """Do with a run that was read what ``ltml compare`` and the notebooks do first."""
    table = table_of([run, run])
    for name in ("mAP", "head", "medium", "tail"):
        share = run.summary.get(name)
        wanted = math.nan if share is None else 100 * share
        assert table[name].iloc[0] == pytest.approx(wanted, abs=0.006, nan_ok=True)
    assert len(run.classes) == len(set(run.classes["class"]))
    assert run.classes["count"].is_monotonic_decreasing
    table.to_string()
    Recipe.from_dict(run.recipe)


def test_the_files_are_those_of_a_run(run):
    """What the mutations begin with is read in full."""
    found = Run.load(run)
    use(found)
    assert found.config == CONFIG
    assert found.summary == SUMMARY
    assert found.classes["class"].tolist() == CLASSES
    assert "65.0" in results_card([found])


@given(st.lists(names(), min_size=1, max_size=4, unique=True), st.data())
@fuzz(100)
def test_what_training_writes_is_read(folder, classes, data):
    """Class names of any script and numbers of any size come back as they were written."""
    number = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([1e-30, 1e30]))
    share = st.one_of(st.none(), st.floats(0, 1))
    rows = []
    for epoch in (1, 2):
        for i, name in enumerate(classes):
            rows.append([epoch, name, "tail", i, data.draw(share)])
            rows[-1] += [data.draw(number) for _ in range(3)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerows([PER_CLASS, *rows])
    run = load(folder, "per_class.csv", out.getvalue().encode())
    assert run.per_class["class"].tolist() == classes * 2
    for column, wanted in zip(PER_CLASS, zip(*rows, strict=True), strict=True):
        if column not in ("class", "group"):
            assert run.per_class[column].tolist() == pytest.approx(
                [math.nan if v is None else v for v in wanted], nan_ok=True
            )


def table_by_hand(content: bytes, columns) -> list[dict]:
    """Rows as the csv module has them, numbers by float()."""
    rows = list(csv.DictReader(io.StringIO(text_of(content))))
    assert all(None not in row and None not in row.values() for row in rows), "a row was cut"
    text = ("class", "group")
    return [{c: row[c] if c in text else float(row[c] or "nan") for c in columns} for row in rows]


@pytest.mark.parametrize(
    ("name", "valid", "columns"),
    [
        ("metrics.csv", METRICS_CSV, METRICS),
        ("per_class.csv", PER_CLASS_CSV, PER_CLASS),
        ("per_class.csv", PER_CLASS_CSV.replace('"traffic, light"', "light"), PER_CLASS),
    ],
)
@given(data=st.data())
@fuzz(200)
def test_a_broken_table_is_read_rightly_or_refused(folder, name, valid, columns, data):
    """Every number is the file's own and a possible one, every epoch whole, no row filled up."""
    content = data.draw(mutated(valid.encode(), CSV_TOKENS))
    run = load(folder, name, content)
    if run is None:
        return
    use(run)
    table = run.metrics if name == "metrics.csv" else run.per_class
    for row, wanted in zip(
        table[columns].to_dict("records"), table_by_hand(content, columns), strict=True
    ):
        for column, value in wanted.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=1e-12, nan_ok=True)
            assert row[column] == same
        shares = [row[c] for c in ("mAP", "head", "medium", "tail", "ap") if c in row]
        assert all(math.isnan(share) or 0 <= share <= 1 for share in shares)
        assert row["epoch"] in (1, 2)
        assert row.get("group", "tail") in ("head", "medium", "tail")
    assert content.endswith((b"\n", b"\r"))


CELLS = st.one_of(
    st.from_regex(r"\A-?[0-9]{0,3}(\.[0-9]{0,3})?(e[-+]?[0-9]{0,3})?\Z"),
    st.sampled_from(["", "0", "1", "1.0", "1.0000001", "-0", "head", "hat", "nan", "inf", "1e-07"]),
    st.text("0123456789.e-+ \"',\n", max_size=6),
)


ROWS = {
    "metrics": (METRICS, METRICS_CSV.splitlines()[1].split(",")),
    "classes": (PER_CLASS, PER_CLASS_CSV.splitlines()[1].split(",")),
    "a later version's": ([*PER_CLASS, "more"], [*PER_CLASS_CSV.splitlines()[1].split(","), "x"]),
}


@given(st.sampled_from(sorted(ROWS)), st.integers(0, 6), CELLS)
@fuzz(600)
@example("metrics", 3, "1.2")
@example("metrics", 3, "9e-00")
@example("classes", 1, 'a"b')
def test_the_quick_check_of_a_table_takes_nothing_that_the_careful_one_refuses(which, at, cell):
    columns, cells = ROWS[which]
    assert _plain_rows(tuple(columns)).fullmatch(",".join(cells) + "\n")
    row = ",".join([*cells[:at], cell, *cells[at + 1 :]]) + "\n"
    if _plain_rows(tuple(columns)).fullmatch(row):
        # A blank line is passed over, and leaves the table to the careful check.
        known = [column for column in columns if column != "more"]
        _check_cells(Path("table.csv"), ",".join(columns) + "\n\n" + row, known)


@given(mutated(FILES["summary.json"].encode(), JSON_TOKENS))
@fuzz(200)
@example(b'{"mAP": true}')
@example(b'{"mAP": 0.1, "mAP": 0.9}')
@example(b'{"seconds": 1e400, "mAP": NaN}')
def test_a_broken_summary_is_read_rightly_or_refused(folder, content):
    """A result is a share or absent; one of another type or size is an error, not a number."""
    run = load(folder, "summary.json", content)
    if run is not None:
        use(run)
        assert run.summary == json.loads(text_of(content))
        for name in ("mAP", "head", "medium", "tail"):
            assert run.summary.get(name) is None or 0 <= run.summary[name] <= 1


@given(mutated(FILES["config.json"].encode(), JSON_TOKENS))
@fuzz(200)
def test_a_broken_config_is_read_rightly_or_refused(folder, content):
    """A recipe that is read holds the file's values, each of its field's type."""
    run = load(folder, "config.json", content)
    if run is not None:
        use(run)
        assert run.config == json.loads(text_of(content))
        recipe = Recipe.from_dict(run.recipe)
        for name, value in run.recipe.items():
            if hasattr(recipe, name):
                found = getattr(recipe, name)
                assert found == (math.inf if value is None and found is not None else value)
        results_card([run]) if set(run.recipe) == set(CONFIG["recipe"]) else None


@given(st.sampled_from(sorted(CONFIG["recipe"])), st.data())
@fuzz(150)
def test_a_value_of_another_type_is_named(folder, name, data):
    """No setting of a wrong type reaches a training, where it would be a crash or a wrong run."""
    value = data.draw(
        st.sampled_from(["x", 1, 1.5, True, None, [], {}, 10**30, float("nan"), float("inf"), "1"])
    )
    config = CONFIG | {"recipe": CONFIG["recipe"] | {name: value}}
    for other, text in FILES.items():
        (folder / other).write_text(text)
    (folder / "config.json").write_text(json.dumps(config))
    kind = str(Recipe.__annotations__[name])
    fits = {str: "str", int: "int", float: "float", bool: "bool"}.get(type(value), "?") in kind
    fits |= type(value) is int and "float" in kind
    fits |= value is None and ("None" in kind or kind in ("float", str(float)))
    fits &= value == value
    where = folder / "config.json"
    found = outcome(lambda _: Recipe.from_dict(read_config(folder)["recipe"]), where)
    assert (found is not None) == fits
    if found is not None:
        outcome(lambda _: check_recipe(found), where, also=name)


def test_infinity_survives_json(tmp_path):
    """JSON has no infinity: the one that write_json made null is infinity again."""
    write_json(tmp_path / "config.json", CONFIG | {"recipe": asdict(Recipe(max_weight=math.inf))})
    assert Recipe.from_dict(read_config(tmp_path)["recipe"]).max_weight == math.inf


def arrays_of(split):
    row = np.arange(3, dtype=np.int32)
    return {
        f"{split}_{name}": value
        for name, value in {
            "features": np.ones((3, 4), np.float16), "cls": row, "image": row,
            "score": np.zeros(3, np.float32), "neighbors": row[:, None],
            "similarity": np.zeros((3, 1), np.float16), "index": row.astype(np.int64),
            "labels": np.eye(3, dtype=np.uint8), "thumbnails": np.zeros((3, 2, 2, 3), np.uint8),
        }.items()
    }  # fmt: skip


ARRAYS = (
    {"schema": np.array(1), "class_names": np.array(CLASSES)}
    | arrays_of("train")
    | arrays_of("test")
)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@given(data=st.data())
@fuzz(75)
def test_damaged_features_are_refused(folder, save, data):
    """An archive with a changed byte is read as it was, or named: checksums guard every array."""
    shutil.rmtree(folder)
    folder.mkdir()
    out = io.BytesIO()
    save(out, **ARRAYS)
    content = data.draw(mutated(out.getvalue()))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    run = Run.load(folder)
    (folder / "features.npz").write_bytes(content)
    record = outcome(lambda _: FeatureRecord.load(run), folder / "features.npz")
    if record is not None:
        assert (record.split("test").features == 1).all()
        assert record.split("train").cls.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", [name for name in ARRAYS if name.startswith("train_")])
@pytest.mark.parametrize("value", [np.array("a"), np.array(1j), np.zeros((3, 1), bool)])
def test_features_of_another_type_are_refused(folder, name, value):
    for other, text in FILES.items():
        (folder / other).write_text(text)
    run = Run.load(folder)
    np.savez(folder / "features.npz", **ARRAYS | {name: value})
    with pytest.raises(InputError, match=re.escape("features.npz")):
        FeatureRecord.load(run)
