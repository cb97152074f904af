"""Head, medium and tail: classes grouped by how many training images hold them."""

import numpy as np

from ltml.errors import InputError

__all__ = ["GROUPS", "class_groups"]

GROUPS = ("head", "medium", "tail")


def class_groups(counts: np.ndarray, *, head: int = 100, tail: int = 20) -> dict[str, np.ndarray]:
    """Split the classes by count: head ``n >= head``, tail ``n < tail``, medium between.

    The default bounds are those of VOC-LT and COCO-LT (Wu et al., ECCV 2020,
    https://arxiv.org/abs/2007.09654).

    Args:
        counts: ``(C,)`` images of each class.
        head: least count of a head class.
        tail: least count of a medium class.

    Returns:
        ``{"head": classes, "medium": classes, "tail": classes}``, index arrays, possibly empty.

    Raises:
        InputError: unless ``0 <= tail <= head``.

    Example:
        >>> class_groups(np.array([500, 3, 40]))["tail"]
        array([1])
    """
    if not 0 <= tail <= head:
        raise InputError(f"groups(head={head}, tail={tail}): give bounds 0 <= tail <= head")
    masks = (counts >= head, (counts >= tail) & (counts < head), counts < tail)
    return {name: np.flatnonzero(mask) for name, mask in zip(GROUPS, masks, strict=True)}
