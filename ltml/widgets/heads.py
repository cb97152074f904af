"""Train heads on a bank while a control moves, and follow the closed form's shrinkage."""

import json
import math
import tempfile
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import torch.nn.functional as F

from ltml.core.discriminant import SHRINKAGES, SharedCovariance
from ltml.core.files import write_atomically
from ltml.core.heads import HEADS
from ltml.core.losses import LOSSES
from ltml.core.metrics import average_precision
from ltml.core.sampler import SAMPLERS
from ltml.plots import captions, frames, live, report
from ltml.runs.recipe import Recipe
from ltml.runs.run import Run
from ltml.training.bank import Bank
from ltml.training.train import fit
from ltml.widgets.explorer import WIDE, Explorer, dropdown

_KEPT = 5  # settings that stay in view
_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_FINE = 201  # shrinkages of a page without a kernel


def explore_heads(
    bank: Bank, *, steps: int = 300, seed: int = 0, ahead: str | Path | None = None
) -> Explorer:
    """Train a head on a bank of feature maps whenever a control is let go.

    Its ``controls`` are sampler, loss, strength (of gradient balancing), head, alpha (of fusion)
    and lr. The gradients of the training stand above, beside those of the setting before; the
    explorer ``results`` below has the mAP of the last five settings.

    Args:
        bank: feature maps, see :func:`ltml.bank`.
        steps: steps of each training.
        seed: seed of each training.
        ahead: file of trainings computed ahead, see :func:`compute_ahead`; a page without a kernel
            shows these.
    """

    def slider(value, most, description):
        options = {"continuous_update": False, "style": WIDE}  # train once, when it is let go
        return ipywidgets.FloatSlider(
            value, max=most, step=0.05, description=description, **options
        )

    controls = {
        "sampler": dropdown("sampler", list(SAMPLERS)),
        "loss": dropdown("loss", list(LOSSES)),
        "strength": slider(0.5, 1.0, "strength of balancing"),
        "head": dropdown("head", list(HEADS)),
        "alpha": slider(0.6, 1.0, "fusion, at most"),
        "lr": dropdown("learning rate", {f"{lr:g}": lr for lr in _RATES}),
    }
    controls["lr"].value = 1e-2
    trained: dict[str, Run] = {}  # the last settings, newest last

    @lru_cache(64)
    def train(**settings) -> Run:
        return _train(bank, steps, seed, **settings)

    def draw(**settings):
        controls["strength"].disabled = not settings["loss"].startswith("dgb")
        controls["alpha"].disabled = settings["head"] != "dem"
        run = train(**settings)
        trained.pop(run.name, None)
        trained[run.name] = run
        for name in list(trained)[:-_KEPT]:
            del trained[name]
        shown = dict(list(trained.items())[:-3:-1])
        return (
            live.gradient_magnitudes(frames.gradients(shown)),
            f"{run.name}: mAP {100 * run.summary['mAP']:.1f}, "
            f"tail {100 * (run.summary['tail'] or math.nan):.1f}; "
            f"trained in {run.summary['seconds']:.1f} s.",
        )

    def draw_results(**_):
        frame = frames.group_map(trained)
        return live.group_map(frame), captions.group_map(frame)

    def page() -> str:
        if ahead is None:
            return ""
        found = json.loads(Path(ahead).read_text(encoding="utf-8"))
        return report.settings(
            [report.Choice(**choice) for choice in found["choices"]],
            found["index"],
            pd.DataFrame(found["classes"]),
            found["trainings"],
            views=["gradients", "ap"],
            said=f"Computed ahead: {len(found['trainings'])} trainings of {found['steps']} steps.",
        )

    rows = [["sampler", "loss", "strength"], ["head", "alpha", "lr"]]
    explorer = Explorer(draw, controls, rows=rows, said_first=True, page=page)
    # Made after the first, so that it is redrawn after it, with the new training among the others.
    explorer.results = Explorer(draw_results, controls, rows=[])
    explorer.below = (explorer.results,)
    explorer.redraw()
    return explorer


def compute_ahead(bank: Bank, out: str | Path, *, steps: int = 300, seed: int = 0) -> Path:
    """Train heads for a grid of settings, and keep what :func:`explore_heads` shows of them.

    There are 360: three samplers, BCE, focal loss, ASL and five strengths of gradient balancing,
    three heads and five learning rates.

    Args:
        bank: feature maps, see :func:`ltml.bank`.
        out: JSON file to write.
        steps: steps of each training.
        seed: seed of each training.
    """
    grid = {
        "sampler": ["uniform", "class-aware", "group"],
        "loss": ["bce", "focal", "asl", "dgb"],
        "strength": [0.0, 0.25, 0.5, 0.75, 1.0],
        "head": list(HEADS),
        "lr": list(_RATES),
    }
    trainings: dict[str, dict] = {}
    index, classes = [], None
    for values in product(*grid.values()):
        given = dict(zip(grid, values, strict=True))
        name = " ".join(_said(**given, alpha=0.6))
        if name not in trainings:
            table = _train(bank, steps, seed, **given, alpha=0.6).classes
            classes = table[["class", "group", "count"]] if classes is None else classes
            found = table.set_index("class").loc[classes["class"]]
            columns = {"ap": found.ap, "pos": found.grad_pos, "neg": found.grad_neg}
            digits = {n: [float(f"{x:.3g}") for x in column] for n, column in columns.items()}
            trainings[name] = {"title": name} | digits
        index.append(list(trainings).index(name))
    names = {"sampler": "sampler", "loss": "loss", "strength": "strength of balancing"}
    names |= {"head": "head", "lr": "learning rate"}
    dgb = ["loss", grid["loss"].index("dgb")]
    choices = [
        {"key": key, "label": names[key], "values": [_word(value) for value in values]}
        | {"first": {"strength": 2, "lr": 2}.get(key, 0), "slider": key in ("strength", "lr")}
        | {"needs": dgb if key == "strength" else None}
        for key, values in grid.items()
    ]
    data = {"steps": steps, "choices": choices, "index": index}
    data |= {"classes": classes.to_dict("list"), "trainings": list(trainings.values())}
    text = json.dumps(data, separators=(",", ":")).replace('{"title"', '\n{"title"') + "\n"
    write_atomically(Path(out), lambda part: part.write_text(text, encoding="utf-8"))
    return Path(out)


def _train(bank: Bank, steps: int, seed: int, **settings) -> Run:
    loss, head = settings["loss"], settings["head"]
    recipe = Recipe(
        sampler=settings["sampler"],
        loss=loss,
        loss_options={"strength": settings["strength"]} if loss.startswith("dgb") else {},
        diversity=head,
        head_options={"alpha": settings["alpha"]} if head == "dem" else {},
        **{"lr": settings["lr"], "steps": steps, "seed": seed, "evaluate_every": None},
    )
    with tempfile.TemporaryDirectory() as folder:
        run = fit(recipe, data=bank, out=Path(folder) / "run", progress=False)
    return replace(run, path=Path(" ".join(_said(**settings))))


def _said(sampler, loss, strength, head, alpha, lr) -> list[str]:
    said = [sampler, loss + (f" {strength:g}" if loss.startswith("dgb") else "")]
    return [*said, _word(head) + (f" {alpha:g}" if head == "dem" else ""), f"lr {lr:g}"]


def _word(value) -> str:
    return "pooled" if value == "off" else value if isinstance(value, str) else f"{value:g}"


def explore_shrinkage(bank: Bank) -> Explorer:
    """Show each class's AP as the shrinkage of the shared covariance goes from none to all.

    Its control is shrinkage. At one end every class leans on the covariance of all classes as it
    was found, at the other its weight is the difference of two means.
    """
    train = bank.pooled.train.images.flatten(2)  # (N, V, D)
    targets, labels = bank.train.labels.dense(), bank.test.labels.dense()
    closed = SharedCovariance(targets.shape[1], train.shape[2])
    closed.update(train, targets)
    chosen = closed.choose_shrinkage(train, targets)
    test = F.normalize(bank.pooled.test.images[:, 0].flatten(1), dim=1).double()

    classes = pd.DataFrame({"class": bank.class_names, "count": bank.train.labels.counts})
    classes["group"] = bank.train.labels.group_of_class()

    @lru_cache
    def at(shrinkage: float) -> np.ndarray:
        weight, bias = closed.solve(shrinkage)
        return average_precision(test @ weight.T + bias, labels)

    def draw(*, shrinkage):
        parts = [
            classes.assign(run=f"shrinkage {value:g}", ap=at(value))
            for value in (chosen, shrinkage)
        ]
        frame = pd.concat(parts[: 1 + (shrinkage != chosen)]).sort_values("count", ascending=False)
        means = [100 * part.ap.mean() for part in parts]
        return live.class_ap(frame), (
            f"mAP {means[1]:.1f} at shrinkage {shrinkage:g}; {means[0]:.1f} at {chosen:g}, the one "
            "of least leave-one-out error on the training images."
        )

    def page() -> str:
        ends = np.log10([SHRINKAGES[0], SHRINKAGES[-1]])
        values = sorted({*np.logspace(*ends, _FINE), chosen})
        order = classes.sort_values("count", ascending=False, kind="stable").index
        found = [{"title": f"shrinkage {v:.3g}", "ap": at(float(v))[order]} for v in values]
        place = values.index(chosen)
        control = report.Choice(
            "shrinkage", "shrinkage", [f"{v:.3g}" for v in values], place, slider=True
        )
        return report.settings(
            [control],
            range(len(values)),
            classes.loc[order],
            found,
            views=["ap"],
            said=f"Computed ahead: {len(values)} shrinkages; {chosen:g} stays in view, the one of "
            "least leave-one-out error on the training images.",
            against=place,
        )

    options = [(f"{value:g}", value) for value in SHRINKAGES]
    control = ipywidgets.SelectionSlider(
        options=options,
        value=chosen,
        description="shrinkage",
        style=WIDE,
        layout=ipywidgets.Layout(width="28em", min_width="22em"),
    )
    return Explorer(draw, {"shrinkage": control}, rows=[["shrinkage"]], page=page)
