"""Runs whose images worker processes read: the bits of a run with threads, and how many processes there are."""

import dataclasses
import errno
import itertools
import os
import re
import signal
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np
import pytest

from alexnet_jax.data import pipeline
from alexnet_jax.data import ring as rings
from alexnet_jax.data.errors import ReaderDiedError
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build, feed, reading
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.runtime.interruption import Interrupted
from alexnet_jax.train import train_and_evaluate
from tests.waiting import children


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def at_update(monkeypatch: pytest.MonkeyPatch):
    """Acts before an update of the next run, once."""

    def arrange(number: int, act: Callable[[], None]) -> None:
        calls, update = itertools.count(1), feed.FromDisk.update

        def acting(self, *arguments):
            if next(calls) == number:
                act()
            return update(self, *arguments)

        monkeypatch.setattr(feed.FromDisk, "update", acting)

    return arrange


@pytest.mark.long
def test_a_run_with_workers_has_the_bits_of_a_run_with_threads(tiny_config, data_dir, tmp_path, at_update):
    before = children()
    whole = train_and_evaluate(tiny_config(**{"dataset.workers": 0}), str(tmp_path / "threads"), data_dir)
    at_update(5, lambda: signal.raise_signal(signal.SIGTERM))
    for workers in (2, 1):
        with pytest.raises(Interrupted) if workers == 2 else pytest.MonkeyPatch.context():
            parts = train_and_evaluate(tiny_config(**{"dataset.workers": workers}), str(tmp_path / "workers"), data_dir)
        assert children() == before
    assert_same(whole, parts)


@pytest.mark.long
def test_a_run_whose_worker_is_killed_keeps_its_updates(tiny_config, data_dir, tmp_path, at_update):
    before = children()
    at_update(4, lambda: os.kill(min(children() - before), signal.SIGKILL))
    config = tiny_config(num_epochs=20.0, **{"dataset.workers": 2})
    with pytest.raises(ReaderDiedError, match="ended with SIGKILL"):
        train_and_evaluate(config, str(tmp_path), data_dir)
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) >= 4
    assert children() == before


@pytest.mark.long
def test_too_little_shared_memory_is_one_line(tiny_config, data_dir, tmp_path, capsys, monkeypatch):
    (tmp_path / "limit").write_text("100000")
    monkeypatch.setattr(rings, "MEMORY_LIMITS", (tmp_path / "limit",))
    config = tiny_config(num_epochs=0.2, **{"dataset.workers": 2})
    train_and_evaluate(config, str(tmp_path / "run"), data_dir)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(lines) == 1
    assert re.fullmatch(
        r"warning: 2 worker processes need 2 MiB of shared memory \(there is 0 MiB of free memory\); threads read the"
        r" images in their place; a smaller config.dataset.workers or config.batch_size needs less, .*",
        lines[0],
    )


@pytest.mark.parametrize(
    ("wanted", "platform", "cores", "count"),
    [
        (None, "cpu", 16, 0),
        (None, "gpu", 1, 0),
        (None, "gpu", 2, 2),
        (None, "tpu", 16, 16),
        (None, "gpu", 240, 64),
        (0, "gpu", 16, 0),
        (200, "cpu", 2, 200),
    ],
)
def test_the_number_of_workers(monkeypatch, wanted, platform, cores, count):
    monkeypatch.setattr(reading, "usable_cores", lambda: cores)
    assert reading.worker_count(wanted, platform) == count


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("alexnet_jax.data.workers.Process", "2 worker processes cannot be started (Too many open files)"),
        ("alexnet_jax.data.ring.Arena", "there is no shared memory (Too many open files)"),
    ],
)
def test_workers_that_cannot_be_had_leave_the_work_to_threads(capsys, what, reason):
    full = OSError(errno.EMFILE, "Too many open files")
    with mock.patch(what, side_effect=full), reading.some_workers(2) as workers:
        assert workers is None or not workers.start()
    assert capsys.readouterr().err.startswith(f"warning: {reason}; threads read the images in their place; ")


def test_a_container_has_the_cores_of_its_quota(monkeypatch, tmp_path):
    cores = pipeline.usable_cores()
    for text, expected in (("max 100000\n", cores), ("50000 100000\n", 1), ("100000000 100000\n", cores)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(pipeline, "CPU_LIMIT", tmp_path / "cpu.max")
        assert pipeline.usable_cores() == expected


@pytest.mark.parametrize("wrong", [-1, 1025])
def test_a_number_of_workers_that_makes_no_sense(tiny_config, wrong):
    with pytest.raises(UsageError, match=rf"config\.dataset\.workers is {wrong} and must be at least 0, .*, or None"):
        read_settings(tiny_config(**{"dataset.workers": wrong}))


def test_the_dry_run_says_how_many_workers_there_are_and_their_memory(tiny_config, monkeypatch):
    settings = read_settings(tiny_config())
    monkeypatch.setattr(reading, "usable_cores", lambda: 1)
    assert reading.describe_workers(settings, 56) == "images are read by 1 thread, one a core"
    monkeypatch.setattr(reading, "usable_cores", lambda: 4)
    line = reading.describe_workers(settings, 56)
    assert line.startswith("images are read by 4 worker processes on GPUs and TPUs, by threads on CPUs: 252 MB, and")
    data = dataclasses.replace(settings.dataset, workers=1)
    line = reading.describe_workers(dataclasses.replace(settings, dataset=data, batch_size=1024), 224)
    # 1 + 1 + 3 batches of 1,024 crops of 224 x 224 x 3; as many of an evaluation, and of 102 x 10 crops
    assert line == (
        "images are read by 1 worker process: 63 MB, and shared memory of 771 MB for updates and 1,538 MB for"
        " evaluations"
    )


@pytest.mark.parametrize(
    ("wanted", "platform", "expected"), [(None, "cpu", False), (None, "gpu", True), (0, "gpu", False)]
)
def test_all_processes_mirror_on_the_devices_or_none(wanted, platform, expected):
    assert reading.devices_mirror(wanted, platform) is expected
    assert reading.devices_mirror(1, platform)


def test_devices_mirror_the_crops_that_are_mirrored_otherwise(tiny_config, data_dir):
    experiment = build.build(read_settings(tiny_config(**{"dataset.crop_group": 4})), data_dir, say=print)
    ours = feed.FromDisk(experiment, mirrors=True)
    ours.start(5)
    expected = build.training_batches(experiment, start_step=5)
    for step, batch in zip(range(5, 8), expected, strict=False):
        assert_same(jax.device_get(ours.fetch(step, 1)), batch)
