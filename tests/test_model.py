import logging

import pytest
import torch
import torchvision

from ltml import InputError
from ltml.model import Classifier, PooledLinear, feature_channels, make_backbone


@pytest.mark.parametrize(
    ("name", "channels"),
    [("small", 256), ("resnet18", 512), ("mobilenet_v3_small", 576), ("densenet121", 1024)],
)
def test_backbones_keep_their_feature_map(name, channels):
    backbone = make_backbone(name).eval()
    assert backbone(torch.zeros(1, 3, 64, 64)).ndim == 4
    assert feature_channels(backbone) == channels
    assert not backbone.training


def test_feature_map_is_torchvisions_own():
    """The pooled feature map, under torchvision's classifier, gives torchvision's output."""
    torch.manual_seed(0)
    whole = torchvision.models.resnet18().eval()
    ours = make_backbone("resnet18").eval()
    ours.load_state_dict(whole.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(whole.fc(ours(x).mean((2, 3))), whole(x), atol=1e-5)


def test_a_local_file_loads_without_its_classifier(tmp_path, caplog):
    net = torchvision.models.mobilenet_v3_small(num_classes=200)
    file = tmp_path / "weights.pth"
    torch.save(net.state_dict(), file)
    with caplog.at_level(logging.INFO, "ltml"):
        backbone = make_backbone("mobilenet_v3_small", weights=str(file))
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])
    for i, kind in ((0, "weight"), (0, "bias"), (3, "weight"), (3, "bias")):
        assert f"classifier.{i}.{kind}" in caplog.text
    assert "4 not used" in caplog.text


def test_own_weights_load_again(tmp_path):
    model = Classifier(make_backbone("small"), PooledLinear(256, 5))
    file = tmp_path / "model.pt"
    torch.save(model.state_dict(), file)
    again = make_backbone("small", weights=str(file))
    assert torch.equal(again[0].weight, model.backbone[0].weight)


def test_head_gradients_reach_every_parameter():
    model = Classifier(make_backbone("small"), PooledLinear(256, 5))
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no_such_net", None, "'no_such_net' is unknown"),
        ("vit_b_16", None, "no feature map"),
        ("resnet18", "NO_SUCH", "neither a file nor a name.*IMAGENET1K_V1"),
        ("resnet18", b"not a checkpoint", "cannot be read as a state_dict"),
        ("resnet18", {"a": 1}, "hold no state_dict"),
        ("resnet18", {"fc.weight": torch.zeros(1)}, "do not fit the backbone: .*conv1.weight"),
    ],
)
def test_bad_input_is_named(tmp_path, name, content, message):
    file = tmp_path / "w.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, dict):
        torch.save(content, file)
    weights = content if isinstance(content, str) or content is None else str(file)
    with pytest.raises(InputError, match=message):
        make_backbone(name, weights=weights)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    file = tmp_path / "evil.pt"
    torch.save({"conv1.weight": Evil()}, file)
    with pytest.raises(InputError, match="cannot be read"):
        make_backbone("resnet18", weights=str(file))
    assert not (tmp_path / "ran").exists()
