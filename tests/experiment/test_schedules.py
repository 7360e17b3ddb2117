import jax.numpy as jnp
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.build import build_optimizer, build_tower
from alexnet_jax.experiment.schedules import Schedule, past_is_kept
from alexnet_jax.experiment.settings import read_settings

LAYERS = {"conv1": ["kernel", "bias"], "fc8": ["kernel", "bias"]}
TABLE = ((0.0, 0.01), (0.5, 0.001))
UPDATES = ((0.0, 0.01), (50.0, 0.001))


def schedule_of(tiny_config, steps_per_epoch=100.0, **changes):
    return Schedule(read_settings(tiny_config(num_epochs=2.0, **changes)), steps_per_epoch)


@pytest.mark.parametrize(("schedule", "drop"), [("run", 100), ("cosine", 100), ("epochs", 50), ("plateau", 50)])
def test_positions_are_epochs_or_shares_of_the_run(tiny_config, schedule, drop):
    assert schedule_of(tiny_config, schedule=schedule).by_step(TABLE, "rates.all.kernel") == [(0, 0.01), (drop, 0.001)]


def test_positions_are_updates(tiny_config):
    table = ((0.0, 0.01), (150.0, 0.001))
    assert schedule_of(tiny_config, schedule="steps").by_step(table, "rates.all.kernel") == [(0, 0.01), (150, 0.001)]


def test_a_schedule_past_the_end_of_the_run(tiny_config):
    table = ((0.0, 0.01), (200.0, 0.001))
    message = r"config.rates.conv1.kernel changes at 200, which is step 200 of a run of 200; shorten it, or raise"
    with pytest.raises(UsageError, match=message):
        schedule_of(tiny_config, schedule="steps").by_step(table, "rates.conv1.kernel")
    message = r"config.rates.conv1.kernel changes at 25: .* {!r} positions are shares of the run, at least 0 and less"
    for schedule in ("run", "cosine"):
        config = tiny_config(schedule=schedule).unlock()
        config.rates["conv1"] = dict(kernel=((0, 0.1), (25, 0.01)), bias=((0, 0.1),))
        settings = read_settings(config)
        with pytest.raises(UsageError, match=message.format(schedule)):
            build_optimizer(settings, LAYERS, Schedule(settings, 100.0))


def test_cosine_ends_at_nothing(tiny_config):
    rate = schedule_of(tiny_config, schedule="cosine").rate(((0.0, 0.1),), "rates.all.kernel")
    found = [float(rate(jnp.int32(step))) for step in (0, 50, 100, 200)]
    assert found == pytest.approx([0.1, 0.1 * (1 + 2**-0.5) / 2, 0.05, 0.0], abs=1e-8)


def test_warm_up_rises_by_equal_steps(tiny_config):
    rate = schedule_of(tiny_config, schedule="epochs", warmup_epochs=0.04).rate(((0.0, 0.1),), "rates.all.kernel")
    found = [float(rate(jnp.int32(step))) for step in range(6)]
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("key", ["rates", "weight_decays"])
def test_a_layer_that_is_not_there(tiny_config, key):
    config = tiny_config()
    with config[key].unlocked():
        config[key]["conv9"] = dict(kernel=((0, 0.1),), bias=((0, 0.1),)) if key == "rates" else 0.1
    settings = read_settings(config)
    with pytest.raises(UsageError, match=rf"config\.{key}\.conv9 names no layer; the layers are conv1, fc8"):
        build_optimizer(settings, LAYERS, Schedule(settings, 100.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(schedule="plateau", **{"dataset.eval_split": "train[:10%]"}), "needs a validation set"),
        (
            dict(schedule="plateau", **{"dataset.train_split": None, "dataset.eval_split": "train"}),
            "needs a validation set",
        ),
        ({"dataset.eval_split": ""}, "config.dataset.eval_split is empty; name a split, or None"),
        (dict(schedule="plateau", evaluate_every=9.0), "needs evaluations"),
        ({"dataset.classes": 1}, "config.dataset.classes is 1, and a classifier needs at least 2"),
        (dict(warmup_epochs=2.0), "warmup_epochs is 2.0 and must be at least 0 and less than 2"),
        (dict(label_smoothing=1.0), "label_smoothing is 1.0"),
        (dict(clip_norm=0.0), "clip_norm is 0.0 and must be more than 0, or None"),
        (dict(fresh=("fc8",)), "config.init_from names no run"),
        (dict(schedule="linear"), "'epochs' or 'run' or 'steps' or 'cosine' or 'plateau'"),
    ],
)
def test_settings_that_make_no_sense(tiny_config, changes, message):
    with pytest.raises(UsageError, match=message):
        read_settings(tiny_config(**changes))


def test_telling_classes_apart_takes_two(tiny_config):
    with pytest.raises(UsageError, match="number of classes is 1, and a classifier needs at least 2"):
        build_tower(read_settings(tiny_config()), 1)


def test_a_run_has_only_so_many_updates(tiny_config):
    with pytest.raises(UsageError, match=r"num_epochs is 2, which is 20,000,000,000 updates; a run has at most 2,147"):
        schedule_of(tiny_config, steps_per_epoch=1e10)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"schedule": "epochs", "rates.all.kernel": TABLE, "photometry.noise": TABLE, "warmup_epochs": 0.25}, True),
        ({"schedule": "steps", "rates.all.kernel": UPDATES, "photometry.noise": UPDATES, "warmup_epochs": 0.25}, True),
        (dict(schedule="run"), True),
        ({"schedule": "run", "photometry.noise": TABLE}, False),
        ({"schedule": "run", "rates.all.bias": TABLE}, False),
        (dict(schedule="cosine"), False),
        (dict(schedule="plateau"), False),
    ],
)
def test_the_past_that_more_epochs_keep(tiny_config, changes, kept):
    """Where the past is kept, rates and noise of the first updates are those of a run of twice the length."""
    short, long = (read_settings(tiny_config(num_epochs=epochs, **changes)) for epochs in (2.0, 4.0))
    assert past_is_kept(short) == past_is_kept(long) == kept
    if not kept:
        return
    drops = False
    for step in (0, 10, 49, 50, 99, 100, 150, 199):
        values = []
        for settings in (short, long):
            schedule = Schedule(settings, 100.0)
            functions = schedule.rate(settings.rates["all"].kernel, "rates.all.kernel"), schedule.noise()
            values.append([float(function(jnp.int32(step))) for function in functions])
        assert values[0] == values[1]
        drops |= values[0][1] == pytest.approx(0.001)
    assert drops == (changes["schedule"] != "run")


@pytest.mark.parametrize("schedule", ["run", "cosine", "epochs", "plateau"])
def test_colour_noise_follows_its_table_alone(tiny_config, schedule):
    """The cosine and the warm-up are the rates'."""
    noise = schedule_of(tiny_config, schedule=schedule, warmup_epochs=0.5).noise()
    assert [float(noise(jnp.int32(step))) for step in (0, 10, 100, 199)] == pytest.approx([0.1] * 4)
