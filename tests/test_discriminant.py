import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from ltml import InputError
from ltml.core import discriminant
from ltml.core.discriminant import SharedCovariance, fill


def example(images=80, views=1, dim=6, classes=4, seed=0):
    """Features whose mean depends on the labels; the last classes are rare."""
    random = torch.Generator().manual_seed(seed)
    y = (torch.rand(images, classes, generator=random) < torch.linspace(0.5, 0.1, classes)).float()
    means = torch.randn(classes, dim, generator=random)
    return (y @ means).unsqueeze(1) + torch.randn(images, views, dim, generator=random), y


def fitted(x, y, **options):
    classifier = SharedCovariance(y.shape[1], x.shape[-1], **options)
    classifier.update(x, y)
    return classifier


def ridge(classifier, x, y, shrinkage):
    """scikit-learn's ridge regression on the same rows, at the same strength."""
    rows = nn.functional.normalize(x.double(), dim=-1).flatten(0, 1).numpy()
    alpha = len(rows) * shrinkage * classifier.covariance.trace().item() / x.shape[-1]
    targets = y.repeat_interleave(x.shape[1], 0).numpy()
    return Ridge(alpha=alpha, solver="svd").fit(rows, targets), rows


@pytest.mark.parametrize("dim", [6, 200])  # fewer and more dimensions than images
def test_rows_are_proportional_to_ridge_regression(dim):
    x, y = example(dim=dim)
    classifier = fitted(x, y)
    weight, _ = classifier.solve(0.1)
    expected = torch.from_numpy(ridge(classifier, x, y, 0.1)[0].coef_)
    unit = nn.functional.normalize
    assert (unit(weight) - unit(expected)).abs().max() < 1e-6


def test_without_shrinkage_it_is_discriminant_analysis():
    x, y = example()
    weight, bias = fitted(x, y, normalize=False).solve(0.0)
    rows = x.flatten(0, 1).double()
    for c, share in enumerate(y.double().mean(0)):
        analysis = LinearDiscriminantAnalysis(solver="lsqr").fit(rows.numpy(), y[:, c].numpy())
        expected = torch.from_numpy(analysis.decision_function(rows.numpy())) - share.logit()
        found = rows @ weight[c] + bias[c]
        scale = np.linalg.norm(analysis.coef_[0])
        torch.testing.assert_close(found / weight[c].norm(), expected / scale)


def test_sums_of_batches_give_mean_and_covariance():
    x, y = example(views=2)
    classifier = SharedCovariance(4, 6)
    for part, targets in zip(x.split(7), y.split(7), strict=True):
        classifier.update(part, targets)
    rows = nn.functional.normalize(x.double(), dim=-1).flatten(0, 1)
    torch.testing.assert_close(classifier.mean, rows.mean(0))
    torch.testing.assert_close(classifier.covariance, rows.T.cov(correction=0))
    torch.testing.assert_close(classifier.solve(0.3), fitted(x, y).solve(0.3))


def test_two_halves_merged_are_the_whole():
    x, y = example()
    half = fitted(x[:30], y[:30])
    half.merge(fitted(x[30:], y[30:]))
    torch.testing.assert_close(half.solve(0.3), fitted(x, y).solve(0.3))


def part_of_two(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    x, y = partly_known()
    classifier = fitted(x[rank::2], y[rank::2])
    classifier.all_reduce()
    torch.save(classifier.solve(0.3), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    mp.spawn(part_of_two, (tmp_path,), nprocs=2)
    expected = fitted(*partly_known()).solve(0.3)
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)


@pytest.mark.parametrize(("views", "dim"), [(1, 6), (2, 6), (2, 200)])
def test_leave_one_out_is_a_fit_without_the_image(views, dim):
    x, y = example(images=40, views=views, dim=dim)
    classifier = fitted(x, y)
    (found,) = classifier.leave_one_out(x, y, [0.3])
    whole, rows = ridge(classifier, x, y, 0.3)
    targets = y.repeat_interleave(views, 0).numpy()
    for i in range(0, 40, 7):
        own = np.arange(len(rows)) // views == i
        without = Ridge(alpha=whole.alpha, solver="svd").fit(rows[~own], targets[~own])
        np.testing.assert_allclose(found[i], without.predict(rows[own]), atol=1e-8)


def test_the_chosen_shrinkage_has_the_least_error():
    x, y = example(images=60, views=2, dim=100)
    values = (0.001, 0.1, 1.0, 10.0, 1000.0)
    classifier = fitted(x, y)
    scores = classifier.leave_one_out(x, y, values)
    errors = [(y.unsqueeze(1) - s).square().mean().item() for s in scores]
    chosen = classifier.choose_shrinkage(x, y, values)
    assert chosen == values[int(np.argmin(errors))]
    assert values[0] < chosen < values[-1]


@pytest.mark.parametrize("views", [1, 2])
def test_probabilities_are_calibrated_on_scores_left_out(views):
    """As scikit-learn's logistic regression with Platt's targets scales the same scores."""
    x, y = example(images=150, views=views)
    classifier = fitted(x, y)
    weight, bias = classifier.calibrate(x, y, 0.3)
    rows = nn.functional.normalize(x.double(), dim=-1).flatten(0, 1)
    whole = ridge(classifier, x, y, 0.3)[0].predict(rows)
    (left_out,) = classifier.leave_one_out(x, y, [0.3])
    for c in range(4):
        scores, labels = left_out[..., c].reshape(-1, 1).numpy(), y[:, c].repeat_interleave(views)
        positives = labels.sum()
        wanted = torch.where(
            labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2)
        ).numpy()
        twice, kinds = np.concatenate([scores, scores]), np.repeat([1, 0], len(scores))
        platt = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        platt.fit(twice, kinds, sample_weight=np.concatenate([wanted, 1 - wanted]))
        expected = torch.from_numpy(platt.decision_function(whole[:, [c]]))
        torch.testing.assert_close(rows @ weight[c] + bias[c], expected, atol=1e-5, rtol=1e-5)


def test_half_precision_features_are_summed_exactly():
    x, y = example()
    torch.testing.assert_close(
        fitted(x.half(), y).solve(0.3), fitted(x.half().double(), y).solve(0.3)
    )


def test_classes_without_both_kinds_of_images_get_no_weight():
    x, y = example()
    y[:, 1], y[:, 2] = 0, 1
    classifier = fitted(x, y)
    assert classifier.one_sided == [1, 2]
    for weight, bias in (
        classifier.solve(0.3),
        classifier.calibrate(x, y, classifier.choose_shrinkage(x, y)),
    ):
        assert (weight[1:3] == 0).all()
        assert weight.isfinite().all()
        assert bias.isfinite().all()
    assert bias[1] < 0 < bias[2]


def test_it_fills_a_linear_layer():
    x, y = example()
    weight, bias = fitted(x, y).solve(0.3)
    layer = nn.Linear(6, 4).half()
    fill(layer, weight, bias)
    assert layer.weight.requires_grad
    torch.testing.assert_close(layer.weight.detach(), weight.half())
    torch.testing.assert_close(layer.bias.detach(), bias.half())


def test_bad_input_is_named():
    x, y = example(dim=200)
    classifier = fitted(x, y)
    with pytest.raises(InputError, match=r"features \(80, 1, 200\) and targets \(80, 3\): give"):
        classifier.update(x, y[:, :3])
    with pytest.raises(InputError, match="shrinkage=0: the covariance of 80 features"):
        classifier.solve(0)
    x[5, 0, 3] = float("nan")
    with pytest.raises(InputError, match="infinite or NaN"):
        classifier.update(x, y)
    with pytest.raises(InputError, match="no feature was added"):
        SharedCovariance(4, 200).solve(0.1)


def test_scores_left_out_that_point_the_wrong_way_do_not_reverse_ranks():
    """Of noise, left-out scores are anti-correlated with labels; a slope must not follow them."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 20), torch.zeros(40, 3)
    y[:4], y[10:14, 1] = 1, 1
    classifier = fitted(x, y)
    plain, _ = classifier.solve(1.0)
    calibrated, _ = classifier.calibrate(x, y, 1.0)
    assert (nn.functional.cosine_similarity(plain, calibrated) > 0.999).all()


def test_eigenvectors_are_found_once_for_the_same_sums(monkeypatch):
    x, y = example(images=40)
    calls, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda S: calls.append(S) or eigh(S))
    classifier = fitted(x, y)
    classifier.calibrate(x, y, classifier.choose_shrinkage(x, y))
    assert len(calls) == 1
    classifier.update(x, y)  # other sums
    classifier.choose_shrinkage(x, y)
    assert len(calls) == 2


def partly_known(unknown="random", **options):
    """Labels some of which are unknown, more where the class is present; two images known nowhere.

    Args:
        unknown: random; "everywhere": no image is known in full, as the last class is not known at
            all; "few": of some classes, in few images; "alike": two classes in the same images.
    """
    x, y = example(**options)
    random = torch.Generator().manual_seed(1)
    rate = {"few": 0.1, "everywhere": 0.7}.get(unknown, 0.4)
    y = y.masked_fill(torch.rand(y.shape, generator=random) < rate + 0.2 * y, torch.nan)
    y[[2, 5]] = torch.nan
    if unknown == "few":
        y[:, 1] = y[:, 1].nan_to_num(0)  # known everywhere
    if unknown == "everywhere":
        y[:, 3] = torch.nan
    if unknown == "alike":
        y[:, 1] = torch.where(y[:, 0].isnan(), torch.nan, (x[:, 0, 0] > 0.5).to(y))
    return x, y


def by_hand(x, y, rho, at=None, counts=None):
    """Weights and predictions of scikit-learn's ridge regression of each class on its known rows.

    The strength is ``rho`` times the number of these rows, or of ``counts``.
    """
    at = x if at is None else at
    weights, scores = np.zeros((y.shape[1], x.shape[1])), np.zeros((len(at), y.shape[1]))
    for c in range(y.shape[1]):
        known = ~np.isnan(y[:, c])
        if known.any():
            count = known.sum() if counts is None else counts[c]
            ridge = Ridge(alpha=rho * count, solver="svd").fit(x[known], y[known, c])
            weights[c], scores[:, c] = ridge.coef_, ridge.predict(at)
    return weights, scores


def by_hand_shared(x, y, rho, at=None, count=None):
    """The same with the covariance of all rows."""
    at, count = x if at is None else at, count or len(x)
    centred = x - x.mean(0)
    inverse = np.linalg.inv(centred.T @ centred + count * rho * np.eye(x.shape[1]))
    weights, scores = [], []
    for c in range(y.shape[1]):
        known = ~np.isnan(y[:, c])
        rows, labels = x[known], y[known, c]
        center, share = rows.mean(0), labels.mean()
        covariance = (rows - center).T @ (labels - share) / len(rows)
        weights.append(len(x) * inverse @ covariance)
        scores.append(share + (at - center) @ weights[-1])
    return np.array(weights), np.array(scores).T


def rows_of(x, y):
    rows = nn.functional.normalize(x.double(), dim=-1).flatten(0, 1).numpy()
    return rows, y.double().repeat_interleave(x.shape[1], 0).numpy()


def strength(classifier, shrinkage):
    return shrinkage * classifier.covariance.trace().item() / classifier.dim


UNKNOWN = pytest.mark.parametrize("unknown", ["random", "everywhere", "few", "alike"])
SHAPES = pytest.mark.parametrize(("views", "dim"), [(1, 6), (2, 6), (3, 100)])


@UNKNOWN
@SHAPES
def test_with_unknown_labels_each_class_is_a_ridge_regression_on_its_known_rows(
    unknown, views, dim
):
    x, y = partly_known(unknown, images=60, views=views, dim=dim)
    classifier, (rows, labels) = SharedCovariance(4, dim), rows_of(x, y)
    for part, targets in zip(x.split(25), y.split(25), strict=True):
        classifier.update(part, targets)
    weight, bias = classifier.solve(0.3)
    expected, _ = by_hand(rows, labels, strength(classifier, 0.3))
    for c in set(range(4)) - set(classifier.one_sided):
        share = np.nanmean(labels[:, c])
        np.testing.assert_allclose(weight[c], expected[c] / (share * (1 - share)), rtol=1e-6)
        means = rows[labels[:, c] == 1].mean(0), rows[labels[:, c] == 0].mean(0)
        halfway = torch.from_numpy(sum(means) / 2) @ weight[c] + bias[c]
        assert abs(halfway) < 1e-9
    assert (weight[classifier.one_sided] == 0).all()


@UNKNOWN
@SHAPES
def test_leave_one_out_with_unknown_labels_is_a_fit_without_the_image(unknown, views, dim):
    x, y = partly_known(unknown, images=30, views=views, dim=dim)
    classifier, (rows, labels) = fitted(x, y), rows_of(x, y)
    rho, counts = strength(classifier, 0.3), (~np.isnan(labels)).sum(0)
    (found,) = classifier.leave_one_out(x, y, [0.3])
    (some,) = classifier.leave_one_out(x[:8], y[:8], [0.3])
    torch.testing.assert_close(some, found[:8])
    for i in range(30):
        own = np.arange(len(rows)) // views == i
        _, expected = by_hand(rows[~own], labels[~own], rho, at=rows[own], counts=counts)
        np.testing.assert_allclose(found[i], expected, atol=1e-7)


@SHAPES
def test_covariances_that_would_take_too_long_are_shared(views, dim, monkeypatch, caplog):
    monkeypatch.setattr(discriminant, "_MOST", 0)
    x, y = partly_known(images=30, views=views, dim=dim)
    classifier, (rows, labels) = fitted(x, y), rows_of(x, y)
    rho, (found,) = strength(classifier, 0.3), classifier.leave_one_out(x, y, [0.3])
    weight, _ = classifier.solve(0.3)
    assert "4 classes are known in other images" in caplog.text
    expected, _ = by_hand_shared(rows, labels, rho)
    for c, share in enumerate(np.nanmean(labels, 0)):
        np.testing.assert_allclose(weight[c], expected[c] / (share * (1 - share)), rtol=1e-6)
    for i in range(30):
        own = np.arange(len(rows)) // views == i
        _, expected = by_hand_shared(rows[~own], labels[~own], rho, rows[own], len(rows))
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


def test_classes_known_in_the_same_images_share_a_factorisation(monkeypatch):
    x, y = partly_known("alike", images=60, dim=6)
    y[:, 2] = y[:, 2].nan_to_num(0)
    y[:, 3] = y[:, 2]
    calls, factorised = [], torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda S: calls.append(S) or factorised(S))
    classifier = fitted(x, y)
    classifier.solve(0.3)
    assert len(calls) == 2


def test_shrinkage_and_calibration_see_known_labels_alone():
    x, y = partly_known(images=150, views=2, dim=30)
    classifier, values = fitted(x, y), (0.01, 0.3, 10.0, 1000.0)
    errors = [
        np.nanmean((y.double().unsqueeze(1) - scores).square())
        for scores in classifier.leave_one_out(x, y, values)
    ]
    assert classifier.choose_shrinkage(x, y, values) == values[int(np.argmin(errors))]
    weight, bias = classifier.calibrate(x, y, 0.3)
    (rows, labels), (left_out,) = rows_of(x, y), classifier.leave_one_out(x, y, [0.3])
    _, whole = by_hand(rows, labels, strength(classifier, 0.3))
    for c in range(4):
        known = ~np.isnan(labels[:, c])
        scores, truth = left_out[..., c].flatten().numpy()[known, None], labels[known, c]
        wanted = np.where(truth > 0, truth.sum() + 1, 1) / (
            np.where(truth > 0, truth.sum(), (1 - truth).sum()) + 2
        )
        platt = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        kinds = np.repeat([1, 0], len(scores))
        weights = np.concatenate([wanted, 1 - wanted])
        platt.fit(np.concatenate([scores, scores]), kinds, sample_weight=weights)
        expected = platt.decision_function(whole[:, [c]])
        np.testing.assert_allclose(rows @ weight[c].numpy() + bias[c].item(), expected, atol=2e-5)
        every = platt.decision_function(left_out[..., c].reshape(-1, 1).numpy())  # unknown ones too
        np.testing.assert_allclose(classifier.left_out[..., c].flatten(), every, atol=2e-5)


def test_unknown_sums_merge_and_a_class_known_nowhere_gets_no_weight():
    x, y = partly_known(images=60)
    y[:, 3], y[:, 2] = torch.nan, y[:, 2].masked_fill(y[:, 2] == 0, torch.nan)
    half = fitted(x[:30], y[:30])
    half.merge(fitted(x[30:], y[30:]))
    whole = fitted(x, y)
    torch.testing.assert_close(half.solve(0.3), whole.solve(0.3))
    assert whole.one_sided == [2, 3]
    weight, bias = whole.calibrate(x, y, whole.choose_shrinkage(x, y))
    assert (weight[2:] == 0).all()
    assert bias.isfinite().all()
    for scores in whole.leave_one_out(x, y, [0.001, 10.0]):
        assert scores.isfinite().all()
        assert (scores[..., 2:] == torch.tensor([1.0, 0.0])).all()
    with pytest.raises(InputError, match="targets hold -1; give 0 or 1, or NaN"):
        whole.update(x, -torch.ones_like(y))


def test_a_class_known_in_one_image_or_two_is_finite():
    x, y = partly_known("everywhere", images=30, views=2, dim=6)
    y[:, :2] = torch.nan
    y[0, 0], y[0, 1], y[1, 1] = 1, 1, 0
    classifier = fitted(x, y)
    assert classifier.one_sided == [0, 3]
    weight, bias = classifier.calibrate(x, y, classifier.choose_shrinkage(x, y))
    assert (weight[0] == 0).all()
    assert (weight[1] != 0).any()
    assert weight.isfinite().all()
    assert bias.isfinite().all()
    assert classifier.left_out.isfinite().all()
