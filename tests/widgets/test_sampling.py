import re
import time

import numpy as np
import pytest

from ltml import ClassAwareSampler, GroupSampler, InputError, LabelMatrix, load
from ltml.widgets import explore_sampler

OPTIONS = dict(batch_size=64, num_batches=1)


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


def test_sentence_and_picture_follow_the_controls(labels):
    explorer = explore_sampler(labels)
    assert "labels" not in {w.description for row in explorer.children[:3] for w in row.children}
    seen = {explorer.said: explorer.picture.value}
    for name, value in (
        ("ridge", 0.1),
        ("uniform", 0.5),
        ("share", "equal"),
        ("head", 200),
        ("tail", 50),
        ("sampler", "class-aware"),
        ("sampler", "uniform"),
    ):
        explorer.controls[name].value = value
        assert explorer.said not in seen, name
        assert explorer.picture.value not in seen.values(), name
        seen[explorer.said] = explorer.picture.value
    before, said = explorer.picture.value, explorer.said
    explorer.controls["sampler"].value = "group"
    own = [explorer.controls["show"].options[1], explorer.picture.value]
    explorer.controls["show"].value = own[0]
    assert explorer.picture.value not in (own[1], before)
    assert explorer.said != said


def test_numbers_are_those_of_independent_sums(labels):
    explorer = explore_sampler(labels)
    explorer.controls["ridge"].value = 0.1
    Y = labels.dense().numpy().astype(float)
    p = GroupSampler(labels, ridge=0.1, **OPTIONS).image_probabilities()
    rates = p @ Y
    groups = [rates[:3], rates[3:5], rates[5:]]
    assert said_ratios(explorer.said, "inside") == pytest.approx(
        [g.max() / g.min() for g in groups], abs=0.006
    )
    assert f"batches: {rates.max() / rates.min():.2f};" in explorer.said
    assert f"{1 / (p**2).sum():.0f} effective images" in explorer.said
    assert f"shows {(1 - (1 - p) ** 500).sum():.0f} distinct" in explorer.said
    assert f"{500 * p.max():.1f} times" in explorer.said
    explorer.controls["ridge"].value = 0.0
    assert said_ratios(explorer.said, "for each group") == [1, 1, 1]


def test_bounds_regroup_every_sampler_and_may_cross(labels):
    explorer = explore_sampler(labels)
    controls = explorer.controls
    controls["sampler"].value = "class-aware"
    rates = ClassAwareSampler(labels, **OPTIONS).image_probabilities() @ labels.dense().numpy()
    controls["head"].value, controls["tail"].value = 300, 100
    expected = [1, rates[1] / rates[2], rates[3:].max() / rates[3:].min()]
    assert said_ratios(explorer.said, "inside") == pytest.approx(expected, abs=0.006)
    picture = explorer.picture.value
    controls["tail"].value = 500
    assert "move one of the two bounds" in explorer.said
    assert explorer.picture.layout.display == "none"
    controls["tail"].value = 100
    assert explorer.picture.layout.display is None
    assert explorer.picture.value == picture


def test_settings_that_a_sampler_lacks_are_greyed_out(labels):
    controls = explore_sampler(labels).controls
    assert not controls["ridge"].disabled
    controls["sampler"].value = "uniform"
    assert all(controls[name].disabled for name in ("ridge", "uniform", "share"))
    controls["sampler"].value = "group"
    assert not any(controls[name].disabled for name in ("ridge", "uniform", "share"))


def test_several_labels_are_chosen_by_name(labels):
    explorer = explore_sampler({"one": labels, "two": counts_matrix([200, 150, 40, 30, 9, 8], 1)})
    first = explorer.said
    explorer.controls["labels"].value = "two"
    assert explorer.said != first
    assert explorer.controls["labels"].options == ("one", "two")


def test_what_cannot_be_balanced_is_said_in_place():
    # b and c never meet, and a is always there: a cannot be drawn as rarely as they.
    labels = LabelMatrix.from_lists([[0, 1]] * 120 + [[0, 2]] * 110, ["a", "b", "c"])
    explorer = explore_sampler(labels)
    assert "'a' cannot be drawn as rarely as the rest of group 'head'" in explorer.said
    empty = explore_sampler({"none": LabelMatrix([[0, 0], [0, 0]]), "some": labels})
    assert "no label on any image" in empty.said
    empty.controls["labels"].value = "some"
    assert "cannot be drawn" in empty.said


def test_wrong_arguments_are_named(labels):
    with pytest.raises(InputError, match="no labels to explore"):
        explore_sampler({})
    with pytest.raises(InputError, match="'labels' is a list; give a LabelMatrix"):
        explore_sampler([[1, 0]])


def test_a_redraw_of_eighty_classes_is_quick():
    Y = np.random.default_rng(1).random((1909, 80)) < np.geomspace(0.5, 0.004, 80)
    explorer = explore_sampler(
        {"wide": LabelMatrix(Y), "embedded": load("pictograms").train.labels}
    )
    for name in ("wide", "embedded"):
        explorer.controls["labels"].value = name
        times = []
        for _ in range(5):
            start = time.process_time()
            explorer.redraw()
            times.append(time.process_time() - start)
        # 0.07 s on an idle core; twice the promised 0.15 s for a machine busy with other things.
        assert min(times) < 0.3
