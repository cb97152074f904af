"""Folded batch norm and micro-batches: the gradients of the whole batch, in less memory."""

import copy
import importlib.util

import pytest
import torch
from torch import nn

import ltml
from ltml import InputError, Recipe, fit
from ltml.core.heads import HEADS
from ltml.core.losses import LOSSES, make_loss
from ltml.training.folding import fold
from ltml.training.network import Classifier, feature_channels, make_backbone
from ltml.training.setup import micro_batch_of

LABELS = ltml.LabelMatrix(torch.rand(40, 6, generator=torch.Generator().manual_seed(1)) < 0.3)
SHAPE = (7, 3, 64, 64)


def gradients(backbone, *, loss="bce", head="off", micro_batch=None, folded=False):
    """Gradients of every parameter, in double precision."""
    torch.manual_seed(0)
    channels = feature_channels(backbone)
    model = Classifier(copy.deepcopy(backbone), HEADS[head](channels, 6), freeze_norm=True)
    model, images = model.double().train(), torch.randn(SHAPE).double()
    if folded:
        model.folded, _ = fold(model.backbone.eval(), images[:1])
        assert model.train().folded is not None
    model.micro_batch = micro_batch
    torch.manual_seed(1)  # of dropout
    model.head.generator = torch.Generator().manual_seed(0)
    criterion = make_loss(loss, LABELS).double()
    criterion(model(images), LABELS.dense(range(7)).double()).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def assert_same(found, wanted, most=1e-6):
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= most * gradient.norm(), name


@pytest.mark.parametrize("micro_batch", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(("loss", "head"), [*((x, "off") for x in LOSSES), ("dgb", "dem")])
def test_micro_batches_give_the_gradients_of_the_whole_batch(lively, loss, head, micro_batch):
    backbone = lively(make_backbone("small"))
    wanted = gradients(backbone, loss=loss, head=head)
    assert_same(gradients(backbone, loss=loss, head=head, micro_batch=micro_batch), wanted)


@pytest.mark.parametrize(
    "name", ["small", pytest.param("resnet18", marks=pytest.mark.slow), "mobilenet_v2"]
)
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_folded_norms_have_the_gradients_of_their_own(lively, name, micro_batch):
    backbone = lively(make_backbone(name))
    found = gradients(backbone, folded=True, micro_batch=micro_batch)
    assert_same(found, gradients(backbone))


class Beside(nn.Module):
    """A map that is used beside its ReLU6, which must not change it in place."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act, self.last = nn.ReLU6(), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return self.last(x) + self.act(x)


def test_a_map_that_is_used_beside_its_activation_stays(lively):
    backbone = lively(Beside())
    assert_same(gradients(backbone, folded=True), gradients(backbone))


def test_a_network_of_timm_is_folded_too(lively):
    pytest.importorskip("timm")
    backbone = lively(make_backbone("timm/tf_efficientnet_lite0"))
    assert_same(gradients(backbone, folded=True, micro_batch=4), gradients(backbone))


def test_dropout_is_the_same_when_a_micro_batch_is_computed_again():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.Dropout(0.5), nn.Conv2d(8, 8, 1))

    def of(model, micro_batch):
        """Gradient, and what it would be for the very maps that the loss saw."""
        model.micro_batch, seen = micro_batch, []
        hook = model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        torch.manual_seed(1)
        model.zero_grad()
        model(torch.ones(SHAPE)).square().sum().backward()
        hook.remove()
        return model.backbone[2].bias.grad, seen[0]

    model = Classifier(backbone, nn.Flatten()).train()
    gradient, maps = of(model, 2)
    assert torch.allclose(gradient, 2 * maps.sum((0, 2, 3)), rtol=1e-4)
    weight = model.backbone[2].weight.grad
    # Were dropout drawn anew, the gradient would be of other features than the maps are of.
    features = torch.linalg.lstsq(
        backbone[2].weight[:, :, 0, 0].double(),
        (maps.detach().double() - backbone[2].bias.double()[:, None, None])
        .movedim(1, 0)
        .flatten(1),
    ).solution
    wanted = 2 * maps.detach().double().movedim(1, 0).flatten(1) @ features.T
    assert torch.allclose(weight[:, :, 0, 0].double(), wanted, rtol=1e-2, atol=1e-2)


def test_norms_that_look_at_the_batch_refuse_to_be_cut():
    model = Classifier(make_backbone("small"), nn.Identity())
    recipe = Recipe(micro_batch=4, batch_size=8)
    with pytest.raises(InputError, match="micro_batch=4: batch norm takes its statistics"):
        micro_batch_of(recipe, model, torch.zeros(1, 3, 32, 32))
    assert micro_batch_of(Recipe(), model, torch.zeros(1, 3, 32, 32)) is None
    resting = Classifier(make_backbone("small"), nn.Identity(), freeze_norm=True)
    assert micro_batch_of(recipe, resting, torch.zeros(1, 3, 32, 32)) == 4


def test_micro_batches_are_as_large_as_what_they_hold_allows():
    model = Classifier(make_backbone("mobilenet_v2"), nn.Identity(), freeze_norm=True)
    model.train().folded, _ = fold(model.backbone.eval(), torch.zeros(1, 3, 224, 224))
    wide = torch.zeros(1, 3, 224, 224)
    found = micro_batch_of(Recipe(batch_size=32), model, wide)
    assert found == 16  # 28 MiB an image
    assert micro_batch_of(Recipe(batch_size=32), model, wide[..., :96, :96]) is None


def test_a_training_is_the_same_in_micro_batches(tiny, tmp_path):
    options = {"steps": 4, "batch_size": 8, "warmup": 0, "freeze_norm": True}
    runs = [
        fit(Recipe(micro_batch=n, **options), data=tiny, out=tmp_path / str(n), progress=False)
        for n in (None, 3)
    ]
    losses = [run.metrics.train_loss.tolist() for run in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_probe_at_either_precision(tiny, tmp_path, precision):
    options = {"backbone": "small", "weights": None, "progress": False}
    run = ltml.probe(tiny, out=tmp_path / "r", precision=precision, **options)
    whole = ltml.probe(tiny, out=tmp_path / "w", **options)
    assert run.summary["mAP"] == pytest.approx(whole.summary["mAP"], abs=0.02)
    assert (run.summary["mAP"] == whole.summary["mAP"]) == (precision == "float32")


@pytest.mark.skipif(importlib.util.find_spec("openvino"), reason="openvino is installed")
def test_an_engine_that_is_missing_is_named(tiny, tmp_path):
    with pytest.raises(InputError, match=r"pip install 'ltml\[fast\]'"):
        ltml.probe(tiny, out=tmp_path / "r", backbone="small", weights=None, engine="openvino")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "mobilenet_v2", "timm/vit_tiny_patch16_224"])
def test_an_engine_computes_what_torch_does(tiny, tmp_path, name):
    pytest.importorskip("openvino")
    size = 224 if "vit" in name else 64
    options = {"backbone": name, "weights": None, "progress": False, "image_size": size}
    run = ltml.probe(tiny, out=tmp_path / "r", engine="openvino", **options)
    again = run.predict(tiny.test.images[:20], engine="torch", progress=False)
    found = run.predict(tiny.test.images[:20], engine="openvino", progress=False)
    assert (found - again).abs().to_numpy().max() <= 1e-3
    half = run.predict(tiny.test.images[:20], precision="bfloat16", progress=False)
    assert 0 < (half - again).abs().to_numpy().max() < 0.2
