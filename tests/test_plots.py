import shutil
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from ltml import InputError, LabelMatrix, Run, plots

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


@pytest.fixture(scope="module")
def runs():
    return [Run.load(RECORDS / name) for name in ("baseline", "method")]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def offsets(ax, marker):
    """Heights of the points drawn with a marker."""
    (line,) = [line for line in ax.lines if line.get_marker() == marker]
    return line.get_ydata()


def test_every_figure_draws_on_its_own_axes_and_on_given_ones(runs):
    for draw, argument in (
        (plots.label_counts, runs[0]),
        (plots.gradient_magnitudes, runs[0]),
        (plots.gradient_heatmap, runs[0]),
        (plots.class_ap, runs),
        (plots.group_bars, runs),
    ):
        fig, ax = draw(argument)
        assert ax.get_title(loc="left")
        assert fig is ax.figure
        fig, given = plt.subplots()
        again = draw(argument, ax=given)
        assert again == (fig, given)


def test_gradients_are_those_of_the_record(runs):
    table = runs[0].classes
    _, ax = plots.gradient_magnitudes(runs[0])
    assert np.allclose(offsets(ax, "o"), table.grad_pos)
    assert np.allclose(offsets(ax, "v"), table.grad_neg)
    assert ax.get_yscale() == "log"
    assert ax.get_xticklabels()[0].get_text().startswith(table["class"][0])
    epoch = runs[0].per_class[runs[0].per_class.epoch == 2].set_index("class").loc[table["class"]]
    _, ax = plots.gradient_magnitudes(runs[0], epoch=2, show="ratio", log=False)
    assert np.allclose(offsets(ax, "D"), epoch.grad_pos / epoch.grad_neg)
    _, ax = plots.gradient_magnitudes(runs[0], order="gradient", show="total")
    assert (np.diff(offsets(ax, "s")) <= 0).all()


def test_counts_are_drawn_in_descending_order():
    labels = LabelMatrix.from_lists([[0]] * 3 + [[1]] * 150, ["rare", "common"])
    _, ax = plots.label_counts(labels)
    assert [bar.get_height() for bar in ax.patches[:2]] == [150, 3]
    hatches = {bar.get_hatch() for bar in ax.patches[:2]}
    assert len(hatches) == 2, "groups differ by more than colour"


def test_average_precision_and_groups_are_those_of_the_record(runs):
    _, ax = plots.class_ap(runs)
    assert np.allclose(offsets(ax, "o"), 100 * runs[0].classes.ap)
    _, ax = plots.group_bars(runs)
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[0] == pytest.approx(100 * runs[0].summary["mAP"])
    assert heights[-1] == pytest.approx(100 * runs[1].summary["tail"])


def test_heatmap_shares_are_relative_to_an_equal_share(runs):
    _, ax = plots.gradient_heatmap(runs[0])
    shares = 2.0 ** ax.collections[0].get_array().reshape(20, -1)
    assert np.allclose(shares.mean(axis=0), 1)


def test_saved_files_are_the_same_each_time(runs, tmp_path):
    for name in ("a", "b"):
        plots.save(plots.gradient_magnitudes(runs[0])[0], tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_many_classes_and_missing_ones_draw(runs, tmp_path):
    """Eighty classes, one of them without gradient or AP."""
    copy = tmp_path / "wide"
    shutil.copytree(RECORDS / "baseline", copy)
    table = pd.concat(
        runs[0].per_class.assign(**{"class": runs[0].per_class["class"] + str(i)}) for i in range(4)
    )
    missing = table["class"] == table["class"].iloc[0]
    table.loc[missing, ["grad_pos", "grad_neg"]] = 0
    table.loc[missing, "ap"] = np.nan
    table.to_csv(copy / "per_class.csv", index=False)
    wide = Run.load(copy)
    assert len(wide.classes) == 80
    _, ax = plots.gradient_magnitudes(wide)
    assert "gets no gradient" in ax.get_title(loc="left")
    for draw in (
        plots.label_counts,
        plots.gradient_magnitudes,
        plots.gradient_heatmap,
        plots.class_ap,
    ):
        fig, _ = draw(wide)
        fig.canvas.draw()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"epoch": 99}, "epoch=99.*1 to"), ({"show": "x"}, "show='x'"), ({"order": "x"}, "order='x'")],
)
def test_bad_options_are_named(runs, options, message):
    with pytest.raises(InputError, match=message):
        plots.gradient_magnitudes(runs[0], **options)


def test_runs_of_different_classes_are_not_compared(runs, tmp_path):
    shutil.copytree(RECORDS / "baseline", tmp_path / "other")
    table = runs[0].per_class.assign(**{"class": runs[0].per_class["class"] + "!"})
    table.to_csv(tmp_path / "other" / "per_class.csv", index=False)
    with pytest.raises(InputError, match="different classes"):
        plots.class_ap([runs[0], Run.load(tmp_path / "other")])
    with pytest.raises(InputError, match="no run"):
        plots.group_bars([])
