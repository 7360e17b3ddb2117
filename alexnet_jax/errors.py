"""The one exception that means: the user can mend this."""


class UsageError(ValueError):
    """A mistake of the user's, told in one line: what was found, what was expected, what to do.

    The commands print it without a traceback and exit with status 2. Any other exception is a bug of ours.
    """
