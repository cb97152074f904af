import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ltml import InputError, LabelMatrix

matrices = st.tuples(st.integers(0, 12), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


@given(matrices)
def test_agrees_with_the_dense_matrix(Y):
    labels = LabelMatrix(Y)
    assert labels.shape == Y.shape
    assert np.array_equal(labels.dense().numpy(), Y)
    assert np.array_equal(labels.counts, Y.sum(0))
    assert np.array_equal(labels.cooccurrence(normalize=False), Y.T.astype(int) @ Y)
    padded = labels.padded()
    for i, row in enumerate(Y):
        assert labels[i].tolist() == np.flatnonzero(row).tolist()
        assert sorted(set(padded[i].tolist()) - {Y.shape[1]}) == np.flatnonzero(row).tolist()


@given(matrices, st.data())
def test_subset_keeps_order_and_repeats(Y, data):
    if not len(Y):
        return
    index = data.draw(st.lists(st.integers(0, len(Y) - 1), max_size=20))
    assert np.array_equal(LabelMatrix(Y).subset(index).dense().numpy(), Y[index])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(Y), max_size=len(Y))))
    assert np.array_equal(LabelMatrix(Y).subset(mask).dense().numpy(), Y[mask])


def test_conditional_cooccurrence_by_hand():
    Y = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    expected = [[1, 0.5, 0], [1, 1, 0], [0, 0, 0]]
    assert np.allclose(LabelMatrix(Y).cooccurrence(), expected)


def test_groups_use_the_benchmarks_bounds():
    counts = [100, 99, 20, 19, 0]
    labels = LabelMatrix.from_lists([[c] for c, n in enumerate(counts) for _ in range(n)], "abcde")
    assert {k: v.tolist() for k, v in labels.groups().items()} == {
        "head": [0],
        "medium": [1, 2],
        "tail": [3, 4],
    }
    assert labels.group_of_class(head=99).tolist() == ["head", "head", "medium", "tail", "tail"]
    with pytest.raises(InputError, match=r"head=5, tail=20"):
        labels.groups(head=5)


@pytest.mark.slow
def test_openimages_size_fits_in_a_few_hundred_megabytes():
    rng = np.random.default_rng(0)
    N, C, each = 1_700_000, 600, 8
    labels = LabelMatrix._from_csr(
        np.arange(N + 1) * each, rng.integers(0, C, N * each), C, [str(c) for c in range(C)]
    )
    assert labels.indptr.nbytes + labels.indices.nbytes < 100e6
    pairs = labels.subset(np.arange(100_000)).cooccurrence(normalize=False)
    assert pairs.sum() == 100_000 * each**2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LabelMatrix([[0, 2]]), r"holds .*2.* at image 0, class 1; give 0 or 1"),
        (lambda: LabelMatrix([0, 1]), r"shape \(2,\)"),
        (lambda: LabelMatrix([[0, 1]], ["a"]), "1 names for 2 classes"),
        (lambda: LabelMatrix([[0, 1]], ["a", "a"]), "'a' twice"),
        (lambda: LabelMatrix.from_lists([[0], [3]], ["a", "b"]), "image 1 has label 3"),
        (lambda: LabelMatrix.from_lists([[-1]], ["a", "b"]), "label -1"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
