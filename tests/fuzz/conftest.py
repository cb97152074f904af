"""For the tests on bad input: their shared module, and an end to whatever hangs."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that each test file finds mutations.py


@pytest.fixture(autouse=True)
def no_hang():
    """Stop a test that takes minutes, where the system can."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise TimeoutError("a reader hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
