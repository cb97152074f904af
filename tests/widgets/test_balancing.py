from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltml.widgets import explore_balancing

RECORDS = Path(__file__).resolve().parents[2] / "figures" / "records"


def gradients(name):
    table = pd.read_csv(RECORDS / name / "per_class.csv")
    return table.groupby("class")[["grad_pos", "grad_neg"]].sum().to_numpy().T


def test_the_sentence_agrees_with_numpy_and_the_picture_follows():
    page = explore_balancing([RECORDS / "baseline", RECORDS / "method"])
    G = gradients("baseline")
    R, pictures = G.max() / G.min(), set()
    for strength in (0.0, 0.5, 1.0):
        page.controls["strength"].value = strength
        predicted = f"{R ** (1 - strength):.3g}"
        assert f"R = {R:.3g} before, {predicted} after" in page.said
        assert f"R^(1 - {strength:g}) predicts {predicted}. " in page.said
        w = (G.mean() / G) ** strength
        before, after = G.sum(0), (w * G).sum(0)
        ratios = before.max() / before.min(), after.max() / after.min()
        assert f"totals: {ratios[0]:.3g} before, {ratios[1]:.3g} after" in page.said
        pictures.add(page.picture.value)
    assert len(pictures) == 3
    page.controls["strength"].value = 0.5
    assert page.picture.value in pictures  # no limits of earlier pictures stay


def test_clipping_is_said():
    page = explore_balancing(RECORDS / "baseline")
    page.controls["strength"].value = 1.0
    page.controls["max_weight"].value = 2.0
    G = gradients("baseline")
    w = np.clip(G.mean() / G, 0.5, 2) * G
    assert f"{w.max() / w.min():.3g} after; R^(1 - 1) predicts 1, had no weight" in page.said
    page.controls["max_weight"].value = 1.0
    R = G.max() / G.min()
    assert f"R = {R:.3g} before, {R:.3g} after" in page.said


def test_a_run_that_was_balanced_already_is_pointed_out():
    page = explore_balancing([RECORDS / "baseline", RECORDS / "method"])
    assert "already at work" not in page.said
    before = page.picture.value
    page.controls["run"].value = "method"
    assert "recorded with balancing already at work" in page.said
    assert page.picture.value != before
    page.controls["run"].value = "baseline"
    assert page.picture.value == before


@pytest.mark.parametrize("runs", [[], ["/nowhere"]])
def test_without_a_run_it_says_so(runs):
    page = explore_balancing(runs)
    assert "there is no run to explore" in page.said
    page.controls["strength"].value = 0.2
