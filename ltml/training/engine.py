"""A frozen backbone compiled by OpenVINO, which on a CPU is faster than torch's own operators."""

import warnings
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ltml.core.errors import InputError

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}  # of the maps, relative to their root mean square
_COMPILED: WeakKeyDictionary[nn.Module, tuple[tuple, nn.Module]] = WeakKeyDictionary()


def compiled(backbone: nn.Module, folded: nn.Module, images: Tensor, precision: str) -> nn.Module:
    """Compile a network, once for all passes between which its weights stay what they are.

    Args:
        backbone: network whose weights are looked at.
        folded: network to compile, such as a copy without batch norm.
        images: example of its images; see :class:`Compiled`.
        precision: arithmetic; see :class:`Compiled`.

    Raises:
        InputError: as :class:`Compiled` does.
    """
    held = [*backbone.parameters(), *backbone.buffers()]
    weights = tuple((x.data_ptr(), x._version) for x in held)
    key = (precision, images.shape[1:], torch.get_num_threads(), weights)
    if backbone not in _COMPILED or _COMPILED[backbone][0] != key:
        _COMPILED[backbone] = key, Compiled(folded, images, precision)
    return _COMPILED[backbone][1]


class Compiled(nn.Module):
    """Pass images through a program of OpenVINO's.

    Args:
        backbone: network in evaluation mode, from images ``(B, 3, H, W)`` to maps ``(B, D, h, w)``.
        images: example of its images, on the CPU.
        precision: float32 or bfloat16; OpenVINO itself would take bfloat16 wherever the CPU has it.

    Raises:
        InputError: if OpenVINO is not installed, cannot compile the network, or computes something
            else.
    """

    def __init__(self, backbone: nn.Module, images: Tensor, precision: str = "float32"):
        super().__init__()
        try:
            import openvino
        except ImportError as error:
            raise InputError(
                "engine='openvino' is not installed; install it with: pip install 'ltml[fast]', or "
                "give engine='torch'"
            ) from error
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it converts by torch.jit.trace, which is deprecated
            try:
                converted = openvino.convert_model(backbone, example_input=images[:2])
                self._program = openvino.Core().compile_model(converted, "CPU", options)
            except Exception as error:  # the two raise many kinds
                why = (str(error) or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"engine='openvino' cannot compile this network ({why}); give engine='torch'"
                ) from error
        expected, found = backbone(images), self(images)
        off = ((found - expected).norm() / expected.norm()).item()
        if not off <= _TOLERANCE[precision]:  # NaN is not
            raise InputError(
                f"engine='openvino' computes other features in {precision} than torch, off by "
                f"{off:.2g} of their size; give engine='torch'"
            )

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, D, h, w)`` float32."""
        (maps,) = self._program(images.contiguous().numpy()).values()
        return torch.from_numpy(maps.copy())  # whose memory the next batch reuses
