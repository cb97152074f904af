import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog, minimize
from scipy.sparse import coo_array

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.maxent import balance_groups, check_groups, group_shares, maximum_entropy
from ltml.core.sampler import GroupSampler, UniformSampler

matrices = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 25), st.integers(1, 6)), elements=st.integers(0, 1)
)


def can_balance(Y):
    """Ask a linear program whether weights with equal class rates exist at all."""
    n, C = Y.shape
    A = np.block([[Y.T, -np.ones((C, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    b = np.append(np.zeros(C), 1)
    return linprog(np.zeros(n + 1), A_eq=A, b_eq=b, bounds=(0, None)).status == 0


def random_labels(seed, n=40, C=5, density=0.35):
    Y = (np.random.default_rng(seed).random((n, C)) < density).astype(np.uint8)
    return LabelMatrix(Y[Y.any(1)])


# --- the solver -----------------------------------------------------------------------------


# SciPy before 1.16 steps out of its own bounds by a rounding error, and says so.
@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")
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
    solution = maximum_entropy(labels, range(C))
    assert solution.status == "converged"
    np.testing.assert_allclose(solution.weights, found.x[:n], atol=2e-5)


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 2.0])
def test_ridge_is_the_minimum_of_the_stated_dual(ridge):
    labels = random_labels(7)
    Y = labels.dense().numpy().astype(float)

    def dual(x):
        lam = np.append(x, -x.sum())
        return np.log(np.exp(Y @ lam).sum()) + ridge / 2 * lam @ lam

    reference = minimize(dual, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    solution = maximum_entropy(labels, range(5), ridge=ridge)
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
    solution = maximum_entropy(labels, range(labels.num_classes))
    assert solution.status in ("converged", "impossible")
    assert (solution.status == "converged") == can_balance(Y[:, keep][Y.any(1)].astype(float))
    if solution.status == "converged":
        assert solution.rates.max() <= solution.rates.min() * (1 + 3e-6)
    ridged = maximum_entropy(labels, range(labels.num_classes), ridge=1e-3)
    assert ridged.status == "converged"
    np.testing.assert_allclose(ridged.weights.sum(), 1)


def test_balance_on_one_image_alone_is_solved():
    labels = LabelMatrix([[1, 1, 1, 0], [1, 1, 1, 1]])
    solution = maximum_entropy(labels, range(4))
    assert solution.status == "converged"
    np.testing.assert_allclose(solution.weights, [0, 1], atol=1e-5)


@pytest.mark.parametrize("ridge", [1e-4, 1e-8])
def test_a_small_ridge_converges_where_balance_is_impossible(ridge):
    labels = LabelMatrix([[1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1]])
    solution = maximum_entropy(labels, range(3), ridge=ridge)
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


@pytest.mark.parametrize("ridge", [1e-13, 1e-20, 1e-300])
def test_a_ridge_beyond_float64_stops_and_says_why(ridge):
    labels = LabelMatrix([[1, 1, 0]] * 5 + [[1, 0, 1]] * 2 + [[1, 0, 0]])
    solution = maximum_entropy(labels, range(3), ridge=ridge)
    assert solution.status == "inexact"
    np.testing.assert_allclose(solution.rates, [1, 0.5, 0.5], rtol=1e-5)  # the limit
    (sentence,) = balance_groups(labels, {"all": np.arange(3)}, ridge=ridge)[1]
    assert sentence.startswith("group 'all' is balanced only as far as float64 allows")


# --- the public label lists -----------------------------------------------------------------


def test_real_lists_reach_the_measured_optimum(real_labels):
    name, labels = real_labels
    effective = {"voc": (265.36, 208.21, 56.94), "coco": (188.65, 899.71, 237.82)}[name]
    weights, _ = balance_groups(labels, labels.groups())
    Y = labels.dense().double().numpy()
    for (group, p), expected in zip(weights.items(), effective, strict=True):
        rates = (p @ Y)[labels.groups()[group]]
        assert rates.max() <= 1.00001 * rates.min()
        assert 1 / np.sum(p**2) == pytest.approx(expected, abs=0.01)


def test_a_ridge_trades_balance_for_images(real_labels):
    labels, ridges = real_labels[1], [0, 1e-6, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 10]
    for before, after in pairwise(
        GroupSampler(labels, batch_size=8, ridge=ridge).audit().groups for ridge in ridges
    ):
        assert (after.own_ratio > before.own_ratio).all()
        assert (after.own_effective_images > before.own_effective_images).all()


def test_one_group_for_all_is_impossible_and_said_to_be(real_labels):
    _, labels = real_labels
    weights, report = balance_groups(labels, {"all": np.arange(labels.num_classes)})
    (sentence, *_) = [s for s in report if "cannot be sampled as rarely" in s]
    person = int(labels.counts.argmax())
    assert sentence.startswith(f"'class {person}'")
    rates = weights["all"] @ labels.dense().double().numpy()
    rest = np.delete(rates, person)
    assert rest.max() <= 1.00001 * rest.min()
    assert rates[person] > 10 * rest.max()


# --- what cannot be balanced ----------------------------------------------------------------


def test_a_class_inside_another_is_balanced_and_unused_images_are_counted():
    labels = LabelMatrix([[1, 0]] * 3 + [[1, 1]] * 2, ["chair", "sofa"])
    weights, report = balance_groups(labels, {"seats": np.array([0, 1])})
    np.testing.assert_allclose(weights["seats"], [0, 0, 0, 0.5, 0.5], atol=1e-6)
    assert report == [
        "equal rates in group 'seats' leave 3 of its 5 images unused; a ridge, such as 0.01, "
        "brings them in"
    ]


def test_a_class_on_every_image_is_left_out_and_the_rest_balanced():
    Y = [[1, 1, 0]] * 5 + [[1, 0, 1]] * 2 + [[1, 0, 0]]
    labels = LabelMatrix(Y, ["person", "horse", "sheep"])
    weights, report = balance_groups(labels, {"all": np.arange(3)})
    np.testing.assert_allclose(weights["all"], [0.1] * 5 + [0.25] * 2 + [0], atol=1e-6)
    assert report == [
        "'person' cannot be sampled as rarely as the rest of group 'all': it is in 100% of the "
        "images with 'horse', and is sampled 2 times as often"
    ]


def test_a_class_without_an_image_is_reported_and_gets_no_share():
    labels = LabelMatrix([[1, 0, 0], [0, 1, 0]], ["cat", "dog", "yeti"])
    groups = {"pets": np.array([0, 1]), "myths": np.array([2])}
    weights, report = balance_groups(labels, groups)
    assert list(weights) == ["pets"]
    assert report == ["'yeti' of group 'myths': no image holds it, so it is never sampled"]
    assert group_shares(labels, groups, "equal") == {"pets": 1.0, "myths": 0.0}


def test_classes_that_always_come_together_are_balanced_in_silence():
    labels = LabelMatrix([[1, 1, 0]] * 4 + [[0, 0, 1]] * 2)
    weights, report = balance_groups(labels, {"all": np.arange(3)})
    np.testing.assert_allclose(weights["all"], [0.125] * 4 + [0.25] * 2, atol=1e-6)
    assert report == []


@settings(deadline=None, max_examples=60)
@given(matrices, st.sampled_from([0.0, 0.01, 1.0]))
def test_any_labels_give_probabilities_and_batches(Y, ridge):
    options = {"batch_size": 4, "num_batches": 2, "ridge": ridge}
    if not Y.any():
        with pytest.raises(InputError, match="no label"):
            GroupSampler(Y, **options)
        return
    groups = {"first": [0], **({"rest": range(1, Y.shape[1])} if Y.shape[1] > 1 else {})}
    sampler = GroupSampler(Y, groups=groups, **options)
    p = sampler.image_probabilities()
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1)
    assert (p[~Y.any(1)] == 0).all()
    for batch in sampler:
        assert (p[batch] > 0).all()
    found = sampler.audit(8)
    json.dumps(found.as_dict(), allow_nan=False)
    assert str(found)


def test_shares():
    labels = LabelMatrix([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    groups = check_groups(labels, {"a": [0], "b": [1, 2]})
    expected = {"classes": (1 / 3, 2 / 3), "equal": (1 / 2, 1 / 2), "images": (3 / 5, 2 / 5)}
    for share, values in expected.items():
        assert tuple(group_shares(labels, groups, share).values()) == pytest.approx(values)
    assert group_shares(labels, groups, {"a": 3, "b": 1}) == {"a": 0.75, "b": 0.25}


@pytest.mark.slow
def test_a_million_images_of_1203_classes():
    rng = np.random.default_rng(0)
    n, C = 1_000_000, 1203
    frequency = (1 + np.arange(C)) ** -1.3
    sizes = rng.poisson(2, n) + 1
    image = np.repeat(np.arange(n), sizes)
    pairs = np.unique(image * C + rng.choice(C, sizes.sum(), p=frequency / frequency.sum()))
    ones = np.ones(len(pairs), np.int8)
    labels = LabelMatrix(coo_array((ones, (pairs // C, pairs % C)), shape=(n, C)))
    groups = labels.groups(head=10_000, tail=1_000)
    found = GroupSampler(labels, groups=groups, batch_size=4096).audit()
    assert (found.groups.own_ratio < 1.0001).all()
    assert UniformSampler(labels, batch_size=4096).audit().repeats == 1
