import errno
import gc
import math
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.plateau import fresh
from alexnet_jax.learning.step import init_state
from alexnet_jax.network import sharding
from alexnet_jax.workdir import checkpoint, manifest
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.errors import (
    DamagedCheckpointError,
    MismatchError,
    NotFiniteCheckpointError,
    NotFiniteStateError,
    NoTrainingStateError,
    OldCheckpointError,
    SaveError,
)

OPTIMIZER = krizhevsky_sgd(
    {"conv1": {"kernel": piecewise([(0, 0.1)]), "bias": piecewise([(0, 0.1)])}}, momentum=0.9, weight_decay=0.0
)


def state_of(value: float, mesh):
    params = {"conv1": {"kernel": jnp.full((2, 3, 4), float(value)), "bias": jnp.arange(2.0).reshape(2, 1) + value}}
    state = init_state(params, {}, OPTIMIZER)
    return jax.device_put(state, sharding.state_shardings(state, mesh))


def target_of(state, mesh):
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        sharding.state_shardings(state, mesh),
    )


@pytest.fixture
def checkpoints(tmp_path: Path):
    kept = Checkpoints(epath.Path(tmp_path / "checkpoints"))
    yield kept
    kept.close()


def test_the_last_three_and_the_best_are_kept(checkpoints: Checkpoints):
    mesh = sharding.make_mesh(data=1, tower=2)
    assert checkpoints.best_step() is None
    for step, top1 in [(1, 0.5), (2, 0.2), (3, 0.4), (4, None), (5, 0.3), (6, 0.6)]:
        checkpoints.save(step, state_of(step, mesh), top1=top1)
        checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5, 6]
    assert checkpoints.best_step() == 2


def test_the_best_checkpoint_is_chosen_by_name_and_without_errors_the_last(checkpoints: Checkpoints):
    mesh = sharding.make_mesh(data=1, tower=2)
    with pytest.raises(UsageError, match="no checkpoint yet; train first"):
        checkpoint.choose_step(checkpoints, "best")
    checkpoints.save(1, state_of(1, mesh), top1=None)
    assert checkpoint.choose_step(checkpoints, "best") == 1
    for step, top1 in ((2, 0.2), (3, 0.4)):
        checkpoints.save(step, state_of(step, mesh), top1=top1)
    checkpoints.wait()
    assert [checkpoint.choose_step(checkpoints, name) for name in ("last", "best", "1")] == [3, 2, 1]
    with pytest.raises(UsageError, match="no checkpoint '4'; there are last, best, 1, 2, 3"):
        checkpoint.choose_step(checkpoints, "4")


def test_an_old_checkpoint_that_cannot_be_deleted_fails_no_save(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """As one that a user has protected, or that a reader holds open on NFS."""
    mesh = sharding.make_mesh(data=1, tower=2)
    checkpoints.save(1, state_of(1, mesh), top1=0.5)
    kept, rmtree = type(checkpoints._folder), type(checkpoints._folder).rmtree

    def refuse(path, *arguments, **keywords):
        if path.name == "1":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return rmtree(path, *arguments, **keywords)

    monkeypatch.setattr(kept, "rmtree", refuse)
    for step in range(2, 8):
        checkpoints.save(step, state_of(step, mesh), top1=0.1)
        checkpoints.wait()
        assert checkpoints.last_sound == step
    assert checkpoints.steps() == [1, 5, 6, 7]
    shown = "".join(capsys.readouterr())
    assert shown.count("the old checkpoint of update 1 cannot be deleted: Permission denied") == 1


def test_a_save_fails_in_one_line_where_the_storage_is_gone(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch):
    mesh = sharding.make_mesh(data=1, tower=2)
    checkpoints.save(1, state_of(1, mesh), top1=0.5)
    checkpoints.wait()
    gone = OSError(errno.ESTALE, "Stale file handle")
    with monkeypatch.context() as patch:
        patch.setattr(type(checkpoints._folder), "iterdir", mock.Mock(side_effect=gone))
        patch.setattr(checkpoints._manager, "save", mock.Mock(side_effect=gone))
        patch.setattr(checkpoints._manager, "reload", mock.Mock(side_effect=gone))
        with pytest.raises(SaveError, match="Stale file handle"):
            checkpoints.save(2, state_of(2, mesh), top1=0.5)
    checkpoints.save(3, state_of(3, mesh), top1=0.5)
    checkpoints.wait()
    assert checkpoints.steps() == [1, 3] and checkpoints.last_sound == 3


def test_orbax_is_closed_though_the_last_save_fails(tmp_path: Path):
    checkpoints = Checkpoints(epath.Path(tmp_path / "checkpoints"))
    checkpoints.save(1, state_of(1, sharding.make_mesh(data=1, tower=2)), top1=0.5)
    wait = checkpoints._manager.wait_until_finished

    def fail() -> None:
        wait()  # as orbax, which reports a failure when no thread is writing any more
        raise OSError(errno.EIO, "bad disk")

    with (
        mock.patch.object(checkpoints._manager, "wait_until_finished", side_effect=fail),
        mock.patch.object(checkpoints._manager, "close", wraps=checkpoints._manager.close) as closed,
        pytest.raises(SaveError, match=r"the checkpoint of update 1 could not be written: .*bad disk"),
    ):
        checkpoints.close()
    assert closed.call_count == 1


def test_a_failure_that_orbax_reports_twice_names_no_update():
    assert str(SaveError(None, "no room")) == "a checkpoint could not be written: no room"


def test_a_run_that_passed_over_later_checkpoints_is_saved(checkpoints: Checkpoints, tmp_path: Path):
    """A run whose last checkpoints are damaged goes on from an earlier one, and may end before it comes to them."""
    mesh = sharding.make_mesh(data=1, tower=2)
    for step in (1, 7, 8, 9):
        checkpoints.save(step, state_of(step, mesh), top1=0.1 * step)
        checkpoints.wait()
    for step in (7, 8, 9):
        (tmp_path / "checkpoints" / str(step) / "default" / "manifest.ocdbt").write_bytes(b"damaged")
    target = target_of(state_of(0, mesh), mesh)
    restored = checkpoint.restore_newest(checkpoints, target)
    assert restored is not None and restored.params["conv1"]["kernel"][0, 0, 0] == 1.0, "that of update 1"
    for step in (2, 3):
        checkpoints.save(step, state_of(step, mesh), top1=None)
        checkpoints.wait()
        assert checkpoints.steps()[-1] == step
    again = checkpoint.restore_newest(checkpoints, target)
    assert again is not None and again.params["conv1"]["kernel"][0, 0, 0] == 3.0


def test_a_damaged_checkpoint_of_the_same_update_is_none(checkpoints: Checkpoints, tmp_path: Path):
    """A run that made the update again and is interrupted before its next save must not take the update for saved."""
    mesh = sharding.make_mesh(data=1, tower=2)
    for step in (1, 2):
        checkpoints.save(step, state_of(step, mesh), top1=None)
        checkpoints.wait()
    (tmp_path / "checkpoints/2/default/manifest.ocdbt").write_bytes(b"damaged")
    again = Checkpoints(epath.Path(tmp_path / "checkpoints"))
    assert not again.holds(1) and again.last_sound is None
    checkpoint.restore_newest(again, target_of(state_of(0, mesh), mesh))
    assert again.holds(1) and not again.holds(2) and again.last_sound == 1
    again.save(2, state_of(2, mesh), top1=None)
    assert again.holds(2), "it is being written"
    again.wait()
    assert again.holds(2) and again.last_sound == 2
    again.close()


def test_an_error_is_added_to_a_checkpoint(checkpoints: Checkpoints, tmp_path: Path):
    mesh = sharding.make_mesh(data=1, tower=2)
    for step, top1 in ((1, None), (2, 0.5)):
        checkpoints.save(step, state_of(step, mesh), top1=top1, loss=top1)
        checkpoints.wait()
    assert not checkpoints.is_evaluated(1) and checkpoints.is_evaluated(2) and checkpoints.best_step() == 2
    checkpoints.add_error(1, top1=0.25, loss=1.5)
    assert checkpoints.is_evaluated(1) and checkpoints.best_step() == 1
    checkpoints.add_error(1, top1=0.26, loss=1.6)  # of a run that was killed before its next save
    assert manifest.damage(epath.Path(tmp_path / "checkpoints/1")) is None
    for step in (3, 4, 5):
        checkpoints.save(step, state_of(step, mesh), top1=0.9)
        checkpoints.wait()
    assert checkpoints.steps() == [1, 3, 4, 5], "the best is kept"
    again = Checkpoints(epath.Path(tmp_path / "checkpoints"), read_only=True)
    restored = again.restore(1, target_of(state_of(0, mesh), mesh))
    assert again.best_step() == 1 and restored.params["conv1"]["kernel"][0, 0, 0] == 1.0
    again.close()
    (tmp_path / "checkpoints/1/metrics/metrics").write_text('{"top1": 0.0}')
    with pytest.raises(DamagedCheckpointError, match="metrics/metrics has 13 bytes"):
        checkpoints.restore(1, target_of(state_of(0, mesh), mesh))


def test_of_equal_errors_the_smaller_loss_is_the_best(checkpoints: Checkpoints, tmp_path: Path):
    """Also beside a checkpoint of an earlier version, which kept no loss."""
    mesh = sharding.make_mesh(data=1, tower=2)
    for step, top1, loss in [(1, 0.2, None), (2, 0.2, 0.5), (3, 0.2, 0.7), (4, 0.3, 0.1), (5, 0.2, 0.5), (6, 0.2, 0.6)]:
        checkpoints.save(step, state_of(step, mesh), top1=top1, loss=loss)
        checkpoints.wait()
    assert checkpoints.best_step() == 5, "of equal losses the later one"
    again = Checkpoints(epath.Path(tmp_path / "checkpoints"), read_only=True)
    assert again.best_step() == 5
    again.close()
    for step in (7, 8, 9):
        checkpoints.save(step, state_of(step, mesh), top1=0.2, loss=0.9)
        checkpoints.wait()
    assert checkpoints.steps() == [5, 7, 8, 9], "the best is kept"


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_an_error_or_loss_that_is_not_finite_is_never_the_best(checkpoints: Checkpoints, wrong: float):
    mesh = sharding.make_mesh(data=1, tower=2)
    for step, top1, loss in [(1, 0.5, 1.0), (2, 0.0, wrong), (3, wrong, None), (4, 0.6, 1.0)]:
        checkpoints.save(step, state_of(step, mesh), top1=top1, loss=loss)
        checkpoints.wait()
    assert checkpoints.best_step() == 1


@pytest.mark.parametrize("field", ["params", "opt_state"])
@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_a_state_that_is_not_finite_is_neither_saved_nor_restored(
    checkpoints: Checkpoints, tmp_path: Path, wrong: float, field: str, monkeypatch: pytest.MonkeyPatch
):
    """A velocity that is not finite makes such parameters with the next update."""
    mesh = sharding.make_mesh(data=1, tower=2)
    state = state_of(1.0, mesh)
    is_biases = lambda leaf: leaf.shape == (2, 1)  # noqa: E731
    spoil = lambda leaf: leaf.at[1, 0].set(wrong) if is_biases(leaf) else leaf  # noqa: E731
    state = state.replace(**{field: jax.tree.map(spoil, getattr(state, field))})
    with pytest.raises(NotFiniteStateError, match="the state of update 7 is not finite"):
        checkpoints.save(7, state, top1=0.0)
    checkpoints.wait()
    assert checkpoints.steps() == []
    with monkeypatch.context() as patch:  # as an earlier version saved it
        patch.setattr(checkpoint, "all_finite", lambda arrays: True)
        checkpoints.save(7, state, top1=0.0)
        checkpoints.wait()
    target = target_of(state, mesh)
    for wanted in (target, {"params": target.params}) if field == "params" else (target,):
        with pytest.raises(NotFiniteCheckpointError, match=f"{tmp_path}/checkpoints/7 holds numbers that are not fin"):
            checkpoints.restore(7, wanted)
    if field == "opt_state":
        checkpoints.restore(7, {"params": target.params})  # the network itself is sound


def test_the_infinity_of_a_plateau_is_no_fault(checkpoints: Checkpoints):
    """The best error of a plateau is infinite before the first evaluation."""
    mesh = sharding.make_mesh(data=1, tower=1)
    state = state_of(1.0, mesh).replace(plateau=fresh())
    checkpoints.save(7, state, top1=None)
    checkpoints.wait()
    checkpoints.restore(7, target_of(state, mesh))


def test_a_checkpoint_of_another_network_is_refused_with_both_shapes(checkpoints: Checkpoints):
    mesh = sharding.make_mesh(data=1, tower=1)
    state = state_of(1.0, mesh)
    checkpoints.save(7, state, top1=None)
    checkpoints.wait()
    params = target_of(state, mesh).params
    kernel = params["conv1"]["kernel"]
    other = jax.ShapeDtypeStruct((2, 5, 4), kernel.dtype, sharding=kernel.sharding)
    with pytest.raises(
        MismatchError, match=r": conv1/kernel has the shape \(2, 5, 4\) here, and the .* \(2, 3, 4\)"
    ) as caught:
        checkpoints.restore(7, {"params": {"conv1": params["conv1"] | {"kernel": other}}})
    assert caught.value.name == "conv1/kernel"
    with pytest.raises(MismatchError, match="does not have it") as caught:
        checkpoints.restore(7, {"params": params | {"conv2": params["conv1"]}})
    assert caught.value.name == "conv2/bias"


def test_a_save_collects_no_metrics_of_tensorstore(checkpoints: Checkpoints):
    with mock.patch.object(tensorstore, "experimental_collect_matching_metrics", side_effect=AssertionError):
        checkpoints.save(1, state_of(1.0, sharding.make_mesh(data=1, tower=2)), top1=None)
        checkpoints.wait()


@pytest.mark.soak
def test_saves_leave_little_in_memory(checkpoints: Checkpoints):
    """Each of orbax's questions to TensorStore's metrics left some 70 objects that nothing frees, 300 a save here.

    Caches of paths fill over the first 30 saves. What then stays, some 50 objects a save, are names in the
    descriptions of arrays that orbax has TensorStore 0.1.86 turn to JSON.
    """
    state = state_of(1.0, sharding.make_mesh(data=1, tower=2))
    blocks = []
    for step in range(1, 45):
        checkpoints.save(step, state, top1=None)
        checkpoints.wait()
        if step > 32:
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    assert np.median(np.diff(blocks)) < 100


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2)])
def test_a_state_comes_back_on_any_layout(checkpoints: Checkpoints, shape: tuple[int, int]):
    state = state_of(3.5, sharding.make_mesh(data=1, tower=2))
    checkpoints.save(7, state, top1=None)
    checkpoints.wait()
    target = target_of(state, sharding.make_mesh(data=shape[0], tower=shape[1]))
    restored = checkpoints.restore(7, target)
    for a, b, wanted in zip(*map(jax.tree.leaves, (state, restored, target)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.sharding == wanted.sharding
    part = checkpoints.restore(7, {"params": target.params})
    np.testing.assert_array_equal(part["params"]["conv1"]["bias"], state.params["conv1"]["bias"])


def flip(file: Path):
    data = bytearray(file.read_bytes())
    for place in {0, len(data) // 2, len(data) - 1}:
        data[place] ^= 1
        file.write_bytes(data)
        yield f"{file.name} has changed since it was written"
        data[place] ^= 1
        file.write_bytes(data)


def cut(file: Path):
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    yield "has changed" if file.name == "MANIFEST" else f"has {len(data) - 1:,} bytes, and {len(data):,} were written"
    file.write_bytes(data)


def remove(file: Path):
    if file.name != "MANIFEST":
        file.rename(file.with_name("away"))
        yield f"{file.name} is missing"
        file.with_name("away").rename(file)


def test_damage_of_any_file_is_found_and_named(tmp_path: Path):
    mesh = sharding.make_mesh(data=1, tower=1)
    state, folder = state_of(1.0, mesh), tmp_path / "checkpoints"
    checkpoints = Checkpoints(epath.Path(folder))
    checkpoints.save(7, state, top1=0.5)
    checkpoints.close()
    checkpoints = Checkpoints(epath.Path(folder), read_only=True)
    target = {"params": target_of(state, mesh).params}
    files = [path for path in (folder / "7").rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        for damage in (flip, cut, remove):
            for message in damage(file):
                with pytest.raises(UsageError) as caught:
                    checkpoints.restore(7, target)
                assert str(caught.value).startswith(f"the checkpoint {folder}/7 is damaged: ")
                assert message in str(caught.value)
                assert str(file.relative_to(folder / "7")) in str(caught.value)
    checkpoints.restore(7, target)
    checkpoints.close()


def test_a_checkpoint_is_never_without_its_manifest(checkpoints: Checkpoints, tmp_path: Path):
    """A kill may come between any two calls: the manifest is there when the folder gets its name."""
    rename, listed = os.rename, []

    def watching(source, target):
        if Path(target).name == "7":
            listed.append((Path(source) / "MANIFEST").read_text())
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", watching)
        checkpoints.save(7, state_of(1.0, sharding.make_mesh(data=1, tower=1)), top1=0.5)
        checkpoints.wait()
    assert len(listed) == 1
    folder = tmp_path / "checkpoints/7"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"MANIFEST"}
    # Orbax writes these two in the same moment; they are listed after it.
    assert {name for name in there if f'"{name}"' not in listed[0]} == {"_CHECKPOINT_METADATA", "commit_success.txt"}
    assert {name for name in there if f'"{name}"' not in (folder / "MANIFEST").read_text()} == set()


def test_no_room_for_the_last_line_of_a_manifest_does_no_harm(checkpoints: Checkpoints, tmp_path: Path):
    mesh = sharding.make_mesh(data=1, tower=1)
    state = state_of(1.0, mesh)
    extend = manifest.extend
    with pytest.MonkeyPatch.context() as patch:

        def full(folder, **options):
            if not options:
                raise OSError(28, "No space left on device")
            extend(folder, **options)

        patch.setattr(manifest, "extend", full)
        checkpoints.save(7, state, top1=0.5)
        checkpoints.wait()
    assert '"commit_success.txt"' not in (tmp_path / "checkpoints/7/MANIFEST").read_text()
    restored = checkpoints.restore(7, target_of(state, mesh))
    np.testing.assert_array_equal(restored.params["conv1"]["bias"], state.params["conv1"]["bias"])


def test_a_failed_save_leaves_no_part_of_it_and_every_copy_of_a_user(checkpoints: Checkpoints, tmp_path: Path):
    state = state_of(1.0, sharding.make_mesh(data=1, tower=1))
    checkpoints.save(1, state, top1=0.5)
    checkpoints.wait()
    for copy in ("1-keep", "3.bak"):
        shutil.copytree(tmp_path / "checkpoints/1", tmp_path / "checkpoints" / copy)

    def full(step, **_):
        (tmp_path / f"checkpoints/{step}.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    with mock.patch.object(checkpoints._manager, "save", full), pytest.raises(SaveError, match="No space left"):
        checkpoints.save(2, state, top1=0.5)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "1-keep", "3.bak"}
    checkpoints.save(3, state, top1=0.5)
    checkpoints.wait()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "1-keep", "3", "3.bak"}
    assert manifest.damage(epath.Path(tmp_path / "checkpoints/3")) is None


def test_a_checkpoint_without_a_manifest_is_used_and_errors_of_orbax_are_reported(
    checkpoints: Checkpoints, tmp_path: Path
):
    mesh = sharding.make_mesh(data=1, tower=1)
    state = state_of(1.0, mesh)
    checkpoints.save(7, state, top1=None)
    checkpoints.wait()
    (tmp_path / "checkpoints/7/MANIFEST").unlink()
    restored = checkpoints.restore(7, target_of(state, mesh))
    np.testing.assert_array_equal(restored.params["conv1"]["bias"], state.params["conv1"]["bias"])
    (tmp_path / "checkpoints/7/default/_METADATA").unlink()
    with pytest.raises(UsageError, match=re.escape(f"the checkpoint {tmp_path}/checkpoints/7 cannot be read: ")):
        checkpoints.restore(7, target_of(state, mesh))


@pytest.mark.parametrize(
    ("listed", "damaged"),
    [
        (True, '{"top1": 0.1}'),
        (True, '{"top1":'),
        (False, '{"top1":'),
        (False, "[]"),
        (False, "{}"),
        (False, '{"top1": NaN}'),
        (False, '{"top1": -Infinity}'),
    ],
)
def test_a_damaged_error_does_not_keep_other_checkpoints_from_use(tmp_path: Path, listed: bool, damaged: str):
    mesh, folder = sharding.make_mesh(data=1, tower=1), tmp_path / "checkpoints"
    checkpoints = Checkpoints(epath.Path(folder))
    for step, top1 in ((1, 0.5), (2, 0.4), (3, 0.3)):
        checkpoints.save(step, state_of(step, mesh), top1=top1)
    checkpoints.close()
    (folder / "3/metrics/metrics").write_text(damaged)
    if not listed:
        (folder / "3/MANIFEST").unlink()
    checkpoints = Checkpoints(epath.Path(folder), read_only=True)
    assert checkpoints.steps() == [1, 2, 3]
    assert checkpoints.best_step() == 2
    checkpoints.close()


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "damage", ["", "{", "[" * 100_000, "[]", '{"commit_timestamp_nsecs": "x"}', "folder", "device"]
)
def test_damaged_metadata_of_a_checkpoint_keep_no_other_from_use(tmp_path: Path, damage: str, listed: bool):
    """Orbax would read the time of every checkpoint."""
    mesh, folder = sharding.make_mesh(data=1, tower=1), tmp_path / "checkpoints"
    checkpoints = Checkpoints(epath.Path(folder))
    for step in (1, 2):
        checkpoints.save(step, state_of(step, mesh), top1=0.1 * step)
    checkpoints.close()
    file = folder / "2/_CHECKPOINT_METADATA"
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "device":
        file.symlink_to("/dev/zero")
    else:
        file.write_text(damage)
    if not listed:
        (folder / "2/MANIFEST").unlink()
    checkpoints = Checkpoints(epath.Path(folder))
    assert checkpoints.steps() == [1, 2] and checkpoints.best_step() == 1
    target = target_of(state_of(1, mesh), mesh)
    if listed or damage in ("folder", "device"):
        with pytest.raises(DamagedCheckpointError, match=r"_CHECKPOINT_METADATA (has|is)"):
            checkpoints.restore(2, target)
    np.testing.assert_array_equal(checkpoints.restore(1, target).params["conv1"]["kernel"], 1.0)
    checkpoints.save(2, state_of(5, mesh), top1=0.5)
    checkpoints.wait()
    np.testing.assert_array_equal(checkpoints.restore(2, target).params["conv1"]["kernel"], 5.0)
    checkpoints.close()


def test_a_checkpoint_without_a_part_of_the_state_is_refused(checkpoints: Checkpoints):
    """An earlier version kept batch norm's averages among the parameters, and a plateau's memory in the optimizer."""
    mesh = sharding.make_mesh(data=1, tower=1)

    def state(norm: str):
        return state_of(1, mesh).replace(batch_stats={norm: {"mean": jnp.zeros((2, 4))}})

    checkpoints.save(1, state("conv2_norm"), top1=None)
    checkpoints.wait()
    with pytest.raises(OldCheckpointError, match=r"by an earlier version .* it has no batch_stats/conv1_norm/mean"):
        checkpoints.restore(1, target_of(state("conv1_norm"), mesh))


def test_a_network_alone_is_no_state_to_go_on_from(checkpoints: Checkpoints, tmp_path: Path):
    """As an import saves it: no earlier version wrote it."""
    mesh = sharding.make_mesh(data=1, tower=1)
    state = state_of(1.0, mesh)
    checkpoints.save(0, {"params": state.params, "batch_stats": state.batch_stats}, top1=None)
    checkpoints.wait()
    with pytest.raises(
        NoTrainingStateError, match="checkpoints/0 holds a network and no state of a training run"
    ) as error:
        checkpoints.restore(0, target_of(state, mesh))
    assert error.value.folder == epath.Path(tmp_path)
    checkpoints.restore(0, {"params": target_of(state, mesh).params})


def test_a_failure_that_was_told_is_not_told_again_at_the_end(tmp_path: Path):
    for has_failed in (True, False):
        checkpoints = Checkpoints(epath.Path(tmp_path))
        checkpoints._has_failed = has_failed
        close = checkpoints._manager.close
        with mock.patch.object(checkpoints._manager, "close", side_effect=ValueError("the same failure")):
            if has_failed:
                checkpoints.close()
            else:
                with pytest.raises(ValueError, match="the same failure"):
                    checkpoints.close()
        close()


def test_a_folder_of_a_checkpoint_that_cannot_be_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As where another process removes the checkpoint meanwhile."""
    folder = epath.Path(tmp_path)
    (folder / "data").write_text("1")
    manifest.extend(folder)
    monkeypatch.setattr(manifest, "_names", mock.Mock(side_effect=FileNotFoundError(2, "No such file", "/a/b")))
    assert manifest.damage(folder) == "/a/b cannot be read (No such file)"


@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(fallocate=lambda *_: -1)])
def test_without_reservations_the_free_bytes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library):
    monkeypatch.setattr(checkpoint.ctypes, "CDLL", lambda *_, **__: library)
    monkeypatch.setattr(checkpoint.ctypes, "get_errno", lambda: errno.ENOTSUP)
    state = {"few": np.zeros(3)}
    assert checkpoint._no_room(epath.Path(tmp_path), state) is None
    monkeypatch.setattr(checkpoint, "SMALL_FILES", 2**62)
    assert "there is no room for 4,611" in str(checkpoint._no_room(epath.Path(tmp_path), state))


def test_room_is_asked_for_all_bytes_of_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(checkpoint, "_reserve", lambda descriptor, size: asked.append(size))
    checkpoint._no_room(epath.Path(tmp_path), {"a": np.zeros(10**6, np.float32), "b": np.zeros(10**6)})
    assert asked == [13_200_000 + checkpoint.SMALL_FILES]  # a tenth more than 4 and 8 MB
