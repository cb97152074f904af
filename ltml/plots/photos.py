"""What a page shows of photos: the worst mistakes of each class, with thumbnails."""

import base64
import logging
from collections.abc import Mapping
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from ltml.core.errors import InputError
from ltml.runs.run import Run
from ltml.runs.scores import KINDS, Scores, sigmoid

_log = logging.getLogger(__name__)
_BYTES = 130_000  # of a class's thumbnails, in base64; with Plotly a page of 20 classes is 5 MB
_SIZES = ((144, 60), (128, 50), (112, 45), (96, 40), (80, 30), (64, 25), (48, 20))
_PAIRS = 4  # runs, each two of which are compared


def mistakes_of(named: Mapping[str, Run], per_class: int) -> dict:
    """Return what the page's script needs: photos, and which runs get what wrong on them.

    Args:
        named: name -> run. Runs without stored scores, or of other images or classes than the
            first that has some, are left out.
        per_class: photos of each class and run, half of them misses, half false alarms; 0: the
            numbers of mistakes alone, and nothing of any image.
    """
    scores: dict[str, Scores] = {}
    for name, run in named.items():
        try:
            found = run.scores("test")
        except InputError:
            continue
        first = next(iter(scores.values()), found)
        if (found.ids, found.class_names) == (first.ids, first.class_names):
            scores[name] = found
    if not scores:
        return {}
    first = next(iter(scores.values()))
    thresholds = {name: named[name].threshold_of_class() for name in scores}
    out = {
        "names": list(first.class_names),
        "images": len(first),
        "per_class": per_class,
        "runs": {
            name: {
                "thresholds": np.round(thresholds[name], 4).tolist(),
                "counts": {k: _counts(each, thresholds[name])[k].tolist() for k in KINDS},
            }
            for name, each in scores.items()
        },
        "photos": [],
        "differ": [],
    }
    if not per_class:
        return out
    listed, used = {}, {}
    column = {name: c for c, name in enumerate(first.class_names)}
    for name in scores:
        rows = []
        for k, kind in enumerate(KINDS):
            half = per_class - per_class // 2 if k == 0 else per_class // 2
            if half:
                table = named[name].mistakes(kind=kind, per_class=half)
                columns = ("index", "class", "margin", "rank")
                for i, cls, margin, rank in zip(*(table[c] for c in columns), strict=True):
                    at = used.setdefault(int(i), len(used))
                    rows.append([at, column[cls], k, round(float(margin), 3), int(rank)])
        listed[name] = rows
    for a, b in combinations(list(scores)[:_PAIRS], 2):
        few = max(3, per_class // 4)
        rows = _differ(scores[a], scores[b], thresholds[a], thresholds[b], few)
        found = [[used.setdefault(i, len(used)), c, round(gap, 3)] for i, c, gap in rows]
        out["differ"].append({"pair": [a, b], "rows": found})
    index, shown = list(used), {}  # photo -> classes that it is shown for
    for rows in (*listed.values(), *(each["rows"] for each in out["differ"])):
        for at, c, *_ in rows:
            shown.setdefault(at, set()).add(c)
    for name in scores:
        out["runs"][name]["rows"] = listed[name]
        out["runs"][name]["p"] = [
            _sparse(scores[name], i, thresholds[name], shown.get(at, ()))
            for at, i in enumerate(index)
        ]
    thumbs = thumbnails([first.paths[i] for i in index], _BYTES * len(first.class_names))
    out["photos"] = [
        {
            "id": first.ids[i],
            "given": np.flatnonzero(first.targets[i] == 1).tolist(),
            "unknown": np.flatnonzero(np.isnan(first.targets[i])).tolist(),
            "src": src,
        }
        for i, src in zip(index, thumbs, strict=True)
    ]
    return out


def thumbnails(paths: list[str], most: int) -> list[str]:
    """Return images as data addresses (WebP) of at most so many bytes in all; "" where there is no
    file that can be read."""
    small, missing = [], 0
    for path in paths:
        try:
            with Image.open(path or Path()) as image:
                image.draft("RGB", (_SIZES[0][0] * 2,) * 2)
                image = ImageOps.exif_transpose(image).convert("RGB")
                image.thumbnail((_SIZES[0][0],) * 2)
                small.append(image)
        except (OSError, ValueError, Image.DecompressionBombError):
            small.append(None)
            missing += 1
    if missing:
        _log.warning("%d of %d photos have no file that can be read", missing, len(paths))
    found = [""] * len(small)
    for size, quality in _SIZES:
        found = [_encode(image, size, quality) for image in small]
        if sum(map(len, found)) <= most:
            break
    return found


def _encode(image: Image.Image | None, size: int, quality: int) -> str:
    if image is None:
        return ""
    if max(image.size) > size:
        image = image.copy()
        image.thumbnail((size, size))
    out = BytesIO()
    image.save(out, "WEBP", quality=quality, method=3)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def _counts(scores: Scores, thresholds: np.ndarray) -> dict[str, np.ndarray]:
    made = scores.probabilities >= thresholds
    misses, alarms = (scores.targets == 1) & ~made, (scores.targets == 0) & made
    return dict(zip(KINDS, (misses.sum(0), alarms.sum(0)), strict=True))


def differences(run: Run, other: Run, *, per_class: int | None = None) -> pd.DataFrame:
    """Tabulate where one of two runs is right about a photo's class and the other wrong.

    Returns:
        a row per image and class, the widest gap first: image, path, index, class, group, given,
        probability and threshold (of ``run``), other_probability, margin (the gap between the
        probabilities), given_labels, predicted_labels (of ``run``).

    Raises:
        InputError: if they keep no scores, or those of other images or classes.
    """
    a, b = run.scores(), other.scores()
    if (a.ids, a.class_names) != (b.ids, b.class_names):
        raise InputError(
            f"{run.name!r} and {other.name!r} were tested on different images or classes; compare "
            "runs of the same data"
        )
    first, second = run.threshold_of_class(), other.threshold_of_class()
    rows = _differ(a, b, first, second, per_class or len(a))
    p, q, names = a.probabilities, b.probabilities, a.class_names
    group = run.classes.set_index("class").group
    made = p >= first

    def listed(row) -> tuple[str, ...]:
        return tuple(names[c] for c in np.flatnonzero(row))

    columns = [
        "image", "path", "index", "class", "group", "given", "probability", "threshold",
        "other_probability", "margin", "given_labels", "predicted_labels",
    ]  # fmt: skip
    content = [
        (
            *(a.ids[i], a.paths[i], i, names[c], group[names[c]], int(a.targets[i, c] == 1)),
            *(p[i, c], first[c], q[i, c], gap, listed(a.targets[i] == 1), listed(made[i])),
        )
        for i, c, gap in rows
    ]
    return pd.DataFrame(content, columns=columns)


def _differ(a: Scores, b: Scores, first: np.ndarray, second: np.ndarray, per_class: int) -> list:
    """Return image, class, gap in probability where one run is right and the other wrong."""
    p, q = a.probabilities, b.probabilities
    apart = ((p >= first) != (q >= second)) & ~np.isnan(a.targets)
    gap = np.where(apart, np.abs(p - q), 0)
    found = []
    for c in range(gap.shape[1]):
        order = np.argsort(-gap[:, c], kind="stable")[:per_class]
        found += [(int(i), c, float(gap[i, c])) for i in order if gap[i, c] > 0]
    return sorted(found, key=lambda row: -row[2])


def _sparse(scores: Scores, i: int, thresholds: np.ndarray, also) -> list:
    """Class, probability of an image's labels, predictions, the eight likeliest, and others."""
    p = sigmoid(scores.logits[i])
    keep = (scores.targets[i] == 1) | (p >= thresholds)
    keep[np.argsort(-p)[:8]] = True
    keep[list(also)] = True
    order = np.flatnonzero(keep)
    order = order[np.argsort(-p[order], kind="stable")]
    return [[int(c), round(float(p[c]), 4)] for c in order]
