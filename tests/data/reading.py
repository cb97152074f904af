"""What every reader of files from elsewhere owes: a reading, or one line that names the file."""

import re
import shlex

import numpy as np
import pandas as pd

from ltml import InputError, LabelMatrix


def read_or_error(read, path, *args, also=None):
    """What the reader returns, or None for an error of one line that names the file.

    ``also``: words of an error that may name no file.
    """
    try:
        return read(path, *args)
    except InputError as error:
        message = str(error)
    assert str(path) in message or (also is not None and also in message)
    assert "\n" not in message
    assert message.encode()
    return None


def label_list(path) -> LabelMatrix:
    """Labels of a CSV file with class indices, as ../shared/data/label_lists has."""
    cells = pd.read_csv(path, keep_default_na=False).labels
    rows = [[int(label) for label in cell.split()] for cell in cells]
    return LabelMatrix.from_lists(
        rows, [f"class {c}" for c in range(1 + max(map(max, filter(None, rows))))]
    )


# --- small trees of tables ----------------------------------------------------------------------


def tree(root, files, images):
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    for file, text in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


def rows(header, *lines):
    return "\n".join([header, *lines]) + "\n"


def found(data):
    """Split -> image -> names of what is present, with ? before what is unknown."""
    out = {}
    for kind, split in data.splits.items():
        names, Y = split.labels.class_names, split.labels.dense().float().numpy()
        out[kind] = {
            image: {("?" if np.isnan(y) else "") + n for n, y in zip(names, row, strict=True) if y}
            for image, row in zip(split.ids, Y, strict=True)
        }
    return out


def whole(data):
    """What all splits hold together."""
    return {image: labels for split in found(data).values() for image, labels in split.items()}


def labels(*cells):
    return {f"{i}": set(cell.split()) for i, cell in enumerate(cells)}


ANIMALS = ["cat", "dog", "cat dog", "dog", "cat", "cat dog"]
JPG = [f"photos/{i}.jpg" for i in range(6)]


def table(header, write, n=6):
    return rows(header, *(write(i) for i in range(n)))


def answers(message):
    """The options of each answer that a question offers, as they stand in it."""
    out = []
    for piece in re.split(
        r",? or (?:if it counts, |leave it out: |, if it counts, )?(?=--)"
        r"|; and |, in Python|\(in Python",
        message,
    ):
        options = {}
        for name, words in re.findall(r"--([a-z-]+)((?: (?!--)(?:'[^']*'|[^\s;()]+))*)", piece):
            values = [word.rstrip(",") for word in shlex.split(words)]
            options[name.replace("-", "_")] = (
                values if name in ("ignore", "label-columns", "class-columns") else " ".join(values)
            )
        options = {name: value for name, value in options.items() if value}
        if options:
            out.append(options)
    return out
