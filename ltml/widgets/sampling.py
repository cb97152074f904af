"""Explore what a sampler draws: move its settings, and see how often each class comes up."""

from collections.abc import Mapping
from copy import copy
from functools import lru_cache

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from ltml import plots
from ltml.audit import Audit
from ltml.batches import Sampler
from ltml.errors import InputError
from ltml.group_weights import check_groups, group_shares
from ltml.labels import LabelMatrix
from ltml.sampler import ClassAwareSampler, GroupSampler, UniformSampler
from ltml.widgets.base import Explorer

__all__ = ["explore_sampler", "sampler_of"]

_RIDGES = (0, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BOUNDS = (0, 1, 2, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10000)
_ALL, _OWN = "whole batches", "draws for the class's own group"


def explore_sampler(labels: LabelMatrix | Mapping[str, LabelMatrix]) -> Explorer:
    """Explore how often a sampler draws each class, and how it repeats images.

    Sampler, ridge, uniform share, the groups' shares and the bounds of head and tail are controls.
    Nothing is trained: weights are solved for and audited at each change.

    Args:
        labels: training labels, or name -> training labels.

    Raises:
        InputError: if no labels are given.
    """
    every = dict(labels) if isinstance(labels, Mapping) else {"labels": labels}
    if not every:
        raise InputError("no labels to explore; give a LabelMatrix, or name -> LabelMatrix")
    for name, item in every.items():
        if not isinstance(item, LabelMatrix):
            raise InputError(
                f"labels {name!r} is a {type(item).__name__}; give a LabelMatrix, such as "
                "data.train.labels"
            )
    wide = {"description_width": "initial"}
    controls = {
        "labels": ipywidgets.Dropdown(options=list(every), description="labels"),
        "sampler": ipywidgets.ToggleButtons(
            options=["uniform", "class-aware", "group"],
            value="group",
            description="sampler",
            style={"button_width": "90px"},
        ),
        "show": ipywidgets.Dropdown(options=[_ALL, _OWN], description="rates over", style=wide),
        "ridge": ipywidgets.SelectionSlider(
            options=[(f"{ridge:g}", float(ridge)) for ridge in _RIDGES],
            value=0.0,
            description="ridge",
            style=wide,
        ),
        "uniform": ipywidgets.FloatSlider(
            0.0, min=0, max=0.95, step=0.05, description="uniform share", style=wide
        ),
        "share": ipywidgets.Dropdown(
            options=["classes", "equal", "images"],
            description="groups' shares by",
            style=wide,
            layout=ipywidgets.Layout(width="220px"),
        ),
        "head": ipywidgets.SelectionSlider(
            options=_BOUNDS[1:], value=100, description="head: images, at least", style=wide
        ),
        "tail": ipywidgets.SelectionSlider(
            options=_BOUNDS, value=20, description="tail: images, below", style=wide
        ),
    }
    rows = [["labels", "sampler", "show"], ["ridge", "uniform", "share"], ["head", "tail"]]
    if len(every) == 1:
        rows[0].remove("labels")

    def enable(change):
        for name in ("ridge", "uniform", "share"):  # what other samplers do not have
            controls[name].disabled = change["new"] != "group"

    controls["sampler"].observe(enable, "value")

    @lru_cache(8)  # weights take up to a second to solve for with a thousand classes
    def solved(labels, sampler, **settings) -> Sampler:
        return sampler_of(every[labels], sampler, **settings)

    def draw(ax: Axes, labels, sampler, show, uniform, share, **settings) -> str:
        if sampler == "group":
            chosen = _mixed(solved(labels, sampler, **settings), uniform, share)
        else:
            bounds = {name: settings[name] for name in ("head", "tail")}
            chosen = solved(labels, sampler, **bounds)
        drawn = {sampler: chosen}
        if sampler != "uniform":  # drawn behind, the same at each redraw
            drawn = {"uniform": solved(labels, "uniform"), sampler: chosen}
        plots.class_rates(drawn, draws="own" if show == _OWN else "all", ax=ax)
        return _sentence(sampler, chosen, chosen.audit())

    return Explorer(draw, controls, size=(9, 4.6), layout=rows, keep_ticks=True)


def sampler_of(
    labels: LabelMatrix,
    kind: str,
    *,
    head: int = 100,
    tail: int = 20,
    ridge: float = 0.0,
    uniform: float = 0.0,
    share: str = "classes",
) -> Sampler:
    """Build a sampler whose groups have other bounds than the benchmarks'.

    Args:
        labels: the labels of the images to draw from.
        kind: ``"uniform"``, ``"class-aware"`` or ``"group"``.
        head, tail: head classes have at least ``head`` images, tail classes fewer than ``tail``.
        ridge, uniform, share: of :class:`~ltml.sampler.GroupSampler`; the others ignore them.

    Raises:
        InputError: if the bounds cross, or the labels hold nothing to draw.
    """
    if tail > head:
        raise InputError(
            f"the tail reaches up to {tail} images and the head begins at {head}; "
            "move one of the two bounds, so that they do not overlap"
        )
    groups = {n: c for n, c in labels.groups(head=head, tail=tail).items() if len(c)}
    options = dict(batch_size=64, num_batches=1)
    if kind == "group":
        return GroupSampler(
            labels, groups=groups, ridge=ridge, uniform=uniform, share=share, **options
        )
    sampler = (UniformSampler if kind == "uniform" else ClassAwareSampler)(labels, **options)
    # These two draw the same whatever the groups; only what is said of them is said group by group.
    sampler.groups = check_groups(labels, groups)
    if kind == "class-aware":
        sampler.shares = group_shares(labels, sampler.groups, "classes")
    return sampler


def _mixed(sampler: GroupSampler, uniform: float, share: str) -> GroupSampler:
    """Copy a sampler with other shares of its groups, which leave the weights inside them."""
    mixed = copy(sampler)
    mixed.uniform = uniform
    shares = group_shares(mixed.labels, mixed.groups, share)
    mixed.shares = {name: (1 - uniform) * shares[name] for name in mixed.groups}
    return mixed


def _sentence(kind: str, sampler: Sampler, found: Audit) -> str:
    inside = found.groups.ratio.dropna()
    parts = [f"{name} {_ratio(ratio)}" for name, ratio in inside.items()]
    text = (
        f"Max/min class rate over whole batches: {_ratio(found.ratio)}; inside {', '.join(parts)}."
    )
    own = found.groups.own_ratio.dropna()
    if len(own):
        parts = [f"{name} {_ratio(ratio)}" for name, ratio in own.items()]
        text += f" Over the draws for each group: {', '.join(parts)}."
    labels = sampler.labels
    names = [labels.class_names[c] for c in labels[found.most_repeated]]
    text += (
        f" {found.effective_images:,.0f} effective images; an epoch of {found.images:,} draws "
        f"shows {found.distinct_images:,.0f} distinct ones"
    )
    if kind == "uniform":
        text += ", each once."
    else:
        text += (
            f", and one of them, with {' and '.join(names) or 'no label'}, "
            f"{found.repeats:.1f} times."
        )
    return " ".join([text, *(f"{_upper(sentence)}." for sentence in found.report)])


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if np.isfinite(ratio) else "infinite"


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
