"""Images that are in two splits at once: the same file, the same bytes, or nearly the same picture.

A model is tested on what it was trained on then, and its scores say nothing.
"""

import hashlib
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltml.core.errors import InputError
from ltml.data.loader import Loader
from ltml.data.splits import LongTailData

log = logging.getLogger(__name__)

EXACT = ("file", "bytes", "pixels")
_SIDE = 16  # px of the thumbnails that are compared
_BITS = 3  # of the 64 of a perceptual hash, by which copies may differ
_LEVELS = 6.0  # of 255, by which the thumbnails of copies may differ on average
_NEAREST = 20  # images that each is compared with at most
_PAIRS = 2**31  # compared at most; beyond, only images of one hash are


class Leak(NamedTuple):
    """Images of one split that are in another one too.

    Args:
        splits: names of the splits, the one that should be new last.
        how: file, bytes, pixels (all of them equal), or nearly.
        first: ``(K,)`` indices in the first split.
        second: ``(K,)`` indices in the second, each once.
    """

    splits: tuple[str, str]
    how: str
    first: np.ndarray
    second: np.ndarray


def find_copies(files: Mapping[str, Sequence[str]]) -> list[Leak]:
    """Find images that two splits share as files, by path or by bytes; none is decoded.

    Only files of one size are read.

    Args:
        files: image files of each split, as of :attr:`ltml.Split.files`.
    """
    files = {n: [f and os.path.realpath(f) for f in paths] for n, paths in files.items()}
    by_path = [
        leak for pair in itertools.combinations(files, 2) if (leak := _match(pair, "file", files))
    ]
    sizes = {n: [_size(f) for f in paths] for n, paths in files.items()}
    digest: dict[str, str] = {}
    for one, two in itertools.combinations(files, 2):
        shared = set(sizes[one]) & set(sizes[two]) - {0}
        for name in (one, two):
            for file, size in zip(files[name], sizes[name], strict=True):
                if size in shared and file not in digest:
                    digest[file] = _digest(file)
    hashes = {n: [digest.get(f, "") for f in paths] for n, paths in files.items()}
    found = list(by_path)
    for pair in itertools.combinations(files, 2):
        known = next((leak.second for leak in by_path if leak.splits == pair), ())
        leak = _match(pair, "bytes", hashes, known)
        found += [leak] if leak else []
    return found


def find_near_copies(
    splits: Sequence[str], loaders: Mapping[str, Loader], found: Sequence[Leak]
) -> list[Leak]:
    """Find images that two splits share as pictures.

    Two images are nearly the same if at most 3 of 64 bits of their perceptual hashes differ (of a
    9 x 8 thumbnail, which of two neighbours is brighter), and their colour thumbnails of 16 x 16
    pixels by at most 6 of 255 levels on average: other sizes, formats and qualities of one picture,
    but neither its mirror image nor a part of it.

    Args:
        splits: names, ``train`` first.
        loaders: loader of each split.
        found: leaks of :func:`find_copies`, which are not found again.

    References:
        difference hash: Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013
    """
    small = {name: x.thumbnails(_SIDE).flatten(1) for name, x in loaders.items()}
    hashes = {name: _hash(x) for name, x in small.items()}
    leaks = []
    for one, two in itertools.combinations([n for n in splits if n in loaders], 2):
        known = [leak.second for leak in found if leak.splits == (one, two)]
        known = set(np.concatenate(known).tolist()) if known else set()
        pairs = _near(hashes[one], hashes[two])
        same = _distance(small[one], small[two], pairs) <= _LEVELS
        best: dict[str, dict[int, int]] = {"pixels": {}, "nearly": {}}
        equal_size = loaders[one].image_size == loaders[two].image_size
        for i, j in pairs[same].tolist():
            if j in known:
                continue
            exact = equal_size and torch.equal(loaders[one].image(i), loaders[two].image(j))
            best["pixels" if exact else "nearly"].setdefault(j, i)
        for j in best["pixels"]:
            best["nearly"].pop(j, None)
        for how, matches in best.items():
            if matches:
                second = np.array(sorted(matches))
                first = np.array([matches[j] for j in second.tolist()])
                leaks.append(Leak((one, two), how, first, second))
    return leaks


def report(data: LongTailData, leaks: list[Leak], *, allow: bool, say: bool = True) -> None:
    """Say, as a warning, which images are in two splits.

    Raises:
        InputError: if some are exact copies, unless they are allowed.
    """
    for leak in leaks:
        one, two = leak.splits
        a, b = data.splits[one].ids[leak.first[0]], data.splits[two].ids[leak.second[0]]
        how = {
            "file": "are the same files as",
            "bytes": "are copies, byte for byte, of",
            "pixels": "show, pixel for pixel,",
            "nearly": "look nearly like",
        }[leak.how]
        text = (
            f"{data.name}: {len(leak.second):,} of {len(data.splits[two]):,} images of the {two} "
            f"split {how} images of the {one} split, such as {two} {str(b)!r} and {one} {str(a)!r}"
        )
        if leak.how in EXACT and not allow:
            raise InputError(
                f"{text}: scores on them say nothing; take them out of one split, or give "
                "--allow-leaks (in Python allow_leaks=True)"
            )
        if say:
            log.warning("%s", text)


def summary(leaks: list[Leak]) -> list[dict]:
    """What a run notes of leaks."""
    return [{"splits": list(x.splits), "how": x.how, "images": len(x.second)} for x in leaks]


def _match(pair: tuple[str, str], how: str, keys: Mapping[str, list], known=()) -> Leak | None:
    """Images of both splits with one key; empty keys fit nothing."""
    first, known = {key: i for i, key in enumerate(keys[pair[0]]) if key}, set(map(int, known))
    hits = [(first[k], j) for j, k in enumerate(keys[pair[1]]) if k in first and j not in known]
    return Leak(pair, how, *np.array(hits).T) if hits else None


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size if file else 0  # noqa: PTH116 - a million times
    except OSError:  # whoever decodes it will say so
        return 0


def _digest(file: str) -> str:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123
            return hashlib.file_digest(stream, "blake2b").hexdigest()
    except OSError:
        return ""


def _hash(thumbnails: Tensor) -> Tensor:
    """``(N, 64)`` of 1 and -1: whether a place is brighter than its right neighbour."""
    bits = []
    for part in thumbnails.split(4096):
        grey = part.unflatten(1, (3, _SIDE, _SIDE)).float().mean(1, keepdim=True)
        grey = F.adaptive_avg_pool2d(grey, (8, 9)).squeeze(1)
        bits.append(torch.where(grey[:, :, :-1] > grey[:, :, 1:], 1.0, -1.0).flatten(1))
    return torch.cat(bits)


def _distance(one: Tensor, two: Tensor, pairs: Tensor) -> Tensor:
    """Mean difference of the thumbnails of each pair, in levels of 255."""
    parts = [
        (one[part[:, 0]].short() - two[part[:, 1]].short()).abs().float().mean(1)
        for part in pairs.split(4096)
    ]
    return torch.cat(parts) if parts else torch.empty(0)


def _near(one: Tensor, two: Tensor) -> Tensor:
    """Pairs ``(K, 2)`` of rows that differ in few places."""
    most = _BITS if len(one) * len(two) <= _PAIRS else 0
    pairs = []
    for start in range(0, len(two), 1024):
        agree = two[start : start + 1024] @ one.T  # 64 - 2 * differing
        best, i = agree.topk(min(_NEAREST, len(one)), dim=1)  # plain pictures are all alike
        j, k = (best >= one.shape[1] - 2 * most).nonzero().unbind(1)
        pairs.append(torch.stack([i[j, k], j + start], 1))
    return torch.cat(pairs) if pairs else torch.empty(0, 2, dtype=torch.int64)
