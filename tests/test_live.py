"""Live figures hold the numbers of their frames, under axes that can be compared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_run

from ltml import InputError, Run
from ltml.plots import frames, live

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


@pytest.fixture(scope="module")
def runs():
    return {name: Run.load(RECORDS / name) for name in ("baseline", "method")}


@pytest.fixture(scope="module")
def tables():
    return {name: pd.read_csv(RECORDS / name / "per_class.csv") for name in ("baseline", "method")}


def traces(figure, **meta):
    return [t for t in figure.data if t.meta and meta.items() <= dict(t.meta).items()]


def test_gradients_are_those_of_the_file_in_either_order(runs, tables):
    figure = live.gradient_magnitudes(frames.gradients(runs, epoch=2), order="gradient")
    table = tables["baseline"][tables["baseline"].epoch == 2]
    total = (table.grad_pos + table.grad_neg).to_numpy()
    order = table["class"].to_numpy()[np.argsort(-total)]
    assert list(figure.layout.xaxis.categoryarray) == list(order)
    for row, each in enumerate(tables.values()):
        (trace,) = traces(figure, row=row, field="negative")
        expected = each[each.epoch == 2].set_index("class").grad_neg
        assert np.allclose(trace.y, expected[list(trace.x)])


@pytest.mark.parametrize("show", ["positive", "negative", "total", "ratio"])
def test_order_by_gradient_sorts_by_what_is_shown(runs, show):
    frame = frames.gradients(runs["baseline"])
    figure = live.gradient_magnitudes(frame, show=show, order="gradient")
    (trace,) = [t for t in figure.data if t.visible]
    height = dict(zip(trace.x, trace.y, strict=True))
    values = [height[name] for name in figure.layout.xaxis.categoryarray]
    assert values == sorted(values, reverse=True)


def test_two_runs_share_axes_and_colours(runs):
    figure = live.gradient_magnitudes(frames.gradients(runs))
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    assert figure.layout.xaxis.matches == "x2"
    heat = live.gradient_heatmap(frames.gradient_history(runs))
    first, second = traces(heat, field="log")
    assert (first.zmin, first.zmax) == (second.zmin, second.zmax) == (-first.zmax, first.zmax)


def test_hover_says_group_images_ap_and_gradients(runs, tables):
    figure = live.gradient_magnitudes(frames.gradients(runs["baseline"]))
    trace = traces(figure, field="positive")[0]
    table = tables["baseline"]
    rows = table[table["class"] == "crown"]
    card = dict(zip(trace.x, trace.customdata, strict=True))["crown"]
    assert list(card) == [
        "tail",
        8,
        f"{100 * rows.ap.iloc[-1]:.1f}%",
        f"{rows.grad_pos.sum():.3g}",
        f"{rows.grad_neg.sum():.3g}",
    ]
    for place in ("%{x}", *(f"%{{customdata[{i}]" for i in range(5))):
        assert place in trace.hovertemplate


def test_shades_cover_each_group_in_any_order(runs):
    for order in ("count", "gradient"):
        figure = live.gradient_magnitudes(frames.gradients(runs["baseline"]), order=order)
        names = list(figure.layout.xaxis.categoryarray)
        group = runs["baseline"].classes.set_index("class").group[names].to_numpy()
        for shape in figure.layout.shapes:
            ends = [part.split(",0H") for part in shape.path[1:].split("M")]
            covered = set()
            for start, end in ends:
                covered |= set(range(int(float(start) + 0.5), int(float(end.split("V")[0]) + 0.5)))
            assert covered == set(np.flatnonzero(group == shape.name.split(" (")[0]))


def test_shares_and_fading_against_numpy(runs, tables):
    figure = live.gradient_heatmap(frames.gradient_history(runs["method"]))
    log, fade = traces(figure, field="log")[0], traces(figure, field="fade")[0]
    table = tables["method"].assign(total=lambda t: t.grad_pos + t.grad_neg)
    total = table.pivot(index="epoch", columns="class", values="total")[list(log.y)].to_numpy()
    steps = np.diff(runs["method"].metrics.step, prepend=0)
    assert np.allclose(2**log.z.T, total / total.mean(1, keepdims=True))
    rate = total.sum(1) / steps
    assert np.allclose(fade.z[0], 0.85 * (1 - rate / rate.max()))
    assert fade.z.min() == 0
    assert fade.hoverinfo == "skip"


def test_the_history_is_per_step_and_keeps_the_ap(runs, tables):
    figure = live.class_history(frames.gradient_history(runs), "crown")
    table = tables["method"][tables["method"]["class"] == "crown"]
    steps = np.diff(runs["method"].metrics.step, prepend=0)
    assert np.allclose(traces(figure, row=1, field="positive")[0].y, table.grad_pos / steps)
    assert np.allclose(traces(figure, row=1, field="ap")[0].y, 100 * table.ap)
    with pytest.raises(InputError, match="no class 'sun'"):
        live.class_history(frames.gradient_history(runs), "sun")


def test_balancing_shows_weights_and_shares(runs):
    frame = frames.balanced(runs["baseline"], strength=1.0)
    figure = live.balancing(frame, spans={"weight": (0.1, 10), "share": (0.01, 10)})
    after = np.concatenate([trace.y for trace in traces(figure, field="after")])
    assert np.allclose(after, 100 / 40)  # full strength: all equal
    before = np.concatenate([trace.y for trace in traces(figure, field="before")])
    weight = np.concatenate([trace.y for trace in traces(figure, field="weight")])
    assert np.allclose(weight * before, after)
    assert figure.layout.yaxis.range == (-1, 1)


def test_settings_stand_by_ascending_map():
    table = pd.read_csv(RECORDS.parent / "ablation.csv")
    figure = live.group_map(frames.ablation(table))
    (bars,) = [t for t in figure.data if t.name == "all classes"]
    assert list(bars.x) == sorted(bars.x)
    best = table.groupby(["sampler", "loss", "diversity"]).mAP.mean()
    assert bars.x[-1] == pytest.approx(best.max())
    assert bars.y[-1] == " · ".join(best.idxmax())
    assert bars.customdata[-1].endswith("3 seeds")


def test_names_are_escaped(tmp_path):
    run = Run.load(write_run(tmp_path / "run", classes=20))
    frame = frames.gradients({"<b>": run})
    frame["class"] = frame["class"].replace({frame["class"][0]: "<a href='//x'>"})
    figure = live.gradient_magnitudes(frame, mark="<a href='//x'>")
    assert figure.data[0].x[0] == figure.layout.xaxis.categoryarray[0] == "&lt;a href='//x'&gt;"
    assert figure.layout.shapes[-1].x0 == -0.5


def test_many_classes_keep_all_names_for_the_zoom(tmp_path):
    run = Run.load(write_run(tmp_path / "run", classes=1203, epochs=2))
    figure = live.gradient_magnitudes(frames.gradients(run), mark="class 1200")
    assert len(figure.layout.xaxis.categoryarray) == 1203
    assert figure.layout.xaxis.nticks == 50
    assert len(figure.layout.shapes) == 3 + 1


def test_a_run_without_gradient_is_said(tmp_path):
    run = Run.load(write_run(tmp_path / "run", classes=20))
    frame = frames.gradients(run).assign(positive=0.0, negative=0.0, total=0.0)
    with pytest.raises(InputError, match="no class has gradient"):
        live.gradient_magnitudes(frame)


def test_cosines_keep_the_order_of_classes():
    rows = [("b", "b", 3.0, 1.0), ("b", "a", 3.0, -0.5), ("a", "b", 2.0, 0.25), ("a", "a", 2.0, 1)]
    frame = pd.DataFrame(rows, columns=["class", "other", "norm", "cosine"]).assign(run="one")
    (trace,) = live.interference(frame).data
    assert list(trace.x) == ["b", "a"]
    assert trace.customdata[0][0] == 3.0
    assert np.array_equal(trace.z, [[1, -0.5], [0.25, 1]])
