"""Every image through a network: folded, in batches by memory, the same maps as one by one."""

import copy
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from ltml.core.devices import kept_memory
from ltml.data.loader import Loader
from ltml.training import passes
from ltml.training.folding import fold
from ltml.training.network import Classifier, make_backbone


class Twice(nn.Module):
    """One convolution before two norms, which folding alone would get wrong."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


class Beside(nn.Module):
    """A convolution whose output is used beside its norm's."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


NETWORKS = {
    "small": lambda: make_backbone("small"),
    "resnet18": lambda: make_backbone("resnet18"),
    "mobilenet_v2": lambda: make_backbone("mobilenet_v2"),
    "densenet121": lambda: make_backbone("densenet121"),
    "twice": Twice,
    "beside": Beside,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_the_network_as_it_is(tiny, lively, name):
    network = lively(NETWORKS[name]())
    before = copy.deepcopy(network.state_dict())
    loader = Loader(tiny.test.subset(range(9)), image_size=32)
    with torch.no_grad():
        wanted = torch.cat([network.eval()(x) for x, _ in loader.batches([[i] for i in range(9)])])
    network.train()
    found = list(passes.passed(network, loader))
    assert torch.cat([part.index for part in found]).tolist() == list(range(9))
    maps = torch.cat([part.maps for part in found])[:, 0]
    assert (maps - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("name", "whole"), [("small", 1), ("resnet18", 20), ("twice", 0)])
def test_norms_are_folded_where_that_is_right(lively, name, whole):
    network = lively(NETWORKS[name]()).eval()
    folded, _ = fold(network, torch.randn(2, 3, 64, 64))
    networks = network, folded.frozen() if folded else network
    left = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in networks]
    assert left[0] - left[1] == whole


def test_batches_are_as_large_as_their_largest_map_allows():
    cpu = torch.device("cpu")
    assert passes._fitting(96 * 112 * 112 * 4, cpu) in range(12, 21)  # measured: 16 is fastest
    assert passes._fitting(1000, cpu) == 64
    assert passes._fitting(2**31, cpu) == 1


def test_memory_goes_back_after_a_pass(tiny):
    if not Path("/proc/self/statm").is_file():
        pytest.skip("not Linux")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    model = Classifier(make_backbone("resnet18"), nn.Identity())
    loader = Loader(tiny.test, image_size=96)
    before = resident()
    for _ in passes.passed(model.backbone, loader):
        pass
    assert resident() - before < 100
    with kept_memory(torch.device("cpu")), kept_memory(torch.device("cpu")):
        pass  # one inside the other, as an evaluation in a training
