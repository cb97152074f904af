import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from ltml import InputError, LabelMatrix, average_precision, group_map
from ltml.core.metrics import (
    DIVERSITY,
    auroc,
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


def three_states(seed=0, N=60, C=4):
    """Probabilities with ties, and targets a third of which are unknown."""
    rng = np.random.default_rng(seed)
    p = rng.random((N, C)).round(1)
    y = (rng.random((N, C)) < 0.4).astype(float)
    y[rng.random((N, C)) < 1 / 3] = np.nan
    y[:, 3] = np.where(y[:, 3] == 1, np.nan, y[:, 3])  # a class without a known positive
    return p, y


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_unknown_targets_are_as_if_they_were_not_there(seed):
    p, y = three_states(seed)
    ap, area, found = average_precision(p, y), auroc(p, y), f1_thresholds(p, y)
    table, each = classification(p, y, thresholds=found.numpy()), calibration(p, y, bins=7)
    hits = predicted = 0
    for c in range(4):
        known = ~np.isnan(y[:, c])
        truth, score = y[known, c], p[known, c]
        if not truth.any():
            assert np.isnan(ap[c])
            assert found[c].isnan()
            continue
        assert ap[c] == pytest.approx(average_precision_score(truth, score))
        assert area[c] == pytest.approx(roc_auc_score(truth, score))
        alone = torch.tensor(score)[:, None], torch.tensor(truth)[:, None]
        assert found[c] == f1_thresholds(*alone)[0]
        hits += ((score >= found[c].item()) & (truth == 1)).sum()
        predicted += (score >= found[c].item()).sum()
    assert table.OP["all"] == pytest.approx(hits / predicted if predicted else 0)
    assert table.OR["all"] == pytest.approx(hits / (y == 1).sum())
    known = ~np.isnan(y)
    alone = calibration(p[known][:, None], y[known][:, None], bins=7)
    pd.testing.assert_frame_equal(each, alone)


def test_diversity_is_of_known_positives():
    x, y = torch.randn(30, 5), torch.ones(30, 2)
    y[10:, 0], y[20:, 1] = torch.nan, 0
    table = feature_diversity(x, y, size=4)
    assert table["count"].tolist() == [10, 20]
    pd.testing.assert_frame_equal(table, feature_diversity(x, y.nan_to_num(), size=4))


def containers(x):
    """The same numbers as people hold them."""
    x = np.asarray(x, np.float64)
    names = [f"class {c}" for c in range(x.shape[-1])]
    yield x
    yield x.astype(np.float32)
    yield np.asfortranarray(x)
    yield x[::-1, ::-1][::-1, ::-1]
    yield x.astype(">f8")
    yield x.tolist()
    yield torch.tensor(x, requires_grad=True)
    yield [torch.tensor(row) for row in x]
    yield pd.DataFrame(x, columns=names, index=[f"{i}.jpg" for i in range(len(x))])
    yield pd.DataFrame(x, columns=names).astype("Float64")
    yield x.astype(object)
    yield np.ma.masked_invalid(x)


METRIC = {
    "ap": average_precision,
    "auroc": auroc,
    "f1": f1_thresholds,
    "classification": lambda p, y: classification(p, y, groups={"a": [0, 1], "b": (2,)}),
    "calibration": lambda p, y: calibration(p, y, groups={"a": torch.tensor([0, 1])}),
    "diversity": lambda p, y: feature_diversity(p, y, size=3),
}


@pytest.mark.parametrize("metric", METRIC.values(), ids=METRIC)
def test_every_metric_takes_what_people_hold(metric):
    p, y = three_states(N=40)
    p = (p * 8).round() / 8  # the same in every precision
    expected = metric(torch.tensor(p), torch.tensor(y))

    def same(a, b):
        if isinstance(b, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
        else:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    for form in containers(p):
        same(metric(form, y), expected)
    for form in containers(y):
        same(metric(p, form), expected)
    same(metric(p, LabelMatrix(y)), expected)
    whole = np.nan_to_num(y)
    expected = metric(p, whole)
    for form in (whole.astype(bool), whole.astype(np.uint8), csr_array(whole), torch.tensor(whole)):
        same(metric(p, form), expected)


SHAPES = {
    "one row short": lambda p, y: (p, y[:-1]),
    "one row long": lambda p, y: (p[:-1], y),
    "one row": lambda p, y: (p, y[:1]),
    "transposed": lambda p, y: (p, y.T),
    "one class": lambda p, y: (p, y[:, :1]),
    "a vector": lambda p, y: (p, y[:, 0]),
    "a number": lambda p, y: (p, 1),
    "one axis too many": lambda p, y: (p, y[None]),
    "ragged": lambda p, y: (p, [[1], [1, 0]]),
    "minus one": lambda p, y: (p, np.where(y > 0, 1, -1)),
    "two": lambda p, y: (p, 2 * np.nan_to_num(y)),
    "words": lambda p, y: (p, np.full(y.shape, "yes")),
    "NaN scores": lambda p, y: (np.where(y > 0, np.nan, p), y),
    "word scores": lambda p, y: (np.full(y.shape, "high"), y),
    "complex scores": lambda p, y: (torch.tensor(p) * 1j, y),
    "no image": lambda p, y: (p[:0], y[:0]),
    "None": lambda p, y: (p, None),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METRIC)
def test_what_does_not_fit_is_refused_in_one_line(name, shape):
    p, y = three_states(N=40)
    if name == "diversity" and shape in ("one class", "no image"):
        return  # features have a width of their own; of no image, every class is NaN
    with pytest.raises(InputError) as error:
        METRIC[name](*SHAPES[shape](p, y))
    assert "\n" not in str(error.value)


def test_sparse_scores_are_scores():
    p, y = (torch.tensor(np.nan_to_num(x)) for x in three_states(N=20))
    for metric in (average_precision, classification):
        wanted, found = metric(p, y), metric(p.to_sparse(), y)
        assert np.array_equal(np.asarray(found), np.asarray(wanted), equal_nan=True)


def test_frames_in_another_order_are_refused():
    p, y = (pd.DataFrame(x, columns=list("abcd")) for x in three_states(N=5))
    with pytest.raises(InputError, match=r"columns of scores and targets.*'d' and 'a'.*reindex"):
        average_precision(p[list("dcba")], y)
    with pytest.raises(InputError, match=r"give targets.reindex\(index=scores.index\)"):
        average_precision(p, y[::-1])
    average_precision(p, y[::-1].reindex(index=p.index))  # as it says
    with pytest.raises(InputError, match="another order"):
        average_precision(p[list("dcba")], LabelMatrix(y))
    with pytest.raises(InputError, match="columns of probabilities and thresholds"):
        classification(p, y, thresholds=pd.Series(0.5, index=list("badc")))
    classification(p, y, thresholds=pd.Series(0.5, index=list("abcd")))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: classification(p, y, thresholds=[0.5]), r"thresholds have shape \(1,\).*4"),
        (lambda p, y: classification(p, y, thresholds=p), r"thresholds have shape \(60, 4\)"),
        (lambda p, y: classification(p, y, thresholds=50), "thresholds hold 50; give prob"),
        (lambda p, y: classification(p, y, thresholds={"a": 1}), "thresholds hold"),
        (lambda p, y: classification(p, y, thresholds="best"), "thresholds hold"),
        (lambda p, y: classification(p, y, groups=[[0, 1]]), "groups is list; give name"),
        (
            lambda p, y: classification(p, y, groups={"a": [4]}),
            "holds class 4; give indices 0 to 3",
        ),
        (lambda p, y: calibration(p, y, groups={"a": [-1]}), "holds class -1"),
        (lambda p, y: calibration(p, y, groups={"a": ["cat"]}), r"groups\['a'\] is \['cat'\]"),
        (lambda p, y: calibration(p, y, groups={"all": [0]}), "'all', the row of all classes"),
        (lambda p, y: calibration(p, y, bins=0), "bins is 0"),
        (lambda p, y: calibration(p, y, bins=2.5), "bins is 2.5"),
        (lambda p, y: group_map(p, {}), r"ap has shape \(60, 4\)"),
        (lambda p, y: group_map([0.1, 0.2], {"a": [2]}), "holds class 2"),
        (lambda p, y: group_map([0.1], {"mAP": [0]}), "'mAP', the row"),
        (lambda p, y: feature_diversity(p, y, size=2.5), "size is 2.5"),
        (lambda p, y: feature_diversity(p + np.inf, y), "infinite or NaN"),
    ],
)
def test_bad_options_of_metrics_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call(*three_states())


def test_group_means_take_lists():
    groups = {"a": [0, 1], "b": torch.tensor([2]), "c": []}
    found = group_map([0.5, np.nan, 1.0], groups)
    assert str(found) == str(group_map(pd.Series([0.5, np.nan, 1.0]), groups))
    assert {name: found[name] for name in ("mAP", "a", "b")} == {"mAP": 0.75, "a": 0.5, "b": 1.0}
