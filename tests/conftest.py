import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and label lists beside the checkout, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real photos are not at hand")
    return SHARED_DATA


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
