#!/usr/bin/env bash
# PyTorch 2.14.1: nn.ReLU6(inplace=True), the activation of MobileNets and EfficientNet-Lites.
# What it does: it overwrites its input, and keeps a copy of it for backward; so do Hardtanh and SiLU.
# Why it surprises: an operation in place is chosen to save memory, and nn.ReLU(inplace=True) does.
# ReLU6's gradient needs no more than its result either: it is 0 where that is 0 or 6.
# Consequence: with batch norm's input, each block of such a network holds three maps for backward
# where one would do; a training that would fit runs out of memory.
# Remedy: an autograd function that clamps in place and keeps its result; or recompute the block.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'torch==2.14.1'
venv/bin/python - <<'EOF'
import torch
from torch import nn


def held_beside_the_result(activation):
    """Maps held for backward that are neither the network's input nor its output."""
    network, x, held = nn.Sequential(nn.Conv2d(8, 8, 1), activation), torch.randn(4, 8, 64, 64), {}

    def see(saved):
        held[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(see, lambda saved: saved):
        y = network(x)
    known = [x, y, *network.parameters()]
    for each in known:
        held.pop(each.untyped_storage().data_ptr(), None)
    return sum(held.values()) / y.untyped_storage().nbytes()


relu = held_beside_the_result(nn.ReLU(inplace=True))
relu6 = held_beside_the_result(nn.ReLU6(inplace=True))
print(f"torch {torch.__version__}")
print("expected: in place, neither ReLU nor ReLU6 holds a map beside its result")
print(f"seen: maps held beside the result: ReLU {relu:g}, ReLU6 {relu6:g}")
assert (relu, relu6) == (0, 1)
EOF
