"""The base of all errors that a user can mend."""

import errno
import os

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # error numbers of a full disk or quota
NO_ROOM = (*DISK_FULL, errno.EFBIG)  # also of a limit on the size of files
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # of a file system without locks
TEMPORARY = os.EX_TEMPFAIL  # 75, the exit status that means: run the same command again


class UsageError(ValueError):
    """A mistake of the user, in one line: what was found, what was expected, what to do.

    Each room derives its kinds of error from this class. The commands print the line without a traceback and exit with
    `status`. Any other exception is a bug of the program.

    Attributes:
      status: the exit status of the command.
      option: the parameter that helps, such as `kind=bvlc`, of which a command has a flag of that name; or empty.
    """

    status = 2
    option = ""

    def __init__(self, *arguments: object, option: str = ""):
        super().__init__(*arguments)
        self.option = option


class MissingPackageError(UsageError):
    """A package that few users need is not installed.

    Args:
      need: what needs it.
      extra: of this package, which installs it.
    """

    def __init__(self, need: str, extra: str):
        super().__init__(
            f"{need}; install it with pip install 'alexnet_jax[{extra}]', or with pip install '.[{extra}]' in a"
            " checkout"
        )


class NotFiniteError(UsageError):
    """The loss of a run, or its state, is no longer finite."""


def reason_of(error: OSError) -> str:
    """The reason in words, such as `No space left on device`. The errors of storage packages hold the words alone."""
    return error.strerror or words_of(error)


def words_of(error: BaseException, most: int | None = 200) -> str:
    """The text of an error in one line, or the name of its type where it has none.

    Args:
      error: of a library.
      most: letters; None: all.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__
