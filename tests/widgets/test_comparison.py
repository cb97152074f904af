import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import ipywidgets
import pytest

from ltml import InputError, Run, plots
from ltml.runs import table_of
from ltml.widgets import compare_runs
from ltml.widgets.comparison import html_table, reading

RECORDS = Path(__file__).resolve().parents[2] / "figures" / "records"


@pytest.fixture(scope="module")
def runs():
    return [Run.load(RECORDS / name) for name in ("baseline", "method")]


def changed(run, folder, config=None, **summary):
    shutil.copytree(run.path, folder)
    (folder / "summary.json").write_text(json.dumps(run.summary | summary))
    if config:
        (folder / "config.json").write_text(json.dumps(run.config | config))
    return folder


def test_controls_move_the_picture_the_sentence_and_the_table(runs):
    page = compare_runs(RECORDS)
    pictures = [page.picture.value]
    for name, value in (("show", "classes"), ("show", "curves"), ("pool", True), ("runs", (1,))):
        page.controls["show"].value = "groups" if name == "pool" else page.controls["show"].value
        page.controls[name].value = value
        pictures.append(page.picture.value)
    assert len(set(pictures)) == len(pictures)
    tail = 100 * runs[1].summary["tail"]
    assert page.said.startswith("method: mAP")
    assert f"tail {tail:.1f}" in page.said
    assert "baseline" not in page.table.value
    page.controls["runs"].value = (0, 1)
    assert "baseline" in page.table.value
    assert page.children[-1] is page.table


def test_a_picture_does_not_depend_on_those_before_it():
    page = compare_runs(RECORDS)
    before = page.picture.value
    for show in ("curves", "classes", "groups"):
        page.controls["show"].value = show
        page.controls["pool"].value = True
        page.controls["pool"].value = False
    assert page.picture.value == before


def test_the_sentence_says_which_run_is_best_where(runs, tmp_path):
    path = changed(runs[0], tmp_path / "headstrong", head=0.999, gradient_imbalance=1.5)
    said = reading([*runs, Run.load(path)])
    assert f"method for all classes ({100 * runs[1].summary['mAP']:.1f})" in said
    assert "headstrong for head (99.9)" in said
    assert "Most equal gradients: headstrong (1.5)." in said
    other = changed(runs[0], tmp_path / "x", {"recipe": runs[0].recipe | {"data": "voc"}})
    assert "different data (pictograms, voc)" in reading([runs[0], Run.load(other)])


def test_the_table_holds_the_numbers_and_escapes_names(runs, tmp_path):
    path = changed(runs[0], tmp_path / "<script>alert(1)<", tail=None)
    page = compare_runs([path, RECORDS / "method"])
    assert "<script>" not in page.table.value
    assert "&lt;script&gt;alert(1)&lt;" in page.table.value
    assert "<b>97.3</b>" in page.table.value
    assert ">-</td>" in page.table.value
    cells = ElementTree.fromstring(page.table.value).findall(".//tr[2]/td")
    shown = dict(zip(table_of(runs), ("".join(cell.itertext()) for cell in cells), strict=True))
    assert float(shown["head"]) == pytest.approx(100 * runs[0].summary["head"], abs=0.051)
    assert shown["sampler"] == runs[0].recipe["sampler"]


def test_what_cannot_be_compared_is_said_in_place(runs, tmp_path):
    renamed = tmp_path / "renamed"
    shutil.copytree(runs[0].path, renamed)
    table = runs[0].per_class.assign(**{"class": runs[0].per_class["class"] + "!"})
    table.to_csv(renamed / "per_class.csv", index=False)
    later = changed(runs[0], tmp_path / "later", {"schema": 99})
    page = compare_runs([RECORDS / "method", renamed, later, tmp_path / "missing"])
    notes = " ".join(child.value for child in page.children if type(child) is ipywidgets.HTML)
    assert "schema 99" in notes
    assert "missing" in notes
    page.controls["show"].value = "classes"
    assert "different classes" in page.said
    assert "renamed" in page.table.value
    page.controls["show"].value = "curves"
    assert "different classes" not in page.said
    page.controls["runs"].value = ()
    assert "no run is chosen" in page.said
    assert page.table.value == ""


def test_many_runs_become_rows_and_marks_have_a_limit(runs, tmp_path):
    many = [Run.load(changed(runs[0], tmp_path / f"r+seed{i}", tail=i / 40)) for i in range(31)]
    page = compare_runs(many)
    assert len(page.values["runs"]) == 7
    page.controls["runs"].value = tuple(range(31))
    assert "at most 30" in page.said
    page.controls["pool"].value = True
    assert "tail (75.0)" in page.said
    page.controls["show"].value = "curves"
    assert "tells at most 7 apart" in page.said


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    (tmp_path / "b").mkdir()
    changed(runs[1], tmp_path / "b" / "baseline")
    page = compare_runs([RECORDS / "baseline", tmp_path / "b"])
    assert [name for name, _ in page.controls["runs"].options] == [
        "records · baseline",
        "b · baseline",
    ]
    assert "b · baseline for all classes" in page.said


def test_without_a_run_it_says_what_to_do(tmp_path):
    page = compare_runs(tmp_path)
    assert "no run" in page.said
    assert page.picture.layout.display == "none"


def test_a_single_run_has_no_best():
    table = table_of([Run.load(RECORDS / "method")])
    assert "<b>" not in html_table(table)
    with pytest.raises(InputError, match="no run"):
        plots.group_dots([])
