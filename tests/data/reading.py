"""What every reader of files from elsewhere owes: a reading, or one line that names the file."""

from ltml import InputError


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
