"""The network: a backbone that keeps its feature map, and a head that gives one logit a class."""

import logging
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ltml.errors import InputError

__all__ = ["Classifier", "PooledLinear", "SmallConvNet", "make_backbone"]

log = logging.getLogger(__name__)


class SmallConvNet(nn.Sequential):
    """Map images to features with four convolutions: enough for the pictograms, on a CPU.

    Maps ``(B, 3, H, W)`` to ``(B, width * 8, H / 8, W / 8)``.

    Args:
        width: channels of the first layer.

    Example:
        >>> SmallConvNet(8)(torch.zeros(2, 3, 40, 40)).shape
        torch.Size([2, 64, 5, 5])
    """

    def __init__(self, width: int = 32):
        layers, channels = [], 3
        for i in range(4):
            out = width * 2**i
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
            # Pooling first leaves a quarter of the pixels to normalise and rectify.
            layers += [nn.MaxPool2d(2)] * (i < 3) + [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        super().__init__(*layers)


def make_backbone(name: str = "small", *, weights: str | None = None) -> nn.Module:
    """Build a backbone that maps ``(B, 3, H, W)`` to a feature map ``(B, D, h, w)``.

    Args:
        name: ``"small"``, or a convolutional classifier of torchvision such as ``"resnet50"``,
            ``"mobilenet_v3_small"``, ``"convnext_tiny"``, ``"swin_t"``.
        weights: a local file holding a ``state_dict`` (its classifier may have any number of
            classes: it is dropped), or torchvision's name of the weights, such as ``"DEFAULT"``.

    Raises:
        InputError: if the name, the file or the fit between them is wrong.

    Example:
        >>> make_backbone("resnet18")(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 512, 2, 2])
    """
    if name == "small":
        backbone = SmallConvNet()
        if weights is not None:
            _load_file(backbone, weights, prefixes=("backbone.", ""))
        return backbone
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(
            f"backbone {name!r} is unknown; choose 'small' or a torchvision classifier such as "
            "'resnet50', 'mobilenet_v3_small', 'convnext_tiny'"
        )
    from_file = weights is not None and Path(weights).is_file()
    if weights is not None and not from_file:
        try:
            torchvision.models.get_model_weights(name)[weights]
        except KeyError:
            choices = ", ".join(torchvision.models.get_model_weights(name).__members__)
            raise InputError(
                f"weights {weights!r} is neither a file nor a name that torchvision has for {name} "
                f"({choices})"
            ) from None
    try:
        model = torchvision.models.get_model(name, weights=None if from_file else weights)
    except (OSError, RuntimeError) as error:  # no network, a full disk, a broken download
        raise InputError(
            f"weights {weights!r} of {name} could not be downloaded ({error}); "
            "fetch the file elsewhere and give its path"
        ) from error
    children = dict(model.named_children())
    pools = [k for k, child in children.items() if isinstance(child, nn.AdaptiveAvgPool2d)]
    if pools:
        names = list(children)[: list(children).index(pools[0])]
    elif "features" in children:
        names = ["features"]
    else:
        raise InputError(
            f"backbone {name!r} has no feature map before its pooling; choose a convolutional one "
            "such as 'resnet50'"
        )
    backbone = nn.Sequential()
    for child in names:
        backbone.add_module(child, children[child])
    if from_file:
        _load_file(backbone, weights)
    return backbone


def _load_file(backbone: nn.Module, path: str, prefixes: tuple[str, ...] = ("",)) -> None:
    """Load what fits of a state_dict file, say what was left, and refuse a foreign one."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, none of them meant for people
        raise InputError(
            f"weights {path!r} cannot be read as a state_dict: {str(error).splitlines()[0]}"
        ) from error
    while isinstance(state, dict) and isinstance(
        inner := state.get("state_dict", state.get("model")), dict
    ):
        state = inner
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"weights {path!r} hold no state_dict; save model.state_dict()")
    own = backbone.state_dict()
    prefix = max(prefixes, key=lambda p: sum(p + key in state for key in own))
    lacking = [k for k in own if prefix + k not in state or state[prefix + k].shape != own[k].shape]
    # Old files lack num_batches_tracked, which only counts.
    lacking = [key for key in lacking if not key.endswith("num_batches_tracked")]
    if lacking:
        raise InputError(
            f"weights {path!r} do not fit the backbone: {len(lacking)} of {len(own)} entries are "
            f"missing or of another shape, first {lacking[0]!r}; give weights of this backbone"
        )
    used = {prefix + key: key for key in own if prefix + key in state}
    backbone.load_state_dict({own_key: state[key] for key, own_key in used.items()}, strict=False)
    unused = [key for key in state if key not in used]
    log.info(
        "weights %s: %d entries loaded, %d not used%s",
        path,
        len(used),
        len(unused),
        f" (the old classifier): {', '.join(unused)}" if unused else "",
    )


class PooledLinear(nn.Module):
    """Average the feature map and classify it: the plain head.

    Args:
        in_channels: ``D``.
        num_classes: ``C``.
    """

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.classifier = nn.Linear(in_channels, num_classes)

    def features(self, feature_map: Tensor) -> Tensor:
        """``(B, D, h, w)`` -> ``(B, 1, D)``: one feature, shared by all classes."""
        return feature_map.mean((2, 3)).unsqueeze(1)

    def forward(self, feature_map: Tensor) -> Tensor:
        """``(B, D, h, w)`` -> logits ``(B, C)``."""
        return self.classifier(feature_map.mean((2, 3)))


class Classifier(nn.Module):
    """Join a backbone and a head.

    Args:
        backbone: maps ``(B, 3, H, W)`` to ``(B, D, h, w)``.
        head: maps the feature map to logits ``(B, C)``; its ``classifier`` is an ``nn.Linear``.
        freeze: number of the backbone's first layers that stay as they are: no gradient, and batch
            norm's statistics at rest.

    Raises:
        InputError: if the backbone has fewer layers.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, *, freeze: int = 0):
        super().__init__()
        self.backbone = backbone
        self.head = head
        layers = list(backbone.children())
        if len(layers) == 1:  # all of it under one name, as torchvision's "features"
            layers = list(layers[0].children())
        if not 0 <= freeze <= len(layers):
            raise InputError(f"freeze={freeze}: the backbone has {len(layers)} layers to freeze")
        self._frozen = layers[:freeze]
        for layer in self._frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> "Classifier":
        """Set training mode, for all but the frozen layers."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(self, images: Tensor, targets: Tensor | None = None):
        """Score images; a training batch, given with its targets, as the head enhances it.

        Args:
            images: ``(B, 3, H, W)``, normalised.
            targets: ``(B, C)``.

        Returns:
            logits ``(B, C)``; with targets, the enhanced logits and the targets they are for.
        """
        feature_map = self.backbone(images)
        if targets is None:
            return self.head(feature_map)
        if hasattr(self.head, "enhance"):
            return self.head.enhance(feature_map, targets)
        return self.head(feature_map), targets


def feature_channels(backbone: nn.Module) -> int:
    """Channels ``D`` of the feature map, found by a trial on a blank image."""
    training = backbone.training
    with torch.no_grad():
        channels = backbone.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    backbone.train(training)
    return channels
