import json
import shutil
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from ltml import InputError, Run, plots

FIGURES = Path(__file__).resolve().parents[1] / "figures"


@pytest.fixture(scope="module")
def runs():
    return [Run.load(FIGURES / "records" / name) for name in ("baseline", "method")]


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(FIGURES / "ablation.csv")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def points(ax, marker):
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == marker])


def copy_of(run, folder, *, summary=None, recipe=None):
    """A run under another name, with some of its record changed."""
    shutil.copytree(run.path, folder)
    config = run.config | {"recipe": run.recipe | (recipe or {})}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(run.summary | (summary or {})))
    return Run.load(folder)


def test_curves_are_those_of_the_record_and_stand_in_the_panel_of_their_group(runs):
    _, axes = plots.training_curves(runs)
    for ax, group in zip(axes, ("head", "medium", "tail"), strict=True):
        assert [text.get_text() for text in ax.texts] == [group]
        for run, line in zip(runs, ax.lines, strict=True):
            assert np.array_equal(line.get_xdata(), run.metrics.step)
            assert np.allclose(line.get_ydata(), 100 * run.metrics[group])
    baseline, method = (run.metrics.set_index("step")["tail"] for run in runs)
    half = method.max() / 2
    assert baseline.max() < half
    assert (
        f"{100 * half:.0f} %: 1 of 2 runs, first method at step {method[method >= half].index[0]}"
        in (axes[0].get_title(loc="left"))
    )
    given = plt.subplots(1, 3)[1]
    assert plots.training_curves(runs[0], axes=given)[1] is given
    with pytest.raises(InputError, match="axes are 2; give 3"):
        plots.training_curves(runs, axes=given[:2])


def test_dots_rank_the_runs_by_their_map(runs, tmp_path):
    worse = copy_of(runs[0], tmp_path / "worse", summary={"mAP": 0.1, "tail": None})
    fig, ax = plots.group_dots([runs[1], worse, runs[0]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["worse", "baseline", "method"]
    assert np.allclose(
        points(ax, "s")[:, 0], [100 * run.summary["head"] for run in (worse, runs[0], runs[1])]
    )
    assert np.isnan(points(ax, "o")[0, 0])
    assert "method: 98.5 mAP" in ax.get_title(loc="left")
    fig.canvas.draw()


def test_runs_of_one_recipe_are_pooled_over_their_seeds(runs, tmp_path):
    a = copy_of(runs[0], tmp_path / "plain+seed0")
    b = copy_of(runs[0], tmp_path / "plain+seed1", summary={"tail": 0.5}, recipe={"seed": 1})
    c = copy_of(runs[0], tmp_path / "fast+seed0", recipe={"lr": 0.1})
    _, ax = plots.group_dots([a, b, c], pool=True)
    assert sorted(t.get_text() for t in ax.get_yticklabels()) == ["fast+seed0", "plain"]
    tails = 100 * np.array([a.summary["tail"], 0.5])
    assert {round(x, 6) for x in points(ax, "o")[:, 0]} == {
        round(x, 6) for x in (tails.mean(), 100 * c.summary["tail"])
    }
    bars = np.concatenate([s for line in ax.collections for s in line.get_segments()])
    assert np.isclose(bars[:, 0], tails.mean() + tails.std(ddof=1)).any()


def test_differences_show_every_seed_and_students_interval():
    d = {"head": [-1.0, 0.0, 4.0], "medium": [1.0, 1.0, 1.0], "tail": [2.0, 6.0, 7.0]}
    rows = [("a for b", g, s, x) for g, values in d.items() for s, x in enumerate(values)]
    _, ax = plots.differences(pd.DataFrame(rows, columns=["part", "group", "seed", "difference"]))
    assert sorted(points(ax, "|")[:, 0]) == sorted(np.concatenate(list(d.values())))
    assert np.allclose(points(ax, "o")[:, 0], 5)
    scipy_stats = pytest.importorskip("scipy.stats")
    low, high = scipy_stats.t.interval(0.95, 2, loc=5, scale=scipy_stats.sem(d["tail"]))
    ends = np.concatenate([s for line in ax.collections for s in line.get_segments()])[:, 0]
    assert np.isclose(ends, low, atol=1e-3).any()
    assert np.isclose(ends, high, atol=1e-3).any()
    assert ax.get_title(loc="left") == "Most in the tail: a for b (+5.0)"


def test_imbalance_stands_against_the_mean_map_of_each_setting(table):
    fig, ax = plots.imbalance_against_map(table, group="tail")
    means = table.groupby(["sampler", "loss", "diversity"])[["gradient_imbalance", "tail"]].mean()
    marks = [line for line in ax.lines if len(line.get_xdata())]
    drawn = np.concatenate([line.get_xydata() for line in marks])
    assert np.allclose(drawn[np.lexsort(drawn.T)], means.to_numpy()[np.lexsort(means.to_numpy().T)])
    rho = means.corr("spearman").iloc[0, 1]
    assert f"{rho:+.2f} (25 settings)" in ax.get_title(loc="left")
    names = [text for text in ax.texts if text.get_text()]
    assert len(names) == (
        table.groupby(["sampler", "loss", "diversity"]).ngroup()[table.diversity == "off"].nunique()
    )
    fig.canvas.draw()
    boxes = [text.get_window_extent() for text in names]
    overlapping = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert overlapping == 0
    with pytest.raises(InputError, match="group='rare' is unknown"):
        plots.imbalance_against_map(table, group="rare")


def test_no_legend_covers_a_mark(runs):
    for draw in (plots.class_ap, plots.group_bars):
        fig, ax = draw(runs)
        fig.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        assert legend.y0 >= ax.get_window_extent().y1 - 1
