"""What the page of all explorers makes of the runs it is given."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from ltml import Run
from ltml.widgets import page

BASELINE = Path(__file__).parents[2] / "figures" / "records" / "baseline"


def test_two_data_sets_of_one_name_stay_two(monkeypatch):
    def loaded(recipe):
        return SimpleNamespace(train=SimpleNamespace(labels=recipe.data_seed))

    monkeypatch.setattr(page, "load_data", loaded)
    run = Run.load(BASELINE)
    other = replace(run, config=run.config | {"recipe": run.recipe | {"data_seed": 1}})
    assert page._labels([run, run]) == {"pictograms": 0}
    assert page._labels([run, other]) == {"pictograms (0)": 0, "pictograms (1)": 1}
