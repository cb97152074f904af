"""Explore how diverse each class's features are, and which images they find alike."""

from functools import cache
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd

from ltml.errors import InputError
from ltml.features import FILE, SPLITS, FeatureRecord
from ltml.metrics import DIVERSITY
from ltml.plots import frames, live, nearest_images, readings
from ltml.widgets.explorer import Explorer, dropdown, load_named, pair, run_controls

__all__ = ["explore_diversity"]


def explore_diversity(runs) -> Explorer:
    """Show each class's diversity, of one run or two at one sample size, and its nearest images.

    Its ``controls`` are run, against, split, measure and class_name. It reads each run's
    ``features.npz``, see :func:`ltml.record_features`.

    Args:
        runs: runs, folders of runs, or folders that hold folders of runs; one or several.
    """
    named, problems = load_named(runs)
    # Those with a record first.
    named = dict(sorted(named.items(), key=lambda item: not (item[1].path / FILE).is_file()))
    controls = run_controls(named) | {
        "split": dropdown("images", {split: split for split in reversed(SPLITS)}),
        "measure": dropdown("measure", {name: name for name in DIVERSITY}),
    }
    nearest = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))

    @cache
    def record(name: str) -> FeatureRecord:
        return FeatureRecord.load(named[name])

    @cache
    def table(names: tuple[str, ...], measure: str, split: str) -> pd.DataFrame:
        return frames.diversity({n: record(n) for n in names}, measure=measure, split=split)

    def draw(*, run, against, split, measure, class_name):
        nearest.layout.display = "none"
        if run is None:
            raise InputError(
                "there is no run to explore; give runs, and record their features with "
                "ltml.record_features(run)"
            )
        frame = table(tuple(pair(named, run, against)), measure, split)
        nearest.value = _png(record(run), class_name, split)
        nearest.layout.display = None
        return live.feature_diversity(frame, mark=class_name), readings.diversity(frame, class_name)

    rows = [["run", "against"], ["class_name", "split", "measure"]]
    return Explorer(draw, controls, rows=rows, problems=problems, below=[nearest])


def _png(record: FeatureRecord, class_name: str, split: str) -> bytes:
    """Draw the images that a class is surest and least sure of, and what it finds similar."""
    out = BytesIO()
    figure, _ = nearest_images(record, class_name, split=split, queries=2)
    figure.savefig(out, format="png")
    plt.close(figure)
    return out.getvalue()
