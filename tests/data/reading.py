"""What every reader of files from elsewhere owes: a reading, or one line that names the file."""

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
