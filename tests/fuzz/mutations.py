"""Valid files made wrong in every way that a disk, an editor or an enemy makes them wrong.

CI runs the same cases each time. ``LTML_FUZZ=10`` in the environment makes ten times as many, other
ones each time.
"""

import os
import re
import time

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from reading import read_or_error

TIMES = float(os.environ.get("LTML_FUZZ", 0))

# What stands in the place of a value, or between two bytes.
VALUES = [b"null", b"true", b"false", b"0", b"-1", b"1", b"2", b"0.5", b"1.0", b"-0.0", b"1e400"]
VALUES += [b"1" + b"0" * 30, b"9" * 5000, b"NaN", b"nan", b"Infinity", b"-inf", b"1e-400", b"0x10"]
VALUES += [b'"1"', b'""', b"[]", b"{}", b"[[[[]]]]", b'{"id": 1, "id": 2}', b"[" * 3000, b"1_0"]
NAMES = [b"..", b"../../secret", b"/etc/passwd", b"C:\\x", b".", b"a/b", b"~", b"a" * 5000, b"con"]
NAMES += ["é", "e\u0301", "\u202egpj", "\u2028", "\u00a0", "\u200b", "１", "²", "\ufeff", "😀"]
NAMES += [r"\ud800", r"\u0000"]
BYTES = [b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf", b"\x1a", b"\x0c", b"\x7f"]
BYTES += [b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\t", b",", b";", b'"', b"'", b"\\", b"/", b":"]
TOKENS = [t.encode() if isinstance(t, str) else t for t in [*VALUES, *NAMES, *BYTES]]

_WORD = re.compile(rb'"[^"\n]*"|[^\s,;:"<>\[\]{}=/]+')


def fuzz(cases: int):
    """Settings of a property that is tried so often."""
    return settings(
        max_examples=max(1, int(cases * (TIMES or 1))),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def mutated(draw, valid: bytes, tokens=()) -> bytes:
    """A valid file's bytes after one to three changes; ``tokens`` of its format are put in too."""
    content, tokens = valid, st.sampled_from([*TOKENS, *tokens])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        end = draw(st.integers(at, min(len(content), at + 40)))
        how = draw(st.sampled_from(["word"] * 4 + ["insert", "insert", "flip", "cut"] + _WHOLE))
        words = [match.span() for match in _WORD.finditer(content)]
        if how == "word" and words:
            start, stop = draw(st.sampled_from(words))
            content = content[:start] + draw(tokens) + content[stop:]
        elif how == "insert":
            content = content[:at] + draw(tokens) + content[at:]
        elif how == "flip" and at < len(content):
            flipped = content[at] ^ 1 << draw(st.integers(0, 7))
            content = content[:at] + bytes([flipped]) + content[at + 1 :]
        elif how == "cut":
            content = content[:at]
        elif how == "drop":
            content = content[:at] + content[end:]
        elif how == "repeat":
            content = content[:end] + content[at:end] + content[end:]
        elif how == "line twice":
            lines = content.splitlines(keepends=True) or [b""]
            i = draw(st.integers(0, len(lines) - 1))
            content = b"".join([*lines[: i + 1], *lines[i:]])
        elif how == "BOM":
            content = b"\xef\xbb\xbf" + content
        elif how == "CRLF":
            content = content.replace(b"\n", b"\r\n")
        elif how == "UTF-16":
            content = content.decode("utf-8", "replace").encode("utf-16")
    return content


_WHOLE = ["drop", "repeat", "line twice", "BOM", "CRLF", "UTF-16"]


def outcome(read, path, *args, also: str | None = None):
    """What a reader makes of a file within seconds: a reading, or None for an error naming it.

    ``also``: words of an error of the data as a whole, which names no file.
    """
    start = time.perf_counter()
    found = read_or_error(read, path, *args, also=also)
    assert time.perf_counter() - start < 10, "a small file takes far too long"
    return found


def text_of(content: bytes) -> str:
    """The text of what was read without an error, so it must be UTF-8."""
    return content.decode("utf-8-sig")


def names(*, exclude: str = "", min_size: int = 1, max_size: int = 12):
    """Names of any script that are one line, not blank at the ends, and of printable characters."""
    letters = st.characters(
        codec="utf-8", exclude_categories=["C", "Zl", "Zp"], exclude_characters=exclude
    )
    return st.text(letters, min_size=min_size, max_size=max_size).filter(
        lambda name: name.strip() == name and name not in (".", "..")
    )
