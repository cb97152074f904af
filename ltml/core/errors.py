"""The one exception for mistakes that a user can mend."""


class InputError(ValueError):
    """A mistake in what the user gave: one line that says what, where, the value and the remedy.

    The command line prints it without a traceback and exits with code 2; in Python it is a
    :class:`ValueError` like any other.
    """

    __module__ = "ltml"  # as tracebacks name it
