"""The errors of files that hold networks."""

from alexnet_jax.errors import UsageError


class FormatError(UsageError):
    """A file is damaged, of another kind than expected, or holds a network that no recipe describes.

    Attributes:
      reason: without the file's name.
    """

    def __init__(self, reason: str, *, file: object = None, option: str = ""):
        super().__init__(reason if file is None else f"{file}: {reason}", option=option)
        self.reason = reason
