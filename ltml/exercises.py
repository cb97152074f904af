"""Tell readers of the exercises whether their answer is right."""

import numpy as np


def check(answer, expected, hint: str, *, rel: float = 1e-3) -> bool:
    """Compare a reader's answer with what is expected, and print which of the two it is.

    Args:
        answer: the answer; ``...`` stands for none yet.
        expected: number, string, truth value, or anything that numpy makes an array of.
        hint: what to think of, printed where the answer is wrong.
        rel: how far numbers may be off, relative to the largest expected one.

    Returns:
        whether it is right.

    Example:
        >>> check(..., 0.25, "think of p (1 - p)")
        not answered yet: put your answer in place of ...
        False
        >>> check(0.5, 0.25, "think of p (1 - p)")
        not yet: think of p (1 - p)
        False
        >>> check(0.25, 0.25, "think of p (1 - p)")
        right
        True
    """
    if answer is ... or (isinstance(answer, list | tuple) and any(part is ... for part in answer)):
        print("not answered yet: put your answer in place of ...")
        return False
    right = _same(answer, expected, rel)
    print("right" if right else f"not yet: {hint}")
    return right


def _same(answer, expected, rel: float) -> bool:
    given, wanted = np.asarray(answer), np.asarray(expected)
    if given.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "iufc" and given.dtype.kind in "iufc":
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
        return bool(np.allclose(given, wanted, rtol=0, atol=rel * scale, equal_nan=True))
    return bool((given == wanted).all())
