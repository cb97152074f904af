import logging
import time
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reading import label_list

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.data import load
from ltml.data.holdout import holdout_split, with_holdout


def long_tailed(images, classes=80, seed=0):
    rates = np.geomspace(0.3, 4 / images, classes)
    return np.random.default_rng(seed).random((images, classes)) < rates


def on_both_sides(Y, train, val) -> np.ndarray:
    return (Y[train].sum(0) > 0) & (Y[val].sum(0) > 0)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_keeps_its_share(share, seed):
    Y = long_tailed(2000, seed=seed)
    train, val = holdout_split(Y, share, seed=seed)
    assert sorted([*train, *val]) == list(range(2000))
    counts, held = Y.sum(0), Y[val].sum(0)
    assert np.all(np.abs(held - np.maximum(share * counts, counts > 1)) < 1.5)
    assert len(val) == pytest.approx(share * 2000, rel=0.05)


@pytest.mark.parametrize("name", ["voc_lt_train", "coco_lt_train"])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_real_label_lists_keep_every_class(shared_data, name, share):
    labels = label_list(shared_data / "label_lists" / f"{name}.csv")
    Y = labels.dense().numpy()
    train, val = holdout_split(labels, share)
    assert on_both_sides(Y, train, val).all()
    assert len(val) == pytest.approx(share * len(Y), rel=0.1)
    assert np.abs(Y[val].sum(0) - np.maximum(share * labels.counts, 1)).max() < 1.5


@given(
    arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 6))),
    st.sampled_from([0.1, 0.3, 0.5]),
    st.integers(0, 3),
)
@settings(deadline=None)
def test_as_many_classes_as_possible_are_on_both_sides(Y, share, seed):
    train, val = holdout_split(Y, share, seed=seed)
    splits = [np.array(sides) for sides in product([False, True], repeat=len(Y))]
    allowed = max(1, np.ceil(1.25 * share * len(Y)))
    most = max(on_both_sides(Y, ~side, side).sum() for side in splits if side.sum() <= allowed)
    assert len(val) <= allowed
    assert on_both_sides(Y, train, val).sum() == most


def test_classes_that_no_split_separates_are_named(caplog):
    labels = LabelMatrix([[1, 1, 0], [1, 0, 1], [0, 1, 1]], ["a", "b", "c"])
    caplog.set_level(logging.WARNING, "ltml")
    train, val = holdout_split(labels, 0.5)
    assert on_both_sides(labels.dense().numpy(), train, val).sum() == 2
    assert caplog.messages[0].startswith("1 of 3 classes are on one side only")


def test_classes_of_two_images_do_not_take_half_of_them(caplog):
    caplog.set_level(logging.WARNING, "ltml")
    Y = np.repeat(np.eye(100, dtype=int), 2, axis=0)
    train, val = holdout_split(Y, 0.1)
    assert len(val) == 25  # a quarter more than asked for, and no more
    assert on_both_sides(Y, train, val).sum() == 25
    (said,) = caplog.messages
    assert "75 of 100 classes are on one side only, since 25 images (12.5 %)" in said
    assert said.endswith("and 70 more")
    Y = np.concatenate([Y, np.zeros((1000, 100), int)])
    Y = np.c_[Y, np.arange(1200) >= 200]
    train, val = holdout_split(Y, 0.1)  # beside a head class, which keeps its tenth
    assert len(val) <= 150
    assert Y[val, 100].sum() == 100
    assert on_both_sides(Y, train, val).sum() == 51


@pytest.mark.parametrize("seed", range(5))
def test_the_fraction_holds_on_any_table(seed):
    rng = np.random.default_rng(seed)
    images, classes = rng.integers(30, 600), rng.integers(5, 200)
    Y = rng.random((images, classes)) < 3 / np.arange(1, classes + 1) ** 1.3 / 4
    for share in (0.05, 0.1, 0.3):
        _, val = holdout_split(Y, share, seed=seed)
        assert len(val) <= max(1, np.ceil(1.25 * share * images))
        assert len(val) >= share * images - 2
        common = Y.sum(0) >= 10 / share
        held = Y[val].sum(0)[common]
        assert np.abs(held - share * Y.sum(0)[common]).max(initial=0) <= 0.3 * held.max(initial=0)


def test_unknown_labels_are_no_positives():
    Y = long_tailed(300, classes=10).astype(float)
    unknown = np.where(np.random.default_rng(1).random(Y.shape) < 0.5, np.nan, Y)
    labels = LabelMatrix(unknown)
    for ours, plain in zip(
        holdout_split(labels, 0.2), holdout_split(labels.fill_unknown(), 0.2), strict=True
    ):
        assert np.array_equal(ours, plain)


def test_the_seed_decides():
    Y = long_tailed(300)
    one, same, other = (holdout_split(Y, 0.2, seed=seed)[1] for seed in (0, 0, 1))
    assert one.tolist() == same.tolist() != other.tolist()


def test_a_class_of_one_image_and_images_without_labels():
    Y = np.zeros((100, 2), int)
    Y[0, 0] = Y[1:11, 1] = 1
    train, val = holdout_split(Y, 0.2)
    assert 0 in train
    assert (Y[val].sum(), len(val)) == (2, 20)


def test_a_hundred_thousand_images_take_seconds():
    start = time.perf_counter()
    holdout_split(long_tailed(100_000), 0.2)
    assert time.perf_counter() - start < 10


def test_with_holdout():
    data = load("pictograms", scale=0.2, image_size=16, test_images=10)
    cut = with_holdout(data, 0.2, seed=1)
    train, val = holdout_split(data.train.labels, 0.2, seed=1)
    assert torch.equal(cut.val.images, data.train.images[val])
    assert cut.train.ids == [data.train.ids[i] for i in train]
    assert cut.test is data.test
    with pytest.raises(InputError, match="has a validation split"):
        with_holdout(cut, 0.2)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(InputError, match="share="):
        holdout_split([[1], [1]], share)
