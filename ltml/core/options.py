"""Build a part of a training (a loss, a sampler, a head, a data set) from options given by name."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from ltml.core.errors import InputError


def choose(what: str, name: str, table: Mapping[str, object]):
    """Look a name up in a table of parts; an unknown one raises an error that has the nearest.

    Raises:
        InputError: naming the nearest key, if there is no such name.
    """
    if name not in table:
        raise InputError(f"{what} {name!r} is unknown{_nearest(name, table)}")
    return table[name]


def options_of(part: Callable, *given: str) -> list[str]:
    """Names of a part's options: its keyword-only parameters, except those given by the caller."""
    parameters = inspect.signature(part).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given]


def build(part: Callable, what: str, options: Mapping[str, object], **given):
    """Call a part with the options that a user named, and with what the caller knows.

    Args:
        part: class or function. Its keyword-only parameters are its options.
        what: how messages call it, such as ``"loss 'db'"``.
        options: name -> value, from the user.
        given: name -> value, from the caller; only what the part takes is passed.

    Raises:
        InputError: naming the nearest option, if the part has no such option.

    Example:
        >>> def part(num_classes, *, strength=0.5): return num_classes, strength
        >>> build(part, "loss 'dgb'", {"strength": 1.0}, num_classes=20, counts=None)
        (20, 1.0)
        >>> build(part, "loss 'dgb'", {"strenght": 1.0}, num_classes=20)
        Traceback (most recent call last):
        ltml.InputError: loss 'dgb' has no option 'strenght'; did you mean 'strength'? ...
    """
    known = options_of(part, *given)
    for name in options:
        if name not in known:
            raise InputError(f"{what} has no option {name!r}{_nearest(name, known)}")
    takes = inspect.signature(part).parameters
    return part(**{n: value for n, value in given.items() if n in takes}, **options)


def _nearest(name: str, known) -> str:
    close = get_close_matches(str(name), list(known), n=1)
    hint = f"; did you mean {close[0]!r}? Choose" if close else "; choose"
    return f"{hint} from {', '.join(known)}" if known else "; it takes none"
