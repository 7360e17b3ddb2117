"""Starting from another run, and a plateau schedule through a stop, by whole runs of seconds."""

import json
import shutil

import jax
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment import summary
from alexnet_jax.experiment.init_from import init_from
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.hints import hints
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir.errors import OtherConfigError


@pytest.fixture
def run(tiny_run, network):
    """The workdir of a finished run of net 145, and its network."""
    return str(tiny_run), network


def build(make, data_dir, **changes):
    return experiments.build(read_settings(make(**changes)), data_dir, say=print)


def test_layers_come_from_the_other_run_but_for_fresh_ones(run, tiny_config, data_dir):
    workdir, before = run
    changes = {"network.recipe": "six_conv", "init_from": workdir, "fresh": ("conv6", "fc8"), "seed": 1}
    state = init_from(build(tiny_config, data_dir, **changes))
    assert int(state.step) == 0
    for layer in ("conv1", "fc6", "fc7"):
        assert np.array_equal(state.params[layer]["kernel"], before.params[layer]["kernel"])
    assert not np.array_equal(state.params["fc8"]["kernel"], before.params["fc8"]["kernel"])
    assert np.any(state.params["conv6"]["kernel"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state.velocity))


def test_averages_of_batch_norms_come_along_but_for_those_of_fresh_layers(tiny_config, data_dir, tmp_path):
    recipe = {"network.recipe": "batch_norm", "num_epochs": 0.5}
    before = train_and_evaluate(tiny_config(**recipe), str(tmp_path), data_dir)
    experiment = build(tiny_config, data_dir, **recipe, init_from=str(tmp_path), fresh=("conv2",), seed=1)
    state, anew = init_from(experiment), experiment.steps.init(experiment.key)
    for layer, whence in (("conv1", before), ("conv2", anew), ("conv3", before)):
        for tree in ("params", "batch_stats"):
            norms = (getattr(each, tree).get(f"{layer}_norm", {}) for each in (state, whence))
            for one, other in zip(*map(jax.tree.leaves, norms), strict=True):
                assert np.array_equal(one, other)
    assert not np.array_equal(before.batch_stats["conv2_norm"]["mean"], anew.batch_stats["conv2_norm"]["mean"])


def test_a_classifier_of_other_classes_and_a_damaged_checkpoint_are_named(run, tiny_config, data_dir, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    identity = json.loads((workdir / "data.json").read_text())
    line = "warning: fc8 comes from a run with other classes ("
    init_from(build(tiny_config, data_dir, init_from=str(workdir)))
    assert line not in capsys.readouterr().out
    (workdir / "data.json").write_text(json.dumps(identity | {"classes": identity["classes"][::-1]}))
    init_from(build(tiny_config, data_dir, init_from=str(workdir)))
    assert f"{line}class 0 is 'defective' there and 'functional' here); 'fc8' in" in capsys.readouterr().out
    init_from(build(tiny_config, data_dir, init_from=str(workdir), fresh=("fc8",)))
    assert line not in capsys.readouterr().out
    (last,) = (workdir / "checkpoints").iterdir()
    shutil.copytree(last, workdir / "checkpoints/9")
    (workdir / "checkpoints/9/_CHECKPOINT_METADATA").write_text("[")
    state = init_from(build(tiny_config, data_dir, init_from=str(workdir)))
    assert "checkpoints/9 is damaged: _CHECKPOINT_METADATA has 1 bytes" in capsys.readouterr().out
    assert np.array_equal(state.params["fc8"]["kernel"], run[1].params["fc8"]["kernel"])
    (last / "MANIFEST").write_text("")
    with pytest.raises(UsageError, match=r"no checkpoint of config\.init_from can be read; name the workdir of ano"):
        init_from(build(tiny_config, data_dir, init_from=str(workdir)))


def test_a_classifier_of_another_name_is_named_too(tiny_config, data_dir, tmp_path, capsys):
    small = {"network.recipe": "cifar_13pct", "network.width": 0.1, "num_epochs": 0.1}
    train_and_evaluate(tiny_config(**small), str(tmp_path), data_dir)
    identity = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(identity | {"classes": identity["classes"][::-1]}))
    init_from(build(tiny_config, data_dir, init_from=str(tmp_path), **small))
    assert "warning: fc10 comes from a run with other classes (class 0 is " in capsys.readouterr().out


def test_a_network_of_other_operations_or_other_pixels_is_named(run, tiny_config, data_dir, capsys):
    def warnings(**changes):
        capsys.readouterr()
        init_from(build(tiny_config, data_dir, **{"init_from": run[0]} | changes))
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: the weights come")]

    assert warnings() == []
    assert warnings(**{"network.recipe": "six_conv", "fresh": ("conv6", "fc6", "fc7", "fc8")}) == []
    assert warnings(**{"network.recipe": "no_dropout", "fresh": ("fc7", "fc8")}) == []
    assert warnings(**{"network.recipe": "no_norm"}) == [
        "warning: the weights come from a network in which norm, pool, activation follows conv1, and not pool,"
        " activation; config.network.recipe is 'no_norm', and 'original' fits the weights"
    ]
    assert warnings(**{"network.recipe": "paper"}) == [
        "warning: the weights come from a network whose norm_alpha is 2e-05 and not 0.0001; config.network.recipe is"
        " 'paper', and 'original' fits the weights"
    ]
    [line] = warnings(**{"photometry.standardize": False})
    assert "saw pixels times 0.0" in line and "here they are times 1; config.photometry.standardize=True and" in line
    [line] = warnings(**{"photometry.each_image": True})
    assert line.endswith(
        "standardized crop by crop; config.photometry.standardize=True and"
        " config.photometry.each_image=False fit the weights"
    )
    assert warnings(**{"photometry.standardize": False, "fresh": ("conv1",)}) == []


def test_the_first_layer_that_does_not_fit_is_named_with_both_shapes(run, tiny_config, data_dir):
    wider = build(tiny_config, data_dir, **{"init_from": run[0], "network.width": 0.05})
    with pytest.raises(UsageError, match=r"conv1/bias has the shape \(2, 2\) here, and the checkpoint has \(2, 1\)"):
        init_from(wider)
    missing = build(tiny_config, data_dir, **{"init_from": run[0], "network.recipe": "six_conv"})
    advice = r"conv6/bias .* does not have it; .*'conv6' in config\.fresh"
    with pytest.raises(UsageError, match=advice), hints():
        init_from(missing)


def test_no_such_run_and_no_such_layer(run, tiny_config, data_dir, tmp_path):
    with pytest.raises(UsageError, match="there are no checkpoints; name the workdir of a run"):
        init_from(build(tiny_config, data_dir, init_from=str(tmp_path)))
    with pytest.raises(UsageError, match=r"config\.fresh names 'fc9', which is no layer; the layers are conv1"):
        init_from(build(tiny_config, data_dir, init_from=run[0], fresh=("fc9",)))
    changes = {"init_from": run[0], "network.recipe": "batch_norm", "fresh": ("conv1_norm",)}
    with pytest.raises(
        UsageError,
        match=r"config\.fresh names 'conv1_norm', which is no layer; the layers are conv1, conv2, conv3, conv4",
    ):
        init_from(build(tiny_config, data_dir, **changes))


def test_a_dry_run_refuses_what_the_run_would_refuse(run, tiny_config, tmp_path):
    def describe(**changes):
        return summary.describe(read_settings(tiny_config(**changes)))

    assert "conv1" in describe(init_from=run[0])
    assert "conv6" in describe(**{"init_from": run[0], "network.recipe": "six_conv", "fresh": ("conv6", "fc6")})
    with pytest.raises(UsageError, match=r"config\.init_from is '.*', and there are no checkpoints; name the workdir"):
        describe(init_from=str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="that run has saved nothing yet"):
        describe(init_from=str(tmp_path))
    with pytest.raises(UsageError, match=r"config\.fresh names 'fc9', which is no layer; the layers are conv1"):
        describe(init_from=run[0], fresh=("fc9",))
    with pytest.raises(UsageError, match=r"conv1/bias has the shape \(2, 2\) here, and the checkpoint has \(2, 1\)"):
        describe(**{"init_from": run[0], "network.width": 0.05})


def test_a_checkpoint_of_another_network_is_not_deleted(run, tmp_path, tiny_config, data_dir):
    from etils import epath

    from alexnet_jax.workdir.checkpoint import Checkpoints, restore_newest

    shutil.copytree(run[0], tmp_path / "copy")
    checkpoints = Checkpoints(epath.Path(tmp_path / "copy" / "checkpoints"))
    steps = list(checkpoints.steps())
    with pytest.raises(UsageError, match="does not fit the network"):
        restore_newest(checkpoints, build(tiny_config, data_dir, **{"network.width": 0.05}).steps.target)
    assert steps and list(checkpoints.steps()) == steps
    checkpoints.close()


def test_a_plateau_is_resumed_where_it_was(tiny_config, data_dir, tmp_path):
    """Cut off after two of three evaluations; the state is that of the uninterrupted run, to the bit."""
    changes = {
        "schedule": "plateau",
        "plateau.patience": 1,
        "num_epochs": 1.2,
        "evaluate_every": 0.4,
        "save_every": 0.4,
    }

    def config():
        made = tiny_config(**changes)
        made.rates.all.update(kernel=((0, 1e-5),), bias=((0, 2e-5),))  # with which the error stays as it is
        return made

    whole = train_and_evaluate(config(), str(tmp_path / "whole"), data_dir)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    checkpoints = sorted((tmp_path / "cut" / "checkpoints").iterdir(), key=lambda folder: int(folder.name))
    shutil.rmtree(checkpoints[-1])
    resumed = train_and_evaluate(config(), str(tmp_path / "cut"), data_dir)
    assert int(whole.plateau.drops) == 2
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["train/learning_rate"] for row in rows if "train/loss" in row]
    assert rates == pytest.approx([1e-5] * 5 + [1e-6] * 2)  # fell after the second evaluation
    other = config()
    other.evaluate_every = 0.2  # which would change the rates
    with pytest.raises(OtherConfigError, match="evaluate_every"):
        train_and_evaluate(other, str(tmp_path / "cut"), data_dir)
    assert int(whole.plateau.seen) == int(whole.step)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert np.array_equal(one, other)
