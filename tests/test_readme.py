"""README's Python runs as it is printed, and its loops leave runs that plots and reports read."""

import re
from pathlib import Path

import matplotlib
import pytest

from ltml import Run, plots
from ltml.plots.report import write_report

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning and accelerate themselves
def test_every_block_runs_and_the_loops_leave_runs(tmp_path, monkeypatch):
    for name in ("lightning", "accelerate", "timm", "ipywidgets"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    scope = {}
    for block in BLOCKS:
        exec(block, scope)  # as a reader would, one after the other
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
