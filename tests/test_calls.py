"""Options of what people call: a wrong type or an edge ends in one line, as in a recipe."""

import itertools
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ltml
from ltml import InputError, Recipe, fit, plots, resume
from ltml.data.holdout import holdout_split
from ltml.data.loader import Loader
from ltml.plots.report import write_report

WRONG = ["x", -1, -0.5, math.nan, [], True, object(), 1e300, {}, (1, 2), b"x", np.ones(2), 1j]
QUICK = Recipe(steps=2, batch_size=8, warmup=0, device="cpu", refit=True)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return fit(QUICK, data=tiny, out=tmp_path_factory.mktemp("runs") / "run", progress=False)


CALLS = {
    "record_features": (
        lambda run, data, **k: ltml.record_features(run, data=data, **k),
        {"per_class": [], "neighbors": []},
    ),
    "predict": (
        lambda run, data, **k: run.predict(data.test.subset([0]), progress=False, **k),
        {"batch_size": [], "device": [], "precision": [], "engine": []},
    ),
    "mistakes": (
        lambda run, data, **k: run.mistakes(**k),
        {"per_class": [1e300], "classes": [[]], "kind": [], "group": [], "thresholds": [{}]},
    ),
    "resume": (
        lambda run, data, **k: resume(run.path, **k),
        {"save_minutes": [], "on_epoch": [], "progress": [True]},
    ),
    "holdout": (lambda run, data, **k: holdout_split(data.train.labels, **k), {"share": []}),
    "seed of a holdout": (
        lambda run, data, **k: holdout_split(data.train.labels, 0.2, **k),
        {"seed": []},
    ),
    "report": (
        lambda run, data, **k: write_report([run], "/nowhere/r.html", **k),
        {"images": [1e300]},
    ),
    "suspects": (
        lambda run, data, **k: ltml.suspects(
            data, **{"backbone": "small", "weights": None, "progress": False} | k
        ),
        {"image_size": [], "shrinkage": [], "backbone": [], "device": []},
    ),
    "Loader": (
        lambda run, data, **k: Loader(data.test, **{"image_size": 24} | k),
        {"image_size": [], "workers": [], "keep": [], "augment": [], "device": []},
    ),
    "style": (
        lambda run, data, **k: plots.style(**k).__enter__(),
        {"width": [], "height": [], "font": []},
    ),
    "groups": (lambda run, data, **k: data.train.labels.groups(**k), {"head": [1e300], "tail": []}),
    "model": (lambda run, data, **k: run.model(**k), {"device": []}),
}
OPTIONS = [(name, option) for name, (_, options) in CALLS.items() for option in options]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_a_wrong_option_is_refused_in_one_line(run, tiny, name, option):
    call, options = CALLS[name]
    right = [repr(value) for value in options[option]]
    for value in WRONG:
        if repr(value) in right:
            continue
        with pytest.raises(InputError) as error:
            call(run, tiny, **{option: value})
        assert "\n" not in str(error.value), value


def test_fit_checks_its_own_options_before_it_writes(tiny, tmp_path):
    number = itertools.count()
    for option in ("save_minutes", "on_epoch", "log"):
        for value in WRONG:
            out = tmp_path / str(next(number))
            with pytest.raises(InputError):
                fit(QUICK, data=tiny, out=out, progress=False, **{option: value})
            assert not out.exists()


def test_numbers_of_any_type_are_numbers(run, tiny):
    assert len(run.mistakes(per_class=np.int64(1))) == len(run.mistakes(per_class="1"))
    assert run.predict(tiny.test.subset([0]), batch_size=2.0, progress=False).shape == (1, 20)
    assert Path(resume(run.path, save_minutes="5").path) == run.path


DRAWN = ["gradient_magnitudes", "gradient_heatmap", "gradient_imbalance", "class_ap", "group_bars"]


@pytest.mark.parametrize("name", [*DRAWN, "label_counts", "class_rates", "group_balance"])
@pytest.mark.parametrize("wrong", [3, None, [None], [3.5], {"a": object()}, b"x", ["nowhere"]])
def test_what_is_no_run_is_not_drawn(name, wrong):
    with pytest.raises(InputError) as error:
        getattr(plots, name)(wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", DRAWN)
def test_a_run_may_be_given_as_its_folder(name):
    folder = Path(__file__).resolve().parents[1] / "figures" / "records" / "method"
    for runs in (folder, str(folder), [folder, ltml.Run.load(folder)], {"a": str(folder)}):
        fig, _ = getattr(plots, name)(runs)
        plt.close(fig)
