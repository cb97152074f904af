import shutil
from io import BytesIO
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from ltml import InputError, Run
from ltml.widgets import Explorer, LiveView, find_runs

RECORDS = Path(__file__).resolve().parents[2] / "figures" / "records"


def explorer(**options):
    def draw(ax, n, word):
        if n == 3:
            raise InputError("n=3 cannot be <drawn>; give another")
        ax.plot(range(n))
        ax.set_xticks([0], [word])
        return f"{n} points, {word}"

    controls = {
        "n": ipywidgets.IntSlider(2, 1, 5),
        "word": ipywidgets.Dropdown(options=["few", "a<b"]),
    }
    return Explorer(draw, controls, size=(4, 2), **options)


def pixels(explorer):
    return np.asarray(Image.open(BytesIO(explorer.picture.value)))


def test_picture_and_sentence_follow_the_controls():
    page = explorer()
    before = pixels(page)
    assert page.said == "2 points, few"
    assert before.shape == (180, 360, 3)
    page.controls["n"].value = 5
    assert page.said == "5 points, few"
    assert not np.array_equal(pixels(page), before)
    page.controls["n"].value = 2
    assert np.array_equal(pixels(page), before)  # nothing of an earlier picture stays


def test_what_cannot_be_drawn_is_said_in_place_and_the_explorer_stays_alive():
    page = explorer(problems=["run <x> is foreign"])
    assert "run &lt;x&gt; is foreign" in page.children[1].value
    page.controls["n"].value = 3
    assert page.said == "n=3 cannot be <drawn>; give another"
    assert "&lt;drawn&gt;" in page.text.value
    assert page.picture.layout.display == "none"
    page.controls["word"].value = "a<b"  # still cannot
    page.controls["n"].value = 4
    assert page.said == "4 points, a<b"
    assert "a&lt;b" in page.text.value
    assert page.picture.layout.display is None
    assert page.picture.alt == "4 points, a<b"


def test_a_defect_is_not_hidden():
    def draw(ax, n):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Explorer(draw, {"n": ipywidgets.IntSlider()})


def test_controls_can_stand_in_rows_and_be_left_out_of_the_drawing():
    def draw(ax, n):
        return str(n)

    slider, play = ipywidgets.IntSlider(1), ipywidgets.Play()
    page = Explorer(draw, {"n": slider, "play": play}, watch=["n"], layout=[["play"], ["n"]])
    assert [box.children for box in page.children[:2]] == [(play,), (slider,)]
    assert page.values == {"n": 1}


def test_runs_are_found_in_folders_and_the_unreadable_are_named(tmp_path):
    good = tmp_path / "runs" / "good"
    shutil.copytree(RECORDS / "method", good)
    broken = tmp_path / "runs" / "broken"
    shutil.copytree(RECORDS / "method", broken)
    (broken / "per_class.csv").unlink()
    later = tmp_path / "runs" / "later"
    shutil.copytree(RECORDS / "method", later)
    config = later / "config.json"
    config.write_text(config.read_text().replace('"schema": 1', '"schema": 99'))
    loaded = Run.load(RECORDS / "baseline")
    runs, problems = find_runs([loaded, tmp_path / "runs", tmp_path / "missing"])
    assert [run.name for run in runs] == ["baseline", "good"]
    assert len(problems) == 3
    assert "has no per_class.csv" in problems[0]
    assert "schema 99" in problems[1]
    assert "missing" in problems[2]
    assert [run.name for run in find_runs(str(good))[0]] == ["good"]


def test_the_live_view_follows_a_training():
    run = Run.load(RECORDS / "method")
    view = LiveView()
    pictures = []
    for epoch in (1, 2):
        so_far = Run(
            run.path,
            run.config,
            run.metrics[run.metrics.epoch <= epoch],
            run.per_class[run.per_class.epoch <= epoch],
            {},
        )
        view(so_far)
        pictures.append(view.picture.value)
        tail = 100 * run.metrics["tail"][epoch - 1]
        assert f"epoch {epoch}" in view.text.value
        assert f"tail {tail:.1f}" in view.text.value
    assert pictures[0] != pictures[1]
