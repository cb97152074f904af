from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feature_records import make_record
from scipy import stats

from ltml import ClassAwareSampler, GroupSampler, InputError, LabelMatrix, Run, UniformSampler
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
    runs = [make_run("a"), make_run("x/b"), make_run("y/b"), make_run("y/b")]
    both = frames.gradients(runs)
    assert both.run.unique().tolist() == ["a", "x/b", "y/b", "y/b (2)"]
    assert frames.gradients({"x": make_run(), "y": make_run()}).run.unique().tolist() == ["x", "y"]


def test_history_has_the_shares_of_each_epoch():
    table = frames.gradient_history(make_run())
    assert table.steps.tolist() == [10] * 3 + [5] * 3
    assert table["class"].tolist() == ["dog", "cat", "rare"] * 2
    assert np.allclose(table.share, [0.55, 0.3, 0.15, 0.4, 0.4, 0.2])
    assert np.allclose(table.of_peak, [1] * 3 + [0.5] * 3)  # 2 a step, then 1


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("max_weight", [1.2, 100.0])
def test_balancing_agrees_with_the_formula_in_numpy(strength, max_weight):
    G = np.array([[7, 5, 1.5], [6, 3, 2.5]])
    w = np.clip((G.mean() / G) ** strength, 1 / max_weight, max_weight)
    w *= G.sum() / (w * G).sum()
    frame = frames.balanced(make_run(), strength=strength, max_weight=max_weight)
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
    for make, message in (
        (lambda: frames.gradients(run, epoch=3), "epoch=3: run 'made' has 1 to 2"),
        (lambda: frames.gradients(blank), "'made' holds no record of its gradients"),
        (lambda: frames.gradient_history(blank), "'made' holds no record of its gradients"),
        (lambda: frames.interference(run), "'made' has no record of interference"),
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


def test_interference_orders_both_sides_of_the_matrix(tmp_path):
    cosine = np.arange(9.0).reshape(3, 3)  # not symmetric, to tell rows from columns
    arrays = {"norm": [[1, 1, 1], [7, 8, 9]], "cosine": [0 * cosine, cosine]}
    names = ["cat", "rare", "dog"]
    np.savez(tmp_path / "interference.npz", epoch=[1, 2], class_names=names, **arrays)
    frame = frames.interference(make_run(tmp_path))
    assert frame["class"].tolist() == ["dog"] * 3 + ["cat"] * 3 + ["rare"] * 3
    assert frame.other.tolist() == ["dog", "cat", "rare"] * 3
    assert frame.cosine.tolist() == [8, 6, 7, 2, 0, 1, 5, 3, 4]
    assert frame.norm.tolist() == [9] * 3 + [7] * 3 + [8] * 3
    assert frame.other_group.tolist() == ["head", "medium", "tail"] * 3
    assert (frames.interference(make_run(tmp_path), epoch=1).cosine == 0).all()


def test_class_rates_are_those_of_the_samplers(labels, dense):
    samplers = [kind(labels, **OPTIONS) for kind in (UniformSampler, ClassAwareSampler)]
    uniform, aware = dense.mean(0), (dense / dense.sum(0)).mean(1) @ dense
    for given in (samplers, {"uniform": samplers[0], "class-aware": samplers[1]}):
        frame = frames.class_rates(given)
        assert frame.sampler.unique().tolist() == ["uniform", "class-aware"]
        assert frame["class"].tolist() == 2 * list("abcdefg")
        assert np.allclose(frame.rate, [*uniform, *aware])
    head = aware[:3]
    rows = frame[(frame.sampler == "class-aware") & (frame.group == "head")]
    assert np.allclose(rows.ratio, head.max() / head.min())
    assert np.allclose(rows.relative, head / stats.gmean(head))


def test_a_sampler_of_ones_own_is_named_by_its_class(labels):
    class Mine(GroupSampler):
        pass

    frame = frames.class_rates([Mine(labels, **OPTIONS), GroupSampler(labels, **OPTIONS)])
    assert frame.sampler.unique().tolist() == ["Mine", "group"]


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
    ):
        with pytest.raises(InputError, match=message):
            frames.class_rates(given, draws=draws)
    names = frames.class_rates([sampler, sampler]).sampler.unique().tolist()
    assert names == ["class-aware", "class-aware (2)"]


def test_settings_of_an_ablation_are_means_over_seeds():
    table = pd.DataFrame(
        {"sampler": "uniform", "loss": ["bce", "bce", "asl"], "diversity": "off", "seed": [0, 1, 0]}
        | {"mAP": [60.0, 70, 50], "head": 90.0, "medium": 50.0, "tail": [10.0, 20, 30]}
    )
    frame = frames.ablation(table).set_index(["name", "group"])
    tail = frame.loc[("uniform · bce · off", "tail")]
    assert (tail["mean"], tail.seeds) == (15, 2)
    assert tail.deviation == pytest.approx(np.sqrt(50))
    assert np.isnan(frame.loc[("uniform · asl · off", "tail")].deviation)


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
