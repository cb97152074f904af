"""The sentences that read figures, for explorers and the page of a report."""

import pandas as pd

from ltml.core.labels import GROUPS
from ltml.plots import frames
from ltml.runs.run import Run


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


def gradient_imbalance(frame: pd.DataFrame) -> str:
    """Say how the imbalance of each run's gradients began and ended."""
    said = []
    for name, rows in frame.groupby("run", sort=False):
        first, last = rows.imbalance.iloc[0], rows.imbalance.iloc[-1]
        said.append(f"{name} from {first:.3g} to {last:.3g}")
    return f"Largest over smallest gradient of a class, first epoch to last: {'; '.join(said)}."


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
    what = class_name or frames.rarest(frame.group)
    rows = frame[frame["class" if class_name else "group"] == what]
    means = rows.groupby("run", sort=False).value.mean()
    found = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    said = f"{frame.measure.iloc[0]} of {frame['size'].iloc[0]} images, {what}: {found}."
    if len(means.dropna()) > 1 and means.max() > 1.02 * means.min():
        said += (
            f" {means.idxmin()} is least diverse: it sees these images as more alike. That is a "
            "loss where it also tells classes apart less well, and none where its AP is higher: "
            "features of one class may draw together because they are learned."
        )
    return said


def interference(frame: pd.DataFrame) -> str:
    """Say how the classes of each two groups agree, on average, run by run."""
    said = []
    for name, rows in frame[frame["class"] != frame.other].groupby("run", sort=False):
        means = rows.groupby(["group", "other_group"]).cosine.mean()
        pairs = [(a, b) for a, b in means.index if GROUPS.index(a) <= GROUPS.index(b)]
        found = ", ".join(f"{a} with {b} {means[a, b]:+.2f}" for a, b in pairs)
        said.append(f"{name}: mean cosine of classes' gradients in the features: {found}.")
    return " ".join(said)
