"""Explore how often a sampler samples each class, and how it repeats images."""

from functools import lru_cache

import ipywidgets
import numpy as np

from ltml.core.audit import Audit
from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.sampler import SAMPLERS, Sampler
from ltml.plots import frames, live, report
from ltml.widgets.explorer import WIDE, Explorer, dropdown

_RIDGES = (0, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BOUNDS = (0, 1, 2, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10000)
_GROUPS = ((100, 20), (50, 20), (200, 20), (100, 50))  # bounds that a page without kernel offers
_RATES = {"whole batches": "all", "what is sampled for the class's own group": "own"}


def explore_sampler(labels: LabelMatrix) -> Explorer:
    """Show how often a sampler samples each class, beside uniform sampling.

    Its ``controls`` are sampler, rates, ridge, uniform, share, and the bounds head and tail, which
    the shades in the figure follow. Nothing is trained.
    """
    labels = LabelMatrix(labels)

    def slider(values, value, description):
        options = {"options": [(f"{v:g}", float(v)) for v in values], "value": float(value)}
        wide = ipywidgets.Layout(width="28em", min_width="22em")  # else long names leave it 0 px
        return ipywidgets.SelectionSlider(
            description=description, style=WIDE, layout=wide, **options
        )

    uniform = {"max": 0.95, "step": 0.05, "description": "uniform share", "style": WIDE}
    controls = {
        "sampler": dropdown("sampler", ["group", "class-aware", "uniform"]),
        "rates": dropdown("rates over", _RATES),
        "ridge": slider(_RIDGES, 0, "ridge"),
        "uniform": ipywidgets.FloatSlider(0.0, **uniform),
        "share": dropdown("groups share by", ["classes", "equal", "images"]),
        "head": slider(_BOUNDS[1:], 100, "head: at least this many images"),
        "tail": slider(_BOUNDS, 20, "tail: fewer than"),
    }

    def enable(_=None) -> None:
        for name in ("ridge", "uniform", "share"):  # what other samplers do not have
            controls[name].disabled = controls["sampler"].value != "group"

    controls["sampler"].observe(enable, "value")

    @lru_cache(16)  # weights take up to a second to solve for with a thousand classes
    def built(kind: str, head: float, tail: float, **options) -> tuple[Sampler, Audit]:
        groups = labels.groups(head=int(head), tail=int(tail))
        groups = {group: classes for group, classes in groups.items() if len(classes)}
        sampler = SAMPLERS[kind](labels, batch_size=64, groups=groups, **options)
        return sampler, sampler.audit()

    def draw(*, sampler, rates, ridge, uniform, share, head, tail):
        if tail > head:
            raise InputError(
                f"the tail reaches up to {tail:g} images and the head begins at {head:g}; move one "
                "of the two bounds, so that they do not overlap"
            )
        options = {"ridge": ridge, "uniform": uniform, "share": share}
        options = options if sampler == "group" else {}
        chosen, found = built(sampler, head, tail, **options)
        shown = {"uniform": built("uniform", head, tail)[0], sampler: chosen}
        frame = frames.class_rates(shown, draws=rates)
        return live.class_rates(frame), _reading(sampler, chosen, found)

    def page() -> str:
        bounds = {f"head from {h}, tail below {t}": (h, t) for h, t in _GROUPS}
        found = {name: labels.groups(head=h, tail=t) for name, (h, t) in bounds.items()}
        grouped = {name: (labels, groups) for name, groups in found.items()}
        return report.explorer("sampling", labels=grouped).replace("Labels <", "Groups <")

    rows = [["sampler", "rates"], ["ridge", "uniform", "share"], ["head", "tail"]]
    return Explorer(draw, controls, rows=rows, page=page)


def _reading(kind: str, sampler: Sampler, found: Audit) -> str:
    def ratio(value):
        return f"{value:.2f}" if np.isfinite(value) else "infinite"

    def inside(ratios):
        return ", ".join(f"{name} {ratio(value)}" for name, value in ratios.dropna().items())

    said = f"Max/min class rate over whole batches: {ratio(found.ratio)}; inside "
    said += f"{inside(found.groups.ratio)}."
    if own := inside(found.groups.own_ratio):
        said += f" Over what is sampled for each group: {own}."
    said += f" {found.effective_images:,.0f} effective images; an epoch of {found.images:,} samples"
    said += f" shows {found.distinct_images:,.0f} distinct images"
    if kind != "uniform":
        names = [sampler.labels.class_names[c] for c in sampler.labels[found.most_repeated]]
        beside = " and ".join(names) or "no label"
        said += f", one of them (with {beside}) {found.repeats:.1f} times"
    return " ".join([f"{said}.", *(f"{text[:1].upper()}{text[1:]}." for text in found.report)])
