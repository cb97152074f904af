"""The Python of README and of the guide runs as it is printed; its loops leave whole runs."""

import re
from pathlib import Path

import matplotlib
import pytest

from ltml import Run, plots
from ltml.plots.report import write_report

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {"README": README} | {
    path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("book/guide/*.md"))
}
BLOCKS = {
    name: found
    for name, text in PAGES.items()
    if (found := re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning and accelerate themselves
@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_runs(page, tmp_path, monkeypatch):
    for name in ("lightning", "accelerate", "timm", "ipywidgets"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    scope = {}
    for block in BLOCKS[page]:
        exec(block, scope)  # as a reader would, one after the other
    matplotlib.pyplot.close("all")
    if page == "README":
        assert Run.load("runs/readme").metrics.step.tolist() == [8, 16]
    if page != "own_loop":
        return
    runs = [Run.load(f"runs/{name}") for name in ("plain", "lightning", "accelerate")]
    assert [run.metrics.step.tolist() for run in runs] == [[8, 16]] * 3
    assert [run.metrics.mAP.notna().any() for run in runs] == [True, False, False]
    for run in runs:
        assert (run.classes.grad_pos + run.classes.grad_neg > 0).all()
        assert (run.metrics.train_loss > 0).all()
        plots.gradient_magnitudes(run)
    page = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(run.name in page for run in runs)
    assert "snowflake" in page


def test_readme_is_two_pages_and_its_links_hold():
    assert len(README.split()) <= 1500
    for name, text in PAGES.items():
        folder = ROOT if name == "README" else ROOT / "book" / "guide"
        for target in re.findall(r"\]\((?![a-z]+:)([^)#]+)", text):
            assert (folder / target).exists(), f"{name}: {target}"
