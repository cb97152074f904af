import os
from pathlib import Path

import pytest
import torch
from torch import nn

import ltml

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and label lists beside the checkout, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real photos are not at hand")
    return SHARED_DATA


@pytest.fixture(scope="session", params=["voc", "coco"])
def real_labels(request, shared_data) -> tuple[str, ltml.LabelMatrix]:
    """Name and training labels of VOC-LT and of COCO-LT."""
    text = (shared_data / "label_lists" / f"{request.param}_lt_train.csv").read_text()
    rows = [[int(c) for c in line.split(",")[1].split()] for line in text.splitlines()[1:]]
    names = [f"class {c}" for c in range({"voc": 20, "coco": 80}[request.param])]
    return request.param, ltml.LabelMatrix.from_lists(rows, names)


@pytest.fixture(scope="session")
def tiny() -> ltml.LongTailData:
    """Pictograms that train in a second."""
    return ltml.load("pictograms", scale=0.1, image_size=24, test_images=80)


@pytest.fixture(autouse=True)
def environment_as_it_was():
    """Undo what libraries leave behind: Dask's one thread would slow all that follows."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def pytest_collection_modifyitems(items):
    """Run the fast tests first, so that a mistake shows within seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def lively():
    """A function that gives batch norms statistics that differ, so that folding has work."""

    def give(network):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
        return network

    return give
