"""The data sets that need no files from the user are prepared when a run first opens them."""

import re
from collections.abc import Callable

from alexnet_jax.data.dataset import data_folder
from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.preparing import make
from alexnet_jax.data.preparing.sources import elpv

KNOWN = "elpv/SIZE (such as elpv/160)"  # for messages
SMALLEST = 8  # pixels along a side


def options_of(name: str) -> make.Options | None:
    """The options of `elpv/160` or `elpv/160_raw`; None: the name is another data set's.

    Raises:
      DatasetError: the size is larger than the photographs.
    """
    match = re.fullmatch(r"elpv/([1-9]\d*)(_raw)?", name)
    if match is None:
        return None
    size = int(match[1])
    if not SMALLEST <= size <= elpv.SIDE:
        raise DatasetError(
            f"{name}: the photographs of ELPV have {elpv.SIDE}x{elpv.SIDE} pixels; ask for a size from {SMALLEST} to"
            f" {elpv.SIDE}, such as elpv/160"
        )
    return make.Options(size=size, encoding="raw" if match[2] else "jpeg")


def ensure(name: str, data_dir: str | None, *, say: Callable[[str], None]) -> None:
    """Prepares the data set where the name is that of a data set for which the user needs no files.

    Nothing happens where the data set is there already. Several runs may call this at once: one run prepares, the
    others wait.

    Args:
      name: of any data set, such as `elpv/160`.
      data_dir: folder of prepared data sets; None: TFDS's own.
      say: takes a line about the preparation.

    Raises:
      DatasetError: the size is larger than the photographs, the folder cannot be written, or the disk is full.
    """
    options = options_of(name)
    if options is None or (data_folder(data_dir) / name / make.VERSION).exists():
        return
    folder = make.place("elpv", options, data_dir)
    say(f"preparing {name} in {folder}")
    record = {"command": f"python -m alexnet_jax.prepare {name}"}
    make.prepare(elpv.elpv(), options, data_dir, record=record, progress=lambda done, todo: None, say=say, wait=True)
