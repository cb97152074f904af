"""Batch norm at rest as part of the convolution before it.

Where its statistics are at rest, batch norm multiplies and shifts each channel, which a
convolution's weight and bias can do as well:

.. math:: \\operatorname{BN}(w * x + b) = (s w) * x + s (b - \\mu) + \\beta, \\quad
    s = \\gamma / \\sqrt{\\sigma^2 + \\epsilon}

The map in between is then neither computed nor held for backward; gradients of :math:`w, \\gamma`
and :math:`\\beta` are the same. Of what mobilenet_v2 holds of an image, a third is left.
"""

import copy
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

_TOLERANCE = 1e-4  # of a folded network's maps, relative to their largest value


class Folded:
    """Compute what a backbone does, with its batch norm folded as far as that can be.

    Args:
        backbone: network whose parameters and buffers are used as they are at each call.
        pairs: names of each batch norm and of the convolution before it.
    """

    def __init__(self, backbone: nn.Module, pairs: Iterable[tuple[str, str]]):
        self._backbone, self._pairs = backbone, tuple(pairs)
        self._module = copy.deepcopy(backbone)
        for norm, conv in self._pairs:
            into, old = self._module.get_submodule(conv), self._module.get_submodule(norm)
            if into.bias is None:
                into.bias = nn.Parameter(into.weight.new_zeros(len(into.weight)))
            parent, _, child = norm.rpartition(".")
            rest = [getattr(old, part) for part in ("drop", "act") if hasattr(old, part)]
            setattr(self._module.get_submodule(parent), child, nn.Sequential(*rest))
        for name, module in list(self._module.named_modules()):
            if type(module) is nn.ReLU6 and module.inplace:
                parent, _, child = name.rpartition(".")
                setattr(self._module.get_submodule(parent), child, _InPlaceReLU6())
        twins = dict(self._module.named_modules())
        self._twins = [(m, twins[n]) for n, m in backbone.named_modules() if n in twins]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of the folded network, as functions of the backbone's own."""
        found = dict(self._backbone.named_parameters()) | dict(self._backbone.named_buffers())
        for norm, conv in self._pairs:
            old, into = self._backbone.get_submodule(norm), self._backbone.get_submodule(conv)
            scale = (old.running_var + old.eps).rsqrt()
            scale = scale if old.weight is None else old.weight * scale
            bias = -old.running_mean if into.bias is None else into.bias - old.running_mean
            found[f"{conv}.weight"] = into.weight * scale.view(-1, 1, 1, 1)
            found[f"{conv}.bias"] = bias * scale + (0 if old.bias is None else old.bias)
        return found

    def __call__(self, images: Tensor, tensors: dict[str, Tensor] | None = None) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, D, h, w)``.

        Args:
            tensors: what :meth:`tensors` returned, to share it among calls.
        """
        for module, twin in self._twins:
            twin.training = module.training
        return functional_call(self._module, tensors or self.tensors(), (images,))

    @torch.no_grad()
    def frozen(self) -> nn.Module:
        """A network of its own, in evaluation mode, with the weights of now."""
        for name, value in self.tensors().items():
            owner, _, child = name.rpartition(".")
            module = self._module.get_submodule(owner)
            if child in module._parameters:
                setattr(module, child, nn.Parameter(value, requires_grad=False))
        return self._module.to(memory_format=torch.channels_last).eval()


class _InPlaceReLU6(nn.Module):
    """ReLU6 that holds its result alone; torch's own holds a copy of its input too, in place or
    not: see findings/relu6_in_place_keeps_its_input.sh."""

    def forward(self, x: Tensor) -> Tensor:
        return _Clamp.apply(x) if torch.is_grad_enabled() else x.clamp_(0, 6)


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x.clamp_(0, 6))
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        # Where the result is 0 or 6, the input was not between them.
        return torch.ops.aten.hardtanh_backward(grad, *ctx.saved_tensors, 0, 6)


@torch.no_grad()
def fold(backbone: nn.Module, images: Tensor) -> tuple[Folded | None, float]:
    """Find what of a backbone in evaluation mode can be folded, and the largest map of an image.

    A convolution that is used twice, or whose output goes elsewhere too, is left alone: what was
    folded is compared with the backbone on the images given.

    Args:
        images: ``(B, 3, H, W)`` an example.

    Returns:
        the folded network, None if there is nothing to fold or it computes something else; and the
        number of bytes of an image's largest map.
    """
    largest, follows, calls = 0, {}, {}
    made: dict[int, tuple[nn.Module, Tensor]] = {}

    def see(module, inputs, output):
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output  # which keeps the id from being given again
        elif type(module) in _norms() and id(inputs[0]) in made:
            follows[module] = made[id(inputs[0])][0]

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
    names = {module: name for name, module in backbone.named_modules()}
    pairs = [
        (names[norm], names[conv])
        for norm, conv in follows.items()
        if calls[norm] == 1 and calls[conv] == 1
    ]
    if images.device.type != "cpu" or not pairs:
        return None, largest
    folded = Folded(backbone, pairs)
    scale = expected.abs().max()
    close = (folded(images) - expected).abs().max() <= _TOLERANCE * scale  # NaN is not
    return (folded if close else None), largest


def _norms() -> tuple[type, ...]:
    """Kinds of batch norm whose evaluation is known: torch's, and timm's with an activation."""
    kinds = [nn.BatchNorm2d, nn.SyncBatchNorm]
    if "timm.layers" in sys.modules:
        kinds.append(sys.modules["timm.layers"].BatchNormAct2d)
    return tuple(kinds)
