from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from feature_records import make_record

mpl.use("Agg")


from ltml import ClassAwareSampler, FeatureRecord, InputError, LabelMatrix, Run, plots
from ltml.plots import frames
from ltml.runs.features import SplitFeatures

FIGURES = Path(__file__).resolve().parents[1] / "figures"
OPTIONS = {"batch_size": 8, "num_batches": 1}


@pytest.fixture(scope="module")
def runs():
    return [Run.load(FIGURES / "records" / name) for name in ("baseline", "method")]


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(FIGURES / "ablation.csv")


@pytest.fixture(scope="module")
def record():
    return make_record()


@pytest.fixture(scope="module")
def labels():
    counts, random = [300, 180, 120, 60, 30, 12, 5], np.random.default_rng(0)
    Y = np.zeros((400, 7), dtype=int)
    for c, n in enumerate(counts):
        Y[random.choice(400, n, replace=False), c] = 1
    return LabelMatrix(Y, list("abcdefg"))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def calibration():
    rows = [(g, b, b / 4 + 0.1, b / 4, 10, 0.1) for g in ("all", "head", "tail") for b in range(4)]
    return pd.DataFrame(rows, columns=["group", "bin", "predicted", "observed", "count", "error"])


def heights(ax, marker):
    """Heights of the points drawn with a marker, on all axes."""
    lines = [x for x in ax.lines if x.get_marker() == marker and len(x.get_xdata())]
    return np.concatenate([line.get_ydata() for line in lines]).astype(float)


def title(ax):
    return ax.get_title(loc="left")


def wide(run, classes):
    """The run, with that many classes; one of them without gradient or AP."""
    copies = [
        run.per_class.assign(**{"class": run.per_class["class"] + f" {i}"})
        for i in range(-(-classes // 20))
    ]
    rows = pd.concat(copies)
    rows = rows[rows["class"].isin(rows["class"].unique()[:classes])]
    silent = rows["class"] == rows["class"].iloc[0]
    rows.loc[silent, ["grad_pos", "grad_neg"]] = 0.0
    rows.loc[silent, "ap"] = np.nan
    return replace(run, per_class=rows)


def test_every_figure_draws_on_its_own_axes_and_on_given_ones(runs, table, record, labels):
    for plot in (
        lambda **o: plots.label_counts(runs[0], **o),
        lambda **o: plots.gradient_magnitudes(runs[0], **o),
        lambda **o: plots.gradient_heatmap(runs[0], **o),
        lambda **o: plots.class_ap(runs, **o),
        lambda **o: plots.group_bars(runs, **o),
        lambda **o: plots.ablation(table, **o),
        lambda **o: plots.reliability(calibration(), **o),
        lambda **o: plots.class_rates(labels, **o),
        lambda **o: plots.group_balance(labels, **o),
        lambda **o: plots.feature_diversity(record, **o),
    ):
        fig, ax = plot()
        assert title(ax)
        assert fig is ax.figure
        fig, given = plt.subplots()
        assert plot(ax=given) == (fig, given)
        plt.close("all")


def test_counts(labels):
    _, ax = plots.label_counts(labels)
    bars = [bar for bar in ax.patches if bar.get_height() > 1]
    assert [bar.get_height() for bar in bars] == labels.counts.tolist()
    assert len({bar.get_hatch() for bar in bars}) == 3, "groups differ by more than colour"
    assert "7 classes, from 300 images down to 5" in title(ax)


def test_gradients(runs):
    frame = frames.gradients(runs[0])
    _, ax = plots.gradient_magnitudes(runs[0])
    assert np.allclose(heights(ax, "o"), frame.positive)
    assert np.allclose(heights(ax, "v"), frame.negative)
    assert ax.get_yscale() == "log"
    assert ax.get_xticklabels()[0].get_text() == "umbrella 1,550"
    times = frame.total.max() / frame.total.min()
    assert f"umbrella gets {times:.3g} times the gradient of crown over the run" in title(ax)


def test_gradients_of_two_runs_share_their_axes(runs):
    _, (first, second) = plots.gradient_magnitudes(runs)
    assert first.get_ylim() == second.get_ylim()
    for ax, run in zip((first, second), runs, strict=True):
        assert np.allclose(heights(ax, "o"), run.classes.grad_pos)


def test_the_heatmap_has_shares_that_fade_with_the_gradient(runs):
    _, axes = plots.gradient_heatmap(runs)
    history = frames.gradient_history(runs)
    scales = set()
    for ax, run in zip(axes, runs, strict=True):
        rows = history[history.run == run.name]
        mesh = ax.collections[0]
        shares = 2.0 ** mesh.get_array().reshape(20, -1)
        assert np.allclose(shares.T.ravel(), rows.share / rows.equal_share)
        alpha = np.asarray(mesh.get_alpha()).reshape(20, -1)
        assert np.allclose(alpha, np.sqrt(rows.drop_duplicates("epoch").of_peak))
        scales.add(mesh.get_clim())
        tail = run.classes[run.classes.group == "tail"]
        got = (tail.grad_pos + tail.grad_neg).sum() / run.classes[
            ["grad_pos", "grad_neg"]
        ].sum().sum()
        assert f"the tail gets {100 * got:.0f} % of the gradient (equal share: 25 %)" in title(ax)
    assert len(scales) == 1


def test_several_runs_share_given_axes(runs):
    three = {"a": runs[0], "b": runs[1], "c": runs[0]}
    fig, ax = plt.subplots()
    assert plots.gradient_magnitudes(three, ax=ax) == (fig, ax)
    for name, marker in (("a", "o"), ("b", "s")):
        assert np.allclose(heights(ax, marker), frames.gradients(three[name]).total)
    _, panels = plt.subplots(2, 1)
    _, found = plots.gradient_magnitudes(runs, ax=panels)
    assert np.allclose(heights(found[1], "o"), runs[1].classes.grad_pos)
    with pytest.raises(InputError, match=r"1 axes, and 3 runs .* give plt.subplots\(1, 3\)\[1\]"):
        plots.gradient_heatmap(three, ax=ax)


def test_the_imbalance_is_that_of_each_epoch(runs):
    _, ax = plots.gradient_imbalance(runs)
    table = runs[1].per_class
    total = table.assign(total=table.grad_pos + table.grad_neg).groupby("epoch").total
    line = ax.lines[1]
    assert np.allclose(line.get_ydata(), total.max() / total.min())
    assert np.array_equal(line.get_xdata(), runs[1].metrics.step)
    assert f"{line.get_ydata()[-1]:.3g} (method)" in title(ax)


def test_average_precision(runs):
    _, ax = plots.class_ap(runs)
    assert np.allclose(heights(ax, "o"), 100 * runs[0].classes.ap)
    assert np.allclose(heights(ax, "s"), 100 * runs[1].classes.ap)
    tail = 100 * runs[1].classes.ap[runs[1].classes.group == "tail"].mean()
    assert f"{tail:.0f} % (method)" in title(ax)


def test_bars_of_groups(runs):
    _, ax = plots.group_bars(runs)
    drawn = [bar.get_height() for bars in ax.containers for bar in bars]
    names = ("mAP", "head", "medium", "tail")
    assert np.allclose(drawn, [100 * run.summary[name] for run in runs for name in names])
    gain = 100 * (runs[1].summary["tail"] - runs[0].summary["tail"])
    assert f"{gain:+.1f} in the tail against baseline" in title(ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["baseline", "method"]


def with_summary(run, name, mAP, tail):
    return replace(run, path=Path(name), summary=run.summary | {"mAP": mAP, "tail": tail})


def test_titles_of_bars_do_not_hide_a_loss(runs):
    pooling, attention, fusion = (
        with_summary(runs[0], *row)
        for row in (("pooling", 0.5, 0.3), ("attention", 0.7, 0.5), ("fusion", 0.68, 0.43))
    )
    _, ax = plots.group_bars([pooling, attention, fusion])
    assert title(ax) == "Tail mAP against pooling: +20.0 (attention), +13.0 (fusion)"
    _, ax = plots.group_bars([attention, with_summary(runs[0], "other", 0.71, 0.43)])
    assert title(ax) == "other: +1.0 mAP, but -7.0 in the tail against attention"


def test_dots_of_an_ablation_have_deviations(table):
    _, ax = plots.ablation(table)
    by = table.groupby(["sampler", "loss", "diversity"])[["mAP", "tail"]]
    order = by.mean()["mAP"].sort_values().index
    assert ax.get_yticklabels()[-1].get_text() == " · ".join(order[-1])
    (tail,) = [x for x in ax.lines if x.get_marker() == "o"]
    assert np.allclose(tail.get_xdata().astype(float), by.mean()["tail"][order])
    ends = np.array(ax.collections[-1].get_segments())[:, :, 0]
    assert np.allclose(np.ptp(ends, axis=1), 2 * by.std()["tail"][order])


def test_reliability():
    frame = calibration()
    _, ax = plots.reliability(frame)
    for line, group in zip(ax.lines[1:], ("all", "head", "tail"), strict=True):
        rows = frame[frame.group == group]
        assert np.array_equal(line.get_xydata(), rows[["predicted", "observed"]])
    assert title(ax) == "Off by 10.0 (head), 10.0 (tail) percentage points"


def test_class_rates(labels):
    _, ax = plots.class_rates(labels)
    frame = frames.class_rates(labels)
    for name, marker in (("uniform", "o"), ("class-aware", "s"), ("group", "^")):
        rates = frame.rate[frame.sampler == name]
        assert np.allclose(heights(ax, marker), rates)
        assert f"{rates.max() / rates.min():.3g} ({name})" in title(ax)


def test_group_balance_says_the_ratios_of_the_audit(labels):
    aware = ClassAwareSampler(labels, **OPTIONS).audit().groups
    for draws, column in (("own", "own_ratio"), ("all", "ratio")):
        _, ax = plots.group_balance(labels, draws=draws)
        said = ", ".join(f"{ratio:.2f}×" for ratio in aware[column])
        assert ax.get_legend().get_texts()[1].get_text() == f"class-aware\n{said}"
        assert f"{aware[column].max():.3g} (class-aware)" in title(ax)
        assert np.allclose(heights(ax, "^"), 1, atol=1e-4) == (draws == "own")


def test_diversity_has_standard_errors(record):
    frame = frames.diversity(record, split="train", size=4)
    _, ax = plots.feature_diversity(record, split="train", size=4)
    points, _, (bars,) = ax.containers[0].lines
    assert np.allclose(points.get_ydata().astype(float), frame.value)
    wanted = frame.error[frame.error.notna()]
    found = [np.ptp(bar[:, 1]) / 2 for bar in bars.get_segments()]
    assert np.allclose([x for x in found if np.isfinite(x)], wanted)
    means = frame.groupby("group").value.mean()
    assert f"vendi of 4 images: {means['head']:.2f} (head)" in title(ax)


def test_nearest_images_are_marked_as_right_or_wrong(record):
    part, c = record.split("test"), 2
    rows = part.rows(c)
    order = rows[np.argsort(-part.score[rows])]
    fig, axes = plots.nearest_images(record, "c")
    for row, line in zip([order[0], order[3], order[-1]], axes, strict=True):
        images = [part.image[row], *part.neighbors[row, :6]]
        for k, (ax, image) in enumerate(zip(line, images, strict=True)):
            assert np.array_equal(ax.images[0].get_array(), part.thumbnails[image])
            mark = "✓" if part.labels[image, c] else "✗"
            said, others = ax.get_xlabel().split("\n", 1)
            close = f"{mark} {part.similarity[row, k - 1]:.2f}"
            assert said == (close if k else f"score {part.score[row]:+.1f}")
            held = record.classes["class"][part.labels[image].astype(bool)]
            assert others == ", ".join(name for name in held if name != "c")
    assert fig.get_suptitle().startswith("c, test")


def test_a_class_without_an_image_on_record_is_said(record):
    part = record.split("test")
    few = {name: getattr(part, name)[:1].copy() for name in SplitFeatures.__annotations__}
    few["neighbors"][:] = -1  # no other image is on record
    alone = FeatureRecord("few", record.classes, {"test": SplitFeatures(**few)})
    plots.nearest_images(alone, record.classes["class"][part.cls[0]])
    with pytest.raises(InputError, match="no positive in the test split"):
        plots.nearest_images(alone, record.classes["class"][(part.cls[0] + 1) % 10])


@pytest.mark.parametrize("classes", [80, pytest.param(1203, marks=pytest.mark.slow)])
def test_many_classes_draw(runs, classes):
    run = wide(runs[0], classes)
    _, ax = plots.gradient_magnitudes(run)
    assert "gets no gradient" in title(ax)
    labelled = [text.get_text() for text in ax.get_xticklabels()]
    assert len(labelled) == 80 if classes == 80 else 60 < len(labelled) <= 90
    Y = np.random.default_rng(1).random((300, classes)) < np.geomspace(0.9, 0.02, classes)
    for plot, given in (
        (plots.gradient_heatmap, run),
        (plots.label_counts, run),
        (plots.class_rates, ClassAwareSampler(LabelMatrix(Y), **OPTIONS)),
    ):
        fig, _ = plot(given)
        fig.canvas.draw()
        plt.close(fig)


def test_saved_files_are_the_same_each_time(runs, tmp_path):
    for name in ("a", "b"):
        plots.save(plots.gradient_magnitudes(runs[0])[0], tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_backend_that_turns_interactive_stays_so(before, inside):
    """Inside a notebook the backend does, at its first figure; else later ones are not shown."""
    outside = mpl.is_interactive()
    try:
        mpl.interactive(before)
        size = mpl.rcParams["font.size"]
        with plots.style():
            mpl.interactive(inside)
            mpl.rcParams["font.size"] = size + 1
        assert mpl.is_interactive() == inside
        assert mpl.rcParams["font.size"] == size
    finally:
        mpl.interactive(outside)
