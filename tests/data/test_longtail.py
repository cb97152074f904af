import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import label_list

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.data.longtail import class_targets, long_tailed_subset, target_counts


def synthetic(n=20_000, classes=20, seed=0):
    """Images with about 2 labels; half of the rarer ones stand beside class 0."""
    rng = np.random.default_rng(seed)
    Y = rng.random((n, classes)) < 0.35 * np.arange(1, classes + 1) ** -0.7
    Y[:, 0] |= Y[:, classes // 2 :].any(1) & (rng.random(n) < 0.5)
    return LabelMatrix(Y)


def rank_correlation(a, b):
    return np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]


def test_profiles_by_hand():
    counts = target_counts(3, max_count=400, imbalance=4, profile="exponential")
    assert counts.tolist() == [400, 200, 100]
    # power 1: n = 400 / x^2 at x = 1, 1.5, 2
    assert target_counts(3, max_count=400, imbalance=4, power=1).tolist() == [400, 178, 100]
    assert target_counts(1, max_count=7, imbalance=100).tolist() == [7]
    assert target_counts(4, max_count=7, imbalance=1).tolist() == [7, 7, 7, 7]


@given(
    st.integers(1, 300),
    st.integers(1, 10**6),
    st.floats(1, 10**6),
    st.sampled_from(["pareto", "exponential"]),
    st.floats(0.1, 100),
)
def test_profiles_descend_between_their_ends(classes, max_count, imbalance, profile, power):
    counts = target_counts(
        classes, max_count=max_count, imbalance=imbalance, profile=profile, power=power
    )
    assert counts.shape == (classes,)
    assert (np.diff(counts) <= 0).all()
    assert counts[0] == max_count
    assert counts[-1] >= 1
    if classes > 1:
        assert abs(counts[-1] - max_count / imbalance) <= 1


def test_pareto_bends_below_the_exponential_and_tends_to_it():
    exponential = target_counts(40, max_count=5000, imbalance=100, profile="exponential")
    assert (target_counts(40, max_count=5000, imbalance=100) <= exponential).all()
    near = target_counts(40, max_count=5000, imbalance=100, power=10_000)
    assert np.abs(near - exponential).max() <= 3


def test_pareto_of_power_6_is_like_voc_lt(shared_data):
    labels = label_list(shared_data / "label_lists/voc_lt_train.csv")
    real = np.sort(labels.counts)[::-1]
    counts = target_counts(20, max_count=real[0], imbalance=real[0] / real[-1])
    assert np.median(np.abs(counts - real) / real) < 0.08


def test_targets_follow_the_order_of_the_classes():
    labels = LabelMatrix(np.repeat(np.eye(3, dtype=int), [5, 50, 20], axis=0))
    assert class_targets(labels, max_count=40, imbalance=16, profile="exponential").tolist() == [
        2,
        40,
        10,
    ]
    assert class_targets(labels, max_count=40, imbalance=1).tolist() == [5, 40, 20]  # all there are


@pytest.mark.parametrize("profile", ["pareto", "exponential"])
@pytest.mark.parametrize("imbalance", [10, 100])
def test_counts_come_close(profile, imbalance):
    labels = synthetic()
    options = {"max_count": 1000, "imbalance": imbalance, "profile": profile}
    images = long_tailed_subset(labels, **options)
    targets = class_targets(labels, **options)
    counts = labels.subset(images).counts
    error = np.abs(counts - targets) / targets
    assert rank_correlation(counts, targets) > 0.99
    assert error.mean() < 0.02
    assert error.max() < 0.15


def test_exact_where_every_image_has_one_label():
    labels = LabelMatrix(np.eye(10, dtype=int)[np.random.default_rng(0).integers(0, 10, 5000)])
    images = long_tailed_subset(labels, max_count=300, imbalance=30)
    counts = np.sort(labels.subset(images).counts)[::-1]
    assert counts.tolist() == target_counts(10, max_count=300, imbalance=30).tolist()


def test_cooccurrence_that_forbids_the_target_is_balanced_against_it():
    # Every image with class 1 holds class 0 too: 0 cannot be rarer than 1, whatever is chosen.
    Y = np.zeros((300, 3), int)
    Y[:100, :2] = 1
    Y[100:, 2] = 1
    labels = LabelMatrix(Y)
    images = long_tailed_subset(labels, max_count=100, imbalance=10, profile="exponential")
    counts = labels.subset(images).counts
    targets = class_targets(labels, max_count=100, imbalance=10, profile="exponential")
    assert targets.tolist() == [32, 10, 100]
    # min over n of (n/32 - 1)^2 + (n/10 - 1)^2 is at n = 12 (11.97)
    assert counts.tolist() == [12, 12, 100]


def test_real_labels_with_their_cooccurrence(shared_data):
    labels = label_list(shared_data / "label_lists/voc_lt_test.csv")
    images = long_tailed_subset(labels, max_count=700, imbalance=100)
    targets = class_targets(labels, max_count=700, imbalance=100)
    counts = labels.subset(images).counts
    assert rank_correlation(counts, targets) > 0.99
    assert (np.abs(counts - targets) / targets).max() < 0.1


def test_seed():
    labels = synthetic(2000)
    options = {"max_count": 100, "imbalance": 10}
    first = long_tailed_subset(labels, **options, seed=1)
    assert np.array_equal(first, long_tailed_subset(labels, **options, seed=1))
    assert not np.array_equal(first, long_tailed_subset(labels, **options, seed=2))
    assert (np.diff(first) > 0).all()  # ascending, none twice


def test_ties_are_broken_at_random_not_by_position():
    labels = LabelMatrix(np.ones((1000, 1), int))
    images = long_tailed_subset(labels, max_count=100, imbalance=1)
    assert len(images) == 100
    assert 300 < images.mean() < 700


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 8), st.integers(1, 50))
@settings(deadline=None)
def test_any_matrix_gives_distinct_labelled_images(seed, n, classes, max_count):
    Y = np.random.default_rng(seed).random((n, classes)) < 0.3
    labels = LabelMatrix(Y)
    if not Y.any():
        with pytest.raises(InputError, match="no label"):
            long_tailed_subset(labels, max_count=max_count)
        return
    images = long_tailed_subset(labels, max_count=max_count, seed=seed)
    assert len(images) == len(set(images))
    assert Y[images].any(1).all()
    counts = labels.subset(images).counts
    assert (counts[labels.counts > 0] >= 1).all()


@pytest.mark.parametrize(
    "option",
    [{"max_count": 0}, {"imbalance": 0.5}, {"imbalance": np.nan}, {"imbalance": np.inf},
     {"profile": "zipf"}, {"power": 0}],
)  # fmt: skip
def test_options_are_checked(option):
    with pytest.raises(InputError, match=next(iter(option))):
        long_tailed_subset(synthetic(100), **{"max_count": 10, **option})


@pytest.mark.slow
def test_a_hundred_thousand_images():
    rng = np.random.default_rng(0)
    Y = rng.random((100_000, 80)) < 0.5 * np.arange(1, 81) ** -0.8
    labels = LabelMatrix(Y)
    start = time.perf_counter()
    images = long_tailed_subset(labels, max_count=5000, imbalance=100)
    seconds = time.perf_counter() - start
    targets = class_targets(labels, max_count=5000, imbalance=100)
    counts = labels.subset(images).counts
    assert (np.abs(counts - targets) / targets).mean() < 0.02
    assert seconds < 60  # 4 s on one free core; a bound that a busy machine keeps
