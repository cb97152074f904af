"""Every image through a network: the one place where images meet a backbone outside a training.

On a CPU, memory costs more than arithmetic: a batch whose maps do not fit into the caches is slow,
and maps that are given back to the system after every layer cost as much again. So batches are as
large as a few of the network's largest maps, memory is kept for as long as a pass lasts, and batch
norm is folded into the convolutions of a copy of the network.
"""

import copy
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tqdm.auto import tqdm

from ltml.core.devices import autocast, kept_memory
from ltml.core.errors import InputError
from ltml.core.ranks import Ranks
from ltml.data.loader import Loader, not_shown
from ltml.training.network import Classifier

_MOST = 64  # views at a time
_LARGEST = 80 * 2**20  # bytes of a batch's largest map, on a CPU: measured as the fastest
_TRIED = 4  # images of the first batch
_TOLERANCE = 1e-4  # of a folded network's maps, relative to their largest value


class Passed(NamedTuple):
    """A batch that went through a backbone.

    Args:
        index: ``(B,)`` images of the split.
        images: ``(B, V, 3, S, S)``, normalised, in their views.
        maps: ``(B, V, D, h, w)``.
    """

    index: Tensor
    images: Tensor
    maps: Tensor


def passed(
    backbone: nn.Module,
    loader: Loader,
    index: Tensor | None = None,
    *,
    views: bool = False,
    batch_size: int | None = None,
    name: str = "images",
    progress: bool = False,
) -> Iterator[Passed]:
    """Pass images of a loader's split once through a backbone, in evaluation mode.

    Args:
        backbone: network to pass images through; not changed; what it holds is copied where folding
            makes that faster. Its ``precision`` and ``engine``, where it has them, are a recipe's.
        loader: loader of the split.
        index: images to pass, in this order. Default: all.
        views: whether to pass each image in all its plain views; else ``V`` is 1.
        batch_size: number of images at a time. Default: by the memory that the network's largest
            map takes.
        name: label of the progress bar.
        progress: whether to show the bar.
    """
    index = torch.arange(len(loader.split)) if index is None else index
    batches = loader.views if views else _plain_views(loader)
    training, precision = backbone.training, getattr(backbone, "precision", "auto")
    engine = getattr(backbone, "engine", "torch")
    backbone.eval()
    bar = tqdm(total=len(index), desc=name, unit="img", disable=not_shown(progress))
    try:
        with bar, kept_memory(loader.device):
            network = None
            for part in (index[:_TRIED], index[_TRIED:]):
                sizes = [some for some in part.split(batch_size or _TRIED) if len(some)]
                with closing(batches(sizes)) as source:
                    for some, images in zip(sizes, source, strict=False):
                        if network is None:
                            first = images.flatten(0, 1)
                            network, largest = _prepared(backbone, first)
                            at_once = _fitting(largest, loader.device)
                            if engine != "torch" and any(True for _ in backbone.parameters()):
                                network = _by_engine(engine, backbone, network, first, precision)
                                at_once = _TRIED  # measured as the fastest
                            batch_size = batch_size or max(1, at_once // images.shape[1])
                        with torch.inference_mode(), autocast(loader.device, precision):
                            maps = network(images.flatten(0, 1)).unflatten(0, images.shape[:2])
                        yield Passed(some, images, maps)
                        bar.update(len(some))
    finally:
        backbone.train(training)


def _plain_views(loader: Loader):
    def batches(indices):
        for images, _ in loader.batches(indices):
            yield images.unsqueeze(1)

    return batches


def _fitting(largest: float, device: torch.device) -> int:
    """Choose how many views pass at a time.

    Args:
        largest: number of bytes of one view's largest map.
    """
    if device.type != "cpu":
        return _MOST
    return int(min(_MOST, max(1, _LARGEST / max(largest, 1))))


@torch.no_grad()  # not inference_mode, whose tensors cannot be exported
def _prepared(backbone: nn.Module, images: Tensor) -> tuple[nn.Module, float]:
    """Fold what can be folded, and measure the largest map of a view, in bytes."""
    largest, follows, calls = 0, {}, {}

    def see(module, inputs, output):
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output  # which keeps the id from being given again
        elif type(module) in _norms() and id(inputs[0]) in made:
            follows[module] = made[id(inputs[0])][0]

    made: dict[int, tuple[nn.Module, Tensor]] = {}
    leaves = [m for m in backbone.modules() if not any(True for _ in m.children())]
    leaves += [m for m in backbone.modules() if type(m) in _norms() and m not in leaves]
    hooks = [module.register_forward_hook(see) for module in leaves]
    try:
        expected = backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    made.clear()
    largest /= len(images)
    pairs = {norm: conv for norm, conv in follows.items() if calls[norm] == 1 and calls[conv] == 1}
    if images.device.type != "cpu" or not pairs:
        return backbone, largest
    folded = _folded(backbone, pairs)
    found = folded(images)
    scale = expected.abs().max()
    close = (found - expected).abs().max() <= _TOLERANCE * scale  # NaN is not
    return (folded if close else backbone), largest


@torch.no_grad()
def _by_engine(
    engine: str, backbone: nn.Module, folded: nn.Module, images: Tensor, precision: str
) -> nn.Module:
    if images.device.type != "cpu":
        raise InputError(
            f"engine={engine!r} computes on CPUs, and the device is {images.device.type}; give "
            "engine='torch', or device='cpu'"
        )
    from ltml.training.engine import compiled  # an extra

    return compiled(backbone, folded, images, "float32" if precision == "auto" else precision)


def _norms() -> tuple[type, ...]:
    """Kinds of batch norm whose evaluation is known: torch's, and timm's with an activation."""
    kinds = [nn.BatchNorm2d, nn.SyncBatchNorm]
    if "timm.layers" in sys.modules:
        kinds.append(sys.modules["timm.layers"].BatchNormAct2d)
    return tuple(kinds)


def _folded(backbone: nn.Module, pairs: dict[nn.Module, nn.Module]) -> nn.Module:
    """Copy a network with batch norms folded into the convolutions before them."""
    names = {module: name for name, module in backbone.named_modules()}
    copied = copy.deepcopy(backbone)
    for norm, conv in pairs.items():
        into = copied.get_submodule(names[conv])
        into.weight, into.bias = fuse_conv_bn_weights(
            *(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps),
            *(norm.weight, norm.bias),
        )
        parent, _, child = names[norm].rpartition(".")
        rest = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        setattr(copied.get_submodule(parent), child, nn.Sequential(*map(copy.deepcopy, rest)))
    return copied.to(memory_format=torch.channels_last).eval()


@torch.no_grad()
def evaluate(
    model: Classifier,
    loader: Loader,
    heads: Sequence[nn.Module] | None = None,
    *,
    batch_size: int | None = None,
    ranks: Ranks | None = None,
    progress: bool = False,
    name: str = "scores",
) -> list[Tensor]:
    """Score every image of a loader's split by each of several heads, in one pass of the backbone.

    Args:
        model: classifier whose backbone is used; left in training mode if it was.
        loader: loader of the split; processes share its images.
        heads: heads to score by; default: the model's own.
        batch_size: number of images at a time; default: by memory.
        name: label of the progress bar.

    Returns:
        for each head, logits ``(N, C)`` on the CPU.
    """
    training, ranks, heads = model.training, ranks or Ranks(), heads or [model.head]
    for module in (model, *heads):
        module.eval()
    index, scores = torch.arange(ranks.rank, len(loader.split), ranks.size), []
    options = {"batch_size": batch_size, "name": name, "progress": progress}
    for _, _, maps in passed(model.backbone, loader, index, **options):
        scores.append([head(maps[:, 0].float()) for head in heads])  # bfloat16 logits tie
    model.train(training)
    parts = [torch.cat(part).cpu() for part in zip(*scores, strict=True)]
    return [ranks.all_gather_rows(part, len(loader.split)) for part in parts]


@torch.no_grad()
def pooled_features(
    model: Classifier,
    loader: Loader,
    *,
    sample: int = 256,
    batch_size: int | None = None,
    ranks: Ranks | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Average the feature maps of every image of a loader's split, in all its plain views.

    Returns:
        ``(N, V, D)`` on the CPU: of each image, and of its mirror image if the loader mirrors; and
        about ``sample`` of the feature maps ``(M, D, h, w)`` themselves, on the model's device.
    """
    ranks, count = ranks or Ranks(), len(loader.split)
    index = torch.arange(ranks.rank, count, ranks.size)
    every, features, kept, done = math.ceil(count / sample), None, None, 0
    rows = (index % every == 0).cumsum(0) - 1  # of an image among those whose maps are kept
    options = {"views": True, "batch_size": batch_size, "name": "features", "progress": progress}
    for part, _, maps in passed(model.backbone, loader, index, **options):
        if features is None:  # in one piece: many small ones would lie between freed large ones
            features = torch.empty(len(index), *maps.shape[1:3])
            kept = maps.new_empty(int(rows[-1]) + 1, *maps.shape[2:])
        now = slice(done, done + len(part))
        features[now] = maps.float().mean((3, 4))
        chosen = part % every == 0  # the same ones for any number of ranks
        kept[rows[now][chosen]] = maps[chosen, 0]
        done += len(part)
    kept = torch.cat([part.to(loader.device) for part in ranks.all_gather(kept)])
    return ranks.all_gather_rows(features, count), kept
