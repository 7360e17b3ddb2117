from pathlib import Path

import pytest
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints
from alexnet_jax.workdir import errors

PATH = epath.Path("/runs/a")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.OtherConfigError(PATH, {"seed": (0, 1)}),
            "another config: seed (0 there, 1 here); name another --workdir",
        ),
        (
            errors.UnwritableWorkdirError(PATH, OSError(28, "No space left")),
            "; make room, or name another with --workdir",
        ),
        (
            errors.UnwritableWorkdirError(PATH, PermissionError(13, "Permission denied")),
            "Permission denied; name another with --workdir",
        ),
        (
            errors.UnreadableFileError(PATH / "config.json", PermissionError(13, "Permission denied")),
            "config.json cannot be read: Permission denied; make it readable, or check the storage",
        ),
        (errors.LockedWorkdirError(PATH, "process 3 on a"), "(process 3 on a); wait for it, or name another --workdir"),
        (errors.NoRunError(PATH), "config.json is missing; name the --workdir of a training run"),
        (
            errors.NoRunError(PATH, is_file=True),
            f"{PATH} holds no run: it is a file; `python -m alexnet_jax.convert import {PATH} --workdir=DIR` makes a",
        ),
        (
            errors.DamagedFileError(PATH / "config.json", "it is not UTF-8"),
            "(it is not UTF-8); restore it, or remove it",
        ),
        (
            errors.MismatchError(PATH, "fc8/kernel", (2, 3), (2, 4)),
            "has (2, 4); use the recipe it was made with, or, st",
        ),
        (errors.MismatchError(PATH, "fc8/kernel", (2, 3), None), "does not have it; use the recipe it was made with"),
        (
            errors.NoTrainingStateError(PATH / "checkpoints/0"),
            f"; name another --workdir, and start from this network with --config.init_from={PATH}",
        ),
        (errors.DamagedCheckpointError(PATH, "d/0 is missing"), "d/0 is missing; resume that run"),
        (errors.UnreadableCheckpointError(PATH, "no bytes"), "cannot be read: no bytes; resume that run"),
        (errors.NotFiniteCheckpointError(PATH), "its run diverged; name an earlier one with --checkpoint"),
        (errors.SaveError(7, "there is no room"), "there is no room; make room and run the same command again"),
        (UsageError("something else"), "something else"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_gets_its_advice_and_stays_of_its_kind(error: UsageError, message: str):
    kind, facts = type(error), dict(vars(error))
    with pytest.raises(UsageError) as caught, hints():
        raise error
    assert type(caught.value) is kind and vars(caught.value) == facts
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).count(message[-20:]) == 1
    assert ("; " in str(caught.value)) == (kind is not UsageError)


def test_the_room_of_workdirs_names_no_flag():
    package = Path(errors.__file__).parent
    for file in package.glob("*.py"):
        assert "--workdir" not in file.read_text() and "--checkpoint" not in file.read_text(), file.name
