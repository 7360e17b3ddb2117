import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints
from alexnet_jax.workdir import errors
from tests.test_imports import PACKAGE, ROOMS

PATH = epath.Path("/runs/a")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            errors.OtherConfigError(PATH, {"seed": (0, 1)}),
            "another config: seed (0 there, 1 here); name another --workdir",
        ),
        (
            errors.LostCheckpointsError(PATH, "result.json"),
            "checkpoints are gone; name another --workdir, or remove result.json there to train again",
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
        (errors.SaveError(7, "there is no room"), "there is no room; remove the cause and run the same command again"),
        (UsageError("something else"), "something else"),
        (UsageError("give its kind", option="kind=bvlc"), "give its kind (--kind=bvlc)"),
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


@pytest.mark.parametrize(
    ("has_config", "advice"),
    [(True, "a smaller batch (config.batch_size) or network"), (False, "end other programs")],
)
def test_a_device_without_enough_memory_is_one_line(has_config: bool, advice: str):
    with pytest.raises(UsageError) as caught, hints(has_config=has_config):
        jnp.zeros(2**60)  # on a CPU XLA refuses that at once
    message = str(caught.value)
    problem = "a device has too little memory: Out of memory allocating 4611686018427387904 bytes"
    assert message.startswith(f"{problem}; {advice}") and "\n" not in message
    assert ("config." in message) == has_config


def test_a_fault_of_ours_stays_one():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), hints():  # a fault of ours or of JAX
        raise jax.errors.JaxRuntimeError("INTERNAL: something")


FLAG = re.compile(r"(?<![\w`-])--[a-z]\w*")
# Command lines to paste, and what explains a flag of the same name in every command.
COMMAND_LINES = {
    "experiment/data.py",
    "formats/export_page.py",
    "model_card/card.py",
    "network/native/build.py",
    "network/native/compiler.py",
    "network/native/nvrtc.py",
    "runtime/processes.py",
}


def texts_of(file: Path) -> list[str]:
    """The string constants of a file, without docstrings."""
    tree = ast.parse(file.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and docstring(node)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in constants if id(node) not in docstrings]


def docstring(node: ast.AST) -> bool:
    return ast.get_docstring(node) is not None


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_below_the_commands_name_no_flag(room: str):
    """Flags are the commands' matter: `hints` appends them."""
    for file in sorted((PACKAGE / room).rglob("*.py")):
        if file.relative_to(PACKAGE).as_posix() not in COMMAND_LINES:
            assert not [text for text in texts_of(file) if FLAG.search(text)], file
