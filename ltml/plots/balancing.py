"""Figure of what gradient balancing would do to the gradients that a run recorded."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltml.balancing import DynamicGradientBalancing
from ltml.errors import InputError
from ltml.plots.gradients import epoch_table, plain_log_axis
from ltml.plots.style import NEGATIVE, POSITIVE, class_axis, group_bands, mark_scale, stems, style
from ltml.runs import Run

__all__ = ["Balanced", "balance", "balancing"]


class Balanced(NamedTuple):
    """Recorded gradients, the weights they would get, and what they become: ``(2, C)`` each.

    The first row is of positives, the second of negatives; classes by descending count.
    """

    before: np.ndarray
    weights: np.ndarray
    after: np.ndarray

    @property
    def ratios(self) -> tuple[float, float]:
        """Largest over smallest entry that is not 0, before and after."""
        return tuple(_ratio(entries) for entries in (self.before, self.after))


def balance(
    run: Run, *, strength: float = 0.5, max_weight: float = 100.0, epoch: int | None = None
) -> Balanced:
    r"""Weigh a run's recorded gradients as :class:`~ltml.DynamicGradientBalancing` would.

    .. math:: w = s \cdot \operatorname{clip}\left((T / G)^{\text{strength}}, 1/m, m\right), \qquad
              s : \sum w G = \sum G

    with :math:`G` the recorded sums in place of the moving averages.

    Args:
        run: a run.
        strength: how far to equalise, from 0 (not at all) to 1 (fully).
        max_weight: clip bound :math:`m`, at least 1.
        epoch: one epoch, from 1; default: summed over the run.

    Raises:
        InputError: if an option is out of range, or no gradient was recorded.
    """
    table = epoch_table(run, epoch)
    before = table[["grad_pos", "grad_neg"]].to_numpy(float).T
    if not before.any():
        raise InputError(f"run {run.name!r} has no gradient to balance in epoch {epoch}")
    loss = DynamicGradientBalancing(len(table), strength=strength, max_weight=max_weight).double()
    loss.magnitudes.copy_(torch.tensor(before))
    weights = loss.weights.numpy()
    return Balanced(before, weights, weights * before)


def balancing(
    run: Run,
    *,
    strength: float = 0.5,
    max_weight: float = 100.0,
    epoch: int | None = None,
    ax: Sequence[Axes] | None = None,
) -> tuple[Figure, tuple[Axes, Axes]]:
    """Draw the weights that balancing gives, and each share of the gradient before and after.

    Args:
        run: a run.
        strength: how far to equalise, from 0 (not at all) to 1 (fully).
        max_weight: clip bound of the weights, at least 1.
        epoch: one epoch, from 1; default: summed over the run.
        ax: two axes, for weights and for shares; default: a new figure.

    Returns:
        the figure and the two axes.

    Raises:
        InputError: if an option is out of range, or no gradient was recorded.
    """
    balanced = balance(run, strength=strength, max_weight=max_weight, epoch=epoch)
    table = epoch_table(run, epoch)
    x, size = np.arange(len(table)), mark_scale(len(table))
    # Positives a little to the left, negatives to the right: as two columns of each class.
    marks = (
        {"marker": "o", "ms": 7 * size, "color": POSITIVE},
        {"marker": "v", "ms": 7 * size, "color": NEGATIVE, "mfc": "white", "mew": 1.5 * size},
    )
    names = "positives (label present)", "negatives (label absent)"
    with style():
        if ax is None:
            _, ax = plt.subplots(2, 1, figsize=(9, 6), height_ratios=(2, 3))
        above, below = ax
        for axes in ax:
            group_bands(axes, table)
        for shift, row, mark, name in zip((-0.17, 0.17), (0, 1), marks, names, strict=True):
            above.plot(x + shift, balanced.weights[row], ls="", **mark)
            share = 100 * balanced.before[row] / balanced.before.sum()
            after = 100 * balanced.after[row] / balanced.after.sum()
            stems(below, x + shift, share, after, color="#888888")
            below.plot(x + shift, share, "_", ms=8 * size, mew=1.5 * size, color="#888888")
            below.plot(x + shift, after, ls="", label=name, **mark)
        above.axhline(1, color="#3B3B3B", lw=1)
        below.axhline(50 / len(table), color="#3B3B3B", lw=1, ls="--")
        plain_log_axis(above, above=0.1)
        plain_log_axis(below, above=0.07, below=0.15)
        for axes in ax:
            class_axis(axes, table)
        above.set_xlabel("")
        above.tick_params(axis="x", bottom=False, labelbottom=False)
        above.set_ylabel("weight")
        below.set_ylabel("share of the gradient (%)")
        lines = [*below.get_legend_handles_labels()[0], below.lines[0], below.lines[-1]]
        below.legend(lines, [*names, "before", "equal share"], loc="lower left", ncols=4)
        low, high = balanced.weights.min(), balanced.weights.max()
        above.set_title(f"{run.name}, strength {strength:g}: weights from {low:.2g} to {high:.3g}")
        first, then = balanced.ratios
        below.set_title(
            f"{run.name}: largest over smallest share {first:.3g} before, {then:.3g} after"
        )
    return above.figure, (above, below)


def _ratio(entries: np.ndarray) -> float:
    """Largest over smallest; entries without any gradient cannot be weighed, and do not count."""
    entries = entries[entries > 0]
    return float(entries.max() / entries.min())
