"""A figure of images that a class's features find alike."""

from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ltml.errors import InputError
from ltml.features import FeatureRecord
from ltml.plots.style import NEGATIVE, POSITIVE, axes_for, style

__all__ = ["nearest_images"]


def nearest_images(
    record: FeatureRecord,
    name: str,
    *,
    split: str = "test",
    queries: int = 3,
    neighbors: int = 6,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Show images of a class, from the surest to the least sure, and what its features find alike.

    A row begins with an image that holds the class; the most similar images follow, as the class
    sees them. A solid frame and a tick mark those that hold the class, a dashed frame and a cross
    those that do not; below stand their other labels.

    Args:
        record: of a run.
        name: of the class.
        split: ``"train"`` or ``"test"``.
        queries: rows.
        neighbors: images after the first of each row, at most as many as are on record.
        ax: where to draw; default: a new figure.

    Raises:
        InputError: if the class or the split is unknown, or has no positive.
    """
    part, c = record.split(split), record.index(name)
    if queries < 1 or neighbors < 1:
        raise InputError(f"queries={queries}, neighbors={neighbors}: give at least 1 of each")
    rows = part.rows(c)
    if not rows.size:
        raise InputError(f"class {name!r} has no positive in the {split} split of {record.name!r}")
    ranked = rows[np.argsort(-part.score[rows], kind="stable")]
    picked = ranked[np.linspace(0, len(ranked) - 1, min(queries, len(ranked))).astype(int)]
    near = part.neighbors[picked, :neighbors]
    names, (h, w) = record.classes["class"].tolist(), part.thumbnails.shape[1:3]
    step_x, step_y, columns = int(1.12 * w), int(1.62 * h), 1 + near.shape[1]
    canvas = np.full((step_y * len(picked), step_x * columns, 3), 255, np.uint8)
    with style():
        fig, ax = axes_for(ax, width=9, height=0.4 + 9 / columns * step_y / step_x * len(picked))
        for i, row in enumerate(picked):
            for j, image in enumerate([part.image[row], *near[i]]):
                if image < 0:
                    continue
                top, left = i * step_y, j * step_x
                canvas[top : top + h, left : left + w] = part.thumbnails[image]
                labels = np.flatnonzero(part.labels[image])
                others = ", ".join(names[k] for k in labels if k != c)
                if j == 0:
                    said, look = f"score {part.score[row]:+.1f}", ("black", "-")
                elif c in labels:
                    said, look = f"✓ {part.similarity[row, j - 1]:.2f}", (NEGATIVE, "-")
                else:
                    said, look = f"✗ {part.similarity[row, j - 1]:.2f}", (POSITIVE, "--")
                lines = wrap(others, max(10, 110 // columns))
                lines = [*lines[:2], "…"] if len(lines) > 3 else lines
                ax.text(
                    left + w / 2,
                    top + 1.06 * h,
                    "\n".join([said, *lines]),
                    ha="center",
                    va="top",
                    fontsize=7.5,
                    color=look[0],
                    linespacing=1.1,
                )
                color, line = look
                ax.add_patch(Rectangle((left, top), w, h, fill=False, ec=color, ls=line, lw=2))
        ax.imshow(canvas, interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
        ax.set_xlim(-1, canvas.shape[1])
        ax.set_ylim(canvas.shape[0], -1)
        ax.axvline(step_x - 0.06 * w, color="black", lw=1)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
        ax.spines[:].set_visible(False)
        found = part.neighbors[rows, :neighbors]
        hold = part.labels[found, c][found >= 0]
        share = f"{100 * hold.mean():.0f} %" if hold.size else "none"
        of = f"of its {len(rows)} images' {near.shape[1]} nearest"
        ax.set_title(f"{name}, {split}: {share} {of} hold it too")
    return fig, ax
