"""What takes long: `python -m pytest -m soak -n 0 -s`. It prints what it found, for docs/reliability.md."""

import collections
import json
import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.network import sharding
from alexnet_jax.workdir import checkpoint, manifest
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.checkpoint import Checkpoints

pytestmark = pytest.mark.soak
CONFIG = "--config=tests/configs/tiny.py"
KILLS = int(os.environ.get("SOAK_KILLS", "30"))
STEPS = int(os.environ.get("SOAK_STEPS", "20000"))


def last_params(workdir: Path, data_dir: str) -> dict:
    """The parameters of a finished run."""
    folder = epath.Path(workdir)
    experiment = experiments.build(settings_of(workdirs.read_config(folder)).on_any_mesh(), data_dir, say=print)
    checkpoints = Checkpoints(folder / workdirs.CHECKPOINTS, read_only=True)
    state = checkpoints.restore(experiment.num_steps, experiment.steps.target)
    checkpoints.close()
    return jax.device_get(state)


def phase(workdir: Path, out: str) -> str:
    """What a killed run was at, as far as it shows from outside."""
    if any(path.name.endswith("-tmp") for path in (workdir / "checkpoints").glob("*")):
        return "save"
    if "updates of" not in out:
        return "start-up"
    return "final evaluation" if (workdir / "checkpoints" / "123").exists() else "steps and evaluations"


def test_kill_9_at_random_moments_changes_no_bit(tmp_path: Path, data_dir: str, command):
    """123 updates with 40 saves and evaluations; a run that is through is compared, and another begun."""

    def start(workdir: Path):
        every = "--config.evaluate_every=0.5", "--config.save_every=0.5"
        return command(
            "main", CONFIG, "--config.num_epochs=20", *every, f"--workdir={workdir}", f"--data_dir={data_dir}"
        )

    begun = time.monotonic()
    status, _, err = start(tmp_path / "whole").finish()
    seconds = time.monotonic() - begun
    assert (status, err) == (0, "")
    whole = last_params(tmp_path / "whole", data_dir)
    draw = random.Random(0)
    killed: collections.Counter[str] = collections.Counter()
    runs, restarts = 0, []
    while killed.total() < KILLS or restarts[-1] != 0:
        workdir = tmp_path / str(runs)
        run = start(workdir)
        try:
            run.process.wait(timeout=draw.uniform(0, seconds) if killed.total() < KILLS else 300)
        except subprocess.TimeoutExpired:
            run.process.kill()
            out, err = run.process.communicate()
            killed[phase(workdir, out)] += 1
            restarts.append(1)
            assert err == ""
            continue
        status, out, err = run.finish()
        assert (status, err) == (0, ""), out
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(last_params(workdir, data_dir)), strict=True):
            np.testing.assert_array_equal(a, b)
        restarts.append(0)
        runs += 1
    print(f"\n{killed.total()} kills within {seconds:.0f} s of a start ({dict(killed)}), {runs} runs, the same bits")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("wanted", ["continue", "stop"])
def test_a_disk_that_is_full_and_then_is_not(small_disk: Path, wanted: str, tmp_path: Path, data_dir: str, command):
    workdir, filling = small_disk / "run", small_disk / "filling"
    flags = CONFIG, "--config.num_epochs=150", "--config.save_every=5", "--config.evaluate_every=1000"
    flags = *flags, f"--config.on_failed_save={wanted}", f"--data_dir={data_dir}"
    status, _, err = command("main", *flags, f"--workdir={tmp_path / 'whole'}").finish()
    assert (status, err) == (0, "")
    run = command("main", *flags, f"--workdir={workdir}")
    while not list(workdir.glob("checkpoints/[0-9]*/commit_success.txt")):
        assert run.process.poll() is None
        time.sleep(0.02)
    try:
        with filling.open("wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass
    except OSError:
        pass
    warned = time.monotonic() + 4
    while wanted == "continue" and time.monotonic() < warned:
        assert run.process.poll() is None
        time.sleep(0.1)
    if wanted == "continue":
        filling.unlink()
    status, out, err = run.finish()
    print("\n" + out + err)
    if wanted == "stop":
        assert status == 2
        assert err.startswith("error: the checkpoint of update ") and err.count("\n") == 1
        complete = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
        assert complete and all(manifest.damage(epath.Path(path)) is None for path in complete)
        filling.unlink()
        status, out, err = command("main", *flags, f"--workdir={workdir}").finish()
        assert "resuming after update" in out
    else:
        assert "warning: the checkpoint of update " in out
    assert (status, err) == (0, "")
    for a, b in zip(
        jax.tree.leaves(last_params(tmp_path / "whole", data_dir)),
        jax.tree.leaves(last_params(workdir, data_dir)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of writers that orbax leaves at work
def test_a_save_that_fails_halfway_leaves_nothing_and_the_next_one_works(tmp_path: Path):
    """The room was there when it was asked for."""
    from tests.workdir.test_checkpoint import state_of, target_of

    mesh = sharding.make_mesh(data=1, tower=1)
    checkpoints = Checkpoints(epath.Path(tmp_path))
    checkpoints.save(1, state_of(1.0, mesh), top1=None)
    checkpoints.wait()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "_no_room", lambda *_: None)
            checkpoints.save(2, state_of(2.0, mesh), top1=None)
            with pytest.raises(
                checkpoint.SaveError, match=r"the checkpoint of update 2 could not be written: .*File too l"
            ):
                checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.steps() == [1]
    time.sleep(1)  # in which writers that are still at work put things back
    checkpoints.save(3, state_of(3.0, mesh), top1=None)
    checkpoints.wait()
    assert checkpoints.steps() == [1, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "3"}
    for step in (1, 3):
        restored = checkpoints.restore(step, target_of(state_of(0.0, mesh), mesh))
        np.testing.assert_array_equal(restored.params["conv1"]["kernel"], np.full((2, 3, 4), step, np.float32))
    checkpoints.close()


def test_a_long_run_needs_no_more_at_its_end_than_at_its_beginning(tmp_path: Path, data_dir: str, command):
    """Small steps with 100 evaluations and saves; the first tenth is left out, in which caches fill."""
    epochs = STEPS / (197 / 32)
    every = f"--config.evaluate_every={epochs / 100}", f"--config.save_every={epochs / 100}"
    run = command(
        "main", CONFIG, f"--config.num_epochs={epochs}", *every, f"--workdir={tmp_path}", f"--data_dir={data_dir}"
    )
    proc, samples = Path(f"/proc/{run.process.pid}"), []
    while run.process.poll() is None:
        try:
            pages = int((proc / "statm").read_text().split()[1])
            samples.append((pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list((proc / "fd").iterdir()))))
        except OSError:
            break
        time.sleep(0.5)
    status, _, err = run.finish()
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [row["train/images_per_second"] for row in rows if "train/images_per_second" in row]
    tenth = len(samples) // 10
    early, late = np.array(samples[tenth : 3 * tenth]), np.array(samples[-2 * tenth : -1])
    told = [
        f"{name} {np.median(a):.0f} -> {np.median(b):.0f} (largest {a.max():.0f}, {b.max():.0f})"
        for name, a, b in zip(("memory in MiB", "descriptors"), early.T, late.T, strict=True)
    ]
    third = len(rates) // 3
    speed = [float(np.median(part)) for part in (rates[1 : third + 1], rates[-third - 1 : -1])]
    print(f"\n{STEPS} steps, {len(samples)} samples: {'; '.join(told)}; images/s {speed[0]:.0f} -> {speed[1]:.0f}")
    assert np.median(late[:, 0]) < 1.02 * np.median(early[:, 0])
    assert np.median(late[:, 1]) <= np.median(early[:, 1])
    assert speed[1] > 0.9 * speed[0]
