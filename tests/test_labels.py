import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

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
    assert labels.group_of_class().tolist() == ["head", "medium", "medium", "tail", "tail"]
    with pytest.raises(InputError, match=r"head=5, tail=20"):
        labels.groups(head=5)


@pytest.mark.slow
def test_openimages_size_fits_in_a_few_hundred_megabytes():
    rng = np.random.default_rng(0)
    N, C, each = 1_700_000, 600, 8
    indices = (rng.integers(0, C, N)[:, None] + 7 * np.arange(each)) % C  # distinct in a row
    data = np.ones(N * each, np.int8), indices.ravel(), np.arange(N + 1) * each
    labels = LabelMatrix(csr_array(data, shape=(N, C)), [str(c) for c in range(C)])
    matrix = labels.matrix
    assert matrix.indptr.nbytes + matrix.indices.nbytes + matrix.data.nbytes < 125e6  # bytes
    assert labels.cooccurrence(normalize=False).sum() == N * each**2


@given(matrices)
def test_takes_every_kind_of_matrix(Y):
    labels = LabelMatrix(Y)
    for other in (Y.tolist() if len(Y) else Y, Y.astype(bool), torch.tensor(Y), csr_array(Y)):
        assert LabelMatrix(other) == labels
    assert LabelMatrix(LabelMatrix(Y, [str(c) for c in range(Y.shape[1])])).class_names[0] == "0"


@given(matrices, st.data())
def test_rates_and_holders_are_those_of_the_dense_matrix(Y, data):
    labels = LabelMatrix(Y)
    p = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(Y), max_size=len(Y))))
    assert np.allclose(labels.rates(p), p @ Y if len(Y) else np.zeros(Y.shape[1]))
    classes = data.draw(st.lists(st.integers(0, Y.shape[1] - 1), min_size=1, unique=True))
    assert labels.holding(classes).tolist() == Y[:, classes].any(1).tolist()


def test_shows_counts_and_not_its_arrays():
    labels = LabelMatrix.from_lists([[0]] * 150 + [[1]] * 3, ["person", "<sheep>"])
    assert repr(labels) == "LabelMatrix(153 images, 2 classes: 1 head, 0 medium, 1 tail)"
    row = labels._repr_html_().replace(" ", "").replace("\n", "")
    assert "&lt;sheep&gt;</td><td>tail</td><td>3" in row


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LabelMatrix([[0, 2]]), r"holds .*2.* at image 0, class 1; give 0 or 1"),
        (lambda: LabelMatrix([0, 1]), r"shape \(2,\)"),
        (lambda: LabelMatrix([[0, 1]], ["a"]), "1 names for 2 classes"),
        (lambda: LabelMatrix([[0, 1]], ["a", "a"]), "both named 'a'"),
        (lambda: LabelMatrix([[0, 1]], ["a", " "]), "class 2 is named ' '"),
        (lambda: LabelMatrix.from_lists([[0], [3]], ["a", "b"]), "image 1 has label 3"),
        (lambda: LabelMatrix.from_lists([[-1]], ["a", "b"]), "label -1"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build()
