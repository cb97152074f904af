from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from feature_records import make_record

mpl.use("Agg")


from ltml import ClassAwareSampler, GroupSampler, InputError, LabelMatrix, Run, plots
from ltml.audit import frontier
from ltml.plots import frames

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


def pairs(runs):
    classes = runs[0].classes
    A = np.random.default_rng(0).standard_normal((len(classes), 8))
    norm = np.linalg.norm(A, axis=1)
    return frames.interference(A @ A.T / norm / norm[:, None], norm, classes)


def heights(ax, marker):
    """Heights of the points drawn with a marker, on all axes."""
    lines = [x for x in ax.lines if x.get_marker() == marker and len(x.get_xdata())]
    return np.concatenate([line.get_ydata() for line in lines])


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
    parts = pd.DataFrame(
        {"part": "a", "group": ["head", "medium", "tail"] * 2, "seed": [0] * 3 + [1] * 3}
    ).assign(difference=range(6))
    for plot in (
        lambda **o: plots.label_counts(runs[0], **o),
        lambda **o: plots.gradient_magnitudes(runs[0], **o),
        lambda **o: plots.gradient_heatmap(runs[0], **o),
        lambda **o: plots.class_history(runs[0], "crown", **o),
        lambda **o: plots.interference(pairs(runs), **o),
        lambda **o: plots.class_ap(runs, **o),
        lambda **o: plots.group_bars(runs, **o),
        lambda **o: plots.group_dots(runs, **o),
        lambda **o: plots.ablation(table, **o),
        lambda **o: plots.differences(parts, **o),
        lambda **o: plots.imbalance_against_map(table, **o),
        lambda **o: plots.reliability(calibration(), **o),
        lambda **o: plots.cooccurrence(labels, **o),
        lambda **o: plots.class_rates(labels, **o),
        lambda **o: plots.group_balance(labels, **o),
        lambda **o: plots.rate_sources(GroupSampler(labels, **OPTIONS), **o),
        lambda **o: plots.frontier(frontier(labels, [0, 0.1]), **o),
        lambda **o: plots.feature_diversity(record, **o),
        lambda **o: plots.class_map(record, **o),
        lambda **o: plots.nearest_images(record, "a", **o),
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
    _, (first, second) = plots.gradient_magnitudes(runs, mark="star")
    assert first.get_ylim() == second.get_ylim()
    for ax, run in zip((first, second), runs, strict=True):
        assert np.allclose(heights(ax, "o"), run.classes.grad_pos)
    with pytest.raises(InputError, match="ax holds 1 axes; give 2"):
        plots.gradient_magnitudes(runs, ax=first)


def test_order_by_gradient_sorts_by_what_is_shown(runs):
    for show, marker in (("positive", "o"), ("ratio", "D"), ("total", "s"), ("negative", "v")):
        _, ax = plots.gradient_magnitudes(runs[0], show=show, order="gradient", epoch=3, log=False)
        assert (np.diff(heights(ax, marker)) <= 0).all()
    _, ax = plots.gradient_magnitudes(runs[0], order="gradient")
    assert (np.diff(heights(ax, "o") + heights(ax, "v")) <= 0).all()
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[-3:] == ["head", "medium", "tail"]  # scattered: no names above


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


def test_history_is_per_step_and_says_the_ap(runs):
    _, ax = plots.class_history(runs[0], "crown")
    rows = runs[0].per_class.query("`class` == 'crown'")
    steps = np.diff(runs[0].metrics.step, prepend=0)
    assert np.allclose(heights(ax, "o"), rows.grad_pos / steps)
    assert np.allclose(heights(ax, "v"), rows.grad_neg / steps)
    right = ax.figure.axes[1]
    assert np.allclose(heights(right, "s"), 100 * rows.ap)
    assert f"AP {100 * rows.ap.iloc[-1]:.0f} %" in title(ax)
    with pytest.raises(InputError, match="class 'dog' is unknown"):
        plots.class_history(runs[0], "dog")


def test_balancing(runs):
    frame = frames.balanced(runs[0], strength=0.7)
    _, (above, below) = plots.balancing(runs[0], strength=0.7)
    positive, negative = (frame[frame.side == side] for side in ("positive", "negative"))
    assert np.allclose(heights(above, "o"), positive.weight)
    assert np.allclose(heights(above, "v"), negative.weight)
    assert np.allclose(heights(below, "v"), negative.after)
    assert np.allclose(heights(below, "_"), frame.before)
    ratios = [frames.largest_over_smallest(frame[when]) for when in ("before", "after")]
    assert f"{ratios[0]:.3g} before, {ratios[1]:.3g} after" in title(below)


def test_interference(runs):
    frame = pairs(runs)
    _, ax = plots.interference(frame)
    assert np.allclose(ax.collections[0].get_array().ravel(), frame.cosine)
    apart = frame[(frame.group == "head") & (frame.other_group == "tail")].cosine.mean()
    assert title(ax).endswith(f"mean cosine {apart:+.2f}")


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


def test_dots_rank_the_runs_by_their_map(runs):
    worse = replace(runs[0], path=Path("worse"), summary={"mAP": 0.1, "head": 0.3, "tail": None})
    _, ax = plots.group_dots([runs[1], worse, runs[0]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["worse", "baseline", "method"]
    (head,) = [x for x in ax.lines if x.get_marker() == "s"]
    assert np.allclose(head.get_xdata(), [30, *(100 * run.summary["head"] for run in runs)])
    assert title(ax).endswith("in the tail (best of 3)")


def test_dots_of_an_ablation_have_deviations(table):
    _, ax = plots.ablation(table)
    by = table.groupby(["sampler", "loss", "diversity"])[["mAP", "tail"]]
    order = by.mean()["mAP"].sort_values().index
    assert ax.get_yticklabels()[-1].get_text() == " · ".join(order[-1])
    (tail,) = [x for x in ax.lines if x.get_marker() == "o"]
    assert np.allclose(tail.get_xdata(), by.mean()["tail"][order])
    ends = np.array(ax.collections[-1].get_segments())[:, :, 0]
    assert np.allclose(np.ptp(ends, axis=1), 2 * by.std()["tail"][order])


def test_curves_have_a_panel_for_each_group(runs):
    _, axes = plots.training_curves(runs)
    for ax, group in zip(axes, ("head", "medium", "tail"), strict=True):
        for run, line in zip(runs, ax.lines, strict=True):
            assert np.array_equal(line.get_xdata(), run.metrics.step)
            assert np.allclose(line.get_ydata(), 100 * run.metrics[group])
    tails = runs[1].metrics.set_index("step")["tail"]
    step = tails[tails >= tails.max() / 2].index[0]
    assert axes[0].figure.get_suptitle().endswith(f"({50 * tails.max():.0f} %) at step {step}")
    val = {f"val_{name}": 0.5 for name in ("mAP", "head", "medium", "tail")}
    _, axes = plots.training_curves(replace(runs[0], metrics=runs[0].metrics.assign(**val)))
    assert [line.get_linestyle() for line in axes[0].lines] == ["-", ":"]
    with pytest.raises(InputError, match="ax holds 2 axes; give 3"):
        plots.training_curves(runs, axes=axes[:2])


def test_differences_show_every_seed_and_the_mean():
    values = {"head": [-1.0, 0.0, 4.0], "medium": [1.0, 1.0, 1.0], "tail": [2.0, 6.0, 7.0]}
    rows = [("a\nfor b", g, s, x) for g, each in values.items() for s, x in enumerate(each)]
    _, ax = plots.differences(pd.DataFrame(rows, columns=["part", "group", "seed", "difference"]))
    (seeds,) = [x for x in ax.lines if x.get_marker() == "|"]
    assert seeds.get_xdata().tolist() == np.concatenate(list(values.values())).tolist()
    assert title(ax) == "Most in the tail: a, for b (+5.0)"


def test_imbalance_stands_against_the_mean_map_of_each_setting(table):
    _, ax = plots.imbalance_against_map(table, group="tail")
    means = table.groupby(["sampler", "loss", "diversity"])[["gradient_imbalance", "tail"]].mean()
    drawn, means = np.asarray(ax.collections[0].get_offsets()), means.to_numpy()
    assert np.allclose(drawn[np.lexsort(drawn.T)], means[np.lexsort(means.T)])
    rho = pd.DataFrame(means).corr("spearman").iloc[0, 1]
    assert f"{rho:+.2f} ({len(means)} settings)" in title(ax)
    with pytest.raises(InputError, match="group='rare' is unknown"):
        plots.imbalance_against_map(table, group="rare")


def test_reliability():
    frame = calibration()
    _, ax = plots.reliability(frame)
    for line, group in zip(ax.lines[1:], ("all", "head", "tail"), strict=True):
        rows = frame[frame.group == group]
        assert np.array_equal(line.get_xydata(), rows[["predicted", "observed"]])
    assert title(ax) == "Off by 10.0 (head), 10.0 (tail) percentage points"


def test_cooccurrence(labels):
    _, ax = plots.cooccurrence(labels)
    share = labels.cooccurrence()
    assert np.allclose(ax.collections[0].get_array().reshape(7, 7), share)
    mean = (share - np.eye(7)).sum(0) / 6  # over the other classes
    assert title(ax).startswith(f"a is on {100 * mean[0]:.0f} % of the images of another class")


def test_class_rates(labels):
    _, ax = plots.class_rates(labels)
    frame = frames.class_rates(labels)
    for name, marker in (("uniform", "o"), ("class-aware", "s"), ("group", "^")):
        rates = frame.rate[frame.sampler == name]
        assert np.allclose(heights(ax, marker), rates)
        assert f"{rates.max() / rates.min():.3g} ({name})" in title(ax)
    audit = ClassAwareSampler(labels, **OPTIONS).audit(400)
    _, ax = plots.class_rates(audit)
    assert np.allclose(heights(ax, "_"), audit.realised)


def test_group_balance_says_the_ratios_of_the_audit(labels):
    aware = ClassAwareSampler(labels, **OPTIONS).audit().groups
    for draws, column in (("own", "own_ratio"), ("all", "ratio")):
        _, ax = plots.group_balance(labels, draws=draws)
        said = ", ".join(f"{ratio:.2f}×" for ratio in aware[column])
        assert ax.get_legend().get_texts()[1].get_text() == f"class-aware\n{said}"
        assert f"{aware[column].max():.3g} (class-aware)" in title(ax)
        assert np.allclose(heights(ax, "^"), 1, atol=1e-4) == (draws == "own")


def test_sources(labels):
    sampler = GroupSampler(labels, uniform=0.3, **OPTIONS)
    _, ax = plots.rate_sources(sampler)
    frame = frames.rate_sources(sampler)
    bars = [bar.get_height() for bars in ax.containers for bar in bars]
    assert np.allclose(bars, frame.rate)
    top = frame[frame["class"] == "a"]
    other = 1 - top.rate[top.source == "head"].sum() / top.rate.sum()
    assert title(ax).startswith(f"{100 * other:.0f} % of the a images")


def test_frontier(labels):
    compared = ClassAwareSampler(labels, **OPTIONS).audit()
    _, ax = plots.frontier(frontier(labels, [1, 0, 0.1]), compare=compared)
    frame = frames.frontier(frontier(labels, [1, 0, 0.1]), compare=compared)
    head = frame[(frame.group == "head") & frame.ridge.notna()]
    (line,) = [x for x in ax.lines if x.get_marker() == "s"]
    assert np.allclose(line.get_xydata(), head[["effective", "ratio"]])
    assert np.allclose(heights(ax, "X"), compared.groups.own_ratio)
    assert title(ax).startswith(f"Exact balance leaves {head.effective.iloc[0]:.0f} % (head)")


def test_diversity_has_standard_errors(record):
    frame = frames.diversity(record, split="train", size=4)
    _, ax = plots.feature_diversity(record, split="train", size=4, highlight="c")
    points, _, (bars,) = ax.containers[0].lines
    assert np.allclose(points.get_ydata(), frame.value)
    wanted = frame.error[frame.error.notna()]
    found = [np.ptp(bar[:, 1]) / 2 for bar in bars.get_segments()]
    assert np.allclose([x for x in found if np.isfinite(x)], wanted)
    means = frame.groupby("group").value.mean()
    assert f"vendi of 4 images: {means['head']:.2f} (head)" in title(ax)
    box = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    assert frame["class"][round(box.x0 + 0.5)] == "c"


def test_the_map_shows_groups_or_chosen_classes(record):
    frame = frames.class_map(record)
    _, ax = plots.class_map(record)
    assert np.allclose(ax.collections[0].get_offsets(), frame[["x", "y"]])
    assert {text.get_text() for text in ax.texts} == set(record.classes["class"])
    right = 100 * frame.nearest_own[frame.group == "tail"].mean()
    assert f"{right:.0f} % (tail)" in title(ax)
    _, ax = plots.class_map(record, classes=["a", "b"])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["a", "b", "other classes"]
    for classes, message in ((["x"], "class 'x' is unknown"), (list("abcdefgh"), "up to 7")):
        with pytest.raises(InputError, match=message):
            plots.class_map(record, classes=classes)


def test_nearest_images_are_marked_as_right_or_wrong(record):
    frame, part = frames.nearest(record, "c"), record.split("test")
    _, ax = plots.nearest_images(record, "c")
    for image, row in zip(ax.child_axes, frame.itertuples(), strict=True):
        assert np.array_equal(image.images[0].get_array(), part.thumbnails[row.image])
        said = image.get_xlabel()
        if row.rank:
            assert said.startswith(f"{'✓' if row.holds else '✗'} {row.similarity:.2f}")
        else:
            assert said.startswith(f"score {row.score:+.1f}")
    hold = part.labels[part.neighbors[part.rows(2), :6], 2].mean()
    assert f"{100 * hold:.0f} % of its 8 images' 6 nearest" in title(ax)


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
        (plots.balancing, run),
        (plots.label_counts, run),
        (plots.cooccurrence, LabelMatrix(Y)),
        (plots.class_rates, ClassAwareSampler(LabelMatrix(Y), **OPTIONS)),
    ):
        fig, _ = plot(given)
        fig.canvas.draw()
        plt.close(fig)


def test_saved_files_are_the_same_each_time(runs, tmp_path):
    for name in ("a", "b"):
        plots.save(plots.class_history(runs[0], "cup")[0], tmp_path / name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


@pytest.mark.parametrize("show", ["both", "total", "ratio"])
def test_no_legend_covers_a_mark(runs, show):
    fig, ax = plots.gradient_magnitudes(runs[0], show=show, order="gradient")
    fig.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1 - 1


@pytest.mark.parametrize("options", [{"show": "x"}, {"order": "x"}, {"mark": "x"}, {"epoch": 99}])
def test_bad_options_are_named(runs, options):
    with pytest.raises(InputError, match=r"x|99"):
        plots.gradient_magnitudes(runs[0], **options)


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
