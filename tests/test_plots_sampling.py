import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

matplotlib.use("Agg")

from ltml import ClassAwareSampler, GroupSampler, InputError, LabelMatrix, UniformSampler, plots
from ltml.audit import frontier

OPTIONS = dict(batch_size=8, num_batches=1)


@pytest.fixture(scope="module")
def labels():
    """Three head classes of 300 to 120 images, two medium, two tail, the rare beside the common."""
    random = np.random.default_rng(0)
    counts = [300, 180, 120, 60, 30, 12, 5]
    Y = np.zeros((400, 7), dtype=int)
    for c, n in enumerate(counts):
        Y[random.choice(400, n, replace=False), c] = 1
    names = ["a", "b", "c", "d", "e", "f", "g"]
    shuffled = [4, 0, 6, 2, 1, 5, 3]  # columns in no order of count
    return LabelMatrix(Y[:, shuffled], [names[c] for c in shuffled])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def by_count(labels, values):
    return np.asarray(values)[np.argsort(-labels.counts)]


def line(ax, marker):
    (found,) = [x for x in ax.lines if x.get_marker() == marker and len(x.get_xdata()) == 7]
    return found.get_ydata()


def test_every_figure_draws_on_its_own_axes_and_on_given_ones(labels):
    sampler = GroupSampler(labels, **OPTIONS)
    for draw, argument in (
        (plots.cooccurrence, labels),
        (plots.class_rates, labels),
        (plots.group_balance, labels),
        (plots.rate_sources, sampler),
        (plots.frontier, frontier(labels, [0, 0.1])),
    ):
        fig, ax = draw(argument)
        assert ax.get_title(loc="left")
        fig.canvas.draw()
        fig, given = plt.subplots()
        assert draw(argument, ax=given) == (fig, given)


def test_cooccurrence_is_that_of_the_matrix(labels):
    _, ax = plots.cooccurrence(labels)
    Y = labels.dense().numpy().astype(float)[:, np.argsort(-labels.counts)]
    expected = (Y.T @ Y) / Y.sum(0)[:, None]
    assert np.allclose(ax.images[0].get_array(), expected)
    column = (expected - np.eye(7)).sum(0) / 6  # mean over the other classes
    assert column.argmax() == 0
    assert f"brings a along in {100 * column[0]:.0f} %" in ax.get_title(loc="left")
    assert ax.get_yticklabels()[0].get_text() == "a 300"
    with pytest.raises(InputError, match="no label"):
        plots.cooccurrence(LabelMatrix([[0, 0]]))


def test_rates_are_those_of_the_draws(labels):
    samplers = [kind(labels, **OPTIONS) for kind in (UniformSampler, ClassAwareSampler)]
    Y = labels.dense().numpy().astype(float)
    uniform = Y.mean(0)
    aware = (Y / Y.sum(0)).mean(1) @ Y
    for drawn in (samplers, {"uniform": samplers[0], "class-aware": samplers[1].audit()}):
        _, ax = plots.class_rates(drawn)
        assert np.allclose(line(ax, "o"), by_count(labels, uniform))
        assert np.allclose(line(ax, "s"), by_count(labels, aware))
        ratio = aware.max() / aware.min()
        assert f"{uniform.max() / uniform.min():.3g}× (uniform)" in ax.get_title(loc="left")
        assert f"{ratio:.2f}× (class-aware)" in ax.get_title(loc="left")
    audit = samplers[1].audit(400)
    _, ax = plots.class_rates(audit)
    assert np.allclose(line(ax, "_"), by_count(labels, audit.realised))


def test_own_draws_of_group_sampling_are_flat_in_each_group(labels):
    sampler = GroupSampler(labels, **OPTIONS)
    _, ax = plots.class_rates(sampler, draws="own")
    rates = line(ax, "^")
    for part in (rates[:3], rates[3:5], rates[5:]):
        assert part.max() / part.min() == pytest.approx(1, abs=1e-4)
    _, ax = plots.class_rates(sampler)
    assert np.allclose(line(ax, "^"), by_count(labels, sampler.audit().expected))


def test_group_balance_says_the_ratios_of_the_audit(labels):
    for draws, column in (("own", "own_ratio"), ("all", "ratio")):
        _, ax = plots.group_balance(labels, draws=draws)
        said = [t.get_text() for t in ax.texts]
        aware = ClassAwareSampler(labels, **OPTIONS).audit().groups[column]
        for ratio in aware:
            assert f"■ {ratio:.2f}×" in said
        assert f"{aware.max():.2f}× (class-aware)" in ax.get_title(loc="left")
        assert (said.count("▲ 1.00×") == 3) == (draws == "own")
        points = np.concatenate([x.get_ydata() for x in ax.lines if x.get_marker() == "^"])
        assert len(points) == 7
        assert np.allclose(points, 1, atol=1e-4) == (draws == "own")


def test_sources_add_up_to_the_rates(labels):
    sampler = GroupSampler(labels, uniform=0.3, **OPTIONS)
    _, ax = plots.rate_sources(sampler)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(4, 7)
    assert np.allclose(heights.sum(0), by_count(labels, sampler.audit().expected))
    assert np.allclose(heights[3], 0.3 * by_count(labels, labels.counts) / 400)
    with pytest.raises(InputError, match="UniformSampler draws for no group"):
        plots.rate_sources(UniformSampler(labels, **OPTIONS))


def test_frontier_is_that_of_the_table(labels):
    table = frontier(labels, [1, 0, 0.1])
    aware = ClassAwareSampler(labels, **OPTIONS).audit()
    _, ax = plots.frontier(table, compare=aware)
    head = table[table.group == "head"].sort_values("ridge")
    drawn = next(x for x in ax.lines if x.get_marker() == "s")
    assert np.allclose(drawn.get_ydata(), head.ratio)
    assert np.allclose(drawn.get_xdata(), 100 * head.effective_images / head.images)
    assert "Exact balance" in ax.get_title(loc="left")
    crosses = [x.get_ydata()[0] for x in ax.lines if x.get_marker() == "X" and len(x.get_xdata())]
    assert np.allclose(crosses, aware.groups.own_ratio)
    with pytest.raises(InputError, match="empty"):
        plots.frontier(table[:0])


def test_groups_of_ones_own_and_missing_classes_draw(labels):
    Y = np.c_[labels.dense().numpy(), np.zeros(400, int)]
    more = LabelMatrix(Y, [*labels.class_names, "absent"])
    sampler = GroupSampler(more, groups={"some": [0, 1], "others": [2, 3]}, **OPTIONS)
    for draw in (plots.class_rates, plots.group_balance, plots.rate_sources):
        fig, ax = draw(sampler)
        fig.canvas.draw()
        assert {"some", "others", "no group"} <= {t.get_text() for t in ax.texts} or (
            draw is plots.rate_sources
        )
    for draw in (plots.cooccurrence, plots.class_rates, plots.group_balance):
        fig, _ = draw(more)
        fig.canvas.draw()


def test_many_classes_draw():
    Y = np.random.default_rng(1).random((300, 80)) < np.geomspace(0.9, 0.02, 80)
    many = LabelMatrix(Y)
    for draw in (plots.cooccurrence, plots.class_rates, plots.group_balance):
        fig, _ = draw(many)
        fig.canvas.draw()


def test_what_cannot_be_drawn_is_said(labels):
    sampler = ClassAwareSampler(labels, **OPTIONS)
    other = UniformSampler(LabelMatrix([[1, 0], [0, 1]]), **OPTIONS)
    for drawn, options, message in (
        ([], {}, "no sampler"),
        ([sampler, other], {}, "different classes"),
        ([sampler], {"draws": "x"}, "draws='x'"),
        ([sampler.audit()], {"draws": "own"}, "audit holds no rates"),
        (["uniform"], {}, "str is no sampler"),
    ):
        with pytest.raises(InputError, match=message):
            plots.class_rates(drawn, **options)
    _, ax = plots.class_rates([sampler, sampler])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["class-aware", "class-aware 2"]
