"""Explorers of runs: controls change the figure and the sentence, errors stand in place."""

import base64
import dataclasses
import importlib.util
import json
import shutil
from io import BytesIO
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image
from synthetic import write_run

import ltml
from ltml import FeatureRecord, Run
from ltml.runs.features import SplitFeatures
from ltml.runs.scores import add_scores
from ltml.training.features import SCHEMA
from ltml.widgets import (
    LiveView,
    compare_runs,
    explore_balancing,
    explore_diversity,
    explore_gradients,
    explore_heads,
    explore_interference,
    explore_mistakes,
)
from ltml.widgets.explorer import Explorer

RECORDS = Path(__file__).resolve().parents[2] / "figures" / "records"
BOTH = [RECORDS / "baseline", RECORDS / "method"]


def table_of(name, epoch=None):
    """Gradients of a record, straight from its file."""
    table = pd.read_csv(RECORDS / name / "per_class.csv")
    table = table if epoch is None else table[table.epoch == epoch]
    return table.groupby("class")[["grad_pos", "grad_neg"]].sum()


def said_of(name, epoch=None):
    table = table_of(name, epoch)
    total = table.sum(axis=1)
    down = (table.grad_neg > table.grad_pos).sum()
    return (
        f"{total.idxmax()} gets most gradient, {total.idxmin()} least, "
        f"{total.max() / total.min():.3g} times less; {down} of 20 classes"
    )


def state(explorer):
    """Everything that the browser is told of an explorer's figure."""
    return explorer.figure.to_json()


def is_shown(explorer):
    return explorer.figure in explorer.children


@pytest.mark.parametrize(
    ("explore", "given"),
    [
        (explore_gradients, BOTH),
        (explore_balancing, BOTH),
        (compare_runs, BOTH),
        (explore_gradients, RECORDS),
    ],
)
def test_no_list_starts_blank(explore, given):
    for control in explore(given).controls.values():
        if isinstance(control, ipywidgets.Dropdown):
            assert control.index is not None
        if isinstance(control, ipywidgets.Combobox | ipywidgets.SelectMultiple):
            assert control.value


def test_the_step_changes_the_data_and_not_the_axis():
    explorer = explore_gradients(BOTH)
    assert explorer.said.startswith("baseline, over the whole run: " + said_of("baseline"))
    explorer.controls["step"].value = 72
    figure, span = explorer.figure, explorer.figure.layout.yaxis.range
    figure.layout.xaxis.range = (3, 7)  # as a zoom in the browser does
    explorer.controls["step"].value = 108
    assert explorer.figure is figure
    assert figure.layout.yaxis.range == span
    assert figure.layout.xaxis.range == (3, 7)
    assert "in steps 73 to 108 (epoch 3): " + said_of("baseline", 3) in explorer.said
    trace = figure.data[0]
    assert np.allclose(trace.y, table_of("baseline", 3).grad_pos[list(trace.x)])
    explorer.controls["_play"].value = 1
    assert explorer.controls["step"].value == 72


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "method"),
        ("against", "method"),
        ("step", 108),
        ("show", "total"),
        ("order", "gradient"),
        ("log", False),
        ("class_name", "umbrella"),
    ],
)
def test_every_control_changes_the_figure_and_back(name, value):
    explorer = explore_gradients(BOTH)
    control, before = explorer.controls[name], state(explorer)
    old, control.value = control.value, value
    assert state(explorer) != before
    control.value = old
    assert state(explorer) == before


def test_two_runs_share_order_and_axis():
    explorer = explore_gradients(BOTH)
    for name, value in {"against": "method", "order": "gradient", "step": 72}.items():
        explorer.controls[name].value = value
    for name in ("baseline", "method"):
        assert f"{name}, in steps 37 to 72 (epoch 2): {said_of(name, 2)}" in explorer.said
    order = table_of("baseline", 2).sum(axis=1).sort_values(ascending=False).index
    layout = explorer.figure.layout
    assert list(layout.xaxis.categoryarray) == list(layout.xaxis2.categoryarray) == list(order)
    assert layout.yaxis.range == layout.yaxis2.range
    assert len(explorer.shares.figure.data) == 4


def test_the_history_follows_its_class():
    explorer = explore_gradients(BOTH)
    ap = Run.load(BOTH[0]).per_class.set_index("class").ap
    explorer.controls["class_name"].value = "crown"
    assert f"baseline: AP {100 * ap['crown'].iloc[-1]:.1f}% at the end" in explorer.history.said
    explorer.controls["class_name"].value = "no such class"
    assert "no class 'no such class'" in explorer.history.said
    assert not is_shown(explorer.history)
    assert is_shown(explorer)


def test_what_cannot_be_compared_is_said_and_the_explorer_stays_alive(tmp_path):
    nothing = explore_gradients(tmp_path / "nowhere")
    assert "there is no run to explore" in nothing.said
    assert any("is not a folder" in getattr(c, "value", "") for c in nothing.children)
    nothing.controls["log"].value = False
    for name in ("foreign", "blank"):
        shutil.copytree(RECORDS / "method", tmp_path / name)
    path = tmp_path / "foreign" / "per_class.csv"
    table = pd.read_csv(path)
    table.assign(**{"class": table["class"] + "!"}).to_csv(path, index=False)
    path = tmp_path / "blank" / "per_class.csv"
    table.assign(grad_pos=np.nan, grad_neg=np.nan).to_csv(path, index=False)
    explorer = explore_gradients([RECORDS / "baseline", tmp_path / "foreign", tmp_path / "blank"])
    explorer.controls["against"].value = "foreign"
    assert "have different classes; compare runs of the same data" in explorer.said
    assert not is_shown(explorer)
    explorer.controls["against"].value = None
    explorer.controls["run"].value = "blank"
    assert "'blank' holds no record of its gradients" in explorer.said
    explorer.controls["run"].value = "foreign"
    assert explorer.controls["class_name"].value == "crown!"  # the list follows the run
    explorer.controls["run"].value = "baseline"
    assert said_of("baseline") in explorer.said
    assert is_shown(explorer)


def test_runs_of_one_name_are_told_apart(tmp_path):
    shutil.copytree(RECORDS / "method", tmp_path / "baseline")
    explorer = explore_gradients([RECORDS / "baseline", tmp_path / "baseline"])
    names = ("records/baseline", f"{tmp_path.name}/baseline")
    assert explorer.controls["run"].options == names


def test_a_defect_is_not_hidden():
    def draw(n):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Explorer(draw, {"n": ipywidgets.IntSlider()}, rows=[["n"]])


def test_sentences_are_escaped():
    def draw():
        return go.Figure(), "a <b> & c"

    assert "a &lt;b&gt; &amp; c" in Explorer(draw, {}, rows=[]).text.value


def test_balancing_agrees_with_numpy_and_keeps_its_axes():
    explorer = explore_balancing(BOTH)
    G, axes = table_of("baseline").to_numpy().T, set()
    R = G.max() / G.min()
    for strength in (0.0, 0.5, 1.0):
        explorer.controls["strength"].value = strength
        predicted = f"{R ** (1 - strength):.3g}"
        assert f"R = {R:.3g} before and {predicted} after" in explorer.said
        assert f"R^(1 - {strength:g}) predicts {predicted}." in explorer.said
        weights = np.r_[tuple(t.y for t in explorer.figure.data if t.meta["field"] == "weight")]
        order = list(explorer.figure.data[0].x)
        table = table_of("baseline").loc[order].to_numpy().T
        w = (table.mean() / table) ** strength
        assert np.allclose(weights, (w * table.sum() / (w * table).sum()).ravel())
        layout = explorer.figure.layout
        axes.add((layout.yaxis.range, layout.yaxis2.range))
    assert len(axes) == 1


def test_clipping_and_balanced_runs_are_said():
    explorer = explore_balancing(BOTH)
    explorer.controls["strength"].value = 1.0
    explorer.controls["max_weight"].value = 2.0
    G = table_of("baseline").to_numpy()
    after = np.clip(G.mean() / G, 0.5, 2) * G
    assert f"{after.max() / after.min():.3g} after; R^(1 - 1) predicts 1, had no" in explorer.said
    explorer.controls["max_weight"].value = 1.0
    assert "already at work" not in explorer.said
    explorer.controls["run"].value = "method"
    assert "already at work" in explorer.said


def test_comparison_tells_the_best_and_pools_seeds(tmp_path):
    for seed in range(8):
        write_run(tmp_path / f"seed{seed}", classes=20, epochs=2, seed=seed)
    explorer = compare_runs(tmp_path)
    means = {p.name: Run.load(p).summary["mAP"] for p in sorted(tmp_path.iterdir())[:7]}
    best = max(means, key=means.get)
    assert f"Best mAP of 7, in percent: {best} for all" in explorer.said
    assert "<table" in explorer.below[0].value
    explorer.controls["pool"].value = True
    bars = explorer.figure.data[-1]
    assert np.allclose(bars.x, 100 * np.mean(list(means.values())))
    assert np.allclose(bars.error_x.array, 100 * np.std(list(means.values()), ddof=1))
    for show in ("classes", "curves"):
        explorer.controls["show"].value = show
        assert is_shown(explorer)
    explorer.controls["runs"].value = explorer.controls["runs"].options
    assert "tells at most 7 apart" in explorer.said
    explorer.controls["runs"].value = ()
    assert "no run is chosen" in explorer.said


def write_features(folder, seed, spread):
    """Put a record of made-up features into a run's folder."""
    run, random = Run.load(folder), np.random.default_rng(seed)
    names = run.config["data"]["class_names"]
    arrays = {"schema": np.array(SCHEMA), "class_names": np.array(names)}
    cls = np.repeat(np.arange(len(names)), 8)
    M = len(cls)
    for split in ("train", "test"):
        labels = np.zeros((M, len(names)), np.uint8)
        labels[np.arange(M), cls] = 1
        features = np.eye(len(names), 32)[cls] + spread * random.standard_normal((M, 32))
        part = SplitFeatures(
            features=features.astype(np.float16),
            cls=cls.astype(np.int32),
            image=np.arange(M, dtype=np.int32),
            score=random.standard_normal(M).astype(np.float32),
            neighbors=np.stack([random.permutation(M)[:8] for _ in range(M)]),
            similarity=np.full((M, 8), 0.5, np.float16),
            index=np.arange(M),
            labels=labels,
            thumbnails=random.integers(0, 255, (M, 16, 16, 3), dtype=np.uint8),
        )
        arrays |= {f"{split}_{k}": v for k, v in dataclasses.asdict(part).items()}
    np.savez(folder / "features.npz", **arrays)


def test_diversity_of_two_runs_at_one_size(tmp_path):
    for i, name in enumerate(("method", "baseline")):
        shutil.copytree(RECORDS / name, tmp_path / name)
        write_features(tmp_path / name, i, 0.2 + 0.3 * i)
    shutil.copytree(RECORDS / "baseline", tmp_path / "bare")
    explorer = explore_diversity(tmp_path)
    assert explorer.controls["run"].value == "baseline"  # not the one without a record
    explorer.controls["against"].value = "method"
    explorer.controls["measure"].value = "cosine-distance"
    name = explorer.controls["class_name"].value
    for run in ("baseline", "method"):
        record = FeatureRecord.load(tmp_path / run)
        table = record.diversity(measure="cosine-distance", size=7).set_index("class")
        assert f"{run} {table.value[name]:.3g}" in explorer.said
    assert bytes(explorer.below[0].value).startswith(b"\x89PNG")
    explorer.controls["run"].value = "bare"
    assert "'bare' has no features.npz" in explorer.said
    assert explorer.below[0].layout.display == "none"
    assert "no run to explore" in explore_diversity([]).said


def test_interference_of_each_epoch(tmp_path):
    shutil.copytree(RECORDS / "method", tmp_path / "method")
    run = Run.load(tmp_path / "method")
    names, C = run.config["data"]["class_names"], 20
    cosine = np.stack([np.eye(C), np.full((C, C), 0.25)]).astype(np.float16)
    arrays = {"norm": np.ones((2, C)), "cosine": cosine}
    np.savez(run.path / "interference.npz", epoch=[1, 2], class_names=names, **arrays)
    explorer = explore_interference(tmp_path)
    assert "head with tail +0.25" in explorer.said
    explorer.controls["epoch"].value = 1
    assert "head with tail +0.00" in explorer.said
    assert np.array_equal(explorer.figure.data[0].z, np.eye(C))
    assert "no record of interference" in explore_interference(RECORDS).said


def test_the_live_view_follows_a_training(capsys):
    run, view, seen = Run.load(RECORDS / "method"), LiveView(), []
    for epoch in (1, 2):
        tables = (t[t.epoch <= epoch] for t in (run.metrics, run.per_class))
        view(Run(run.path, run.config, *tables, {}))
        seen.append(list(view.figure.data[0].y))
        assert f"epoch {epoch}" in view.text.value
        assert f"tail {100 * run.metrics['tail'][epoch - 1]:.1f}" in view.text.value
    assert seen[0] != seen[1]
    total = run.per_class.assign(total=lambda t: t.grad_pos + t.grad_neg).groupby("epoch").total
    ratios = (total.max() / total.min())[[1, 2]]
    assert np.allclose(view.imbalance.figure.data[0].y, ratios)
    view.controls["epoch"].value = 1
    assert list(view.figure.data[0].y) == seen[0]
    view(Run.load(RECORDS / "baseline"))  # the training before stays in view
    assert [trace.name for trace in view.imbalance.figure.data] == ["method", "baseline"]


def test_heads_are_explored_where_no_class_is_in_the_tail():
    rows = np.random.default_rng(0).random((60, 2)) < 0.7
    images = torch.randint(0, 255, (60, 3, 24, 24), dtype=torch.uint8)
    split = ltml.Split(images, ltml.LabelMatrix(rows), [str(i) for i in range(60)])
    data = ltml.LongTailData("even", split, split)
    explorer = explore_heads(ltml.bank(ltml.Recipe(), data, progress=False), steps=2)
    assert "tail nan" in explorer.said


def mistaken(folder, sign):
    """A run of 20 classes that scores its photos, right or wrong."""
    run, random = Run.load(write_run(folder, classes=20, epochs=1)), np.random.default_rng(0)
    names = run.config["data"]["class_names"]
    files = [str(folder / f"{i}.png") for i in range(30)]
    for file in files:
        Image.fromarray(random.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(file)
    targets = (random.random((30, 20)) < 0.3).astype(np.float32)
    add_scores(folder, names, "test", sign * (2 * targets - 1), targets, files, files)
    return run


def test_mistakes_are_shown_with_their_photos(tmp_path):
    runs = [mistaken(tmp_path / name, sign) for name, sign in (("wrong", -1), ("right", 1))]
    explorer = explore_mistakes(runs)
    table = runs[0].mistakes(kind="miss")
    assert explorer.said.startswith(f"{len(table)} misses, by wrong; photos 1 to 12")
    assert len(explorer.wall.children) == 12
    assert all("data:image/webp" in box.children[0].value for box in explorer.wall.children)
    assert explorer.table().image.tolist() == table.image[:12].tolist()
    misses = explorer.figure.data[0]
    counts = table["class"].value_counts()
    assert dict(zip(misses.x, misses.y, strict=True)) == {
        name: counts.get(name, 0) for name in misses.x
    }
    explorer.controls["first"].value = 13
    assert explorer.table().image.tolist() == table.image[12:24].tolist()
    explorer.controls["first"].value = 1
    explorer.controls["among"].value = "class"
    assert set(explorer.table()["class"]) == {explorer.controls["class_name"].value}
    explorer.wall.children[0].children[1].click()
    assert explorer.table().image.iloc[0] in explorer.sheet.value
    explorer.controls["kind"].value = "differ"
    assert "choose another run" in explorer.said
    explorer.controls["against"].value = "right"
    assert (explorer.table().margin > 0).all()
    explorer.controls["run"].value = "right"
    explorer.controls["kind"].value = "miss"
    assert explorer.said == "0 misses, by right."
    assert "keeps no scores" in explore_mistakes(RECORDS / "method").said


@pytest.mark.slow
def test_what_was_computed_ahead_can_be_computed_again():
    place = RECORDS.parent / "heads.py"
    spec = importlib.util.spec_from_file_location("heads_ahead", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(kept["trainings"]) >= 200
    assert place.with_suffix(".json").stat().st_size < 200_000
    explorer = explore_heads(module.bank(), steps=kept["steps"])
    for sampler, loss, lr in (("uniform", "bce", 0.01), ("group", "dgb", 0.1)):
        settings = {"sampler": sampler, "loss": loss, "strength": 0.75, "head": "attention"}
        _, said = explorer.draw(**settings, lr=lr, alpha=0.6)
        title, found = said.split(": mAP ")
        (wanted,) = [each for each in kept["trainings"] if each["title"] == title]
        assert float(found.split(",")[0]) == pytest.approx(100 * np.mean(wanted["ap"]), abs=2)


def test_explorers_without_a_kernel_hold_no_more_than_is_shown():
    shown = explore_gradients(BOTH).to_html()
    assert len(shown) < 60_000
    assert "</script>" not in shown.removesuffix("</div>").removesuffix("</script>")
    assert explore_gradients("no/such/folder").to_html() == ""
    two = (explore_gradients(BOTH[:1]).to_html(), explore_gradients(BOTH[:1]).to_html())
    assert len({part.split('<datalist id="')[1].split('"')[0] for part in two}) == 2


def test_a_saved_notebook_keeps_a_picture():
    shown = []
    explorer = explore_gradients(BOTH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ltml.widgets.explorer.display", lambda *a, **k: shown.append(a[0]))
        explorer._ipython_display_()
    widget, still = shown
    assert "application/vnd.jupyter.widget-view+json" in widget
    data = still.data.split("base64,")[1].split('"')[0]
    with Image.open(BytesIO(base64.b64decode(data))) as image:
        picture = np.asarray(image.convert("L"))
    assert picture.shape[1] == 810
    assert picture.std() > 5
    assert "umbrella gets most gradient" in still.data


def test_a_probe_beside_a_training_leaves_its_gradients_in_view(tmp_path):
    shutil.copytree(RECORDS / "method", tmp_path / "probe")
    path = tmp_path / "probe" / "per_class.csv"
    pd.read_csv(path).assign(grad_pos=np.nan, grad_neg=np.nan).to_csv(path, index=False)
    explorer = explore_gradients([RECORDS / "baseline", tmp_path / "probe"])
    explorer.controls["against"].value = "probe"
    assert is_shown(explorer)
    assert explorer.said.count("gets most gradient") == 1
    assert is_shown(explorer.shares)
