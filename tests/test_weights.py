"""A backbone's weights from files: whatever saved them, and never another network's."""

import argparse
import pathlib
import re

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import ltml
from ltml import InputError, Recipe, fit
from ltml.training.network import TORCHVISION, make_backbone, shapes_alone
from ltml.training.weights import fitting, read_weights

FAMILIES = {}
for network in TORCHVISION:
    FAMILIES.setdefault(re.match("[a-z]*", network)[0].removeprefix("wide"), []).append(network)
FAMILIES["resnet"] += FAMILIES.pop("resnext") + FAMILIES.pop("")


def on_meta(name):
    with shapes_alone():
        options = {"aux_logits": True, "init_weights": False}
        options = options if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, **options).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_only_a_network_s_own_weights_fit(family):
    """All pairs inside the families of torchvision: each takes its own, and no other's."""
    states = {name: on_meta(name) for name in FAMILIES[family]}
    for mine in states:
        with shapes_alone():
            backbone = make_backbone(mine)
        for other in states:
            if mine == other:
                own = backbone.state_dict().keys()
                found = fitting(backbone, states[other], "file", after=backbone.after)
                assert {k for k in own if "num_batches" not in k} <= found.keys()
                continue
            with pytest.raises(InputError, match="do not fit the backbone"):
                fitting(backbone, states[other], "file", after=backbone.after)


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        ("resnet18", "resnet34"),
        pytest.param("convnext_tiny", "convnext_small", marks=pytest.mark.slow),
        ("mobilenet_v3_small", "mobilenet_v3_large"),
        pytest.param("vgg11", "vgg13", marks=pytest.mark.slow),  # of 500 MB
        ("resnet18", "mobilenet_v2"),
        pytest.param("regnet_x_400mf", "regnet_y_400mf", marks=pytest.mark.slow),
        ("timm/resnet18", "timm/resnet34"),
        pytest.param(
            *("timm/vit_tiny_patch16_224", "timm/vit_small_patch16_224"), marks=pytest.mark.slow
        ),
    ],
)
def test_the_network_that_fits_is_named(tmp_path, mine, other):
    if other.startswith("timm/"):
        model = pytest.importorskip("timm").create_model(other[5:], num_classes=3)
    else:
        model = torchvision.models.get_model(other)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"do not fit the backbone.*they fit {other}\b") as error:
        make_backbone(mine, weights=tmp_path / "a.pth")
    named = re.search(r"they fit (\S+)", str(error.value))[1]
    make_backbone(named, weights=tmp_path / "a.pth")  # the remedy works as it stands


class Setting:
    """Something of a program's own in its checkpoint."""

    def __init__(self):
        self.rate = 0.1


def lightning(state):
    """What Lightning saves, with hyperparameters of kinds that torch does not load."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {
            **{f"model.{k}": v for k, v in state.items()},
            "criterion.weight": torch.ones(3),
        },
        "hyper_parameters": {
            "root": pathlib.PurePosixPath("/data"),
            "args": argparse.Namespace(lr=0.1),
            "own": Setting(),
        },
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
    }


WRAPPED = {
    "as it is": lambda s: s,
    "DistributedDataParallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "compiled layer by layer": lambda s: {
        k.replace("stage2", "stage2._orig_mod"): v for k, v in s.items()
    },
    "Lightning": lightning,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {0: {"step": torch.tensor(3)}}}},
    "model_state_dict": lambda s: {"model_state_dict": s},
    "ema alone": lambda s: {"ema": {"module": s}},
    "beside its average": lambda s: {"model": s, "model_ema": {k: v + 1 for k, v in s.items()}},
    "any name": lambda s: {"checkpoint": {"net": {f"encoder.q.{k}": v for k, v in s.items()}}},
    "a wrapper of one's own": lambda s: {
        **{f"net.0.{k}": v for k, v in s.items()},
        "net.1.weight": torch.ones(2),
    },
}  # fmt: skip


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_load_from_whatever_saved_them(tmp_path, form):
    torch.manual_seed(0)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=7)
    torch.save(WRAPPED[form](model.state_dict()), tmp_path / "a.ckpt")
    loaded = make_backbone("shufflenet_v2_x0_5", weights=tmp_path / "a.ckpt").state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in model.state_dict().items() if k in loaded)


def test_two_networks_in_one_file_are_asked_about(tmp_path):
    a, b = (torchvision.models.shufflenet_v2_x0_5().state_dict() for _ in range(2))
    torch.save({"student": a, "teacher": b}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="two networks that fit, 'student' and 'teacher'"):
        make_backbone("shufflenet_v2_x0_5", weights=tmp_path / "a.pth")
    torch.save({"student": a, "teacher": a}, tmp_path / "a.pth")
    make_backbone("shufflenet_v2_x0_5", weights=tmp_path / "a.pth")


class Attack:
    def __reduce__(self):
        return eval, ("open('/tmp/never', 'w')",)


def test_no_code_of_a_checkpoint_runs(tmp_path, monkeypatch):
    import builtins

    state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save({"state_dict": state, "trap": Attack()}, tmp_path / "a.pth")
    monkeypatch.setattr(builtins, "eval", lambda text: pytest.fail("it ran"))
    assert read_weights(tmp_path / "a.pth").keys() == {f"state_dict.{k}" for k in state}


def test_a_layer_that_the_network_lacks_is_no_classifier(tmp_path):
    model = torchvision.models.shufflenet_v2_x0_5()
    model.extra = nn.Linear(3, 3)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"2 of its entries are of another.*'extra\.weight'"):
        make_backbone("shufflenet_v2_x0_5", weights=tmp_path / "a.pth")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pit_ti_224", "pit_ti_distilled_224"])
def test_class_tokens_are_no_map(name):
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="class tokens"):
        make_backbone(f"timm/{name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trained", "size"),
    [
        ("resnet18", None, 64),
        ("vit_tiny_patch16_224", 64, 64),
        ("vit_tiny_patch16_224", 224, 64),
        ("swin_tiny_patch4_window7_224", 64, 64),
    ],
)
def test_a_network_of_timm_from_a_file_trains_and_predicts(tiny, tmp_path, name, trained, size):
    timm = pytest.importorskip("timm")
    options = {} if trained is None else {"img_size": trained}
    model = timm.create_model(name, num_classes=9, **options)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    recipe = Recipe(
        backbone=f"timm/{name}", weights=str(tmp_path / "a.pth"), image_size=size, steps=1,
        batch_size=4, warmup=0, device="cpu", freeze=-1,
    )  # fmt: skip
    run = fit(recipe, data=tiny, out=tmp_path / "run", progress=False)
    (tmp_path / "a.pth").unlink()  # which it no longer needs
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    table = ltml.Run.load(run.path).predict(tmp_path / "a.png", device="cpu", progress=False)
    assert table.notna().all(axis=None)
