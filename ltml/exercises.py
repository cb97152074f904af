"""Tell readers of the exercises whether their answer is right, and if not, what may have happened.

A master notebook (``notebooks/masters``) computes what it expects and says it by :func:`expect`;
``make assignments`` keeps these keys in ``exercises.json``, so that :func:`check` knows them where
the notebook holds questions alone.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from ltml.core.errors import InputError

KEY: dict[str, dict] = {}  # what this session's notebook expects, name -> key
FILE = Path(__file__).with_suffix(".json")
_FACTORS = {  # wrong by a factor: what may have happened
    2.0: "twice as large: was something counted twice?",
    0.5: "half as large: was something left out?",
    100.0: "100 times as large: give a fraction, not percent",
    0.01: "a hundredth: it is not divided by 100",
    -1.0: "the sign is the other way round",
}


def expect(
    name: str, answer, hint: str, *, about: bool = False, rel: float = 1e-3, mistakes: Mapping = {}
) -> None:
    """Say what an exercise expects.

    Args:
        name: name of the exercise, such as ``"02-1"``.
        answer: number, text, truth value, set, or a nested list, array or tensor of them.
        hint: thing to think of, where an answer is wrong and no mistake that was foreseen.
        about: whether two significant digits suffice.
        rel: largest deviation of a number, relative to the largest expected one.
        mistakes: reply -> the wrong answer that it is for.
    """
    KEY[name] = {
        "answer": _plain(answer),
        "hint": hint,
        "about": about,
        "rel": rel,
        "mistakes": [[reply, _plain(wrong)] for reply, wrong in mistakes.items()],
    }


def check(name: str, answer) -> bool:
    """Compare a reader's answer with what is expected, and print a tutor's reply.

    Numbers may be Python's, NumPy's or tensors (that require gradients too). Rounded ones are
    right with three significant digits, and with two if the question says "about"; with two where
    it does not, the reply asks for more.

    Args:
        name: name of the exercise.
        answer: the answer; ``...`` stands for none yet.

    Returns:
        whether it is right.

    Raises:
        InputError: if there is no exercise of that name.

    Example:
        >>> expect("demo", 0.2468, "think of p (1 - p)", mistakes={"that is p itself": 0.9})
        >>> for answer in (..., 0.247, 0.25, 0.4936, 0.9, 3):
        ...     _ = check("demo", answer)
        not answered yet: put your answer in place of ...
        right
        right, give more digits
        not yet: twice as large: was something counted twice?
        not yet: that is p itself
        not yet: think of p (1 - p)
    """
    key = KEY.get(name) or _kept().get(name)
    if key is None:
        raise InputError(f"there is no exercise {name!r}; run the cells above, or update ltml")
    try:
        given = _plain(answer)
    except (TypeError, ValueError):
        given = None
    right, reply = _judge(given, key)
    print(reply)
    return right


@cache
def _kept() -> dict[str, dict]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def _judge(given, key: dict) -> tuple[bool, str]:
    wanted, rel = key["answer"], key["rel"]
    if given is ... or (isinstance(given, list) and any(part is ... for part in given)):
        return False, "not answered yet: put your answer in place of ..."
    if given is None:
        return False, "not yet: give a number, a text, or a list of them"
    for reply, wrong in key["mistakes"]:
        if same(given, wrong, rel) and not same(given, wanted, rel):
            return False, f"not yet: {reply}"
    asked, found = (_shape(value) for value in (wanted, given))
    if asked != found:
        are = f"{asked} values are" if asked else "a single value is"
        kind = f"a list of {found}" if found else "a single value"
        return False, f"not yet: {are} asked for, this is {kind}"
    if _numeric(wanted) and isinstance(given, str):
        return False, "not yet: give a number, not a text"
    if same(given, wanted, rel):
        return True, "right"
    for digits in (3, 2):
        if _rounded(given, wanted, digits):
            return True, "right" if digits == 3 or key["about"] else "right, give more digits"
    for reply, wrong in key["mistakes"]:
        if _rounded(given, wrong, 2):
            return False, f"not yet: {reply}"
    for factor, reply in _FACTORS.items():
        if same(given, _times(wanted, factor), rel):
            return False, f"not yet: {reply}"
    return False, f"not yet: {key['hint']}"


def same(given, wanted, rel: float) -> bool:
    """Whether two plain answers agree, numbers up to ``rel`` of the largest one wanted."""
    if _numeric(wanted) and _numeric(given):
        given, wanted = np.asarray(given, float), np.asarray(wanted, float)
        if given.shape != wanted.shape:
            return False
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
        return bool(np.allclose(given, wanted, rtol=0, atol=rel * scale + 1e-12, equal_nan=True))
    if isinstance(wanted, list) and isinstance(given, list):
        pairs = zip(given, wanted, strict=False)
        return len(given) == len(wanted) and all(same(g, w, rel) for g, w in pairs)
    if isinstance(wanted, bool) or isinstance(given, bool):  # 1 is no truth value
        return given is wanted
    return _text(given) == _text(wanted)


def _rounded(given, wanted, digits: int) -> bool:
    """Whether every number is the wanted one cut or rounded to at least so many digits."""
    if isinstance(wanted, list) and isinstance(given, list) and len(given) == len(wanted):
        return all(_rounded(g, w, digits) for g, w in zip(given, wanted, strict=True))
    if not (_numeric(wanted) and _numeric(given)) or isinstance(wanted, list):
        return same(given, wanted, 0)
    if not (wanted and math.isfinite(wanted) and math.isfinite(given)):
        return given == wanted
    first = math.floor(math.log10(abs(wanted)))  # place of the first digit
    for unit in (10.0 ** (first + 1 - more) for more in range(digits, 7)):
        steps = given / unit
        if abs(given - wanted) < unit and abs(steps - round(steps)) < 1e-6:
            return True
    return False


def _times(wanted, factor: float):
    if isinstance(wanted, list):
        return [_times(part, factor) for part in wanted]
    return wanted * factor if _numeric(wanted) else wanted


def _shape(value) -> int:
    """Length of a list; 0 for a single value."""
    return len(value) if isinstance(value, list) else 0


def _numeric(value) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_numeric, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value):
    return value.strip().casefold() if isinstance(value, str) else value


def _plain(value):
    """Return Python's own numbers, texts and lists; a set becomes its sorted list."""
    if value is ... or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    raise TypeError(f"{type(value).__name__} is no answer")
