"""Figures of features: how diverse each class's are, where they lie, and what they find similar."""

from collections.abc import Sequence
from textwrap import fill

import seaborn as sns
from matplotlib.patheffects import withStroke

from ltml.errors import InputError
from ltml.plots import frames, parts
from ltml.plots.style import (
    GROUP_COLORS,
    GROUP_MARKERS,
    NEGATIVE,
    POSITIVE,
    RUN_COLORS,
    RUN_MARKERS,
    style,
)

__all__ = ["class_map", "feature_diversity", "nearest_images"]


@style()
def feature_diversity(
    records, *, measure="vendi", split="test", size: int | None = None, highlight=None, ax=None
):
    """Plot the diversity of each class's features at one sample size, with standard errors.

    Args:
        records: a feature record or several, or tables of :meth:`ltml.FeatureRecord.diversity`, by
            name.
        measure: a name of :data:`ltml.metrics.DIVERSITY`; tables have their own.
        split: ``"train"`` or ``"test"``; tables have their own.
        size: images in a sample; default: what the smallest class of all records allows.
        highlight: class to point out.
    """
    frame = frames.diversity(records, measure=measure, split=split, size=size)
    label = f"{frame.measure[0]} of {frame['size'][0]} images"
    fig, ax = parts.axes_for(ax)
    parts.plot_classes(ax, frame, "run", "value", mark=highlight)
    ax.set_ylabel(f"{label}\n(mean ± standard error)")
    by, rows = "group", frame
    if frame.run.nunique() > 1:
        by, group = "run", parts.rarest(frame.group)
        rows, label = frame[frame.group == group], f"{label} in the {group}"
    means = rows.groupby(by, sort=False).value.mean()
    ax.set_title(f"{label}: {parts.listed(means, '{:.2f}'.format)}", wrap=True)
    parts.legend(ax)
    return fig, ax


@style()
def class_map(record, *, split: str = "test", classes: Sequence[str] | None = None, ax=None):
    """Plot the features of all classes on their two principal directions, each at unit length.

    The title says how many images lie nearest to the mean of their own class in all dimensions.

    Args:
        record: features of a run.
        split: ``"train"`` or ``"test"``.
        classes: up to seven names to tell apart; default: all, coloured by group.
    """
    frame, chosen = frames.class_map(record, split=split), list(classes or ())
    for name in chosen:
        record.index(name)  # raises for unknown names
    if len(chosen) > len(RUN_COLORS):
        raise InputError(f"{len(chosen)} classes cannot be told apart; give up to 7, or none")
    looks = {group: (GROUP_COLORS[group], GROUP_MARKERS[group]) for group in frame.group.unique()}
    frame["shown"] = frame.group
    if chosen:
        looks = {name: (RUN_COLORS[i], RUN_MARKERS[i]) for i, name in enumerate(chosen)}
        looks["other classes"] = ("#CCCCCC", ".")
        frame["shown"] = frame["class"].where(frame["class"].isin(chosen), "other classes")
    fig, ax = parts.axes_for(ax, width=8.5, height=6)
    colors, markers = ({name: look[k] for name, look in looks.items()} for k in (0, 1))
    by = {"hue": "shown", "style": "shown", "palette": colors, "markers": markers}
    sns.scatterplot(frame, x="x", y="y", ax=ax, s=25, alpha=0.8, hue_order=list(looks), **by)
    means = frame.groupby("class")[["x", "y"]].mean()
    for name, (x, y) in means.iterrows() if len(means) <= 25 and not chosen else ():
        white = [withStroke(linewidth=3, foreground="white")]
        ax.text(x, y, name, ha="center", size=9, weight="bold", path_effects=white)
    ax.grid(True, axis="both")
    first, second = 100 * frame.explained_x[0], 100 * frame.explained_y[0]
    ax.set_xlabel(f"first principal direction ({first:.0f} % of the variance)")
    ax.set_ylabel(f"second principal direction ({second:.0f} % of the variance)")
    right = 100 * frame.groupby("group").nearest_own.mean()
    found = parts.listed(right, "{:.0f} %".format)
    ax.set_title(f"{record.name}, {split}: {found} are nearest to their own class", wrap=True)
    parts.legend(ax)
    return fig, ax


@style()
def nearest_images(
    record, class_name: str, *, split: str = "test", queries: int = 3, neighbors: int = 6, ax=None
):
    """Show images of a class, from the surest to the least sure, and what the class finds similar.

    A row begins with an image that holds the class; the most similar images follow, as the class
    sees them. A solid frame and a tick mark those that hold the class, a dashed frame and a cross
    those that do not; their other labels are below.

    Args:
        record: features of a run.
        class_name: one of its classes.
        split: ``"train"`` or ``"test"``.
        queries: rows.
        neighbors: images after the first of each row, at most as many as are on record.
    """
    options = {"split": split, "queries": queries, "neighbors": neighbors}
    frame, part = frames.nearest(record, class_name, **options), record.split(split)
    rows, columns = frame["query"].max() + 1, frame["rank"].max() + 1
    fig, ax = parts.axes_for(ax, height=0.4 + 1.4 * 9 / columns * rows)
    ax.axis("off")
    for row in frame.itertuples():
        place = [row.rank / columns, 1 - (row.query + 0.65) / rows, 0.9 / columns, 0.65 / rows]
        image = ax.inset_axes(place, xticks=[], yticks=[])
        image.imshow(part.thumbnails[row.image])
        said, color, line = f"score {row.score:+.1f}", "black", "-"
        if row.rank > 0:
            said = f"{'✓' if row.holds else '✗'} {row.similarity:.2f}"
            color, line = (NEGATIVE, "-") if row.holds else (POSITIVE, "--")
        image.spines[:].set(visible=True, color=color, linestyle=line, linewidth=2)
        labels = fill(row.labels, max(10, 110 // columns), max_lines=3, placeholder=" …")
        image.set_xlabel(f"{said}\n{labels}", fontsize=7.5, color=color)
    c = record.index(class_name)
    found = part.neighbors[part.rows(c), :neighbors]
    hold = part.labels[found, c][found >= 0]
    share = f"{100 * hold.mean():.0f} %" if hold.size else "none"
    of = f"of its {len(found)} images' {columns - 1} nearest"
    ax.set_title(f"{class_name}, {split}: {share} {of} hold it too")
    return fig, ax
