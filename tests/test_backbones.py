import logging
import sys

import pytest
import torch
import torchvision
from torch import nn

from ltml import InputError
from ltml.core.heads import PooledLinear
from ltml.data.loader import MEAN, STD
from ltml.training.network import TORCHVISION, Classifier, feature_channels, make_backbone

FAST = {
    *("alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2"),
    *("mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1"),
}


def settled(network, size):
    """Give batch norm statistics that keep a deep random network's features alive."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(2, 3, size, size))
    return network.eval()


def classify(network, feature_map):
    """Apply what a torchvision classifier does after its feature map."""
    if isinstance(network, torchvision.models.SqueezeNet):  # classified first, pooled later
        return network.classifier(feature_map).flatten(1)
    pool = getattr(network, "avgpool", nn.AdaptiveAvgPool2d(1))
    head = next(getattr(network, n) for n in ("classifier", "fc", "head") if hasattr(network, n))
    pooled = pool(feature_map)
    return head(pooled if isinstance(network, torchvision.models.ConvNeXt) else pooled.flatten(1))


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in TORCHVISION]
)
def test_features_are_torchvisions_own(name):
    torch.manual_seed(0)
    inception = name in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": True} if inception else {}
    size = 192 if inception else 96  # inception_v3 leaves one pixel of 96
    whole = settled(torchvision.models.get_model(name, **options), size)
    whole, backbone = whole.double(), make_backbone(name).double().eval()  # rounding is no error
    assert not backbone.load_state_dict(whole.state_dict(), strict=False).missing_keys
    images = torch.rand(2, 3, size, size).double()
    mean, std, ours, theirs = (
        torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD, backbone.mean, backbone.std)
    )
    if inception:
        whole.transform_input = True  # as with its pretrained weights
    with torch.no_grad():
        expected = whole((images - mean) / std)
        feature_map = backbone((images - ours) / theirs)
        found = classify(whole, feature_map)
    assert feature_map.ndim == 4
    assert found.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),  # tokens, normed first
        ("resnet18", {}),
        pytest.param("swin_tiny_patch4_window7_224", {}, marks=pytest.mark.slow),  # channels last
        pytest.param(
            "vit_small_patch14_reg4_dinov2",
            {"global_pool": "avg", "fc_norm": False},
            marks=pytest.mark.slow,
        ),  # four register tokens before the image's
    ],
)
def test_logits_are_timms_own_for_a_copied_head(tmp_path, name, options):
    timm = pytest.importorskip("timm")
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=5, **options).eval()
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    backbone = make_backbone(f"timm/{name}", weights=tmp_path / "weights.safetensors")
    head = PooledLinear(feature_channels(backbone), 5)
    head.classifier.load_state_dict(whole.get_classifier().state_dict())
    size = backbone.image_size
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected, found = whole(images), Classifier(backbone, head).eval()(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_timm_brings_its_own_normalisation_and_takes_other_sizes():
    timm = pytest.importorskip("timm")
    vit = make_backbone("timm/vit_tiny_patch16_224", image_size=64)
    assert (vit.mean, vit.std, vit.image_size) == ((0.5,) * 3, (0.5,) * 3, 64)
    assert vit(torch.zeros(1, 3, 64, 96)).shape == (1, 192, 4, 6)
    fixed = make_backbone("timm/tiny_vit_5m_224", image_size=64)  # its windows, not its positions
    assert fixed(torch.zeros(1, 3, 64, 64)).shape == (1, 320, 2, 2)
    config = timm.get_pretrained_cfg("mobilenetv3_small_050")
    assert make_backbone("timm/mobilenetv3_small_050").mean == config.mean


def test_tokens_stay_where_their_patch_is():
    """Without attention and positions, a patch changes its own place of the map and no other."""
    pytest.importorskip("timm")
    backbone = make_backbone("timm/vit_tiny_patch16_224", image_size=48).eval()
    for block in backbone.model.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    images = torch.zeros(1, 3, 48, 64)
    changed = images.clone()
    changed[:, :, 16:32, 32:48] = 1
    with torch.no_grad():
        moved = (backbone(images) - backbone(changed)).abs().amax(1)[0] > 1e-4
    assert moved.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "name", ["small", "resnet18", "timm/vit_tiny_patch16_224", "timm/convnext_atto"]
)
def test_head_gradients_reach_every_parameter(name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    backbone = make_backbone(name, image_size=64)
    model = Classifier(backbone, PooledLinear(feature_channels(backbone), 5))
    logits = model(torch.randn(4, 3, 64, 64))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_frozen_layers_stay_frozen_under_synchronised_batch_norm():
    model = Classifier(make_backbone("resnet18"), PooledLinear(512, 5), freeze=5)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model).train()
    frozen = [
        model.backbone.get_submodule(n) for n in ("conv1", "bn1", "relu", "maxpool", "layer1")
    ]
    assert isinstance(model.backbone.bn1, nn.SyncBatchNorm)
    for layer in frozen:
        assert not any(m.training for m in layer.modules())
        assert not any(p.requires_grad for p in layer.parameters())
    assert model.backbone.layer2.training
    assert all(p.requires_grad for p in model.backbone.layer2.parameters())


def test_freezing_a_transformer_counts_its_blocks():
    pytest.importorskip("timm")
    vit = make_backbone("timm/vit_tiny_patch16_224", image_size=32)
    model = Classifier(vit, PooledLinear(192, 5), freeze=3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()(torch.randn(2, 3, 32, 32)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    same = {k for k, v in model.state_dict().items() if v.equal(before[k])}
    assert {k.split(".")[2] for k in same} == {"pos_embed", "cls_token", "patch_embed", "blocks"}
    assert {k.split(".")[3] for k in same if "blocks" in k} == {"0", "1"}


def test_a_freeze_beyond_the_last_layer_is_refused():
    with pytest.raises(InputError, match=r"freeze=9: the backbone has 8 layers"):
        Classifier(make_backbone("resnet18"), PooledLinear(512, 5), freeze=9)


def test_a_local_file_loads_without_its_classifier(tmp_path, caplog):
    net = torchvision.models.mobilenet_v3_small(num_classes=200)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO, "ltml"):
        backbone = make_backbone("mobilenet_v3_small", weights=str(tmp_path / "weights.pth"))
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])
    left = [f"classifier.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")]
    assert f"(the old classifier): {', '.join(left)}" in caplog.text


@pytest.mark.parametrize("name", ["small", "timm/vit_tiny_patch16_224"])
def test_the_weights_of_a_run_load_again(tmp_path, name):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    model = Classifier(make_backbone(name), PooledLinear(4, 5))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again = make_backbone(name, weights=tmp_path / "model.pt").state_dict()
    assert all(value.equal(again[key]) for key, value in model.backbone.state_dict().items())


def test_imagenet_weights_in_half_precision_load_as_float(shared_data):
    file = shared_data / "weights" / "mobilenet_v2_imagenet.pth"
    backbone = make_backbone("mobilenet_v2", weights=file)
    stored = torch.load(file, weights_only=True)["features.0.0.weight"]
    assert stored.dtype == torch.float16
    assert backbone.features[0][0].weight.dtype == torch.float32
    assert torch.equal(backbone.features[0][0].weight, stored.float())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("resnet_50", None, "backbone 'resnet_50' is unknown; did you mean 'resnet50'.*timm/NAME"),
        ("vit_b_16", None, "backbone 'vit_b_16' is unknown"),
        ("timm/resnet_18", None, "backbone 'timm/resnet_18' is unknown; timm has .*resnet18"),
        ("resnet18", "NO_SUCH", "neither a file nor a name.*IMAGENET1K_V1"),
        ("timm/resnet18", "no_tag", "'no_tag' of timm/resnet18 are no file here"),
        ("resnet18", b"not a checkpoint", "cannot be read"),
        ("resnet18", {"a": 1}, "hold no state_dict"),
        ("resnet18", {"fc.weight": torch.zeros(1)}, "do not fit the backbone: .*conv1.weight"),
    ],
)
def test_bad_input_is_named(tmp_path, name, content, message):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    file = tmp_path / "w.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, dict):
        torch.save(content, file)
    with pytest.raises(InputError, match=message):
        make_backbone(name, weights=str(file) if file.exists() else content)


def test_an_image_size_that_does_not_fit_is_named():
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="no feature map of images of 100 px"):
        make_backbone("timm/vit_tiny_patch16_224", image_size=100)


@pytest.mark.parametrize(
    ("module", "name"), [("timm", "timm/resnet18"), ("safetensors.torch", "resnet18")]
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, name):
    (tmp_path / "w.safetensors").touch()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"is missing.*pip install 'ltml\[timm\]'"):
        make_backbone(name, weights=tmp_path / "w.safetensors")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="cannot be read"):
        make_backbone("resnet18", weights=tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
