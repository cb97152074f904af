import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltml import InputError, Run
from ltml.card import results_card
from ltml.cli import main

METHOD = Path(__file__).resolve().parents[1] / "figures" / "records" / "method"


@pytest.fixture
def seeds(tmp_path):
    """Three runs of one recipe; only the first is real."""
    folders = []
    for seed, tail in enumerate((0.9, 0.8, 0.85)):
        folder = tmp_path / f"seed{seed}"
        shutil.copytree(METHOD, folder)
        for name, change in (
            ("config", ("recipe", "seed", seed)),
            ("summary", (None, "tail", tail)),
        ):
            path = folder / f"{name}.json"
            content = json.loads(path.read_text())
            part, key, value = change
            (content[part] if part else content)[key] = value
            path.write_text(json.dumps(content))
        folders.append(folder)
    return folders


def test_means_and_deviations_are_over_the_seeds(seeds, capsys):
    card = results_card([Run.load(folder) for folder in seeds])
    rows = dict(
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in card.splitlines()
        if line.startswith("| ") and " | " in line and line != "| | |"
    )
    tail = np.array([90, 80, 85])
    assert rows["tail mAP"] == f"{tail.mean():.1f} ± {pd.Series(tail).std():.1f}"
    assert rows["seeds"].startswith("0, 1, 2")
    assert rows["method"] == "group draws, dgb loss, head: dem"
    for name in (
        "average precision",
        "difficult objects",
        "backbone",
        "pretraining",
        "image size",
        "checkpoint",
    ):
        assert rows[name]
    assert main(["card", *map(str, seeds)]) == 0
    assert capsys.readouterr().out.strip() == card.strip()


def test_one_run_has_no_deviation(seeds):
    card = results_card([Run.load(seeds[0])])
    assert "one run: no deviation" in card
    assert "±" not in card


def test_runs_of_different_recipes_make_no_card(seeds):
    path = seeds[1] / "config.json"
    path.write_text(path.read_text().replace('"strength": 0.5', '"strength": 0.7'))
    with pytest.raises(InputError, match="differ in strength"):
        results_card([Run.load(folder) for folder in seeds])
    with pytest.raises(InputError, match="no run"):
        results_card([])
