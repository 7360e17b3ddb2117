"""A run whose images stay on the device, beside the same run from disk."""

import dataclasses
import signal
import threading
from collections.abc import Callable

import jax
import numpy as np
import pytest

from alexnet_jax.data import resident
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build, feed
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.metrics import Metrics
from alexnet_jax.learning.step import TrainState
from alexnet_jax.runtime.interruption import Interrupted
from alexnet_jax.train import train_and_evaluate
from tests.comparing import metrics_of


def config_of(tiny_config: Callable, on_device: bool):
    config = tiny_config(num_epochs=30.0, **{"dataset.train_split": "train[:64]", "jitter.rotation": 0.0})
    config.jitter.scale = 0.0
    config.evaluate_every = config.save_every = 10.0
    config.rates.all.kernel = config.rates.all.bias = ((0, 0.0001),)  # rounding must not grow
    config.dataset.on_device = on_device
    return config


@pytest.fixture
def short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows of metrics, so that several updates are made together."""
    from alexnet_jax.workdir import metrics_log

    monkeypatch.setattr(metrics_log, "ROWS", 6)


def test_the_images_on_the_device_give_the_run_from_disk(tiny_config, data_dir, tmp_path, short_rows, capsys):
    for on_device in (False, True):
        train_and_evaluate(config_of(tiny_config, on_device), str(tmp_path / str(on_device)), data_dir)
    assert "the images are on the devices, 1 MiB" in capsys.readouterr().out
    theirs, ours = metrics_of(tmp_path / "False"), metrics_of(tmp_path / "True")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        names = [name for name in other if name.split("/")[-1] not in ("images_per_second", "input_wait")]
        np.testing.assert_allclose([one[name] for name in names], [other[name] for name in names], rtol=1e-3)


def test_a_run_on_the_device_resumes_with_the_same_bits_wherever_it_stopped(
    tiny_config, data_dir, tmp_path, short_rows, monkeypatch
):
    config = config_of(tiny_config, True)
    whole = train_and_evaluate(config, str(tmp_path / "whole"), data_dir)
    fetched, made = [], feed.OnDevice.fetch

    def fetch(self, step, count):
        fetched.append((step, count))
        if len(fetched) == 2:
            signal.raise_signal(signal.SIGTERM)
        return made(self, step, count)

    monkeypatch.setattr(feed.OnDevice, "fetch", fetch)
    with pytest.raises(Interrupted):
        train_and_evaluate(config, str(tmp_path / "parts"), data_dir)
    parts = train_and_evaluate(config, str(tmp_path / "parts"), data_dir)
    assert max(count for _, count in fetched) > 5, "several updates are made together"
    assert sum(count for _, count in fetched) == int(whole.step) == 60
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_crops_are_drawn_while_the_updates_before_them_run(tiny_config, data_dir, monkeypatch):
    """The program of several updates keeps the thread that calls it until it ends."""
    experiment = build.build(read_settings(config_of(tiny_config, True)), data_dir, say=print)
    drawn, draw = threading.Event(), feed.resident.draw_crops

    def draw_crops(*arguments, steps, **options):
        crops = draw(*arguments, steps=steps, **options)
        if steps.start == 7:
            drawn.set()
        return crops

    def train_steps(state, *arguments):
        assert drawn.wait(60), "the next crops are drawn before the program ends"
        return state, Metrics(*(np.float32(1),) * 4)

    monkeypatch.setattr(feed.resident, "draw_crops", draw_crops)
    experiment = dataclasses.replace(experiment, steps=experiment.steps._replace(train_steps=train_steps))
    on_device = feed.OnDevice(experiment, say=print)
    fetched, count = on_device.fetch(0, 7)
    on_device.update(TrainState(np.int32(0), None, None, ()), (fetched, count), jax.random.key(0))
    following, _ = on_device.fetch(7, 2)
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one[7:], other[:-7]), fetched, following)
    jax.tree.map(np.testing.assert_array_equal, on_device.fetch(0, 1)[0], fetched)  # another step than was expected
    on_device.close()


def test_a_loss_that_is_not_finite_names_its_update(tiny_config, data_dir, tmp_path, short_rows):
    config = config_of(tiny_config, True)
    config.rates.all.kernel = ((0, 0.0001), (0.075, 1e9))  # from update 5 on: the loss of update 7 at the latest
    with pytest.raises(UsageError, match=r"loss of update [67] is not finite; there is no checkpoint yet"):
        train_and_evaluate(config, str(tmp_path), data_dir)


def test_a_long_decoding_is_a_phase_after_the_other(tiny_config, data_dir, monkeypatch):
    """The watchdog ends processes that are in one phase for ten minutes."""
    entered = []
    monkeypatch.setattr(feed, "PHASE", 25)
    monkeypatch.setattr(resident, "PART", 5)
    monkeypatch.setattr(feed.processes, "enter", lambda phase, *, slow=False: entered.append(phase))
    experiment = build.build(read_settings(config_of(tiny_config, True)), data_dir, say=print)
    entered.clear()
    feed.OnDevice(experiment, say=print)
    assert entered[:2] == ["decoding image 25 of train[:64]", "decoding image 50 of train[:64]"]
    assert entered[2].startswith("decoding image 25 of test")


def test_images_that_do_not_fit_are_refused_with_both_sizes(tiny_config, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "_memory", lambda experiment: 2**20 + 1)
    with pytest.raises(UsageError, match=r"on_device is True, and the images take 1 MiB of the 1 MiB"):
        train_and_evaluate(config_of(tiny_config, True), str(tmp_path), data_dir)


@pytest.mark.parametrize(("more", "kept"), [(0, False), (1, True)])
def test_images_that_take_less_than_a_quarter_of_a_gpus_memory_are_kept_there(
    tiny_config, data_dir, monkeypatch, more, kept
):
    class OnDevice(feed.OnDevice):
        def __init__(self, experiment, *, say):
            pass

    experiment = build.build(read_settings(config_of(tiny_config, None)), data_dir, say=print)
    bytes_of_images = (len(experiment.train_source) + len(experiment.eval_source)) * (64 * 64 * 3 + 4)
    limit = 4 * bytes_of_images + more
    monkeypatch.setattr(feed.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(type(jax.devices()[0]), "memory_stats", lambda self: {"bytes_limit": limit})
    monkeypatch.setattr(feed, "OnDevice", OnDevice)
    monkeypatch.setattr(feed, "open_workers", lambda workers, say: None)
    assert isinstance(feed.open_feed(experiment, say=print), OnDevice) == kept


@pytest.mark.parametrize("wanted", [None, True])
def test_a_gpu_that_hides_its_memory_gets_images_only_on_request(tiny_config, data_dir, monkeypatch, wanted):
    """As with `XLA_PYTHON_CLIENT_ALLOCATOR=platform`. The machine's own memory says nothing about a GPU's."""

    class OnDevice(feed.OnDevice):
        def __init__(self, experiment, *, say):
            pass

    config = tiny_config()
    config.dataset.on_device = wanted
    experiment = build.build(read_settings(config), data_dir, say=print)
    monkeypatch.setattr(feed.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(feed, "OnDevice", OnDevice)
    monkeypatch.setattr(feed, "open_workers", lambda workers, say: None)
    assert isinstance(feed.open_feed(experiment, say=print), OnDevice if wanted else feed.FromDisk)
