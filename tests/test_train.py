import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ltml import InputError, Recipe, Run, fit
from ltml.data.holdout import with_holdout
from ltml.data.loader import Loader
from ltml.runs.run import METRICS, PER_CLASS, VALIDATION, table_of
from ltml.training import train
from ltml.training.ablation import tabulate
from ltml.training.passes import evaluate
from ltml.training.setup import completed, lr_factor, make_optimizer, told

TINY = Recipe(batch_size=16, steps=20, warmup=5, evaluate_every=1)


def build_model(recipe, labels):
    return train.build_model(recipe, labels.counts, len(labels))


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return fit(TINY, data=tiny, out=tmp_path_factory.mktemp("runs") / "a", progress=False)


def test_a_run_holds_what_it_promises(run, tiny):
    assert {p.name for p in run.path.iterdir()} == {
        "config.json",
        "metrics.csv",
        "per_class.csv",
        "summary.json",
        "model.pt",
        "scores.npz",
    }
    assert list(run.metrics) == METRICS
    assert list(run.per_class) == [*PER_CLASS, "auroc"]
    per_epoch = math.ceil(len(tiny.train) / 16)
    assert run.metrics.step.tolist() == [*range(per_epoch, 20, per_epoch), 20]
    assert len(run.per_class) == 20 * len(run.metrics)
    counts = run.per_class.groupby("class")["count"].first()
    assert counts.to_dict() == dict(
        zip(tiny.class_names, tiny.train.labels.counts.tolist(), strict=True)
    )
    last = run.per_class[run.per_class.epoch == run.metrics.epoch.max()]
    assert run.summary["mAP"] == pytest.approx(last.ap.mean(), rel=1e-5)
    assert run.summary["tail"] == pytest.approx(last[last.group == "tail"].ap.mean(), rel=1e-5)
    total = run.per_class.groupby("class")[["grad_pos", "grad_neg"]].sum().sum(axis=1)
    assert run.summary["gradient_imbalance"] == pytest.approx(total.max() / total.min(), rel=1e-5)
    assert (run.per_class.grad_weight > 0).all()
    assert run.summary["torch"] == torch.__version__
    assert run.recipe["image_size"] == 24


def test_the_saved_model_makes_the_reported_scores(run, tiny):
    model = build_model(Recipe.from_dict(run.recipe), tiny.train.labels)
    model.load_state_dict(run.state_dict())
    scores = evaluate(model, Loader(tiny.test, image_size=24))[0]
    from sklearn.metrics import average_precision_score

    truth = tiny.test.labels.dense().numpy()
    ap = average_precision_score(truth, scores.numpy(), average=None)
    reported = run.classes.set_index("class").ap.loc[list(tiny.class_names)]
    assert np.allclose(ap, reported, atol=1e-5)


def test_the_same_seed_gives_the_same_run(run, tiny, tmp_path):
    again = fit(TINY, data=tiny, out=tmp_path / "b", progress=False)
    for name in ("metrics.csv", "per_class.csv"):
        assert (run.path / name).read_bytes() == (again.path / name).read_bytes()
    other = fit(replace(TINY, seed=1), data=tiny, out=tmp_path / "c", progress=False)
    assert not other.metrics.equals(run.metrics)


def test_the_ledger_saw_the_gradients_of_the_loss(tiny, tmp_path):
    """One step from known weights: |p - y| / (B C) by hand, by the same draws."""
    recipe = replace(TINY, steps=1, augment="none")
    run = fit(recipe, data=tiny, out=tmp_path / "run", progress=False)
    from ltml.core.sampler import UniformSampler

    (index,) = UniformSampler(tiny.train.labels, batch_size=16, num_batches=1, seed=0)
    index = torch.tensor(index)
    ((images, targets),) = Loader(tiny.train, image_size=24).batches([index])
    p = torch.sigmoid(build_model(recipe, tiny.train.labels).train()(images))
    table = run.per_class.set_index("class").loc[list(tiny.class_names)]
    scale = 16 * 20
    assert np.allclose(table.grad_pos, ((1 - p) * targets).sum(0).detach() / scale, rtol=1e-4)
    assert np.allclose(table.grad_neg, (p * (1 - targets)).sum(0).detach() / scale, rtol=1e-4)


def test_training_lowers_the_loss_and_reports_each_epoch(tiny, tmp_path):
    seen = []
    recipe = replace(TINY, steps=None, epochs=6)
    run = fit(
        recipe,
        data=tiny,
        out=tmp_path / "run",
        progress=False,
        on_epoch=lambda run: seen.append((len(run.metrics), len(run.classes), run.summary)),
    )
    assert seen == [(n, 20, {}) for n in range(1, 7)]
    losses = run.metrics.train_loss
    assert losses.iloc[-1] < 0.75 * losses.iloc[0]  # the first already knows how rare labels are


def test_what_a_recipe_leaves_open_suits_backbone_and_data(tiny):
    drawn = completed(Recipe(), tiny.train)
    assert (drawn.image_size, drawn.augment, drawn.lr, drawn.backbone_lr) == (24, "shift", 0.01, 1)
    tuned = Recipe(data="coco", backbone="resnet18", weights="x", augment="none")
    tuned = completed(tuned, tiny.train)
    assert (tuned.augment, tuned.lr, tuned.backbone_lr) == ("none", 0.005, 0.2)


def test_a_warm_up_left_open_is_half_of_the_training_at_most(tiny):
    for steps, warmup in ((252, 50), (100, 50), (7, 3), (1, 0)):
        assert completed(Recipe(steps=steps), tiny.train).warmup == warmup
    assert completed(Recipe(steps=7, warmup=3), tiny.train).warmup == 3


def test_a_timm_backbone_gets_images_of_its_own_size(tiny):
    pytest.importorskip("timm")
    recipe = Recipe(backbone="timm/vit_tiny_patch16_224")
    assert completed(recipe, tiny.train).image_size == 224


def test_the_backbone_has_its_own_learning_rate_and_frozen_layers_stay(tiny, tmp_path):
    recipe = replace(TINY, freeze=3, backbone_lr=0.5)
    before = build_model(recipe, tiny.train.labels).state_dict()
    run = fit(recipe, data=tiny, out=tmp_path / "r", progress=False)
    changed = {k for k, v in run.state_dict().items() if not torch.equal(v, before[k])}
    frozen = {k for k in before if k.startswith(("backbone.0.", "backbone.1.", "backbone.2."))}
    assert frozen
    assert not frozen & changed
    assert {"head.classifier.weight", "head.classifier.bias"} <= changed
    groups = make_optimizer(completed(recipe, tiny.train), build_model(recipe, tiny.train.labels))
    assert [g["scale"] for g in groups.param_groups] == [0.5, 0.5, 1, 1]


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_learning_rate_rises_then_falls(schedule):
    recipe = Recipe(schedule=schedule, warmup=10)
    factors = [lr_factor(recipe, step, 160) for step in range(160)]
    assert factors[:10] == sorted(factors[:10])
    assert max(factors) == pytest.approx(1, abs=0.02)
    if schedule == "step":
        assert factors[99] == 1
        assert factors[100] == pytest.approx(0.1)
        assert factors[140] == pytest.approx(0.01)
    else:
        assert factors[80] == pytest.approx(0.5)
        assert factors[-1] < 0.001


def test_a_folder_that_holds_a_run_is_left_alone(run, tiny):
    before = (run.path / "summary.json").read_bytes()
    with pytest.raises(InputError, match="holds another run"):
        fit(TINY, data=tiny, out=run.path, progress=False)
    assert (run.path / "summary.json").read_bytes() == before


@pytest.mark.parametrize("name", ["thesis.tex", "config.json"])
def test_a_folder_of_other_things_is_never_replaced(tiny, tmp_path, name):
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="holds other files"):
        fit(TINY, data=tiny, out=tmp_path, overwrite=True, progress=False)
    assert (tmp_path / name).exists()


def test_overwrite_replaces_a_run_and_keeps_what_ltml_did_not_write(tiny, tmp_path):
    first = fit(replace(TINY, steps=1), data=tiny, out=tmp_path / "r", progress=False)
    (tmp_path / "r" / "notes.txt").touch()
    (tmp_path / "r" / "features.npz").touch()  # of the run that is replaced
    second = fit(
        replace(TINY, steps=2), data=tiny, out=tmp_path / "r", progress=False, overwrite=True
    )
    assert (first.summary["steps"], second.summary["steps"]) == (1, 2)
    assert (tmp_path / "r" / "notes.txt").exists()
    assert not (tmp_path / "r" / "features.npz").exists()


def test_the_test_split_is_scored_once_unless_asked(tiny, tmp_path):
    for every, scored in ((None, [False, False, False, True]), (2, [False, True, False, True])):
        recipe = replace(TINY, steps=None, epochs=4, evaluate_every=every)
        run = fit(recipe, data=tiny, out=tmp_path / str(every), progress=False)
        assert run.metrics.mAP.notna().tolist() == scored
        assert run.classes.ap.notna().all()


def test_the_best_epoch_by_validation_is_kept_and_tested(tiny, tmp_path):
    split = with_holdout(tiny, 0.3, seed=0)
    recipe = replace(TINY, steps=None, epochs=5, evaluate_every=None, keep="best", lr=0.05)
    run = fit(recipe, data=split, out=tmp_path / "r", progress=False)
    assert list(run.metrics) == METRICS + VALIDATION
    kept = run.summary["kept_epoch"]
    assert run.metrics.val_mAP.max() == run.metrics.val_mAP[kept - 1]
    model = build_model(Recipe.from_dict(run.recipe), split.train.labels)
    model.load_state_dict(run.state_dict())
    for name, part in (("val_mAP", split.val), ("mAP", split.test)):
        scores = evaluate(model, Loader(part, image_size=24))[0]
        found = train.average_precision(scores, part.labels.dense())
        assert np.nanmean(found) == pytest.approx(run.metrics.iloc[-1][name], abs=1e-6)
        column = {"val_mAP": "val_ap", "mAP": "ap"}[name]
        last = run.per_class[run.per_class.epoch == len(run.metrics)].set_index("class")[column]
        assert np.allclose(last[list(split.class_names)], found, equal_nan=True, atol=1e-6)
    assert run.metrics.val_mAP.iloc[-1] == pytest.approx(run.metrics.val_mAP[kept - 1], abs=1e-6)
    table = table_of([run])
    assert table.val_mAP[0] == pytest.approx(100 * run.metrics.val_mAP.iloc[-1], abs=0.01)
    tabulated = tabulate([run]).iloc[0]
    for name in ("val_mAP", "mAP"):
        assert tabulated[name] == pytest.approx(100 * run.metrics.iloc[-1][name], abs=0.01)


def test_a_holdout_is_cut_out_of_data_at_hand_too(tiny, tmp_path):
    run = fit(replace(TINY, steps=8, holdout=0.2), data=tiny, out=tmp_path / "r", progress=False)
    assert run.metrics.val_mAP.notna().all()
    assert run.config["data"]["train_images"] < len(tiny.train)


def test_keeping_the_best_needs_a_validation_split(tiny, tmp_path):
    with pytest.raises(InputError, match="needs a validation split"):
        fit(replace(TINY, keep="best"), data=tiny, out=tmp_path / "r", progress=False)


def test_a_training_shorter_than_its_warm_up_is_said(tiny, tmp_path, caplog):
    fit(replace(TINY, steps=3, warmup=50), data=tiny, out=tmp_path / "r", progress=False)
    assert "3 steps end before the warm-up of 50 does" in caplog.text


def test_a_loss_that_explodes_says_so(tiny, tmp_path):
    with pytest.raises(InputError, match=r"(?i)nan.*(lr=1e\+30|lower the learning rate)"):
        fit(replace(TINY, lr=1e30, warmup=0), data=tiny, out=tmp_path / "r", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 2}, "epochs=2 and steps=20"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"sampler": "grup"}, "sampler 'grup' is unknown; did you mean 'group'"),
        ({"loss": "odd"}, "'odd'.*bce"),
        ({"loss_options": {"strength": 1}}, "loss 'bce' has no option 'strength'"),
        ({"loss": "db", "loss_options": {"mue": 1}}, "did you mean 'mu'"),
        ({"sampler_options": {"ridge": 0.1}}, "sampler 'uniform' has no option 'ridge'"),
        ({"diversity": "attention", "head_options": {"alpha": 0.1}}, "no option 'alpha'"),
        ({"optimizer": "odd"}, "optimizer is 'odd'"),
        ({"schedule": "odd"}, "schedule is 'odd'"),
        ({"backbone": "odd"}, "backbone 'odd'"),
        ({"device": "odd"}, "device 'odd'"),
        ({"augment": "odd"}, "augment 'odd'"),
    ],
)
def test_bad_recipes_are_named_and_leave_nothing(tiny, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fit(replace(TINY, **options), data=tiny, out=tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()


def test_evaluation_leaves_the_mode_and_the_statistics_alone(tiny):
    model = build_model(TINY, tiny.train.labels).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    evaluate(model, Loader(tiny.test, image_size=24))
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert isinstance(model.head.classifier, nn.Linear)


def test_runs_read_back_and_say_what_is_wrong(run, tmp_path):
    import shutil

    again = Run.load(str(run.path))
    pd.testing.assert_frame_equal(again.per_class, run.per_class)
    assert again.summary == run.summary

    def broken(change):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run.path, copy)
        change(copy)
        return copy

    for change, message in [
        (lambda c: (c / "config.json").unlink(), "has no config.json"),
        (lambda c: (c / "summary.json").unlink(), "has no summary.json.*has not finished"),
        (lambda c: (c / "config.json").write_text("{"), "is not JSON"),
        (lambda c: (c / "config.json").write_text("[]"), "no JSON object"),
        (lambda c: (c / "config.json").write_text("{}"), "not written by ltml"),
        (lambda c: (c / "config.json").write_text('{"schema": 99, "recipe": {}}'), "schema 99"),
        (lambda c: (c / "metrics.csv").write_text("a,b\n1,2\n"), "lacks the column 'epoch'"),
        (lambda c: (c / "metrics.csv").write_bytes(b"\xff\xfe\x00"), "metrics.csv' is damaged"),
        (lambda c: (c / "per_class.csv").write_text(""), "per_class.csv' is damaged"),
    ]:
        with pytest.raises(InputError, match=message):
            Run.load(broken(change))
    with pytest.raises(InputError, match="not a folder"):
        Run.load(tmp_path / "nowhere")


def test_the_config_is_json_that_rebuilds_the_recipe(run, tiny):
    config = json.loads((run.path / "config.json").read_text())
    assert Recipe.from_dict(config["recipe"]) == completed(told(TINY, tiny), tiny.train)
    assert config["data"]["train_images"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_compiled_network_learns_the_same(tiny, tmp_path):
    recipe = replace(TINY, diversity="dem", steps=4, warmup=0)
    plain = fit(recipe, data=tiny, out=tmp_path / "plain", progress=False)
    compiled = fit(replace(recipe, compile=True), data=tiny, out=tmp_path / "c", progress=False)
    assert compiled.metrics.train_loss.tolist() == pytest.approx(plain.metrics.train_loss, rel=1e-3)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
