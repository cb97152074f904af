"""Options of a training and of its parts (loss, sampler, head, data set): names, types, ranges.

The annotation of a keyword-only parameter, or of a dataclass's field, is the whole rule for its
values: ``float``, ``int``, ``bool``, ``str``, ``Literal``, ``Mapping``, ``Sequence``, unions of
these, and ``Annotated[float, Bounds("[0, 1)")]`` for a range. A number may be of any numeric type,
or text that Python reads as that number, such as ``"1e-3"`` from YAML; 2.0 is the whole number 2.
``True`` is no number, and no number is infinite or NaN.
"""

import functools
import inspect
import math
import numbers
import os
from collections import abc
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from ltml.core.errors import InputError
from ltml.core.files import quote


@dataclass(frozen=True)
class Bounds:
    """Interval that a number lies in, for an annotation.

    Args:
        interval: text of the interval, such as ``"[0, 1)"``; ``inf`` for no bound.

    Example:
        >>> 1.0 in Bounds("[0, 1)"), 0 in Bounds("[0, 1)"), Bounds("(0, inf)").of("lr")
        (False, True, 'lr > 0')
    """

    interval: str

    @functools.cached_property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        low, high = self.interval[1:-1].split(",")
        return float(low), float(high)

    def __contains__(self, x: float) -> bool:
        low, high = self.ends
        above = x >= low if self.interval[0] == "[" else x > low
        return above and (x <= high if self.interval[-1] == "]" else x < high)

    def of(self, name: str) -> str:
        """The range of a named number, in words."""
        (low, high), (first, *_, last) = self.ends, self.interval
        equal = "=" * (first == "[")
        if high == math.inf:
            return f"{name} >{equal} {low:g}"
        most = f"{name} <{'=' * (last == ']')} {high:g}"
        return most if low == -math.inf else f"{low:g} <{equal} {most}"


Seed = Annotated[int, Bounds("[0, 9e18]")]  # what NumPy and torch take, plus the ranks


def fitted(name: str, value, kind, *, where: str = ""):
    """Return a value as the type that is wanted of it.

    Args:
        name: name of the value in messages.
        value: value as the user gave it.
        kind: annotation; one that this module does not know takes any value.
        where: beginning of messages, such as ``"loss 'dgb': "``.

    Raises:
        InputError: naming the value and what to give, if it is of another type or out of range.

    Example:
        >>> kind = Annotated[float, Bounds("[0, 1]")]
        >>> fitted("strength", "1e-3", kind), fitted("steps", 2.0, int)
        (0.001, 2)
        >>> fitted("strength", "high", kind)
        Traceback (most recent call last):
        ltml.InputError: strength is 'high'; give a number, 0 <= strength <= 1
    """
    try:
        return _convert(value, kind)
    except (TypeError, ValueError, OverflowError):
        pass
    names = [n for k in (kind, *get_args(kind)) if get_origin(k) is Literal for n in get_args(k)]
    close = get_close_matches(value, names, 1) if isinstance(value, str) else []
    remedy = f"did you mean {close[0]!r}? Give" if close else "give"
    raise InputError(f"{where}{name} is {quote(value)}; {remedy} {_wanted(kind, name)}")


def _convert(value, kind):
    """Convert, or raise a TypeError, ValueError or OverflowError."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _convert(value, of[0])
        if any(value not in bounds for bounds in of[1:] if isinstance(bounds, Bounds)):
            raise ValueError
        return value
    if origin in (Union, UnionType):
        for member in of:
            with suppress(TypeError, ValueError, OverflowError):
                return _convert(value, member)
        raise ValueError
    if origin is Literal:
        if not isinstance(value, str) or value not in of:
            raise ValueError
        return str(value)
    if kind in (float, int):
        return _number(value, kind)
    if kind is bool:
        if not isinstance(value, bool | np.bool_):
            raise TypeError
        return bool(value)
    if kind is str:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if not isinstance(value, str):
            raise TypeError
        return str(value)
    if kind is dict or origin in (dict, abc.Mapping):
        if not isinstance(value, Mapping):
            raise TypeError
        return {str(k): _convert(v, of[1]) if of else v for k, v in value.items()}
    if origin is abc.Callable:
        if not callable(value):
            raise TypeError
        return value
    if origin in (list, tuple, abc.Sequence):
        if isinstance(value, str | bytes | Mapping) or not getattr(value, "ndim", 1):
            raise TypeError
        return [_convert(item, of[0]) for item in value]
    if (
        kind is not Any and isinstance(kind, type) and not isinstance(value, kind)
    ):  # None and paths among them
        raise TypeError
    return value


def _number(value, kind: type):
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # of an array or tensor
    if isinstance(value, str):
        if "_" in value:
            raise ValueError
        try:
            value = int(value)
        except ValueError:
            value = float(value)
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise TypeError
    if not math.isfinite(value):
        raise ValueError
    converted = kind(value)
    if kind is int and converted != value:
        raise ValueError
    return converted


def _wanted(kind, name: str) -> str:
    """What a kind takes, for a message."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        ranges = [bounds.of(name) for bounds in of[1:] if isinstance(bounds, Bounds)]
        return ", ".join([_wanted(of[0], name), *ranges])
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(_wanted(member, name) for member in of))
    if origin is Literal:
        return f"one of {', '.join(map(str, of))}"
    if kind is dict or origin in (dict, abc.Mapping):
        return f"names with {_wanted(of[1], 'each')} each" if of else "names with values"
    if origin in (list, tuple, abc.Sequence):
        return f"a list, each {_wanted(of[0], 'item')}"
    if origin is abc.Callable:
        return "a function"
    words = {float: "a number", int: "a whole number", bool: "True or False", str: "text"}
    return words.get(kind) or {NoneType: "None", Path: "a path"}.get(kind) or kind.__name__


@functools.cache
def kinds_of(part: Callable) -> dict[str, Any]:
    """Option -> annotation of a part: a function, a class, or a ``functools.partial`` of one."""
    while isinstance(part, functools.partial):
        part = part.func
    owner = part.__init__ if inspect.isclass(part) and not is_dataclass(part) else part
    hints = get_type_hints(owner, include_extras=True)
    return {name: hints.get(name, Any) for name in options_of(part)}


def checked(part: Callable) -> Callable:
    """Decorate a function (or ``__init__``) to check its keyword-only arguments on every call."""

    @functools.wraps(part)
    def call(*args, **options):
        return part(*args, **fit_options(part, options))

    return call


def check_fields(instance) -> None:
    """Check and convert a dataclass's keyword-only fields in place, by their annotations."""
    hints = get_type_hints(type(instance), include_extras=True)
    for field in fields(instance):
        if field.kw_only:
            value = fitted(field.name, getattr(instance, field.name), hints[field.name])
            object.__setattr__(instance, field.name, value)  # frozen ones, too


def fit_options(part: Callable, options: Mapping[str, object], *, where: str = "") -> dict:
    """Return options with the types that a part's annotations want; unknown names stay."""
    kinds = kinds_of(part)
    return {
        name: fitted(name, value, kinds.get(name, Any), where=where)
        for name, value in options.items()
    }


def choose(what: str, name: str, table: Mapping[str, object]):
    """Look a name up in a table of parts; an unknown one raises an error that has the nearest.

    Raises:
        InputError: naming the nearest key, if there is no such name.
    """
    if not isinstance(name, str) or name not in table:
        raise InputError(f"{what} {quote(name)} is unknown{_nearest(name, table)}")
    return table[name]


def options_of(part: Callable, *given: str) -> list[str]:
    """Names of a part's options: its keyword-only parameters, except those that are given.

    Args:
        part: class or function, or a ``functools.partial``, whose keywords are given.
        given: names that the caller gives.
    """
    given += tuple(getattr(part, "keywords", {}))
    parameters = inspect.signature(part).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given]


def defaults_of(part: Callable) -> dict[str, object]:
    """Option -> default of a part, of those that have one."""
    parameters = inspect.signature(part).parameters
    found = {name: parameters[name].default for name in options_of(part)}
    return {name: value for name, value in found.items() if value is not inspect.Parameter.empty}


def check_options(part: Callable, what: str, options: Mapping[str, object], *given: str) -> dict:
    """Check options of a part without building it, and return them with the types it wants.

    Args:
        part: class or function. Its keyword-only parameters are its options.
        what: name of the part in messages, such as ``"loss 'db'"``.
        options: name -> value, from the user.
        given: names that are the caller's to give, so no options.

    Raises:
        InputError: naming the nearest option, if the part has no such option; or a wrong value.
    """
    known = options_of(part, *given)
    for name in options:
        if name not in known:
            raise InputError(f"{what} has no option {name!r}{_nearest(name, known)}")
    return fit_options(part, options, where=f"{what}: ")


def build(part: Callable, what: str, options: Mapping[str, object], **given):
    """Call a part with the options that a user named, and with what the caller knows.

    Args:
        part: class or function. Its keyword-only parameters are its options.
        what: name of the part in messages, such as ``"loss 'db'"``.
        options: name -> value, from the user.
        given: name -> value, from the caller; only what the part takes is passed.

    Raises:
        InputError: as :func:`check_options` does.

    Example:
        >>> def part(num_classes, *, strength: float = 0.5): return num_classes, strength
        >>> build(part, "loss 'dgb'", {"strength": "1"}, num_classes=20, counts=None)
        (20, 1.0)
        >>> build(part, "loss 'dgb'", {"strenght": 1.0}, num_classes=20)
        Traceback (most recent call last):
        ltml.InputError: loss 'dgb' has no option 'strenght'; did you mean 'strength'? ...
    """
    options = check_options(part, what, options, *given)
    takes = inspect.signature(part).parameters
    return part(**{n: value for n, value in given.items() if n in takes}, **options)


def _nearest(name: str, known) -> str:
    lower = {each.lower(): each for each in known}
    wanted = str(name).lower()
    # Letters in another order are one slip of the fingers: dbg is dgb, though db is as near.
    swapped = [each for each in lower if sorted(each) == sorted(wanted)]
    close = [lower[each] for each in swapped or get_close_matches(wanted, lower, n=1)]
    hint = f"; did you mean {close[0]!r}? Choose" if close else "; choose"
    return f"{hint} from {', '.join(known)}" if known else "; it takes none"
