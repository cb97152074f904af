"""Backbones by tested name, from torchvision and timm, and the classifier built on one."""

import importlib.util
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ltml.core.errors import InputError
from ltml.core.heads import HEADS
from ltml.core.options import build, choose
from ltml.data.loader import MEAN, STD
from ltml.runs.recipe import Recipe
from ltml.training.folding import Folded
from ltml.training.weights import fitting, misfits, read_weights

# Torchvision's classifiers that are offered: a test holds each one's features to its own logits.
TORCHVISION = tuple(
    """
    alexnet convnext_tiny convnext_small convnext_base convnext_large densenet121 densenet161
    densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
    efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s
    efficientnet_v2_m efficientnet_v2_l googlenet inception_v3 mnasnet0_5 mnasnet0_75 mnasnet1_0
    mnasnet1_3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_x_800mf
    regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf regnet_y_400mf
    regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf resnet18
    resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0
    squeezenet1_1 swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b vgg11 vgg11_bn vgg13 vgg13_bn
    vgg16 vgg16_bn vgg19 vgg19_bn wide_resnet50_2 wide_resnet101_2
    """.split()  # noqa: SIM905
)
# Their children that come after the feature map, or beside it in training.
_AFTER = {"avgpool", "dropout", "flatten", "fc", "classifier", "head", "aux1", "aux2", "AuxLogits"}


class SmallConvNet(nn.Sequential):
    """Map images to features with four convolutions: enough for the pictograms, on a CPU.

    Maps ``(B, 3, H, W)`` to ``(B, 256, H / 8, W / 8)``.

    Example:
        >>> SmallConvNet()(torch.zeros(2, 3, 40, 40)).shape
        torch.Size([2, 256, 5, 5])
    """

    mean, std, image_size, after = MEAN, STD, None, frozenset()

    def __init__(self):
        layers, channels = [], 3
        for i, out in enumerate((32, 64, 128, 256)):
            layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
            # Pooling first leaves a quarter of the pixels to normalise and rectify.
            layers += [nn.MaxPool2d(2)] * (i < 3) + [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        super().__init__(*layers)


class TimmBackbone(nn.Module):
    """Return a timm network's last features as a map, with tokens put back on their grid."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, D, h, w)``."""
        x = self.model.forward_features(images)
        if x.ndim == 3:  # (B, tokens, D): class and register tokens first, then row by row
            x = x[:, getattr(self.model, "num_prefix_tokens", 0) :]
            if x.shape[1] < 3 <= images.shape[2] // 32:
                raise RuntimeError(f"its features are {x.shape[1]} class tokens")
            tokens, height, width = map(int, (x.shape[1], *images.shape[2:]))  # also when traced
            rows = round((tokens * height / width) ** 0.5)
            return x.transpose(1, 2).unflatten(2, (rows, -1))
        return x.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "") == "NHWC" else x


def make_backbone(
    name: str = "small", *, weights: str | Path | None = None, image_size: int | None = None
) -> nn.Module:
    """Build a backbone that maps ``(B, 3, H, W)`` to a feature map ``(B, D, h, w)``.

    Args:
        name: ``"small"``; a classifier of torchvision such as ``"resnet50"`` (:data:`TORCHVISION`);
            or ``"timm/NAME"``, a convolutional network or transformer of timm, such as
            ``"timm/vit_small_patch14_dinov2.lvd142m"``.
        weights: a file, either ``.safetensors`` or a ``state_dict`` that :func:`torch.save` wrote
            (its classifier may have any number of classes: it is dropped); or the name of weights
            to download: torchvision's, such as ``"DEFAULT"``, or ``"pretrained"`` or a tag of timm.
        image_size: side of the images in pixels; only some transformers need to know.

    Returns:
        the backbone. Its ``mean`` and ``std`` (three numbers each) normalise images for it; its
        ``image_size`` is the one given, else that of its pretrained weights, else None.

    Raises:
        InputError: if the name, the file or the fit between them is wrong.

    Example:
        >>> make_backbone("resnet18")(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 512, 2, 2])
    """
    file = weights if weights is not None and Path(weights).is_file() else None
    file = weights if name == "small" else file
    download = None if file else weights
    if name.startswith("timm/"):
        _timm()
    entries = {} if file is None else read_weights(file)
    try:
        if name == "small":
            backbone = SmallConvNet()
        elif name.startswith("timm/"):
            backbone = from_timm(name.removeprefix("timm/"), download, image_size, entries)
        else:
            choose("backbone", name, dict.fromkeys(("small", *TORCHVISION, "timm/NAME")))
            backbone = _from_torchvision(name, download)
    except (OSError, RuntimeError) as error:  # no network, a full disk, a broken download
        if download is None:
            raise
        raise InputError(
            f"weights {str(weights)!r} of {name} are no file here and could not be downloaded "
            f"({str(error).splitlines()[0]}); fetch the file elsewhere and give its path"
        ) from error
    if entries:
        network = getattr(backbone, "model", backbone)
        fits = fitting(
            *(network, entries, repr(str(file))),
            after=backbone.after,
            better=partial(_better, name),
        )
        network.load_state_dict(fits, strict=False)
    backbone.image_size = image_size or backbone.image_size
    return backbone


def own_size(name: str) -> int | None:
    """Side of the images that a network of timm was made for; None for other backbones, and for
    tags that timm does not have."""
    if not name.startswith("timm/") or importlib.util.find_spec("timm") is None:
        return None
    import timm

    try:
        config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    except RuntimeError:  # an unknown tag
        return None
    return config.input_size[-1] if config else None


def _from_torchvision(name: str, weights: str | None) -> nn.Module:
    """Take what comes before the pooling of a torchvision classifier, under the same names."""
    published = torchvision.models.get_model_weights(name)
    if weights is not None and weights not in published.__members__:
        raise InputError(
            f"weights {str(weights)!r} are neither a file nor a name that torchvision has for "
            f"{name} ({', '.join(published.__members__)})"
        )
    inception = name in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": True} if inception and not weights else {}
    model = torchvision.models.get_model(name, weights=weights, **options)
    backbone = nn.Sequential()
    for child, module in model.named_children():
        if child not in _AFTER:
            backbone.add_module(child, module)
    if name.startswith("densenet"):  # its forward applies this one outside any module
        backbone.features.add_module("relu5", nn.ReLU(inplace=True))
    # Both expect [-1, 1]; torchvision undoes ImageNet's normalisation inside their forward.
    backbone.mean, backbone.std = ((0.5,) * 3, (0.5,) * 3) if inception else (MEAN, STD)
    backbone.after = frozenset(_AFTER)
    backbone.image_size = published[weights or "DEFAULT"].transforms().crop_size[0]
    return backbone


def _timm():
    try:
        import timm
    except ImportError as error:
        raise InputError("timm is missing; install it with: pip install 'ltml[timm]'") from error
    return timm


@torch.enable_grad()  # which a bank's caller has switched off
def from_timm(
    name: str, weights: str | None, image_size: int | None, entries: Mapping[str, Tensor]
) -> nn.Module:
    """Take what comes before the pooling of a timm network; of its forms, that of a file's."""
    timm = _timm()
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = ", ".join(get_close_matches(architecture, timm.list_models())) or "no similar name"
        raise InputError(f"backbone 'timm/{name}' is unknown; timm has {near}")
    if weights not in (None, "pretrained"):
        name = f"{architecture}.{weights}"
    # Some transformers resample their positions as images come, others must know the size; a file
    # may hold positions of the images' size or of the network's own.
    forms = [{"dynamic_img_size": True}, {"img_size": image_size}, {}]
    if entries and image_size is not None:
        forms.insert(1, {"dynamic_img_size": True, "img_size": image_size})
    found = []
    for options in forms:
        with suppress(TypeError):  # no such option
            model = timm.create_model(name, pretrained=bool(weights), num_classes=0, **options)
            found.append((misfits(model, entries), len(found), model))
            if not found[-1][0]:
                break
    model = min(found)[-1]
    backbone, config = TimmBackbone(model), timm.data.resolve_model_data_config(model)
    backbone.mean, backbone.std = config["mean"], config["std"]
    backbone.image_size = size = image_size or config["input_size"][-1]
    try:
        feature_map = backbone.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"backbone 'timm/{name}' makes no feature map of images of {size} px ({error}); give "
            "another image_size or another backbone"
        ) from error
    # Parameters that the map does not depend on are what is left of the classifier.
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(feature_map.sum(), trained, allow_unused=True)
    after, classifiers = set(_AFTER), model.pretrained_cfg.get("classifier") or ()
    for classifier in [classifiers] if isinstance(classifiers, str) else classifiers:
        after.add(classifier.partition(".")[0])
    unused = {p for p, g in zip(trained, gradients, strict=True) if g is None}
    for child, module in list(model.named_children()):
        if (parameters := set(module.parameters())) and parameters <= unused:
            setattr(model, child, nn.Identity())
            after.add(child)
    backbone.after = frozenset(after)
    return backbone.train()


class _Unfilled(TorchFunctionMode):
    """Leave out initial values, most of the work of building on the meta device; and keep numbers
    that sizes are computed from (of a RegNet) off it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "fill_", "zero_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        if func in (torch.arange, torch.tensor):
            kwargs = {"device": "cpu", **kwargs}
        return func(*args, **kwargs)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Build networks without memory for their weights, and in a fraction of the time."""
    with torch.device("meta"), _Unfilled(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _better(name: str, entries: dict[str, Tensor]) -> str | None:
    """Name the network of the same family, or of torchvision, that entries are of."""
    timms = name.startswith("timm/")
    family = re.match("[a-z]*", name.removeprefix("timm/"))[0]
    if timms:
        timm, mine = _timm(), name.removeprefix("timm/").partition(".")[0]
        near = get_close_matches(mine, timm.list_models(f"{family}*"), n=40, cutoff=0)
        names = [f"timm/{n}" for n in near]
    else:
        names = sorted(TORCHVISION, key=lambda n: (not n.startswith(family), TORCHVISION.index(n)))
    shapes, unlike = {key: value.shape for key, value in entries.items()}, set()
    for other in names:
        if (kind := re.match("[a-z]*", other)[0]) in unlike:
            continue
        try:
            with shapes_alone():
                if timms:
                    whole = timm.create_model(other.removeprefix("timm/"), num_classes=0)
                else:
                    whole = torchvision.models.get_model(other)
        except Exception:  # some cannot be built without memory
            continue
        theirs = {k: v.shape for k, v in whole.state_dict().items()}
        theirs = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
        theirs = {k: v for k, v in theirs.items() if k.partition(".")[0] not in _AFTER}
        if not timms and not theirs.keys() & shapes.keys():  # nor has another of its family
            unlike.add(kind)
        rest = {k for k in shapes if not k.endswith("num_batches_tracked")} - theirs.keys()
        fits = theirs and all(shapes.get(k) == v for k, v in theirs.items())
        if fits and all(key.partition(".")[0] in _AFTER for key in rest):
            return other
    return None


class Classifier(nn.Module):
    """Join a backbone and a head.

    Args:
        backbone: network from images ``(B, 3, H, W)`` to feature maps ``(B, D, h, w)``.
        head: module from feature maps to logits ``(B, C)``; its ``classifier`` is an ``nn.Linear``.
        freeze: number of the backbone's first layers that stay as they are: no gradient, and batch
            norm's statistics at rest; -1: all. A layer is a child of the backbone; of transformers,
            a block.
        freeze_norm: whether batch norm's statistics stay at rest in all layers; its scale and shift
            are trained.

    Attributes:
        micro_batch: number of images that pass the backbone at a time in training; None: all. The
            gradients are those of the whole batch, whatever head and loss; activations are held for
            the last micro-batch alone and computed again for the others (Chen et al., Training Deep
            Nets with Sublinear Memory Cost, https://arxiv.org/abs/1604.06174).
        folded: what computes the backbone in training, where its batch norm rests.

    Raises:
        InputError: if the backbone has fewer layers.

    Example:
        >>> from ltml.core.heads import PooledLinear
        >>> Classifier(SmallConvNet(), PooledLinear(256, 20))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 20])
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, *, freeze: int = 0, freeze_norm: bool = False
    ):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.freeze_norm = freeze_norm
        self.micro_batch: int | None = None
        self.folded: Folded | None = None
        layers = _layers(backbone)
        freeze = len(layers) if freeze == -1 else freeze
        if not 0 <= freeze <= len(layers):
            raise InputError(f"freeze={freeze}: the backbone has {len(layers)} layers to freeze")
        # By name: converting batch norm, for one, puts another module in a layer's place.
        self._frozen = layers[:freeze]
        for name in self._frozen:
            self.backbone.get_submodule(name).requires_grad_(False)
        if freeze and isinstance(backbone, TimmBackbone):  # positions, added before the blocks
            for parameter in backbone.model.parameters(recurse=False):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "Classifier":
        """Set training mode, for all but the frozen layers."""
        super().train(mode)
        resting = [self.backbone.get_submodule(name) for name in self._frozen]
        if self.freeze_norm:
            resting += [m for m in self.backbone.modules() if isinstance(m, _BatchNorm)]
        for module in resting:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> logits ``(B, C)``."""
        backbone = self.backbone
        if not (self.training and torch.is_grad_enabled()):
            return self.head(backbone(images))
        if self.folded is not None:
            backbone = partial(self.folded, tensors=self.folded.tensors())
        *others, last = images.split(self.micro_batch or len(images))
        maps = [checkpoint(backbone, some, use_reentrant=False) for some in others]
        # Backward takes the last first, and lets go of its activations before the others'.
        maps.append(backbone(last))
        return self.head(torch.cat(maps) if others else maps[0])

    @property
    def mixes_images(self) -> bool:
        """Whether what the backbone makes of an image depends on the others of its batch."""
        return any(m.training for m in self.backbone.modules() if isinstance(m, _BatchNorm))


def _layers(backbone: nn.Module) -> list[str]:
    """Name a backbone's layers, from the images on."""
    if isinstance(backbone, TimmBackbone):
        layers = []
        for name, child in backbone.model.named_children():
            if name in ("blocks", "stages", "layers"):
                layers += [f"model.{name}.{i}" for i, _ in child.named_children()]
            elif any(True for _ in child.parameters()):  # not dropout that is off
                layers.append(f"model.{name}")
        return layers
    layers = [name for name, _ in backbone.named_children()]
    if len(layers) == 1:  # all of it under one name, as torchvision's "features"
        layers = [f"{layers[0]}.{n}" for n, _ in backbone.get_submodule(layers[0]).named_children()]
    return layers


def feature_channels(backbone: nn.Module) -> int:
    """Channels ``D`` of the feature map, found by a trial on a blank image."""
    training, size = backbone.training, getattr(backbone, "image_size", None) or 64
    with torch.no_grad():
        channels = backbone.eval()(torch.zeros(1, 3, size, size)).shape[1]
    backbone.train(training)
    return channels


def build_model(
    recipe: Recipe, counts: np.ndarray, num_images: int, backbone: nn.Module | None = None
) -> Classifier:
    """Build a recipe's network, with initial weights that its seed decides.

    Args:
        recipe: recipe that names backbone and head.
        counts: ``(C,)`` training images of each class.
        num_images: number of training images.
        backbone: backbone that is built already; default: built as the recipe says.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if backbone is None:
            backbone = make_backbone(
                recipe.backbone, weights=recipe.weights, image_size=recipe.image_size
            )
        head = build(
            choose("diversity", recipe.diversity, HEADS),
            f"head {recipe.diversity!r}",
            recipe.head_options,
            in_channels=feature_channels(backbone),
            num_classes=len(counts),
        )
        # Begin by expecting each class as often as the average one: otherwise rare classes spend
        # most of their gradient in epoch 1 learning that positives are rare.
        prior = min(max(counts.sum() / max(num_images, 1) / len(counts), 1e-3), 0.5)
        nn.init.constant_(head.classifier.bias, math.log(prior / (1 - prior)))
    backbone.precision, backbone.engine = recipe.precision, recipe.engine
    freeze_norm = bool(recipe.freeze_norm)
    model = Classifier(backbone, head, freeze=recipe.freeze, freeze_norm=freeze_norm)
    return model.to(memory_format=torch.channels_last)
