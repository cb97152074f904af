"""The sentences that read figures, for explorers and the page of a report."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ltml.errors import InputError
from ltml.labels import GROUPS
from ltml.plots import frames
from ltml.run import Run

__all__ = [
    "balancing",
    "diversity",
    "gradients",
    "group_map",
    "interference",
    "named_apart",
    "recorded_interference",
]


def named_apart(runs: Iterable[Run]) -> dict[str, Run]:
    """Name each run; those of one name also by their parent folder, or with primes."""
    runs, named = list(runs), {}
    names = [run.name for run in runs]
    for run in runs:
        name = run.name
        if names.count(name) > 1:
            name = f"{run.path.absolute().parent.name}/{name}"
        while name in named:
            name += "'"
        named[name] = run
    return named


def group_map(frame: pd.DataFrame) -> str:
    """Say which run or setting is best for all classes, and for each group."""
    best: dict[str, list[str]] = {}
    for group, rows in frame.dropna(subset="mean").groupby("group", sort=False):
        row = rows.loc[rows["mean"].idxmax()]
        where = "all classes" if group == "mAP" else group
        best.setdefault(row["name"], []).append(f"{where} ({row['mean']:.1f})")
    found = "; ".join(f"{name} for {', '.join(where)}" for name, where in best.items())
    many = frame["name"].nunique()
    return f"Best mAP{f' of {many}' if many > 1 else ''}, in percent: {found}."


def gradients(table: pd.DataFrame, when: str) -> str:
    """Say who gets most and least of one run's gradient."""
    name = table.run.iloc[0]
    if not table.total.max() > 0:
        return f"{name}, {when}: no gradient."
    high, low = (table.loc[at] for at in (table.total.idxmax(), table.total.idxmin()))
    times = f"{high.total / low.total:.3g} times less" if low.total > 0 else "none at all"
    down = int((table.negative > table.positive).sum())
    return (
        f"{name}, {when}: {high['class']} gets most gradient, {low['class']} least, {times}; "
        f"{down} of {len(table)} classes are pushed down harder than they are pulled up."
    )


def balancing(frame: pd.DataFrame, run: Run, strength: float) -> str:
    """Say what balancing does to the ratio of the largest to the smallest entry."""
    first, then = (frames.largest_over_smallest(frame[column]) for column in ("before", "after"))
    predicted = first ** (1 - strength)
    said = (
        f"{frame.run.iloc[0]}: largest over smallest of the {(frame.before > 0).sum()} entries is "
        f"R = {first:.3g} before and {then:.3g} after; R^(1 - {strength:g}) predicts "
        f"{predicted:.3g}{', had no weight been clipped' if then > 1.001 * predicted else ''}."
    )
    if str(run.recipe.get("loss")).startswith("dgb"):
        said += " These gradients were recorded with balancing already at work."
    return said


def diversity(frame: pd.DataFrame, class_name: str | None = None) -> str:
    """Say how diverse a class is, or the rarest group, run by run."""
    what = class_name or [group for group in GROUPS if group in set(frame.group)][-1]
    rows = frame[frame["class" if class_name else "group"] == what]
    means = rows.groupby("run", sort=False).value.mean()
    found = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    return f"{frame.measure.iloc[0]} of {frame['size'].iloc[0]} images, {what}: {found}."


def interference(frame: pd.DataFrame) -> str:
    """Say how the classes of each two groups agree, on average."""
    apart = frame[frame["class"] != frame.other]
    means = apart.groupby(["group", "other_group"]).cosine.mean()
    pairs = [(a, b) for a, b in means.index if GROUPS.index(a) <= GROUPS.index(b)]
    found = ", ".join(f"{a} with {b} {means[a, b]:+.2f}" for a, b in pairs)
    return f"{frame.run.iloc[0]}: mean cosine of classes' gradients in the features: {found}."


def recorded_interference(run: Run, name: str, epoch: int = 0) -> pd.DataFrame:
    """Read a run's ``interference.npz``, of one epoch (from 1; 0: the last), as a frame.

    Raises:
        InputError: if there is none.
    """
    path = run.path / "interference.npz"
    if not path.is_file():
        raise InputError(
            f"run {name!r} has no record of interference; train it with --interference"
        )
    with np.load(path) as record:  # epoch (E,), class_names (C,), norm (E, C), cosine (E, C, C)
        at = int(np.searchsorted(record["epoch"], epoch)) if epoch else -1
        norm, cosine = record["norm"][at], record["cosine"][at].astype(float)
        classes = run.classes.set_index("class").loc[record["class_names"]].reset_index()
    return frames.interference(cosine, norm, classes).assign(run=name)
