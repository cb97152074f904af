"""Train heads on a bank while a control moves, and follow the closed form's shrinkage."""

import math
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import torch.nn.functional as F

from ltml.core.discriminant import SHRINKAGES, SharedCovariance
from ltml.core.heads import HEADS
from ltml.core.losses import LOSSES
from ltml.core.metrics import average_precision
from ltml.core.sampler import SAMPLERS
from ltml.plots import captions, frames, live
from ltml.runs.recipe import Recipe
from ltml.runs.run import Run
from ltml.training.bank import Bank
from ltml.training.train import fit
from ltml.widgets.explorer import WIDE, Explorer, dropdown

_KEPT = 5  # settings that stay in view


def explore_heads(bank: Bank, *, steps: int = 300, seed: int = 0) -> Explorer:
    """Train a head on a bank of feature maps whenever a control is let go.

    Its ``controls`` are sampler, loss, strength (of gradient balancing), head, alpha (of fusion)
    and lr. The gradients of the training stand above, beside those of the setting before; the
    explorer ``results`` below has the mAP of the last five settings.
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
        "lr": dropdown("learning rate", {f"{lr:g}": lr for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}),
    }
    controls["lr"].value = 1e-2
    trained: dict[str, Run] = {}  # the last settings, newest last

    @lru_cache(64)
    def train(sampler, loss, strength, head, alpha, lr) -> Run:
        recipe = Recipe(
            sampler=sampler,
            loss=loss,
            loss_options={"strength": strength} if loss.startswith("dgb") else {},
            diversity=head,
            head_options={"alpha": alpha} if head == "dem" else {},
            **{"lr": lr, "steps": steps, "seed": seed, "evaluate_every": None},
        )
        said = [sampler, loss + (f" {strength:g}" if recipe.loss_options else "")]
        said += [head + (f" {alpha:g}" if recipe.head_options else ""), f"lr {lr:g}"]
        with tempfile.TemporaryDirectory() as folder:
            run = fit(recipe, data=bank, out=Path(folder) / "run", progress=False)
        return replace(run, path=Path(" ".join(said).replace(" off", " pooled")))

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

    rows = [["sampler", "loss", "strength"], ["head", "alpha", "lr"]]
    explorer = Explorer(draw, controls, rows=rows, said_first=True)
    # Made after the first, so that it is redrawn after it, with the new training among the others.
    explorer.results = Explorer(draw_results, controls, rows=[])
    explorer.below = (explorer.results,)
    explorer.redraw()
    return explorer


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

    options = [(f"{value:g}", value) for value in SHRINKAGES]
    control = ipywidgets.SelectionSlider(
        options=options,
        value=chosen,
        description="shrinkage",
        style=WIDE,
        layout=ipywidgets.Layout(width="28em", min_width="22em"),
    )
    return Explorer(draw, {"shrinkage": control}, rows=[["shrinkage"]])
