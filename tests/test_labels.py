import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
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
        (lambda: LabelMatrix.from_lists([[0], [0.5]], ["a"]), "image 1 has label .*0.5"),
        (lambda: LabelMatrix.from_lists([0, 1], ["a", "b"]), "image 0 has label 0; give integers"),
        (lambda: LabelMatrix([[0, -1]]), "holds -1 at image 0, class 1; give 0 or 1, or NaN"),
        (lambda: LabelMatrix([["0", "1"]]), "holds '0' at image 0, class 0"),
        (lambda: LabelMatrix([[None, "yes"]]), "holds 'yes' at image 0, class 1"),
        (lambda: LabelMatrix([[0, 1], [1]]), "rows of different lengths"),
        (lambda: LabelMatrix([[0, 1]], unknown=[[0, 1]]), "image 0 holds class 'class 1'.*unknown"),
        (
            lambda: LabelMatrix.from_lists([[], [1]], ["a", "b"], unknown=[[0], [1]]),
            "image 1 holds class 'b'",
        ),
        (lambda: LabelMatrix([[0, 1]], unknown=[[0]]), r"shape \(1, 1\), the labels \(1, 2\)"),
        (lambda: LabelMatrix([[0, 1]], unknown=[[0, None]]), "unknown holds NaN"),
        (lambda: LabelMatrix([[0, 1]], known=[[0, 2]]), "known holds 2 at image 0, class 1"),
        (lambda: LabelMatrix([[0]], known=[[1]], unknown=[[0]]), "both given"),
        (
            lambda: LabelMatrix.from_lists([[0]], ["a"], known=[[0], []]),
            r"known has shape \(2, 1\)",
        ),
        (lambda: LabelMatrix.from_lists([[0]], ["a"], known=[[1]]), "image 0 has known label 1"),
        (lambda: LabelMatrix([[0]]).fill_unknown(2), "value is 2"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(InputError, match=message):
        build()


three_states = st.tuples(st.integers(0, 12), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0, 1, np.nan]))
)


def forms(Y):
    """One matrix with unknown entries, as people have it."""
    objects = np.where(np.isnan(Y), None, Y.astype(object))
    frame = pd.DataFrame(objects, columns=[f"class {c}" for c in range(Y.shape[1])])
    full, blank = np.nan_to_num(Y), np.isnan(Y)
    yield LabelMatrix(Y.astype(np.float16))
    yield LabelMatrix(torch.tensor(Y).bfloat16())
    yield LabelMatrix(objects)
    yield LabelMatrix(frame)
    yield LabelMatrix(frame.astype("boolean"))
    yield LabelMatrix(frame.astype("Int64"))
    yield LabelMatrix(frame.astype("Float64"))
    yield LabelMatrix(np.ma.masked_array(full, blank))
    yield LabelMatrix(csr_array(Y))
    yield LabelMatrix(full, unknown=blank)
    yield LabelMatrix(full.astype(bool), unknown=torch.tensor(blank))
    yield LabelMatrix(full, unknown=csr_array(blank))
    yield LabelMatrix(csr_array(full), known=~blank)
    yield LabelMatrix(LabelMatrix(full), known=csr_array(~blank))
    yield LabelMatrix(Y, unknown=blank)
    yield LabelMatrix(torch.tensor(full).to_sparse(), unknown=pd.DataFrame(blank))
    lists = [np.flatnonzero(row == 1) for row in Y]
    names = [f"class {c}" for c in range(Y.shape[1])]
    yield LabelMatrix.from_lists(lists, names, unknown=map(np.flatnonzero, blank))
    yield LabelMatrix.from_lists(map(set, lists), names, known=[np.flatnonzero(r) for r in ~blank])
    yield LabelMatrix.from_lists(lists, names, known=[np.flatnonzero(row == 0) for row in Y])


@settings(deadline=None)
@given(three_states)
def test_unknown_entries_come_in_every_form(Y):
    expected = LabelMatrix(Y)
    assert np.array_equal(expected.dense().numpy(), Y, equal_nan=True)
    for labels in forms(Y):
        assert labels == expected
        assert labels.class_names == expected.class_names


@settings(deadline=None)
@given(three_states, st.data())
def test_unknown_entries_go_where_the_labels_go(Y, data):
    labels, blank = LabelMatrix(Y), np.isnan(Y)
    assert labels.has_unknown == blank.any()
    assert labels.counts.tolist() == (Y == 1).sum(0).tolist()
    assert labels.negative_counts.tolist() == (Y == 0).sum(0).tolist()
    assert labels.known_counts.tolist() == (~blank).sum(0).tolist()
    assert np.array_equal(labels.unknown.toarray(), blank)
    assert np.array_equal(labels.known().numpy(), ~blank)
    assert np.array_equal(labels.fill_unknown().dense().numpy(), np.nan_to_num(Y))
    assert np.array_equal(labels.fill_unknown(1).dense().numpy(), np.nan_to_num(Y, nan=1))
    if len(Y):
        index = data.draw(st.lists(st.integers(0, len(Y) - 1), max_size=20))
        assert labels.subset(index) == LabelMatrix(Y[index])
        assert np.array_equal(labels.dense(index).numpy(), Y[index], equal_nan=True)
        assert labels.dense(index).dtype == labels.dense().dtype
        other = Y.copy()
        other[data.draw(st.integers(0, len(Y) - 1)), 0] = 0
        assert (LabelMatrix(other) == labels) == np.array_equal(other, Y, equal_nan=True)


@settings(deadline=None)
@given(three_states)
def test_cooccurrence_is_over_the_images_where_the_other_class_is_known(Y):
    found = LabelMatrix(Y).cooccurrence()
    for i, j in np.ndindex(found.shape):
        beside = Y[Y[:, i] == 1, j].astype(float)
        beside = beside[~np.isnan(beside)]
        assert found[i, j] == (beside.mean() if len(beside) else 0)


def test_shows_what_is_unknown():
    labels = LabelMatrix([[1, np.nan], [0, 0]], ["cat", "dog"])
    assert (
        repr(labels) == "LabelMatrix(2 images, 2 classes: 0 head, 0 medium, 2 tail; 25 % unknown)"
    )
    assert "<th>unknown</th>" in labels._repr_html_()
    assert "unknown" not in LabelMatrix([[1, 0]])._repr_html_()


def test_mostly_unknown_labels_are_as_thin_as_what_is_known():
    N, C, each = 20_000, 1203, 60  # 95 % unknown
    indices = (np.arange(N)[:, None] + 20 * np.arange(each)) % C
    known = csr_array((np.ones(N * each, bool), indices.ravel(), np.arange(N + 1) * each))
    known.resize(N, C)
    labels = LabelMatrix(csr_array((N, C)), known=known)
    listed = labels._unknown.listed
    size = listed.data.nbytes + listed.indices.nbytes + listed.indptr.nbytes
    assert size < 5.1 * N * each  # bytes
    assert labels.negative_counts.sum() == N * each
    assert labels.subset([3, 1]).known().nonzero()[:, 1].tolist() == sorted(indices[3]) + sorted(
        indices[1]
    )


def test_fixed_groups_stay_with_every_part():
    counts = [120, 60, 25, 19, 3, 0]
    labels = LabelMatrix.from_lists(
        [[c] for c, n in enumerate(counts) for _ in range(n)], list("abcdef")
    )
    whole = labels.group_of_class().tolist()
    part = labels.grouped().subset(np.arange(0, len(labels), 4))
    assert part.group_of_class().tolist() == whole
    assert labels.subset(part.counts).group_of_class().tolist() != whole
    for other in (
        LabelMatrix(part),
        part.fill_unknown(),
        part.subset([0]).grouped(),
        part.grouped(),
    ):
        assert other.group_of_class().tolist() == whole
    own = part.grouped((60, 4))
    assert own.bounds == (60, 4)
    assert own.group_of_class().tolist() == ["head", "head", "medium", "medium", "tail", "tail"]
    assert own.groups(head=100)["head"].tolist() == [0]
    for wrong, message in (
        ((1, 2), "0 <= tail <= head"),
        ((5,), "two counts"),
        ("thirds", "tercil"),
    ):
        with pytest.raises(InputError, match=message):
            labels.grouped(wrong)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=3, max_size=12, unique=True))
def test_terciles_are_thirds_of_the_classes_with_an_image(counts):
    labels = LabelMatrix.from_lists([[c] for c, n in enumerate(counts) for _ in range(n)], counts)
    groups = labels.grouped("terciles").groups()
    sizes = [np.count_nonzero(labels.counts[classes]) for classes in groups.values()]
    assert max(sizes) - min(sizes) <= 1
    assert min(labels.counts[groups["head"]], default=41) > max(
        labels.counts[groups["tail"]], default=-1
    )
