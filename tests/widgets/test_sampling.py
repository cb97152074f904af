"""The explorer of samplers: its numbers are those of independent sums."""

import re

import numpy as np
import pytest

from ltml import ClassAwareSampler, GroupSampler, LabelMatrix
from ltml.widgets import explore_sampler


def counts_matrix(counts, seed):
    random = np.random.default_rng(seed)
    Y = np.zeros((500, len(counts)), dtype=int)
    for c, n in enumerate(counts):
        Y[random.choice(500, n, replace=False), c] = 1
    return LabelMatrix(Y, [f"{'abcdefgh'[c]}{seed}" for c in range(len(counts))])


@pytest.fixture(scope="module")
def labels():
    return counts_matrix([400, 200, 110, 60, 30, 12, 5], 0)


def said_ratios(said, after):
    """The numbers that a sentence gives for head, medium and tail."""
    part = said[said.index(after) :].split(". ")[0]
    return [float(x) for x in re.findall(r"(?:head|medium|tail) ([\d.]+\d)", part)]


def is_shown(explorer):
    return explorer.figure in explorer.children


def test_sentence_and_figure_follow_the_controls(labels):
    explorer, seen = explore_sampler(labels), []
    for name, value in (
        ("ridge", 0.1),
        ("uniform", 0.5),
        ("share", "equal"),
        ("head", 200),
        ("tail", 50),
        ("sampler", "class-aware"),
        ("sampler", "uniform"),
    ):
        seen.append((explorer.said, explorer.figure.to_json()))
        explorer.controls[name].value = value
        assert explorer.said not in [said for said, _ in seen], name
        assert explorer.figure.to_json() not in [figure for _, figure in seen], name


def test_numbers_are_those_of_independent_sums(labels):
    explorer = explore_sampler(labels)
    explorer.controls["ridge"].value = 0.1
    Y = labels.dense().numpy().astype(float)
    p = GroupSampler(labels, batch_size=64, ridge=0.1).image_probabilities()
    rates = p @ Y
    groups = [rates[:3], rates[3:5], rates[5:]]
    assert said_ratios(explorer.said, "inside") == pytest.approx(
        [g.max() / g.min() for g in groups], abs=0.006
    )
    assert f"batches: {rates.max() / rates.min():.2f};" in explorer.said
    assert f"{1 / (p**2).sum():.0f} effective images" in explorer.said
    assert f"shows {(1 - (1 - p) ** 500).sum():.0f} distinct" in explorer.said
    assert f"{500 * p.max():.1f} times" in explorer.said
    assert np.allclose(explorer.figure.data[1].y, rates)
    explorer.controls["ridge"].value = 0.0
    assert said_ratios(explorer.said, "for each group") == [1, 1, 1]


def test_the_shades_follow_the_chosen_bounds(labels):
    explorer = explore_sampler(labels)
    names = [shape.name for shape in explorer.figure.layout.shapes]
    assert names == ["head (3)", "medium (2)", "tail (2)"]
    explorer.controls["sampler"].value = "class-aware"
    explorer.controls["head"].value, explorer.controls["tail"].value = 300, 100
    names = [shape.name for shape in explorer.figure.layout.shapes]
    assert names == ["head (1)", "medium (2)", "tail (4)"]
    rates = ClassAwareSampler(labels, batch_size=64).image_probabilities() @ labels.dense().numpy()
    expected = [1, rates[1] / rates[2], rates[3:].max() / rates[3:].min()]
    assert said_ratios(explorer.said, "inside") == pytest.approx(expected, abs=0.006)


def test_bounds_that_cross_are_said_in_place(labels):
    explorer = explore_sampler(labels)
    explorer.controls["tail"].value = 500
    assert "move one of the two bounds" in explorer.said
    assert not is_shown(explorer)
    explorer.controls["tail"].value = 20
    assert is_shown(explorer)


def test_settings_that_a_sampler_lacks_are_disabled(labels):
    controls = explore_sampler(labels).controls
    for sampler in ("uniform", "group"):
        controls["sampler"].value = sampler
        for name in ("ridge", "uniform", "share"):
            assert controls[name].disabled == (sampler == "uniform")


def test_what_cannot_be_balanced_is_said():
    # b and c never meet, and a is always there: a cannot be sampled as rarely as they.
    labels = LabelMatrix.from_lists([[0, 1]] * 120 + [[0, 2]] * 110, ["a", "b", "c"])
    empty = LabelMatrix([[0, 0], [0, 0]])
    explorer = explore_sampler(labels)
    assert "'a' cannot be sampled as rarely as the rest of group 'head'" in explorer.said
    assert "no label on any image" in explore_sampler(empty).said
