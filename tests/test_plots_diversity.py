from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

matplotlib.use("Agg")

from matplotlib.text import Text
from sklearn.decomposition import PCA

from ltml import FeatureRecord, InputError, Run, plots
from ltml.features import SplitFeatures

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


def make_record(name="made", seed=0, spread=0.3, side=12):
    """A record of the committed runs' classes: a direction a class, and a spread about it."""
    run = Run.load(RECORDS / "baseline")
    classes = run.classes[["class", "group", "count"]].sample(frac=1, random_state=1)
    classes = classes.reset_index(drop=True)
    random, splits = np.random.default_rng(seed), {}
    for split in ("train", "test"):
        n = np.minimum(classes["count"], 20) if split == "train" else np.full(20, 15)
        cls = np.repeat(np.arange(20), n)
        M = len(cls)
        features = np.eye(20, 24)[cls] + spread * random.standard_normal((M, 24))
        labels = np.zeros((M, 20), np.uint8)
        labels[np.arange(M), cls] = 1
        labels[np.arange(M), random.integers(20, size=M)] = 1  # and another one
        neighbors = np.stack([random.permutation(M)[:8] for _ in range(M)])
        splits[split] = SplitFeatures(
            features=features.astype(np.float16),
            cls=cls.astype(np.int32),
            image=np.arange(M),
            score=random.standard_normal(M).astype(np.float32),
            neighbors=neighbors,
            similarity=-np.sort(-random.random((M, 8)), axis=1).astype(np.float16),
            index=np.arange(M),
            labels=labels,
            thumbnails=random.integers(0, 255, (M, side, side, 3), dtype=np.uint8),
        )
    return FeatureRecord(name, classes, splits)


@pytest.fixture(scope="module")
def record():
    return make_record()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_every_figure_draws_on_its_own_axes_and_on_given_ones(record):
    name = record.classes["class"][0]
    for draw in (
        lambda **o: plots.feature_diversity(record, **o),
        lambda **o: plots.class_map(record, **o),
        lambda **o: plots.nearest_images(record, name, **o),
    ):
        fig, ax = draw()
        assert ax.get_title(loc="left")
        assert fig is ax.figure
        fig, given = plt.subplots()
        assert draw(ax=given) == (fig, given)
        fig.canvas.draw()


def points(container):
    return container.lines[0].get_ydata()


def test_scores_and_errors_are_those_of_the_table(record):
    table = record.diversity(split="train", size=5)
    _, ax = plots.feature_diversity(record, split="train", size=5)
    assert np.allclose(points(ax.containers[0]), table.value)
    bars = ax.containers[0].lines[2][0].get_segments()
    assert np.allclose([np.ptp(bar[:, 1]) / 2 for bar in bars], table.error)
    assert ax.get_xticklabels()[0].get_text().startswith(table["class"][0])
    means = table.groupby("group").value.mean()
    title = ax.get_title(loc="left")
    assert f"head {means['head']:.2f}" in title
    assert f"tail {means['tail']:.2f}" in title
    assert title.startswith("made: Vendi score of 5 images")


def test_several_runs_share_one_size_and_differ_by_more_than_colour(record):
    other = make_record("other", seed=1, spread=0.8)
    _, ax = plots.feature_diversity([record, other], measure="cosine-distance")
    size = min(record.common_size, other.common_size)
    for made, container in zip((record, other), ax.containers, strict=True):
        table = made.diversity(measure="cosine-distance", size=size)
        assert np.allclose(points(container), table.value)
    first, second = (container.lines[0] for container in ax.containers)
    assert first.get_marker() != second.get_marker()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["made", "other"]
    top = max(p.get_window_extent().y1 for p in (first, second))
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().y0 > top, "the legend covers no data"


def test_tables_are_drawn_by_name_and_compared_only_at_one_size(record):
    tables = {split: record.diversity(split=split) for split in ("train", "test")}
    _, ax = plots.feature_diversity(tables)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "test"]
    tail = {name: t.value[t.group == "tail"].mean() for name, t in tables.items()}
    assert ax.get_title(loc="left").endswith(
        f"in the tail: train {tail['train']:.2f}, test {tail['test']:.2f}"
    )
    for other in (record.diversity(size=3), record.diversity(measure="effective-rank")):
        with pytest.raises(InputError, match="do not compare"):
            plots.feature_diversity({"a": tables["train"], "b": other})
    other = tables["test"].assign(**{"class": tables["test"]["class"] + "!"})
    with pytest.raises(InputError, match="different classes"):
        plots.feature_diversity({"a": tables["train"], "b": other})
    with pytest.raises(InputError, match="no record"):
        plots.feature_diversity([])


def test_a_class_is_marked_and_unknown_names_are_told(record):
    name = record.diversity()["class"][4]
    before = len(plots.feature_diversity(record)[1].patches)
    _, ax = plots.feature_diversity(record, highlight=name)
    assert len(ax.patches) == before + 1
    box = ax.patches[-1].get_extents().transformed(ax.transData.inverted())
    assert box.x0 == pytest.approx(3.5)
    for draw in (
        lambda: plots.feature_diversity(record, highlight="x"),
        lambda: plots.class_map(record, classes=["x"]),
        lambda: plots.nearest_images(record, "x"),
    ):
        with pytest.raises(InputError, match="class 'x' is unknown"):
            draw()


def test_limits_do_not_remember_what_cleared_axes_held(record):
    _, ax = plt.subplots()
    ax.plot([0, 1], [-1000, 1000])
    ax.clear()
    plots.feature_diversity(record, ax=ax)
    assert ax.get_ylim() == plots.feature_diversity(record)[1].get_ylim()


def test_the_map_is_a_principal_component_analysis(record):
    part = record.split("test")
    x = part.features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    reference = PCA(2, svd_solver="full").fit(x)
    wanted = reference.transform(x)
    _, ax = plots.class_map(record)
    groups = record.classes.group.to_numpy()[part.cls]
    for line in ax.lines[:3]:
        drawn = np.stack(line.get_data(), 1)
        assert np.allclose(np.abs(drawn), np.abs(wanted[groups == line.get_label()]))
    assert len({line.get_marker() for line in ax.lines[:3]}) == 3
    share = 100 * reference.explained_variance_ratio_
    assert f"({share[0]:.0f} % of the variance)" in ax.get_xlabel()
    assert f"({share[1]:.0f} % of the variance)" in ax.get_ylabel()
    # nearest class mean, the image itself left out
    right = np.zeros(len(x), bool)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        means = np.stack([x[rest & (part.cls == c)].mean(0) for c in range(20)])
        right[i] = ((means - x[i]) ** 2).sum(1).argmin() == part.cls[i]
    found = ", ".join(f"{g} {100 * right[groups == g].mean():.0f} %" for g in ("head", "tail"))
    title = ax.get_title(loc="left")
    assert all(piece in title for piece in found.split(", "))


def test_names_on_the_map_do_not_cover_each_other(record):
    crowded = make_record(spread=3.0)  # all means near the middle
    for made in (record, crowded):
        fig, ax = plots.class_map(made)
        fig.canvas.draw()
        boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the leader lines
        assert len(boxes) == 20
        hits = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert not any(hits)


def test_chosen_classes_stand_out(record):
    names = record.classes["class"][:3].tolist()
    _, ax = plots.class_map(record, classes=names, split="train")
    assert [text.get_text() for text in ax.texts] == names
    assert len({line.get_marker() for line in ax.lines}) == 4, "three, and the rest"
    with pytest.raises(InputError, match="give up to 7"):
        plots.class_map(record, classes=record.classes["class"].tolist())


def test_nearest_images_are_those_on_record(record):
    name = record.classes["class"][2]
    part = record.split("test")
    rows = part.rows(2)
    order = rows[np.argsort(-part.score[rows])]
    picked = [order[0], order[len(order) // 2], order[-1]]
    _, ax = plots.nearest_images(record, name, neighbors=5)
    canvas = ax.images[0].get_array()
    side, step = 12, int(1.12 * 12)
    for i, row in enumerate(picked):
        top = i * int(1.62 * side)
        for j, image in enumerate([part.image[row], *part.neighbors[row, :5]]):
            seen = canvas[top : top + side, j * step : j * step + side]
            assert (seen == part.thumbnails[image]).all()
            text = ax.texts[6 * i + j].get_text()
            if j:
                assert text.startswith("✓" if part.labels[image, 2] else "✗")
                assert f"{part.similarity[row, j - 1]:.2f}" in text
            else:
                assert text.startswith(f"score {part.score[row]:+.1f}")
            others = [k for k in np.flatnonzero(part.labels[image]) if k != 2]
            assert all(record.classes["class"][k] in text for k in others)
    hold = part.labels[part.neighbors[rows, :5], 2].mean()
    assert f"{100 * hold:.0f} % of its 15 images' 5 nearest" in ax.get_title(loc="left")


def test_few_images_and_bad_numbers_are_told(record):
    name = record.classes["class"][0]
    part = record.split("test")
    alone = SplitFeatures(
        **{name: getattr(part, name)[:1].copy() for name in SplitFeatures.__annotations__}
    )
    alone.neighbors[:] = -1  # no other image is on record
    few = FeatureRecord("few", record.classes, {"train": alone, "test": alone})
    fig, _ = plots.nearest_images(few, name)
    fig.canvas.draw()
    with pytest.raises(InputError, match="no positive in the test split"):
        plots.nearest_images(few, record.classes["class"][5])
    with pytest.raises(InputError, match="1 positives on record; too few"):
        plots.class_map(few)
    with pytest.raises(InputError, match="queries=0"):
        plots.nearest_images(record, name, queries=0)


def test_saved_files_are_the_same_each_time(record, tmp_path):
    for name in ("a", "b"):
        plots.save(plots.class_map(record)[0], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
