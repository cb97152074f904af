"""The files around the code agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])


def extras(text):
    return set(re.search(r"\.\[([\w,]+)\]", text).group(1).split(","))


def test_conda_and_make_install_what_pyproject_names():
    conda = (ROOT / "environment.yml").read_text()
    make = (ROOT / "Makefile").read_text()
    assert extras(conda) == extras(make)
    assert extras(conda) <= EXTRAS
    assert "dev" in extras(conda)
    # pyproject.toml is the one list: conda brings Python and pip, and not a package of its own.
    packages = re.findall(r"^  - ([\w.>=-]+)$", conda.split("dependencies:")[1], re.M)
    assert packages == [f"python{PROJECT['requires-python']}", "pip"]


def test_versions_agree():
    import ltml

    assert PROJECT["version"] == ltml.__version__
    assert f"version: {ltml.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def succeed(code):
    """Run a program in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_import_needs_only_the_core():
    """Figures, widgets, pycocotools and the command line are imported where they are used."""
    succeed(
        "import sys, torch, torchvision, pandas, scipy.sparse, tqdm.auto; core = set(sys.modules); "
        "import ltml; figures = ('plots', 'table'); "
        "[getattr(ltml, name) for name in ltml.__all__ if name not in figures]; "
        "late = {'matplotlib', 'seaborn', 'plotly', 'ipywidgets', 'pycocotools', 'accelerate', "
        "'timm', 'pooch', 'tyro', 'sklearn'} & (set(sys.modules) - core); "
        "sys.exit(' '.join(late) or 0)"
    )


@pytest.mark.slow
def test_every_module_can_be_imported_on_windows():
    """As far as that shows on another system: without the modules that only POSIX has."""
    succeed(
        "import importlib, pkgutil, sys, torch, torchvision, plotly, seaborn, ipywidgets, pooch; "
        "sys.modules |= dict.fromkeys(['fcntl', 'resource', 'pwd', 'grp', 'termios']); "
        "import ltml; [importlib.import_module(m.name) "
        "for m in pkgutil.walk_packages(ltml.__path__, 'ltml.')]"
    )


def test_comparing_runs_does_not_wait_for_torch():
    code = (
        "import sys; from ltml.cli import main; main(['compare', sys.argv[1]]); "
        "sys.exit(' '.join({'torch', 'torchvision', 'matplotlib', 'plotly'} & set(sys.modules)))"
    )
    run = ROOT / "tests" / "records" / "schema1"
    done = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True)
    assert not done.stderr.strip(), done.stderr
    assert "schema1" in done.stdout
