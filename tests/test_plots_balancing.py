from dataclasses import replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from ltml import InputError, Run, plots
from ltml.plots.balancing import balance

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


@pytest.fixture(scope="module")
def run():
    return Run.load(RECORDS / "baseline")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def recorded(epoch=None):
    """(2, C) straight from the file, by descending count."""
    table = pd.read_csv(RECORDS / "baseline" / "per_class.csv")
    table = table if epoch is None else table[table.epoch == epoch]
    sums = table.groupby(["count", "class"])[["grad_pos", "grad_neg"]].sum().reset_index()
    return sums.sort_values(["count", "class"], ascending=[False, True]).iloc[:, 2:].to_numpy().T


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("max_weight", [1.5, 100.0])
@pytest.mark.parametrize("epoch", [None, 3])
def test_weights_agree_with_the_formula_in_numpy(run, strength, max_weight, epoch):
    G = recorded(epoch)
    w = np.clip((G.mean() / G) ** strength, 1 / max_weight, max_weight)
    w *= G.sum() / (w * G).sum()
    balanced = balance(run, strength=strength, max_weight=max_weight, epoch=epoch)
    assert np.allclose(balanced.before, G)
    assert np.allclose(balanced.weights, w)
    assert np.allclose(balanced.after, w * G)
    assert balanced.after.sum() == pytest.approx(G.sum())
    assert balanced.ratios == pytest.approx((G.max() / G.min(), (w * G).max() / (w * G).min()))
    if max_weight == 100:
        assert balanced.ratios[1] == pytest.approx(balanced.ratios[0] ** (1 - strength))


def test_the_figure_shows_weights_and_shares(run):
    balanced = balance(run, strength=0.7)
    fig, (above, below) = plots.balancing(run, strength=0.7)
    weights = {line.get_marker(): line.get_ydata() for line in above.lines}
    assert np.allclose([weights["o"], weights["v"]], balanced.weights)
    shares = {line.get_marker(): line.get_ydata() for line in below.lines}
    after = 100 * balanced.after / balanced.before.sum()
    assert np.allclose([shares["o"], shares["v"]], after)
    assert np.allclose(shares["_"], 100 * balanced.before[1] / balanced.before.sum())
    assert f"{balanced.ratios[0]:.3g} before, {balanced.ratios[1]:.3g} after" in below.get_title(
        loc="left"
    )
    assert above.figure is below.figure is fig
    _, given = plt.subplots(2, 1)
    _, again = plots.balancing(run, ax=given)
    assert again == tuple(given)


def test_a_class_without_gradient_is_drawn(run):
    table = run.per_class.copy()
    table.loc[table["class"] == "crown", ["grad_pos", "grad_neg"]] = 0
    silent = Run(Path("silent"), run.config, run.metrics, table, run.summary)
    balanced = balance(silent, strength=1)
    assert np.isfinite(balanced.weights).all()
    assert balanced.ratios[1] == pytest.approx(1)
    plots.balancing(silent)[0].canvas.draw()
    silent = replace(silent, per_class=table.assign(grad_pos=0.0, grad_neg=0.0))
    with pytest.raises(InputError, match="has no gradient to balance"):
        plots.balancing(silent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 2}, "strength is 2"),
        ({"max_weight": 0.5}, "max_weight is 0.5"),
        ({"epoch": 99}, "epoch=99"),
    ],
)
def test_bad_options_are_named(run, options, message):
    with pytest.raises(InputError, match=message):
        plots.balancing(run, **options)
