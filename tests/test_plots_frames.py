from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from feature_records import make_record
from scipy import stats
from sklearn.decomposition import PCA

from ltml import (
    ClassAwareSampler,
    FeatureRecord,
    GradientLedger,
    GroupSampler,
    InputError,
    LabelMatrix,
    Run,
    UniformSampler,
)
from ltml.audit import frontier
from ltml.features import SplitFeatures
from ltml.plots import frames

GROUPS = ("head", "medium", "tail")


def make_run(name="made", *, seed=0, summary=None, recipe=None, val=False):
    """Two epochs of 10 and 5 steps, three classes; numbers that can be followed by hand."""
    per_class = pd.DataFrame(
        [
            (1, "rare", "tail", 4, np.nan, 1.0, 2.0),
            (1, "cat", "medium", 30, np.nan, 4.0, 2.0),
            (1, "dog", "head", 300, np.nan, 6.0, 5.0),
            (2, "rare", "tail", 4, 0.25, 0.5, 0.5),
            (2, "cat", "medium", 30, 0.5, 1.0, 1.0),
            (2, "dog", "head", 300, 1.0, 1.0, 1.0),
        ],
        columns=["epoch", "class", "group", "count", "ap", "grad_pos", "grad_neg"],
    ).assign(grad_weight=np.nan)
    metrics = pd.DataFrame({"epoch": [1, 2], "step": [10, 15], "train_loss": [0.5, 0.2]})
    for column, values in zip(("mAP", *GROUPS), ((0.6,), (1.0,), (0.5,), (0.25,)), strict=True):
        metrics[column] = [np.nan, *values]
        if val:
            metrics[f"val_{column}"] = [0.1, 0.2]
    config = {"recipe": recipe or {"seed": seed, "lr": 0.1}, "data": {"name": "made"}}
    summary = {"mAP": 0.6, "head": 1.0, "medium": 0.5, "tail": 0.25} | (summary or {})
    return Run(Path(name), config, metrics, per_class, summary)


@pytest.fixture(scope="module")
def labels():
    """Seven classes, the rare beside the common; columns in no order of count."""
    random = np.random.default_rng(0)
    counts = [300, 180, 120, 60, 30, 12, 5]
    Y = np.zeros((400, 7), dtype=int)
    for c, n in enumerate(counts):
        Y[random.choice(400, n, replace=False), c] = 1
    shuffled = [4, 0, 6, 2, 1, 5, 3]
    return LabelMatrix(Y[:, shuffled], [("a", "b", "c", "d", "e", "f", "g")[c] for c in shuffled])


@pytest.fixture(scope="module")
def dense(labels):
    return labels.dense().numpy().astype(float)[:, np.argsort(-labels.counts)]


OPTIONS = {"batch_size": 8, "num_batches": 1}


def test_counts_are_in_descending_order(labels):
    table = frames.counts(labels)
    assert table["class"].tolist() == list("abcdefg")
    assert table["count"].tolist() == [300, 180, 120, 60, 30, 12, 5]
    assert table.group.tolist() == ["head"] * 3 + ["medium"] * 2 + ["tail"] * 2
    assert frames.counts(make_run())["class"].tolist() == ["dog", "cat", "rare"]


def test_gradients_are_summed_over_the_run():
    table = frames.gradients(make_run()).set_index("class")
    assert table.index.tolist() == ["dog", "cat", "rare"]
    assert table.positive.tolist() == [7, 5, 1.5]
    assert table.negative.tolist() == [6, 3, 2.5]
    assert table.total.tolist() == [13, 8, 4]
    assert np.allclose(table.share, [13 / 25, 8 / 25, 4 / 25])
    assert np.allclose(table.equal_share, 1 / 3)
    assert table.ap.tolist() == [1, 0.5, 0.25]


def test_gradients_of_one_epoch():
    table = frames.gradients(make_run(), epoch=1)
    assert table.total.tolist() == [11, 6, 3]
    assert np.allclose(table.share, [0.55, 0.3, 0.15])
    assert table.ap.isna().all()


def test_runs_are_named_apart():
    both = frames.gradients([make_run("a"), make_run("b"), make_run("a")])
    assert both.run.unique().tolist() == ["a", "b", "a (2)"]
    assert frames.gradients({"x": make_run(), "y": make_run()}).run.unique().tolist() == ["x", "y"]


def test_a_ledgers_reading_is_read_like_a_run():
    names = LabelMatrix([[1, 0, 1], [0, 0, 1], [0, 1, 1]], ["b", "a", "c"])
    ledger = GradientLedger(3)
    logits = torch.zeros(4, 3, requires_grad=True)
    targets = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    ledger.watch(logits, targets)
    torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets, reduction="sum"
    ).backward()
    table = frames.gradients(ledger.read(), labels=names)
    assert table["class"].tolist() == ["c", "a", "b"]  # by count, then by name
    assert table.positive.tolist() == [0, 0.5, 1.5]
    assert table.negative.tolist() == [2, 1.5, 0.5]
    assert table["count"].tolist() == [3, 1, 1]


def test_history_has_the_shares_of_each_epoch():
    table = frames.gradient_history(make_run())
    assert table.steps.tolist() == [10] * 3 + [5] * 3
    assert table["class"].tolist() == ["dog", "cat", "rare"] * 2
    assert np.allclose(table.share, [0.55, 0.3, 0.15, 0.4, 0.4, 0.2])
    assert np.allclose(table.of_peak, [1] * 3 + [0.5] * 3)  # 2 a step, then 1


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("max_weight", [1.2, 100.0])
@pytest.mark.parametrize("epoch", [None, 1])
def test_balancing_agrees_with_the_formula_in_numpy(strength, max_weight, epoch):
    G = np.array([[7, 5, 1.5], [6, 3, 2.5]] if epoch is None else [[6, 4, 1], [5, 2, 2]], float)
    w = np.clip((G.mean() / G) ** strength, 1 / max_weight, max_weight)
    w *= G.sum() / (w * G).sum()
    frame = frames.balanced(make_run(), strength=strength, max_weight=max_weight, epoch=epoch)
    assert frame.side.tolist() == ["positive"] * 3 + ["negative"] * 3
    assert np.allclose(frame.weight, w.ravel())
    assert np.allclose(frame.before, 100 * G.ravel() / G.sum())
    assert np.allclose(frame.after, 100 * (w * G).ravel() / G.sum())
    assert frame.after.sum() == pytest.approx(100)
    if max_weight == 100:
        ratio = frames.largest_over_smallest(frame.before) ** (1 - strength)
        assert frames.largest_over_smallest(frame.after) == pytest.approx(ratio)


def test_a_class_without_gradient_has_a_weight_and_no_share():
    run = make_run()
    run.per_class.loc[run.per_class["class"] == "rare", ["grad_pos", "grad_neg"]] = 0.0
    frame = frames.balanced(run, strength=1)
    assert np.isfinite(frame.weight).all()
    assert frame.after[frame["class"] == "rare"].tolist() == [0, 0]
    assert frames.largest_over_smallest(frame.after) == pytest.approx(1)


def test_what_runs_do_not_hold_is_said():
    run = make_run()
    blank = replace(run, per_class=run.per_class.assign(grad_pos=np.nan, grad_neg=np.nan))
    silent = replace(run, per_class=run.per_class.assign(grad_pos=0.0, grad_neg=0.0))
    other = replace(run, per_class=run.per_class.assign(**{"class": run.per_class["class"] + "!"}))
    reading = GradientLedger(2).read()
    for make, message in (
        (lambda: frames.gradients(run, epoch=3), "epoch=3: run 'made' has 1 to 2"),
        (lambda: frames.gradients(blank), "'made' holds no record of its gradients"),
        (lambda: frames.gradient_history(blank), "'made' holds no record of its gradients"),
        (lambda: frames.gradients(reading), "give labels="),
        (lambda: frames.balanced(silent), "no gradient to balance"),
        (lambda: frames.balanced(run, strength=2), "strength"),
        (lambda: frames.class_ap([run, other]), "different classes"),
        (lambda: frames.class_ap([]), "nothing was given"),
    ):
        with pytest.raises(InputError, match=message):
            make()


def test_results_of_groups_are_in_percent_and_pool_seeds():
    runs = [
        make_run("plain+seed0"),
        make_run("plain+seed1", seed=1, summary={"tail": 0.45}),
        make_run("other+seed0", recipe={"seed": 0, "lr": 1.0}, summary={"tail": None}),
    ]
    alone = frames.group_map(runs[0]).set_index("group")
    assert alone["mean"].to_dict() == {"mAP": 60, "head": 100, "medium": 50, "tail": 25}
    assert alone.deviation.isna().all()
    pooled = frames.group_map(runs, pool=True).set_index(["name", "group"])
    tail = pooled.loc[("plain", "tail")]
    assert tail.seeds == 2
    assert tail["mean"] == pytest.approx(35)
    assert tail.deviation == pytest.approx(np.std([25, 45], ddof=1))
    assert np.isnan(pooled.loc[("other+seed0", "tail")]["mean"])
    assert frames.group_map(runs)["name"].nunique() == 3


def test_curves_leave_out_epochs_that_were_not_evaluated():
    table = frames.curves(make_run())
    assert table.split.unique().tolist() == ["test"]
    assert table.set_index("group")["mAP"].to_dict() == {
        "mAP": 60, "head": 100, "medium": 50, "tail": 25
    }  # fmt: skip
    assert table.step.tolist() == [15] * 4
    table = frames.curves(make_run(val=True))
    assert table.groupby("split").size().to_dict() == {"test": 4, "val": 8}
    tail = table[(table.split == "val") & (table.group == "tail")]
    assert tail.step.tolist() == [10, 15]
    assert np.allclose(tail["mAP"], [10, 20])


def test_cooccurrence_is_that_of_the_matrix(labels, dense):
    frame = frames.cooccurrence(labels)
    expected = dense.T @ dense / dense.sum(0)[:, None]
    assert np.allclose(frame.share.to_numpy().reshape(7, 7), expected)
    assert frame.other[:7].tolist() == list("abcdefg")
    assert frame.other_group[6] == "tail"
    with pytest.raises(InputError, match="no label"):
        frames.cooccurrence(LabelMatrix([[0, 0]]))


def test_interference_orders_both_sides_of_the_matrix():
    classes = pd.DataFrame(
        {"class": ["x", "y"], "group": ["tail", "head"], "count": [3, 200], "ap": 0.5}
    )
    cosine = np.array([[1.0, -0.5], [-0.25, 1.0]])  # not symmetric, to tell rows from columns
    frame = frames.interference(cosine, np.array([7.0, 9.0]), classes)
    assert frame[["class", "other"]].agg("".join, axis=1).tolist() == ["yy", "yx", "xy", "xx"]
    assert frame.cosine.tolist() == [1, -0.25, -0.5, 1]
    assert frame.norm.tolist() == [9, 9, 7, 7]
    assert frame.other_group.tolist() == ["head", "tail", "head", "tail"]


def test_class_rates_are_those_of_the_samplers(labels, dense):
    samplers = [kind(labels, **OPTIONS) for kind in (UniformSampler, ClassAwareSampler)]
    uniform, aware = dense.mean(0), (dense / dense.sum(0)).mean(1) @ dense
    for given in (samplers, {"uniform": samplers[0], "class-aware": samplers[1].audit()}):
        frame = frames.class_rates(given)
        assert frame.sampler.unique().tolist() == ["uniform", "class-aware"]
        assert frame["class"].tolist() == 2 * list("abcdefg")
        assert np.allclose(frame.rate, [*uniform, *aware])
        assert frame.realised.isna().all()
    head = aware[:3]
    rows = frame[(frame.sampler == "class-aware") & (frame.group == "head")]
    assert np.allclose(rows.ratio, head.max() / head.min())
    assert np.allclose(rows.relative, head / stats.gmean(head))
    audit = samplers[1].audit(400)
    frame = frames.class_rates(audit)
    assert np.allclose(frame.realised, audit.realised[np.argsort(-labels.counts)])
    assert (frame.draws == audit.draws).all()


def test_images_for_the_own_group_are_balanced_by_group_sampling(labels):
    frame = frames.class_rates(labels, draws="own")
    assert frame.sampler.unique().tolist() == ["uniform", "class-aware", "group"]
    assert np.allclose(frame.ratio[frame.sampler == "group"], 1, atol=1e-4)
    aware = frame[frame.sampler == "class-aware"].drop_duplicates("group")
    assert np.allclose(aware.ratio, ClassAwareSampler(labels, **OPTIONS).audit().groups.own_ratio)


def test_rates_follow_the_groups_of_the_last_sampler(labels):
    Y = np.c_[labels.dense().numpy(), np.zeros(400, int)]
    more = LabelMatrix(Y, [*labels.class_names, "absent"])
    own = GroupSampler(more, groups={"some": [0, 1], "others": [2, 3]}, **OPTIONS)
    frame = frames.class_rates([UniformSampler(more, **OPTIONS), own])
    assert frame.groupby("sampler").group.agg(set).map(len).tolist() == [3, 3]
    groups = frame.groupby("class").group.first()
    assert [groups[name] for name in more.class_names[:4]] == ["some", "some", "others", "others"]
    assert np.isnan(frame.set_index("class").rate["absent"]).all()


def test_what_samplers_cannot_say_is_said(labels):
    sampler = ClassAwareSampler(labels, **OPTIONS)
    other = UniformSampler(LabelMatrix([[1, 0], [0, 1]]), **OPTIONS)
    for given, draws, message in (
        ([], "all", "nothing was given"),
        ([sampler, other], "all", "different classes"),
        (sampler, "x", "draws='x'"),
        (sampler.audit(), "own", "audit holds no rates"),
    ):
        with pytest.raises(InputError, match=message):
            frames.class_rates(given, draws=draws)
    with pytest.raises(InputError, match="UniformSampler samples for no group"):
        frames.rate_sources(UniformSampler(labels, **OPTIONS))
    names = frames.class_rates([sampler, sampler]).sampler.unique().tolist()
    assert names == ["class-aware", "class-aware (2)"]


def test_sources_add_up_to_the_rates(labels):
    sampler = GroupSampler(labels, uniform=0.3, **OPTIONS)
    frame = frames.rate_sources(sampler)
    assert frame.source.unique().tolist() == [*GROUPS, "uniform"]
    rates = frame.rate.to_numpy().reshape(4, 7)
    order = np.argsort(-labels.counts)
    assert np.allclose(rates.sum(0), sampler.audit().expected[order])
    assert np.allclose(rates[3], 0.3 * labels.counts[order] / 400)


def test_frontier_is_in_percent_beside_another_sampler(labels):
    table, aware = frontier(labels, [1, 0]), ClassAwareSampler(labels, **OPTIONS).audit()
    frame = frames.frontier(table, compare=aware)
    assert frame.sampler.tolist() == ["group"] * 6 + ["class-aware"] * 3
    assert frame.ridge[:6].tolist() == [0] * 3 + [1] * 3
    assert np.allclose(frame.effective, 100 * frame.effective_images / frame.images)
    assert np.allclose(frame.ratio[6:], aware.groups.own_ratio)
    assert frame.images[6:].tolist() == frame.images[:3].tolist()
    with pytest.raises(InputError, match="empty"):
        frames.frontier(table[:0])


def test_settings_of_an_ablation_are_means_over_seeds():
    table = pd.DataFrame(
        {"sampler": "uniform", "loss": ["bce", "bce", "asl"], "diversity": "off", "seed": [0, 1, 0]}
        | {"mAP": [60.0, 70, 50], "head": 90.0, "medium": 50.0, "tail": [10.0, 20, 30]}
        | {"gradient_imbalance": [10.0, 14, 5]}
    )
    frame = frames.ablation(table).set_index(["name", "group"])
    tail = frame.loc[("uniform · bce · off", "tail")]
    assert (tail["mean"], tail.imbalance, tail.seeds) == (15, 12, 2)
    assert tail.deviation == pytest.approx(np.sqrt(50))
    assert np.isnan(frame.loc[("uniform · asl · off", "tail")].deviation)


def test_differences_have_students_interval():
    values = {"head": [-1.0, 0.0, 4.0], "medium": [1.0, 1.0, 1.0], "tail": [2.0, 6.0, 7.0]}
    rows = [("a for b", g, s, x) for g, each in values.items() for s, x in enumerate(each)]
    table = pd.DataFrame(rows, columns=["part", "group", "seed", "difference"])
    tail = frames.differences(table).query("group == 'tail'").iloc[0]
    low, high = stats.t.interval(0.95, 2, loc=5, scale=stats.sem(values["tail"]))
    assert (tail["mean"] - tail.half, tail["mean"] + tail.half) == pytest.approx((low, high))
    one = frames.differences(table, quantile=1).query("group == 'tail'").iloc[0]
    assert one.half == pytest.approx(stats.sem(values["tail"]))


def test_diversity_of_several_records_is_at_one_size():
    records = [make_record("a"), make_record("b", seed=1)]
    frame = frames.diversity(records, measure="cosine-distance")
    assert frame.run.unique().tolist() == ["a", "b"]
    size = min(record.common_size for record in records)
    for record in records:
        table = record.diversity(measure="cosine-distance", size=size)
        assert np.allclose(frame.value[frame.run == record.name], table.value)
    tables = {split: records[0].diversity(split=split) for split in ("train", "test")}
    assert frames.diversity(tables).run.unique().tolist() == ["train", "test"]
    assert (frames.diversity(records[0].diversity()).run == "").all()


def test_diversity_that_does_not_compare_is_refused():
    table = make_record().diversity()
    for other, message in (
        (make_record().diversity(size=3), "size is"),
        (make_record().diversity(measure="effective-rank"), "measure is"),
        (table.assign(**{"class": table["class"] + "!"}), "different classes"),
    ):
        with pytest.raises(InputError, match=message):
            frames.diversity({"a": table, "b": other})


def test_the_map_of_classes_is_a_principal_component_analysis():
    record = make_record()
    part, frame = record.split("test"), frames.class_map(record)
    x = part.features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    reference = PCA(2, svd_solver="full").fit(x)
    assert np.allclose(np.abs(frame[["x", "y"]]), np.abs(reference.transform(x)))
    explained = frame[["explained_x", "explained_y"]].iloc[0]
    assert np.allclose(explained, reference.explained_variance_ratio_)
    assert frame["class"].tolist() == record.classes["class"].to_numpy()[part.cls].tolist()
    for i in range(len(x)):  # nearest class mean, the image itself left out
        rest = np.arange(len(x)) != i
        means = np.stack([x[rest & (part.cls == c)].mean(0) for c in range(10)])
        assert frame.nearest_own[i] == (((means - x[i]) ** 2).sum(1).argmin() == part.cls[i])


def test_nearest_images_are_those_on_record():
    record, name = make_record(), "c"
    part, c = record.split("test"), 2
    frame = frames.nearest(record, name, neighbors=4)
    rows = part.rows(c)
    order = rows[np.argsort(-part.score[rows])]
    for query, row in enumerate([order[0], order[3], order[-1]]):
        found = frame[frame["query"] == query]
        assert found.image.tolist() == [part.image[row], *part.neighbors[row, :4]]
        assert found.score.iloc[0] == part.score[row]
        assert np.allclose(found.similarity[1:], part.similarity[row, :4])
        assert found.holds.tolist() == part.labels[found.image, c].astype(bool).tolist()
        for image, said in zip(found.image, found.labels, strict=True):
            others = [k for k in np.flatnonzero(part.labels[image]) if k != c]
            assert said == ", ".join(record.classes["class"][others])


def test_records_without_enough_images_are_refused():
    record = make_record()
    part = record.split("test")
    alone = SplitFeatures(
        **{name: getattr(part, name)[:1].copy() for name in SplitFeatures.__annotations__}
    )
    alone.neighbors[:] = -1  # no other image is on record
    few = FeatureRecord("few", record.classes, {"train": alone, "test": alone})
    assert len(frames.nearest(few, "j")) == 1
    for make, message in (
        (lambda: frames.nearest(few, "a"), "no positive in the test split"),
        (lambda: frames.class_map(few), "1 positives on record; too few"),
        (lambda: frames.nearest(record, "a", queries=0), "queries=0"),
        (lambda: frames.nearest(record, "x"), "class 'x' is unknown"),
    ):
        with pytest.raises(InputError, match=message):
            make()
