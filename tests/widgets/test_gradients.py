import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltml import Run
from ltml.widgets import explore_gradients

RECORDS = Path(__file__).resolve().parents[2] / "figures" / "records"
BOTH = [RECORDS / "baseline", RECORDS / "method"]


@pytest.fixture(scope="module")
def page():
    return explore_gradients(BOTH)


@pytest.fixture(autouse=True)
def reset(request):
    yield
    if "page" in request.fixturenames:
        controls = request.getfixturevalue("page").controls
        for name, value in {"step": 0, "against": None, "run": "baseline", "show": "both"}.items():
            controls[name].value = value


def said_of(name, epoch=None):
    """What the sentence must hold, straight from the record's file."""
    table = pd.read_csv(RECORDS / name / "per_class.csv")
    table = table if epoch is None else table[table.epoch == epoch]
    sums = table.groupby("class")[["grad_pos", "grad_neg"]].sum()
    total = sums.sum(axis=1)
    down = (sums.grad_neg > sums.grad_pos).sum()
    return (
        f"{total.idxmax()} gets most gradient, {total.idxmin()} least, "
        f"{total.max() / total.min():.3g} times less; {down} of 20 classes"
    )


def test_the_step_moves_picture_and_sentence_and_not_the_history(page):
    picture, history = page.picture.value, page.history.picture.value
    assert page.said.startswith("baseline, over the whole run: " + said_of("baseline"))
    page.controls["step"].value = 108
    assert page.said.startswith(
        "baseline, in steps 73 to 108 (epoch 3): " + said_of("baseline", epoch=3)
    )
    assert page.picture.value != picture
    assert page.history.picture.value is history
    page.controls["step"].value = 0
    assert page.picture.value == picture  # pixel by pixel, though drawn on kept ground


def test_slider_and_play_name_the_steps(page):
    steps = pd.read_csv(RECORDS / "baseline" / "metrics.csv").step.tolist()
    assert [label for label, _ in page.controls["step"].options] == ["whole run", *map(str, steps)]
    page.controls["play"].value = 2
    assert page.controls["step"].value == steps[1]
    assert "(epoch 2)" in page.said
    page.controls["step"].value = steps[4]
    assert page.controls["play"].value == 5
    assert "play" not in page.values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "method"),
        ("against", "method"),
        ("show", "total"),
        ("show", "ratio"),
        ("order", "gradient"),
        ("log", False),
        ("class_name", "crown"),
    ],
)
def test_every_control_changes_the_picture_and_back(page, name, value):
    control, before = page.controls[name], page.picture.value
    old = control.value
    control.value = value
    assert page.picture.value != before
    control.value = old
    assert page.picture.value == before


def test_two_runs_stand_one_above_the_other_in_one_order(page):
    page.controls["against"].value = "method"
    page.controls["order"].value = "gradient"
    page.controls["step"].value = 72
    for name in ("baseline", "method"):
        assert f"{name}, in steps 37 to 72 (epoch 2): {said_of(name, epoch=2)}" in page.said
    names = [t.get_text() for t in page.axes[1].get_xticklabels()]  # below both
    table = pd.read_csv(RECORDS / "baseline" / "per_class.csv")
    table = table[table.epoch == 2]
    order = table.assign(t=-table.grad_pos - table.grad_neg).sort_values("t")["class"]
    assert [name.rsplit(" ", 1)[0] for name in names] == order.tolist()
    grad_pos = [next(x for x in ax.lines if x.get_marker() == "o").get_ydata() for ax in page.axes]
    for name, drawn in zip(("baseline", "method"), grad_pos, strict=True):
        record = pd.read_csv(RECORDS / name / "per_class.csv")
        record = record[record.epoch == 2].set_index("class").grad_pos
        assert np.allclose(drawn, record[order])
    assert page.axes[0].get_ylim() == page.axes[1].get_ylim()
    page.controls["order"].value = "count"


def test_the_history_follows_its_class_and_the_runs(page):
    ap = {
        name: Run.load(RECORDS / name).per_class.set_index("class").ap
        for name in ("baseline", "method")
    }
    page.history.controls["class_name"].value = "crown"
    assert (
        f"AP of crown ends at {100 * ap['baseline']['crown'].iloc[-1]:.1f} %" in page.history.said
    )
    before = page.history.picture.value
    page.controls["against"].value = "method"
    assert f"ends at {100 * ap['method']['crown'].iloc[-1]:.1f} %" in page.history.said
    assert page.history.picture.value != before


def test_runs_that_cannot_be_used_are_named_and_the_explorer_stays_alive(tmp_path):
    page = explore_gradients(tmp_path / "nowhere")
    assert "there is no run to explore" in page.said
    assert any("is not a folder" in getattr(child, "value", "") for child in page.children[:-2])
    page.controls["log"].value = False
    # A run of other classes, and one without a record of gradients.
    for name in ("foreign", "blank"):
        shutil.copytree(RECORDS / "method", tmp_path / name)
    path = tmp_path / "foreign" / "per_class.csv"
    table = pd.read_csv(path)
    table.assign(**{"class": table["class"] + "!"}).to_csv(path, index=False)
    path = tmp_path / "blank" / "per_class.csv"
    table.assign(grad_pos=np.nan, grad_neg=np.nan).to_csv(path, index=False)
    page = explore_gradients([RECORDS / "baseline", tmp_path / "foreign", tmp_path / "blank"])
    page.controls["against"].value = "foreign"
    assert "have different classes; compare runs of the same data" in page.said
    page.controls["against"].value = None
    page.controls["run"].value = "blank"
    assert "'blank' holds no record of its gradients" in page.said
    assert page.picture.layout.display == "none"
    page.controls["run"].value = "foreign"
    assert page.controls["class_name"].value == "umbrella!"  # the list follows the run
    assert "umbrella! ends at" in page.history.said
    page.controls["run"].value = "baseline"
    assert said_of("baseline") in page.said
    assert page.picture.layout.display is None


def test_runs_of_one_name_are_told_apart(tmp_path):
    shutil.copytree(RECORDS / "method", tmp_path / "baseline")
    page = explore_gradients([RECORDS / "baseline", tmp_path / "baseline"])
    assert len(set(page.controls["run"].options)) == 2
