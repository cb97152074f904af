"""Heads trained on the feature maps of a frozen backbone."""

import numpy as np
import pytest
import torch

import ltml
from ltml import Recipe, fit
from ltml.data.loader import Loader
from ltml.training import bank as frozen

HEAD = Recipe(batch_size=16, steps=20, warmup=5, lr=3e-3)


@pytest.fixture(scope="module")
def bank(tiny):
    torch.manual_seed(0)
    return ltml.bank(Recipe(augment="light"), tiny, progress=False)


def test_maps_are_those_of_the_backbone_and_of_mirror_images(bank, tiny):
    images, _ = next(Loader(tiny.train, image_size=24).batches([[2, 70]]))
    with torch.no_grad():
        for view, batch in enumerate((images, images.flip(3))):
            maps = bank.backbone(batch)
            assert torch.allclose(bank.train.images[[2, 70], view].float(), maps, rtol=1e-2)
    assert bank.test.images.shape == (len(tiny.test), 1, 256, 3, 3)


def test_a_bank_too_large_for_memory_is_a_file_with_the_same_maps(bank, tiny, monkeypatch):
    made, memmap = [], np.memmap
    monkeypatch.setattr(frozen, "free_memory", lambda: 0)
    monkeypatch.setattr(frozen.np, "memmap", lambda *a, **k: made.append(a) or memmap(*a, **k))
    mapped = ltml.bank(Recipe(augment="light"), tiny, progress=False)
    assert len(made) == len(tiny.splits)
    assert torch.equal(mapped.train.images, bank.train.images)


@pytest.mark.parametrize("head", ["off", "attention"])
def test_a_run_on_a_bank_is_like_any_other(bank, tiny, tmp_path, head):
    recipe = Recipe(**{**vars(HEAD), "diversity": head, "sampler": "group-late"})
    run = fit(recipe, data=bank, out=tmp_path / "run", progress=False)
    assert run.recipe["freeze"] == -1
    assert torch.equal(
        run.state_dict()["backbone.0.weight"], bank.backbone.state_dict()["0.weight"]
    )
    scores = torch.tensor(run.predict(tiny.test, progress=False).to_numpy())
    ap = ltml.average_precision(scores, tiny.test.labels.dense())
    assert np.nanmean(ap) == pytest.approx(run.summary["mAP"], abs=2e-3)  # maps are in half


def test_averaged_maps_train_the_pooled_head_alike(bank, tmp_path, monkeypatch):
    runs = [fit(HEAD, data=bank, out=tmp_path / "a", progress=False)]
    monkeypatch.setattr(ltml.training.train, "PooledLinear", ())  # nothing is averaged beforehand
    runs.append(fit(HEAD, data=bank, out=tmp_path / "b", progress=False))
    assert np.allclose(runs[0].metrics.train_loss, runs[1].metrics.train_loss, rtol=1e-4)


def test_decoupled_training_starts_from_the_backbone_of_a_run(tiny, tmp_path):
    first = fit(HEAD, data=tiny, out=tmp_path / "first", progress=False)
    bank = ltml.bank(first, tiny, progress=False)
    second = Recipe(**{**vars(HEAD), "sampler": "class-aware"})
    second = fit(second, data=bank, out=tmp_path / "second", progress=False)
    a, b = first.state_dict(), second.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a if key.startswith("backbone."))
    assert not torch.equal(a["head.classifier.weight"], b["head.classifier.weight"])


def test_a_recipe_that_freezes_all_makes_its_own_bank(tiny, tmp_path):
    recipe = Recipe(**{**vars(HEAD), "freeze": -1})
    run = fit(recipe, data=tiny, out=tmp_path / "a", progress=False)
    again = fit(recipe, data=ltml.bank(recipe, tiny, progress=False), out=tmp_path / "b")
    assert run.summary["mAP"] == again.summary["mAP"]


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "mobilenet_v2"},
        {"image_size": 32},
        {"augment": "shift"},
        {"weights": "DEFAULT"},
        {"freeze": 2},
    ],
)
def test_a_recipe_of_another_bank_is_refused(bank, tmp_path, changes):
    (name, value) = next(iter(changes.items()))
    said = f"{name} is {value!r}, but the bank was made with {name}="
    with pytest.raises(ltml.InputError, match=said):
        fit(Recipe(**{**vars(HEAD), **changes}), data=bank, out=tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()


def test_a_recipe_takes_from_a_bank_what_it_leaves_open(bank, tmp_path):
    same = Recipe(**{**vars(HEAD), **bank.settings})
    runs = [
        fit(recipe, data=bank, out=tmp_path / str(i), progress=False)
        for i, recipe in enumerate((HEAD, same))
    ]
    assert runs[0].recipe == runs[1].recipe
    assert runs[0].recipe["augment"] == "light"
    assert runs[0].summary["mAP"] == runs[1].summary["mAP"]
    probed = ltml.probe(bank, out=tmp_path / "probe", progress=False)
    assert probed.recipe["backbone"] == "small"


def test_a_frozen_training_resumes(tiny, tmp_path, monkeypatch):
    recipe = Recipe(**{**vars(HEAD), "freeze": -1, "backbone": "small", "steps": 25})
    whole = fit(recipe, data=tiny, out=tmp_path / "a", progress=False)
    seen = ltml.runs.checkpoint.Divergence.see

    def stopping(self, step, *values):
        if step == 15:
            raise KeyboardInterrupt
        seen(self, step, *values)

    monkeypatch.setattr(ltml.runs.checkpoint.Divergence, "see", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, data=tiny, out=tmp_path / "b", progress=False)
    monkeypatch.undo()
    ltml.resume(tmp_path / "b", data=tiny, progress=False)
    for name in ("metrics.csv", "per_class.csv"):
        assert (tmp_path / "b" / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_training_a_head_leaves_the_backbone_as_it_was(bank, tmp_path):
    before = {key: value.clone() for key, value in bank.backbone.state_dict().items()}
    run = fit(HEAD, data=bank, out=tmp_path / "run", progress=False)
    saved = run.state_dict()
    for key, value in bank.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
        assert torch.equal(saved[f"backbone.{key}"], before[key]), key


def test_a_bank_of_a_network_of_timm(tiny):
    pytest.importorskip("timm")
    recipe = Recipe(backbone="timm/mobilenetv3_small_050", image_size=32)
    maps = ltml.bank(recipe, tiny, progress=False)
    assert maps.test.images.shape[:2] == (len(tiny.test), 1)
