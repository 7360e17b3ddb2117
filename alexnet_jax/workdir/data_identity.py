"""The identity of a run's data in its workdir: a run never goes on with other images or permuted labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from alexnet_jax.workdir.errors import OtherDataError
from alexnet_jax.workdir.record import has_checkpoints, read_json

DATA_FILE = "data.json"
LICENCE = "license"  # beside the identity, and no part of it


def check(folder: epath.Path, identity: Mapping[str, Any]) -> None:
    """Compares the data of the run in a workdir with a data set. A run without the file is from before and passes.

    Args:
      folder: the workdir.
      identity: of the data set: `classes` in order, `examples` by split, and values such as a digest.

    Raises:
      OtherDataError: the data differ.
      DamagedFileError, UnreadableFileError: the file cannot be read.
    """
    file = folder / DATA_FILE
    if not _is_of_a_run(folder):
        return
    difference = first_difference(read_json(file), identity)
    if difference is not None:
        raise OtherDataError(file, difference)


def form_of(folder: epath.Path, name: str) -> str:
    """The name of the data set of the run in a workdir, with its form, such as `flowers/256` for `flowers`.

    Other forms may be prepared after the run began, and the shorter name then names none of them.

    Args:
      folder: the workdir.
      name: in the config of the run.
    """
    if not _is_of_a_run(folder):
        return name
    form = str(read_json(folder / DATA_FILE).get("name")).rpartition("/")[0]  # without the version
    return form if form.startswith(f"{name}/") else name


def licence_in(folder: epath.Path) -> str:
    """The licence of the images of the run in a workdir; empty: it is not recorded."""
    file = folder / DATA_FILE
    licence = read_json(file).get(LICENCE) if file.exists() else None
    return licence if isinstance(licence, str) else ""


def _is_of_a_run(folder: epath.Path) -> bool:
    """Whether the workdir has the file, and something that was trained on these data."""
    return (folder / DATA_FILE).exists() and has_checkpoints(folder)


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """The first difference between two identities, in words: classes first; None: they are equal."""
    classes, others = there.get("classes"), here["classes"]
    if isinstance(classes, list):
        if len(classes) != len(others):
            return f"{len(classes)} classes there, {len(others)} here"
        if (label := first_other_class(classes, others)) is not None:
            return f"class {label} is {classes[label]!r} there and {others[label]!r} here"
    theirs, ours = there.get("examples"), here.get("examples")
    if isinstance(theirs, dict) and isinstance(ours, Mapping) and theirs != ours:
        split = next(name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name))
        return f"split {split!r} has {_count(theirs.get(split))} there and {_count(ours.get(split))} here"
    for key, value in here.items():
        if key in there and there[key] != value:
            if key == "statistics":
                return f"the training images differ (digest of their statistics {there[key]} there, {value} here)"
            return f"the data set's {key} is {there[key]!r} there and {value!r} here"
    return None


def first_other_class(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """The first label whose names differ; None: the names are equal, as far as both go."""
    return next((label for label, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)


def _count(count: Any) -> str:
    """The number of images in words. A file that someone has changed may hold anything."""
    if not count:
        return "no image"
    return f"{count:,} image{'s' * (count > 1)}" if type(count) is int else repr(count)
