import matplotlib as mpl
import pytest

from ltml import plots


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_backend_that_turns_interactive_stays_so(before, inside):
    """Inside a notebook the backend does, at its first figure; else later ones are not shown."""
    outside = mpl.is_interactive()
    try:
        mpl.interactive(before)
        size = mpl.rcParams["font.size"]
        with plots.style():
            mpl.interactive(inside)
            mpl.rcParams["font.size"] = size + 1
        assert mpl.is_interactive() == inside
        assert mpl.rcParams["font.size"] == size
    finally:
        mpl.interactive(outside)
