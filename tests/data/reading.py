"""What every reader of files from elsewhere owes: a reading, or one line that names the file."""

from ltml import InputError


def read_or_error(read, path, *args):
    """What the reader returns, or None for an error of one line that names the file."""
    try:
        return read(path, *args)
    except InputError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    assert message.encode()
    return None
