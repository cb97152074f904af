"""Explore how diverse each class's features are, and which images they find alike."""

from base64 import b64encode
from functools import cache
from html import escape
from io import BytesIO

import ipywidgets
import pandas as pd
from PIL import Image

from ltml.errors import InputError
from ltml.features import SPLITS, FeatureRecord
from ltml.metrics import DIVERSITY
from ltml.plots import frames, live, readings
from ltml.widgets.explorer import Explorer, class_box, dropdown, load_named, pair

__all__ = ["explore_diversity"]


def explore_diversity(runs) -> Explorer:
    """Show each class's diversity, of one run or two at one sample size, and its nearest images.

    Its ``controls`` are run, against, split, measure and class_name. It reads each run's
    ``features.npz``, see :func:`ltml.record_features`.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    named, problems = load_named(runs)
    recorded = [name for name, run in named.items() if (run.path / "features.npz").is_file()]
    names = {name: name for name in sorted(named, key=lambda name: name not in recorded)}
    controls = {
        "run": dropdown("run", names),
        "against": dropdown("compare with", {"no other": None} | names),
        "split": dropdown("images", {split: split for split in reversed(SPLITS)}),
        "measure": dropdown("measure", {name: name for name in DIVERSITY}),
    }
    controls["class_name"] = class_box(named, controls["run"])
    nearest = ipywidgets.HTML()

    @cache
    def record(name: str) -> FeatureRecord:
        return FeatureRecord.load(named[name])

    @cache
    def table(names: tuple[str, ...], measure: str, split: str) -> pd.DataFrame:
        return frames.diversity({n: record(n) for n in names}, measure=measure, split=split)

    def draw(*, run, against, split, measure, class_name):
        nearest.value = ""
        if run is None:
            raise InputError(
                "there is no run to explore; give runs, and record their features with "
                "ltml.record_features(run)"
            )
        frame = table(tuple(pair(named, run, against)), measure, split)
        nearest.value = _nearest(record(run), class_name, split)
        return live.feature_diversity(frame, mark=class_name), readings.diversity(frame, class_name)

    rows = [["run", "against"], ["class_name", "split", "measure"]]
    return Explorer(draw, controls, rows=rows, problems=problems, below=[nearest])


def _nearest(record: FeatureRecord, class_name: str, split: str) -> str:
    """Show the image that a run is surest of, and the one it is least sure of, each with those
    that it finds most similar; a tick marks what holds the class."""
    rows = ""
    for _, images in frames.nearest(record, class_name, split=split, queries=2).groupby("query"):
        for image in images.itertuples():
            out = BytesIO()
            Image.fromarray(record.split(split).thumbnails[image.image]).save(out, "png")
            labels = escape(image.labels or "no other label")
            first = image.rank == 0
            what = f"score {image.score:.2f}" if first else f"cosine {image.similarity:.2f}"
            rows += (
                f'<td style="padding: 4px 10px 4px 0"><img width="72" title="{labels}" '
                f'alt="{labels}" src="data:image/png;base64,{b64encode(out.getvalue()).decode()}">'
                f"<br>{'✓' if image.holds else '✗'} {what}</td>"
            )
        rows += "</tr><tr>"
    return f"<table><tr>{rows}</tr></table>"
