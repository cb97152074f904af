import json
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog, minimize

from ltml.audit import frontier
from ltml.errors import InputError
from ltml.group_weights import balance_groups, check_groups, group_shares, groups_by_log_count
from ltml.labels import LabelMatrix
from ltml.maxent import Rows, maximum_entropy
from ltml.sampler import GroupSampler, UniformSampler

matrices = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 25), st.integers(1, 6)), elements=st.integers(0, 1)
)


def read_list(path, num_classes):
    rows = [line.split(",")[1].split() for line in path.read_text().splitlines()[1:]]
    rows = [[int(c) for c in row] for row in rows]
    return LabelMatrix.from_lists(rows, [f"class {c}" for c in range(num_classes)])


@pytest.fixture(params=[("voc", 20), ("coco", 80)], ids=lambda p: p[0], scope="module")
def real(request, shared_data):
    name, num_classes = request.param
    return name, read_list(shared_data / "label_lists" / f"{name}_lt_train.csv", num_classes)


def can_balance(Y):
    """Ask a linear program whether weights with equal class rates exist at all."""
    n, C = Y.shape
    A = np.block([[Y.T, -np.ones((C, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    b = np.append(np.zeros(C), 1)
    return linprog(np.zeros(n + 1), A_eq=A, b_eq=b, bounds=(0, None)).status == 0


def random_labels(seed, n=40, C=5, density=0.35):
    Y = (np.random.default_rng(seed).random((n, C)) < density).astype(np.uint8)
    return LabelMatrix(Y[Y.any(1)])


# --- the rows -------------------------------------------------------------------------------


@given(matrices, st.data())
def test_rows_reproduce_the_labels(Y, data):
    classes = data.draw(st.lists(st.integers(0, Y.shape[1] - 1), min_size=1, unique=True))
    rows = Rows(LabelMatrix(Y), classes)
    part = Y[:, classes]
    np.testing.assert_array_equal(rows.images, np.flatnonzero(part.any(1)))
    part = part[part.any(1)].astype(float)
    assert len(rows.count) == len(np.unique(part, axis=0))
    np.testing.assert_array_equal(rows.count, np.bincount(rows.row, minlength=len(rows.count)))
    if not len(part):
        return
    v = np.random.default_rng(0).random(len(classes))
    np.testing.assert_allclose(rows.scores(v)[rows.row], part @ v)
    p = rows.count.astype(float)
    np.testing.assert_allclose(rows.rates(p), part.sum(0))
    np.testing.assert_allclose(rows.second_moment(p), part.T @ part)


def test_second_moment_in_blocks(monkeypatch):
    rows = Rows(random_labels(0, n=60), range(5))
    whole = rows.second_moment(rows.count)
    monkeypatch.setattr("ltml.maxent._PAIRS_AT_ONCE", 3)
    np.testing.assert_allclose(rows.second_moment(rows.count), whole)


# --- the solver -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_those_of_a_generic_constrained_solver(seed):
    labels = random_labels(seed, n=18, C=3)
    Y = labels.dense().numpy().astype(float)
    n, C = Y.shape
    found = minimize(  # the primal problem, over weights and the common rate t
        lambda x: np.sum(x[:n] * np.log(np.maximum(x[:n], 1e-300))),
        np.append(np.full(n, 1 / n), 0.5),
        jac=lambda x: np.append(np.log(np.maximum(x[:n], 1e-300)) + 1, 0),
        bounds=[(1e-12, 1)] * n + [(0, 1)],
        constraints={
            "type": "eq",
            "fun": lambda x: np.append(Y.T @ x[:n] - x[n], x[:n].sum() - 1),
            "jac": lambda x: np.block(
                [[Y.T, -np.ones((C, 1))], [np.ones((1, n)), np.zeros((1, 1))]]
            ),
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    assert found.success
    solution = maximum_entropy([Rows(labels, range(C))])
    assert solution.status == "converged"
    np.testing.assert_allclose(solution.weights[0], found.x[:n], atol=2e-5)


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 2.0])
def test_ridge_is_the_minimum_of_the_stated_dual(ridge):
    labels = random_labels(7)
    Y = labels.dense().numpy().astype(float)

    def dual(x):
        lam = np.append(x, -x.sum())
        return np.log(np.exp(Y @ lam).sum()) + ridge / 2 * lam @ lam

    reference = minimize(dual, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    solution = maximum_entropy([Rows(labels, range(5))], ridge=ridge)
    np.testing.assert_allclose(
        solution.multipliers, np.append(reference, -reference.sum()), atol=1e-5
    )
    mean = solution.rates.mean()
    np.testing.assert_allclose(solution.rates, mean - ridge * solution.multipliers, rtol=1e-5)


@settings(deadline=None, max_examples=150)
@given(matrices)
def test_balanced_exactly_if_and_only_if_a_linear_program_can(Y):
    keep = Y.any(0)
    if not keep.any():
        return
    labels = LabelMatrix(Y[:, keep])
    rows = Rows(labels, range(labels.num_classes))
    solution = maximum_entropy([rows])
    assert solution.status in ("converged", "impossible")
    assert (solution.status == "converged") == can_balance(Y[:, keep][Y.any(1)].astype(float))
    if solution.status == "converged":
        assert solution.rates.max() <= solution.rates.min() * (1 + 3e-6)
    ridged = maximum_entropy([rows], ridge=1e-3)
    assert ridged.status == "converged"
    np.testing.assert_allclose(ridged.weights[0].sum(), 1)


@pytest.mark.parametrize("ridge", [1e-4, 1e-8])
def test_a_small_ridge_converges_where_balance_is_impossible(ridge):
    labels = LabelMatrix([[1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]])
    solution = maximum_entropy([Rows(labels, range(3))], ridge=ridge)
    assert solution.status == "converged"
    # The limit, by least squares: rates as near each other as weights can bring them.
    Y = labels.dense().numpy().astype(float)
    best = minimize(
        lambda w: np.sum((Y.T @ w - (Y.T @ w).mean()) ** 2),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(solution.rates, Y.T @ best.x, atol=20 * ridge + 1e-4)


def test_whole_batches_are_balanced_within_each_group(real):
    _, labels = real
    groups = labels.groups()
    every = np.concatenate(list(groups.values()))
    sizes = [len(classes) for classes in groups.values()]
    share = np.array(sizes) / sum(sizes)
    parts = [Rows(labels, every, classes) for classes in groups.values()]
    solution = maximum_entropy(parts, share, np.repeat(range(3), sizes))
    assert solution.status == "converged"
    p = np.zeros(len(labels))
    for rows, weights, s in zip(parts, solution.weights, share, strict=True):
        p[rows.images] += s * weights
    rates = p @ labels.dense().double().numpy()
    for classes in groups.values():
        assert rates[classes].max() <= 1.0001 * rates[classes].min()


# --- the real lists -------------------------------------------------------------------------


def test_real_lists_reach_the_measured_optimum(real):
    name, labels = real
    effective = {"voc": (265.36, 208.21, 56.94), "coco": (188.65, 899.71, 237.82)}[name]
    start = time.perf_counter()
    solved = balance_groups(labels, labels.groups())
    assert time.perf_counter() - start < 1
    Y = labels.dense().double().numpy()
    for (group, weights), expected in zip(solved.weights.items(), effective, strict=True):
        rates = weights @ Y[solved.images[group]][:, labels.groups()[group]]
        assert rates.max() <= 1.00001 * rates.min()
        assert 1 / np.sum(weights**2) == pytest.approx(expected, abs=0.01)


def test_frontier_is_monotone(real):
    _, labels = real
    ridges = [0, 1e-6, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 10]
    for _, part in frontier(labels, ridges).groupby("group"):
        assert len(part) == len(ridges)
        for before, after in pairwise(part.itertuples()):
            assert after.ratio > before.ratio
            assert after.effective_images > before.effective_images
        assert part.ratio.iloc[0] < 1.00001


def test_one_group_for_all_is_impossible_and_said_to_be(real):
    _, labels = real
    solved = balance_groups(labels, {"all": np.arange(labels.num_classes)})
    (sentence, *_) = [s for s in solved.report if "cannot be drawn as rarely" in s]
    person = int(labels.counts.argmax())
    assert sentence.startswith(f"'class {person}'")
    rates = solved.weights["all"] @ labels.dense().double().numpy()[solved.images["all"]]
    rest = np.delete(rates, person)
    assert rest.max() <= 1.00001 * rest.min()
    assert rates[person] > 10 * rest.max()


# --- what cannot be balanced ----------------------------------------------------------------


def test_a_class_inside_another_is_balanced_and_explained():
    labels = LabelMatrix([[1, 0]] * 3 + [[1, 1]] * 2, ["chair", "sofa"])
    solved = balance_groups(labels, {"seats": np.array([0, 1])})
    np.testing.assert_allclose(solved.weights["seats"], [0, 0, 0, 0.5, 0.5], atol=1e-6)
    assert solved.report == [
        "equal rates in group 'seats' leave 3 of its 5 images undrawn, for 'sofa' appears only "
        "beside 'chair'; a ridge, such as 0.01, draws them"
    ]


def test_a_class_on_every_image_is_left_out_and_the_rest_balanced():
    Y = [[1, 1, 0]] * 5 + [[1, 0, 1]] * 2 + [[1, 0, 0]]
    labels = LabelMatrix(Y, ["person", "horse", "sheep"])
    solved = balance_groups(labels, {"all": np.arange(3)})
    np.testing.assert_allclose(solved.weights["all"], [0.1] * 5 + [0.25] * 2, atol=1e-6)
    assert solved.report[0] == (
        "'person' cannot be drawn as rarely as the rest of group 'all': it stands on "
        "100% of 'horse', 100% of 'sheep', and is drawn 2 times as often"
    )


def test_a_class_without_an_image_is_reported_and_gets_no_share():
    labels = LabelMatrix([[1, 0, 0], [0, 1, 0]], ["cat", "dog", "yeti"])
    groups = {"pets": np.array([0, 1]), "myths": np.array([2])}
    solved = balance_groups(labels, groups)
    assert list(solved.weights) == ["pets"]
    assert solved.report == ["'yeti' of group 'myths': no image holds it, so it is never drawn"]
    assert group_shares(labels, groups, "equal") == {"pets": 1.0, "myths": 0.0}


def test_classes_that_always_come_together_are_balanced_in_silence():
    labels = LabelMatrix([[1, 1, 0]] * 4 + [[0, 0, 1]] * 2)
    solved = balance_groups(labels, {"all": np.arange(3)})
    np.testing.assert_allclose(solved.weights["all"], [0.125] * 4 + [0.25] * 2, atol=1e-6)
    assert solved.report == []


@settings(deadline=None, max_examples=60)
@given(matrices, st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from(["group", "batch"]))
def test_any_labels_give_probabilities_and_draws(Y, ridge, balance):
    labels = LabelMatrix(Y)
    options = {"batch_size": 4, "num_batches": 2, "ridge": ridge, "balance": balance}
    if not Y.any():
        with pytest.raises(InputError, match="no label"):
            GroupSampler(labels, **options)
        return
    groups = {"first": [0], **({"rest": range(1, Y.shape[1])} if Y.shape[1] > 1 else {})}
    sampler = GroupSampler(labels, groups=groups, **options)
    p = sampler.image_probabilities()
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1)
    assert (p[~Y.any(1)] == 0).all()
    for index in sampler:
        assert (p[index.numpy()] > 0).all()
    found = sampler.audit(8)
    json.dumps(found.as_dict(), allow_nan=False)
    assert str(found)


# --- groups and shares ----------------------------------------------------------------------


def test_groups_by_log_count_have_equal_width():
    lists = [[c] for c, n in enumerate([1000, 400, 90, 30, 2, 1]) for _ in range(n)]
    labels = LabelMatrix.from_lists(lists, [*"abcdef", "never"])
    groups = groups_by_log_count(labels, 3)  # bounds 1, 10, 100, 1000
    assert [classes.tolist() for classes in groups.values()] == [[0, 1], [2, 3], [4, 5]]
    assert [c.tolist() for c in groups_by_log_count(labels, 1).values()] == [[0, 1, 2, 3, 4, 5]]


def test_shares():
    labels = LabelMatrix([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    groups = check_groups(labels, {"a": [0], "b": [1, 2]})
    expected = {"classes": (1 / 3, 2 / 3), "equal": (1 / 2, 1 / 2), "images": (3 / 5, 2 / 5)}
    for share, values in expected.items():
        assert group_shares(labels, groups, share) == pytest.approx(
            dict(zip("ab", values, strict=True))
        )
    assert group_shares(labels, groups, {"a": 3, "b": 1}) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {"a": []}}, "groups\\['a'\\] is empty"),
        ({"groups": {}}, "groups is empty"),
        ({"groups": {"a": [0, 7]}}, "class 7; give indices 0 to 2"),
        ({"groups": {"a": [-1]}}, "class -1"),
        ({"groups": {"a": [0.5]}}, "integer"),
        ({"groups": {"a": [0, 1], "b": [1]}}, "class 1 .* in groups 'a' and 'b'"),
        ({"groups": {"a": [0, 0]}}, "class 0"),
        ({"ridge": -0.1}, "ridge is -0.1"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"uniform": 1.0}, "uniform is 1.0"),
        ({"balance": "world"}, "balance is 'world'"),
        ({"share": "half"}, "share is 'half'"),
        ({"share": {"tail": -1}}, "share\\['tail'\\] is -1"),
        ({"share": {"tail": 0}}, "leaves nothing"),
        ({"share": {"head": 1}}, "share names \\['head'\\], the groups are \\['tail'\\]"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_input_is_named(options, message):
    labels = LabelMatrix([[1, 0, 0], [0, 1, 1]])
    with pytest.raises(InputError, match=message):
        GroupSampler(labels, **{"batch_size": 2, "num_batches": 1, **options})


def test_negative_ridge_of_a_frontier():
    with pytest.raises(InputError, match="ridges holds -1"):
        frontier(LabelMatrix([[1]]), [0, -1])


@pytest.mark.slow
def test_a_million_images_of_1203_classes():
    rng = np.random.default_rng(0)
    n, C = 1_000_000, 1203
    frequency = (1 + np.arange(C)) ** -1.3
    sizes = rng.poisson(2, n) + 1
    image = np.repeat(np.arange(n), sizes)
    pairs = np.unique(image * C + rng.choice(C, sizes.sum(), p=frequency / frequency.sum()))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pairs // C, minlength=n))])
    labels = LabelMatrix._from_csr(indptr, pairs % C, C, None)
    start = time.perf_counter()
    sampler = GroupSampler(
        labels, groups=groups_by_log_count(labels, 3), batch_size=4096, num_batches=250
    )
    assert time.perf_counter() - start < 60
    found = sampler.audit()
    assert (found.groups.own_ratio < 1.0001).all()
    start = time.perf_counter()
    drawn = sum(len(index) for index in sampler)
    assert drawn / (time.perf_counter() - start) > 1e6  # the target, 5e6, is for a quiet machine
    assert UniformSampler(labels, batch_size=4096, num_batches=1).audit().repeats == 1
