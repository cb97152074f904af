import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from ltml import InputError, LabelMatrix, average_precision, group_map
from ltml.core.metrics import (
    DIVERSITY,
    calibration,
    classification,
    cosine_distance,
    effective_rank,
    f1_thresholds,
    feature_diversity,
    vendi_score,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([0, 1, 3]))
def test_agrees_with_scikit_learn(seed, n, digits):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 4)).round(digits) * 10  # rounded: ties
    targets = rng.integers(0, 2, size=(n, 4))
    targets[:, 3] = 0
    ap = average_precision(torch.tensor(scores), torch.tensor(targets))
    for c in range(4):
        if targets[:, c].any():
            expected = average_precision_score(targets[:, c], scores[:, c])
            assert ap[c] == pytest.approx(expected, abs=1e-8)
        else:
            assert np.isnan(ap[c])


def test_large_logits_keep_their_order():
    """A float32 sigmoid would tie 30 and 40, and lose a perfect ranking."""
    scores, targets = torch.tensor([[30.0], [40.0], [20.0]]), torch.tensor([[0], [1], [0]])
    assert average_precision(scores, targets) == [1.0]


def test_many_classes_cost_a_few_sorts():
    """A loop over the classes costs twenty times as much as sorting them."""
    scores = torch.randn(5000, 200, generator=torch.Generator().manual_seed(0))

    def seconds(job):
        began = time.process_time()
        job()
        return time.process_time() - began

    ap = min(seconds(lambda: average_precision(scores, scores > 2)) for _ in range(3))
    assert ap < 8 * min(seconds(lambda: scores.sort(dim=0)) for _ in range(3))


def test_absent_classes_are_left_out_of_the_means():
    labels = LabelMatrix(np.repeat([[1, 0, 0]], 100, axis=0))
    ap = np.array([0.5, np.nan, 1.0])
    means = group_map(ap, labels.groups())
    assert means["mAP"] == 0.75
    assert means["tail"] == 1.0
    assert np.isnan(means["medium"])


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"scores \(2, 3\) and targets \(3, 2\)"):
        average_precision(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(InputError, match="NaN at image 1, class 0"):
        average_precision(torch.tensor([[0.0], [torch.nan]]), torch.ones(2, 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 6))
def test_diversity_agrees_with_numpy(seed, n, D):
    x = np.random.default_rng(seed).normal(size=(n, D))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    K = unit @ unit.T

    def exp_entropy(p):
        p = p[p > 1e-12]
        return np.exp(-(p * np.log(p)).sum())

    sigma = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(x.T, bias=True).reshape(D, D)), 0))
    features = torch.tensor(x)
    assert vendi_score(features) == pytest.approx(exp_entropy(np.linalg.eigvalsh(K / n)), rel=1e-6)
    expected = exp_entropy(sigma / sigma.sum())
    assert effective_rank(features) == pytest.approx(expected, rel=1e-5)
    off = K[~np.eye(n, dtype=bool)]
    assert cosine_distance(features) == pytest.approx(1 - off.mean(), abs=1e-9)
    batched = torch.stack([features, 2 * features + 1])
    for measure in DIVERSITY.values():
        assert torch.allclose(measure(batched)[0], measure(features))


def test_bounds_of_diversity():
    same = torch.ones(5, 3)
    assert vendi_score(same) == pytest.approx(1, abs=1e-4)
    assert effective_rank(same) == pytest.approx(1, abs=1e-4)
    assert cosine_distance(same) == pytest.approx(0, abs=1e-6)
    assert vendi_score(torch.eye(6)) == pytest.approx(6, abs=1e-4)


@pytest.mark.parametrize("measure", DIVERSITY)
def test_rarefaction_does_not_call_small_classes_poor(measure):
    """Two classes of one distribution, 400 samples and 12: equal within their errors."""
    g = torch.Generator().manual_seed(0)
    targets = torch.tensor([[1, 0]] * 400 + [[0, 1]] * 12)
    features = torch.randn(412, 16, generator=g) + 0.5
    table = feature_diversity(features, targets, measure=measure, size=8)
    assert (table.error > 0).all()
    difference = abs(table["value"][0] - table["value"][1])
    assert difference < 3 * np.hypot(*table.error)
    raw = [float(DIVERSITY[measure](features[targets[:, c] == 1])) for c in (0, 1)]
    if measure != "cosine-distance":  # a mean over pairs does not grow with the sample
        assert raw[0] > 1.3 * raw[1]


def test_the_standard_error_is_the_deviation_over_data_sets():
    """The jackknife's error from one sample predicts the spread over many samples."""
    g = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(60):
        x = torch.randn(30, 4, generator=g) + 1
        row = feature_diversity(x, torch.ones(30, 1), measure="cosine-distance", size=15)
        values.append(row["value"][0])
        errors.append(row["error"][0])
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.35)


def test_diversity_of_small_and_of_missing_classes():
    features = torch.randn(6, 4)
    targets = torch.tensor([[1, 1, 0]] * 3 + [[1, 0, 0]] * 3)
    table = feature_diversity(features, targets, size=3)
    assert table["count"].tolist() == [6, 3, 0]
    assert table["value"][1] == pytest.approx(float(vendi_score(features[:3].double())))
    assert np.isnan(table["error"][1])
    assert np.isnan(table["value"][2])


def test_bad_diversity_input_is_named():
    x, y = torch.zeros(4, 2), torch.ones(4, 3)
    with pytest.raises(InputError, match=r"measure 'odd'.*vendi"):
        feature_diversity(x, y, measure="odd")
    with pytest.raises(InputError, match=r"features \(5, 2\).*targets \(4, 3\)"):
        feature_diversity(torch.zeros(5, 2), y)
    with pytest.raises(InputError, match="size is 1"):
        feature_diversity(x, y, size=1)


def probabilities(seed=0, N=300, C=5):
    random = torch.Generator().manual_seed(seed)
    y = torch.rand(N, C, generator=random) < torch.tensor([0.5, 0.2, 0.1, 0.05, 0.0])
    p = (y * 0.3 + torch.rand(N, C, generator=random) * 0.7).mul(20).round() / 20  # with ties
    return p, y.int()


GROUPS = {"head": np.array([0, 1]), "tail": np.array([2, 3, 4])}


def test_precision_recall_and_f1_are_those_of_scikit_learn():
    p, y = probabilities()
    table = classification(p, y, thresholds=0.4, groups=GROUPS)
    for name, classes in {"all": [0, 1, 2, 3], "head": [0, 1], "tail": [2, 3]}.items():
        truth, said = y[:, classes].numpy(), (p[:, classes] >= 0.4).int().numpy()
        options = {"zero_division": 0}
        row = table.loc[name]
        cp = precision_score(truth, said, average="macro", **options)
        cr = recall_score(truth, said, average="macro", **options)
        assert row["CP"] == pytest.approx(cp)
        assert row["CR"] == pytest.approx(cr)
        assert row["CF1"] == pytest.approx(2 * cp * cr / (cp + cr))
        assert row["OP"] == pytest.approx(precision_score(truth, said, average="micro"))
        assert row["OR"] == pytest.approx(recall_score(truth, said, average="micro"))
        assert row["OF1"] == pytest.approx(f1_score(truth, said, average="micro"))
        assert row.macro_F1 == pytest.approx(f1_score(truth, said, average="macro", **options))


def test_thresholds_are_the_best_that_scikit_learn_finds():
    p, y = probabilities(1)
    found = f1_thresholds(p, y)
    assert found[4].isnan()
    for c in range(4):
        truth = y[:, c].numpy()
        best = max(f1_score(truth, (p[:, c] >= t).int()) for t in torch.linspace(0, 1, 101))
        assert f1_score(truth, (p[:, c] >= found[c]).int()) == pytest.approx(best)
    at_best = classification(p, y, thresholds=found)
    assert at_best.macro_F1["all"] >= classification(p, y).macro_F1["all"]


def test_groups_without_a_positive_have_no_f1():
    groups = {"empty": np.array([], int), "absent": np.array([4])}
    table = classification(*probabilities(), groups=groups)
    assert table.loc[["empty", "absent"]].isna().all(axis=None)


@pytest.mark.parametrize("metric", [classification, calibration, f1_thresholds])
def test_logits_are_refused(metric):
    with pytest.raises(InputError, match=r"probabilities span -4 to 4; give logits.sigmoid\(\)"):
        metric(torch.tensor([[-4.0, 4.0]]), torch.tensor([[0, 1]]))


def test_calibration_is_that_of_scikit_learn():
    p, y = probabilities(2)
    p = p * 0.997 + 0.0013  # off the bins' edges, where conventions differ
    table = calibration(p, y, bins=10, groups=GROUPS)
    assert list(dict.fromkeys(table.group)) == ["all", "head", "tail"]
    for name, classes in {"all": np.arange(5), **GROUPS}.items():
        rows = table[table.group == name]
        observed, predicted = calibration_curve(
            y[:, classes].flatten(), p[:, classes].flatten(), n_bins=10
        )
        assert np.allclose(rows.observed, observed)
        assert np.allclose(rows.predicted, predicted)
        share = rows["count"] / rows["count"].sum()
        assert np.allclose(rows.error, (share * abs(predicted - observed)).sum())
    assert table[table.group == "all"]["count"].sum() == p.numel()
