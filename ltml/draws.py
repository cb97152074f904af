"""Draw items on any device, any number of them: by given probabilities, or in shuffled passes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltml.seeding import generator

__all__ = ["AliasTables", "ShuffledPasses", "alias_table", "rounded_shares"]


def alias_table(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Build Walker's alias table of a distribution, without a loop.

    A draw takes one of the :math:`n` cells at random, and then its own item with probability
    ``keep``, else its alias: :math:`p_k = \frac{1}{n} (\text{keep}_k + \sum_{j : \text{alias}_j =
    k} (1 - \text{keep}_j))`.

    Args:
        p: ``(n,)`` not negative, with a positive sum; scaled to sum 1.

    Returns:
        ``keep``, ``(n,)`` float64, and ``alias``, ``(n,)`` int64.

    References:
        Walker, *An efficient method for generating discrete random variables with general
        distributions*, ACM TOMS 3, 1977, https://doi.org/10.1145/355744.355749; Vose, 1991.

    Example:
        >>> alias_table(np.array([0.25, 0.75]))
        (array([0.5, 1. ]), array([1, 1]))
    """
    q = np.asarray(p, dtype=np.float64) * (len(p) / np.sum(p))  # mean 1
    keep, alias = np.ones(len(q)), np.arange(len(q))
    light, heavy = np.flatnonzero(q < 1), np.flatnonzero(q >= 1)
    if not len(light) or not len(heavy):  # all equal, up to rounding
        return keep, alias
    # Vose's method pours the surplus of heavy items into the cells of light ones, both in order.
    # How far it has come before each light item is the running sum of what the lights lacked.
    lacked = np.concatenate([[0], np.cumsum(1 - q[light])])
    surplus = np.cumsum(q[heavy] - 1)
    last = len(heavy) - 1
    donor = np.searchsorted(surplus, lacked[:-1], side="right")
    keep[light], alias[light] = q[light], heavy[np.minimum(donor, last)]
    # A heavy item that gave too much to its last light one is topped up by the next heavy one.
    emptied = lacked[np.minimum(np.searchsorted(lacked, surplus), len(light))]
    keep[heavy] = np.clip(1 - (emptied - surplus), 0, 1)
    alias[heavy] = heavy[np.minimum(np.arange(len(heavy)) + 1, last)]
    keep[heavy[-1]] = 1
    return keep, alias


class AliasTables:
    """Several distributions side by side, drawn from by number.

    Gathers only, so no draw waits for the host, and no limit of 2^24 items, where
    :func:`torch.multinomial` stops.

    Args:
        items: for each distribution ``(n,)`` int64, what is drawn.
        weights: for each ``(n,)``, their probabilities.
        device: where to draw; it must have float64.
    """

    def __init__(
        self, items: Sequence[np.ndarray], weights: Sequence[np.ndarray], device: torch.device
    ):
        sizes = np.array([len(part) for part in items])
        self.starts, self.sizes, self.items, self.keep, self.alias = (
            torch.from_numpy(array).to(device)
            for array in (
                np.cumsum(sizes) - sizes,
                sizes,
                np.concatenate(items).astype(np.int64),
                *(np.concatenate(both) for both in zip(*map(alias_table, weights), strict=True)),
            )
        )

    def draw(self, which: Tensor, u: Tensor) -> Tensor:
        """Draw from distribution ``which`` (int64) with the uniform numbers ``u`` (float64)."""
        # index_select, because indexing spreads over the cores even this little work.
        shape, which = which.shape, which.flatten()
        start, u = self.starts.index_select(0, which), u.flatten()
        u = u * self.sizes.index_select(0, which)
        cell = u.long()
        place = start + cell
        # The fraction of u is uniform too, and independent of the cell. (53 bits: 24 and more are
        # left for it among 2^29 items.)
        own = u - cell < self.keep.index_select(0, place)
        place = torch.where(own, place, start + self.alias.index_select(0, place))
        return self.items.index_select(0, place).view(shape)


class ShuffledPasses:
    """An endless sequence of shuffled passes over ``size`` images, readable at any position."""

    def __init__(self, size: int, seed: int, stream: str, device: torch.device):
        self.size, self.seed, self.stream, self.device = size, seed, stream, device
        self._last = (-1, None)

    def _shuffled(self, number: int) -> Tensor:
        if self._last[0] != number:
            random = generator(self.seed, self.stream, number, self.device)
            self._last = (
                number,
                torch.randperm(self.size, generator=random, device=self.device),
            )
        return self._last[1]

    def take(self, start: int, stop: int) -> Tensor:
        """``(stop - start,)`` images at these positions of the sequence."""
        parts = [torch.empty(0, dtype=torch.int64, device=self.device)]
        for number in range(start // self.size, -(-stop // self.size)):
            origin = number * self.size
            parts.append(self._shuffled(number)[max(start - origin, 0) : stop - origin])
        return torch.cat(parts)


def rounded_shares(
    first: int, last: int, batch_size: int, shares: Sequence[float], rest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give every draw of some batches to one of ``G`` groups, or to none.

    A share of 0.3 of 32 is no whole number. Each batch gets the whole number below or above it, so
    that shares hold over the batches: exactly on average, and never off by a few draws for long.
    Nothing is kept from batch to batch.

    Args:
        first, last: numbers of the batches, ``last`` not included.
        batch_size: draws in a batch.
        shares: ``(G,)`` share of each group in what is left after ``rest``; sum 1.
        rest: share of the draws that are for no group.

    Returns:
        ``(last - first, batch_size)`` int64 group of each draw, -1 for none; and
        ``(last - first + 1,)`` int64, how many draws were for no group before each batch.

    Example:
        >>> rounded_shares(0, 3, 4, [0.4, 0.6], rest=0.25)[0]
        array([[-1,  0,  1,  1],
               [-1,  0,  1,  1],
               [-1,  0,  0,  1]])
    """
    batch, slot = np.arange(first, last + 1), np.arange(batch_size)
    before = np.floor(batch * (batch_size * rest)).astype(np.int64)
    none = np.diff(before)[:, None]
    # Systematic rounding, by an offset that fills [0, 1) evenly: the multiples of sqrt(2).
    offset = (batch[:-1, None] * 1779033703 % 2**32) / 2**32
    group = np.full((last - first, batch_size), -1)
    for end in np.concatenate([[0], np.cumsum(shares)[:-1]]):
        group += slot >= none + np.floor((batch_size - none) * end + offset * (end > 0))
    return group, before
