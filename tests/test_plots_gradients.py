import shutil
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from ltml import InputError, Run, plots

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


@pytest.fixture(scope="module")
def run():
    return Run.load(RECORDS / "baseline")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def heights(ax, marker):
    (line,) = [line for line in ax.lines if line.get_marker() == marker]
    return line.get_ydata()


def table_of_class(name):
    """Straight from the files, without Run."""
    table = pd.read_csv(RECORDS / "baseline" / "per_class.csv")
    return table[table["class"] == name].sort_values("epoch")


def test_history_is_that_of_the_record(run):
    table = table_of_class("crown")
    steps = pd.read_csv(RECORDS / "baseline" / "metrics.csv").step.to_numpy()
    fig, ax = plots.class_history(run, "crown")
    length = np.diff(np.r_[0, steps])
    assert np.allclose(heights(ax, "o"), table.grad_pos / length)
    assert np.allclose(heights(ax, "v"), table.grad_neg / length)
    assert np.allclose(heights(ax, "D") * 1.05, table.ap)  # of the axes' height, 1.05 at the top
    assert (ax.lines[2].get_xdata() == steps).all()
    assert ax.get_yscale() == "log"
    title = ax.get_title(loc="left")
    assert f"AP {100 * table.ap.iloc[0]:.0f} % to {100 * table.ap.iloc[-1]:.0f} %" in title
    assert f"{table.grad_pos.sum() / table.grad_neg.sum():.2g} times as hard" in title
    assert fig is ax.figure


def test_a_short_last_epoch_counts_by_its_steps(run, tmp_path):
    """Half as many steps with half the gradient: the same height."""
    shutil.copytree(RECORDS / "baseline", tmp_path / "short")
    metrics, table = run.metrics.copy(), run.per_class.copy()
    metrics.loc[6, "step"] = 216 + 18
    last = table.epoch == 7
    table.loc[last, ["grad_pos", "grad_neg"]] /= 2
    metrics.to_csv(tmp_path / "short" / "metrics.csv", index=False)
    table.to_csv(tmp_path / "short" / "per_class.csv", index=False)
    _, long = plots.class_history(run, "cup")
    _, short = plots.class_history(Run.load(tmp_path / "short"), "cup")
    assert np.allclose(heights(long, "o"), heights(short, "o"))


def test_history_draws_again_on_emptied_axes(run):
    _, ax = plots.class_history(run, "cup", log=False)
    assert ax.get_yscale() == "linear"
    ax.clear()
    again = plots.class_history(run, "crown", ax=ax)
    assert again == (ax.figure, ax)
    assert len(ax.lines) == 3
    assert len(ax.figure.axes) == 1  # nothing is left behind


def test_classes_stand_in_a_given_order_and_one_is_marked(run):
    names = sorted(run.classes["class"])
    _, ax = plots.gradient_magnitudes(run, order=names, mark="star", epoch=2)
    table = run.per_class[run.per_class.epoch == 2].set_index("class").loc[names]
    assert np.allclose(heights(ax, "o"), table.grad_pos)
    band = next(line for line in ax.lines if line.get_linewidth() > 10)
    assert set(band.get_xdata()) == {names.index("star")}


@pytest.mark.parametrize("show", ["both", "total", "ratio"])
@pytest.mark.parametrize("log", [True, False])
def test_no_point_lies_under_the_legend_or_the_groups_names(run, show, log):
    fig, ax = plots.gradient_magnitudes(run, show=show, log=log)
    fig.canvas.draw()
    covers = [text.get_window_extent() for text in ax.texts]
    if ax.get_legend():
        covers.append(ax.get_legend().get_window_extent())
    for line in ax.lines:
        if line.get_marker() != "None":
            for point in ax.transData.transform(line.get_xydata()):
                assert not any(box.contains(*point) for box in covers)


def test_what_the_run_does_not_hold_is_named(run):
    with pytest.raises(InputError, match="class 'dog' is not in run 'baseline'; give one of umb"):
        plots.class_history(run, "dog")
    with pytest.raises(InputError, match="class 'dog'"):
        plots.gradient_magnitudes(run, mark="dog")
    with pytest.raises(InputError, match="order names other classes"):
        plots.gradient_magnitudes(run, order=["umbrella"])
    blank = run.per_class.assign(grad_pos=np.nan, grad_neg=np.nan)
    old = Run(Path("old"), run.config, run.metrics, blank, run.summary)
    for draw in (plots.gradient_magnitudes, plots.balancing):
        with pytest.raises(InputError, match="'old' holds no record of its gradients"):
            draw(old)
    with pytest.raises(InputError, match="no record of its gradients"):
        plots.class_history(old, "cup")
