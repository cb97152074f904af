"""The files of a run: read as training wrote them, or refused in a sentence that names the file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ltml
from ltml import InputError, Recipe, Run
from ltml.core.files import write_csv
from ltml.core.labels import GROUPS
from ltml.runs.run import METRICS, find_runs, table_of

RECORD = Path(__file__).resolve().parent / "records" / "schema1"
FILES = ["config.json", "metrics.csv", "per_class.csv", "summary.json"]
fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(RECORD, tmp_path / "run"))


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(share=st.floats(0, 0.9999))
def test_a_file_that_is_cut_anywhere_is_refused_by_name(folder, name, share):
    content = (RECORD / name).read_bytes().rstrip()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=name) as caught:
        Run.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(data=st.data())
def test_a_changed_file_is_read_or_refused_by_name(folder, name, data):
    content = bytearray((RECORD / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        token = data.draw(st.sampled_from([b"", b",", b'"', b"\n", b"nan", b"x", b"\xff", b"{"]))
        content[place : place + data.draw(st.integers(0, 3))] = token
    (folder / name).write_bytes(content)
    try:
        said = f"{name}\t{len(table_of([Run.load(folder)]))}"
    except InputError as error:
        said = str(error)
    assert name in said
    assert "\n" not in said


@fuzz
@given(
    st.lists(
        st.tuples(st.floats(0, 1e9) | st.just(np.nan), *[st.floats(0, 1) | st.just(np.nan)] * 4),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read(folder, rows):
    table = pd.DataFrame(rows, columns=METRICS[2:])
    table.insert(0, "epoch", np.arange(1, len(rows) + 1))
    table.insert(1, "step", 36 * table.epoch)
    write_csv(folder / "metrics.csv", table)
    per_class = Run.load(RECORD).per_class
    first = per_class[per_class.epoch == 1]
    write_csv(folder / "per_class.csv", pd.concat([first.assign(epoch=e) for e in table.epoch]))
    pd.testing.assert_frame_equal(Run.load(folder).metrics, table, rtol=1e-6)


def test_class_names_that_look_like_numbers_or_nothing_stay_names(folder):
    table = Run.load(RECORD).per_class
    names = table["class"].replace({"cat": "NA", "cup": "007", "flag": "a,b"})
    write_csv(folder / "per_class.csv", table.assign(**{"class": names}))
    assert {"NA", "007", "a,b"} <= set(Run.load(folder).classes["class"])


def test_a_run_shows_its_result_and_not_its_tables():
    run = Run.load(RECORD)
    assert (
        repr(run)
        == f"Run({str(RECORD)!r}, 7 epochs: "
        + ", ".join(f"{name} {100 * run.summary[name]:.1f}" for name in ("mAP", *GROUPS))
        + ")"
    )
    assert "<table" in run._repr_html_()


def test_options_of_parts_move_out_of_old_recipes():
    old = {"sampler": "group", "ridge": 0.1, "share": "equal", "uniform": 0.3, "loss": "dgb"}
    old |= {"strength": 0.3, "momentum": 0.9, "max_weight": 10.0, "diversity": "attention"}
    old |= {"kappa": 0.5, "tau": 2.0, "alpha": 0.6, "pairs": False, "data_seed": 3}
    recipe = Recipe.from_dict(old)
    assert recipe.sampler_options == {"ridge": 0.1, "share": "equal", "uniform": 0.3}
    assert recipe.loss_options == {"strength": 0.3, "momentum": 0.9, "max_weight": 10.0}
    assert recipe.head_options == {"kappa": 0.5, "tau": 2.0}
    assert recipe.data_options == {"seed": 3}
    assert Recipe.from_dict({"head_options": {"pairs": True, "tau": 2}}).head_options == {"tau": 2}
    assert recipe.momentum == 0.9  # SGD's
    assert Recipe.from_dict(old | {"loss": "bce"}).loss_options == {}


def test_runs_are_found_in_folders_and_problems_are_said(folder, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    found, problems = find_runs([tmp_path, folder, RECORD])
    assert [run.name for run in found] == ["run", "run", "schema1"]
    assert len(problems) == 1
    assert "broken" in problems[0]
    (folder / "figures").mkdir()
    (folder / "figures" / "config.json").write_text("{}")  # a run with runs inside is a run
    assert [run.name for run in find_runs(folder)[0]] == ["run"]


def test_seeds_whose_validation_split_is_held_out_share_a_setting(tmp_path):
    data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=60)
    options = {"steps": 1, "batch_size": 8, "warmup": 0, "holdout": 0.3}
    runs = [
        ltml.fit(Recipe(seed=s, **options), data=data, out=tmp_path / f"{s}", progress=False)
        for s in (0, 1)
    ]
    assert runs[0].setting == runs[1].setting
    assert runs[0].setting != replace(runs[0], config={**runs[0].config, "recipe": {}}).setting
