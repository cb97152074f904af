"""In a column of a paper no text of a figure is cut off, and no two stand on each other."""

import inspect
from dataclasses import replace
from functools import cache, partial
from itertools import combinations, product
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from feature_records import make_record
from matplotlib.text import Text
from PIL import Image
from synthetic import write_run

mpl.use("Agg")

from ltml import (
    ClassAwareSampler,
    GroupSampler,
    InputError,
    LabelMatrix,
    Run,
    UniformSampler,
    plots,
)

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


FAST = [(5, 3), (20, 1), (80, 2)]  # of all sizes, each number of classes and each of runs once
SIZES = [
    pytest.param(*size, marks=() if size in FAST else pytest.mark.slow)
    for size in product((5, 20, 80, 1203), (1, 2, 3))
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(fig):
    """Every text that is drawn, with its box in pixels."""
    fig.draw_without_rendering()
    off = set()
    for axis in (a for ax in fig.findobj(mpl.axes.Axes) for a in (ax.xaxis, ax.yaxis)):
        drawn = axis._update_ticks() if axis.get_visible() and axis.axes.axison else []
        off |= {t.label1 for t in [*axis.majorTicks, *axis.minorTicks] if t not in drawn}
        off |= {t.label2 for t in [*axis.majorTicks, *axis.minorTicks] if t not in drawn}
        off |= {text for ax in [axis.axes] if not ax.axison for text in ax.findobj(Text)}
    found = []
    for text in fig.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in off:
            found.append((text, text.get_window_extent()))
    return found


def assert_fits(fig, allowed=0.6):
    found = texts(fig)
    assert len(found) >= 4
    for text, box in found:
        inside = box.x0 >= -1 and box.y0 >= -1
        inside &= box.x1 <= fig.bbox.width + 1 and box.y1 <= fig.bbox.height + 1
        assert inside, f"{text.get_text()!r} is cut off: {box} in {fig.bbox}"
    for (one, a), (other, b) in combinations(found, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if {one.get_rotation() % 90, other.get_rotation() % 90} == {0}:
            assert min(wide, high) <= allowed, f"{one.get_text()!r} on {other.get_text()!r}"


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    made = {}

    def of(classes, count):
        for seed in range(count):
            if (classes, seed) not in made:
                folder = tmp_path_factory.mktemp("runs") / f"sampler-and-loss-{seed}"
                options = {"classes": classes, "epochs": 12, "seed": seed}
                made[classes, seed] = Run.load(write_run(folder, **options))
        return [made[classes, seed] for seed in range(count)]

    return of


def labels_of(classes):
    random = np.random.default_rng(0)
    share = np.geomspace(0.9, 0.004, classes)
    Y = random.random((600, classes)) < share
    return LabelMatrix(Y, [f"class number {c}" for c in range(classes)])


def samplers_of(classes, count):
    labels = labels_of(classes)
    # Exact balance of a thousand classes on 600 images takes minutes, and is not what is looked at.
    kinds = (partial(GroupSampler, ridge=1.0), ClassAwareSampler, UniformSampler)[:count]
    return [kind(labels, batch_size=8, num_batches=1) for kind in kinds]


@cache
def record_of(classes, seed):
    return make_record(f"record {seed}", seed=seed, classes=classes)


def settings_of(count):
    table = pd.read_csv(RECORDS.parent / "ablation.csv")
    return pd.concat([table.assign(seed=table.seed + i, mAP=table.mAP - i) for i in range(count)])


def calibration_of(count):
    rows = [
        (group, b, b / 4 + 0.1, b / (4 + i), 10, 0.1)
        for i, group in enumerate(("all", "head", "medium", "tail")[: count + 1])
        for b in range(4)
    ]
    return pd.DataFrame(rows, columns=["group", "bin", "predicted", "observed", "count", "error"])


# What each figure plots, of so many classes and runs (or samplers, records, seeds, groups, rows).
PLOTTED = {
    "ablation": lambda _, C, n: plots.ablation(settings_of(n)),
    "class_ap": lambda runs, C, n: plots.class_ap(runs(C, n)),
    "class_rates": lambda _, C, n: plots.class_rates(samplers_of(C, n)),
    "feature_diversity": lambda _, C, n: plots.feature_diversity(
        [record_of(C, i) for i in range(n)]
    ),
    "gradient_heatmap": lambda runs, C, n: plots.gradient_heatmap(runs(C, n)),
    "gradient_imbalance": lambda runs, C, n: plots.gradient_imbalance(runs(C, n)),
    "gradient_magnitudes": lambda runs, C, n: plots.gradient_magnitudes(runs(C, n)),
    "group_balance": lambda _, C, n: plots.group_balance(samplers_of(C, n)),
    "group_bars": lambda runs, C, n: plots.group_bars(runs(C, n)),
    "label_counts": lambda _, C, n: plots.label_counts(labels_of(C)),
    "nearest_images": lambda _, C, n: plots.nearest_images(
        record_of(C, 0), record_of(C, 0).classes["class"][0], queries=n
    ),
    "reliability": lambda _, C, n: plots.reliability(calibration_of(n)),
}


def test_no_public_figure_is_left_out():
    public = {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}
    others = {"paper", "save", "style"}  # which draw nothing
    assert set(PLOTTED) == public - others


@pytest.mark.parametrize(("classes", "count"), SIZES)
@pytest.mark.parametrize("name", PLOTTED)
def test_every_figure_fits_a_column(runs_of, name, classes, count):
    with plots.style(width=3.3, font=7):
        fig, _ = PLOTTED[name](runs_of, classes, count)
    assert np.allclose(fig.get_size_inches(), (3.3, 2.2))
    assert_fits(fig)


def test_a_paper_has_its_width():
    with plots.paper("cvpr column"):
        fig, _ = plots.label_counts(labels_of(20))
    assert fig.get_figwidth() == 3.25
    assert_fits(fig)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_bars_of_many_runs_keep_their_numbers_apart(runs_of, count):
    fig, ax = plots.group_bars(runs_of(20, count))
    assert_fits(fig)
    numbers = [text for text in ax.texts if text.get_text().strip()]
    assert len(numbers) == 4 * count
    boxes = [text.get_window_extent() for text in numbers]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


@pytest.mark.parametrize("name", ["gradient_magnitudes", "gradient_heatmap", "class_ap"])
def test_very_long_names_are_shortened(runs_of, name):
    run = runs_of(20, 1)[0]
    rows = run.per_class.assign(**{"class": run.per_class["class"] + " of a very long name" * 10})
    run = replace(run, per_class=rows, path=Path("a run whose name goes on " * 8))
    for options in ({"width": 3.3, "font": 7}, {}):
        with plots.style(**options):
            fig, _ = getattr(plots, name)(run)
        assert_fits(fig)


def test_titles_can_be_left_to_the_caption(runs_of):
    with plots.style(width=3.3, font=7, titles=False):
        _, ax = plots.class_ap(runs_of(20, 2))
        _, panels = plots.gradient_heatmap(runs_of(20, 2))
    assert ax.get_title(loc="left") == ""
    names = [each.get_title(loc="left") for each in panels]
    assert names == ["sampler-and-loss-0", "sampler-and-loss-1"]  # else they are not told apart


def test_what_the_user_set_stays(runs_of):
    with mpl.rc_context({"grid.color": "#123456", "axes.grid.axis": "both", "font.size": 13}):
        _, ax = plots.class_ap(runs_of(20, 1))
    assert ax.get_xgridlines()[0].get_color() == "#123456"
    assert ax.yaxis.label.get_fontsize() == 13
    _, ax = plots.class_ap(runs_of(20, 1))
    assert ax.get_ygridlines()[0].get_color() == "#E4E4E4"


def test_the_ending_says_what_is_written(runs_of, tmp_path):
    with plots.paper("neurips page"):
        fig, _ = plots.class_ap(runs_of(5, 1))
    assert plots.save(fig, tmp_path / "a.pdf") == [tmp_path / "a.pdf"]
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in content  # embedded, as TrueType
    assert b"/Type3" not in content
    assert content.startswith(b"%PDF")
    assert [p.name for p in plots.save(fig, tmp_path / "b.png")] == ["b.png"]
    assert [p.name for p in plots.save(fig, tmp_path / "v1.2")] == ["v1.2.svg", "v1.2.png"]
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (1100, round(200 * 5.5 / 1.5))


@pytest.mark.parametrize("name", ["mine.png", "mine.svg", "mine.pdf", "mine"])
def test_a_figure_of_the_users_is_not_replaced(runs_of, tmp_path, name):
    fig, _ = plots.class_ap(runs_of(5, 1))
    path = tmp_path / name
    plots.save(fig, path)
    plots.save(fig, path)  # its own is
    for each in tmp_path.iterdir():
        plt.figure().savefig(each)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(InputError, match="something else; give another name"):
        plots.save(fig, path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    plots.save(fig, path, overwrite=True)


def test_an_unknown_paper_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'cvpr column'"):
        plots.paper("cvpr colum")
    with pytest.raises(InputError, match="width=0: give a number above 0"), plots.style(width=0):
        pass
