"""`python -m alexnet_jax.convert import`: a file becomes a workdir that the other commands take."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

import alexnet_jax
from alexnet_jax.configs import imagenet2012
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.formats import imported, workdir
from alexnet_jax.formats.export import export
from alexnet_jax.workdir import record
from tests.formats import made, networks


@pytest.fixture
def caffe_file(tmp_path):
    file = tmp_path / "small.caffemodel"
    file.write_bytes(networks.caffemodel(networks.whole(networks.CAFFE, width=1 / 16, classes=3)))
    return file


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (300, 280, 3), np.uint8)


def test_a_workdir_is_what_the_file_holds(caffe_file, tmp_path, picture):
    read = imported.read(caffe_file)
    folder = epath.Path(tmp_path / "run")
    workdir.write(folder, read, caffe_file.name, say=print)

    network = alexnet_jax.load(folder)
    assert (network.step, network.settings.network.recipe, network.classes) == (0, "bvlc", ("0", "1", "2"))
    assert jax.tree.all(jax.tree.map(np.array_equal, network.params, read.params))
    assert network.preprocessing.crop_size == 227
    square = network.square(picture).astype(np.float32)[14:241, 14:241] - np.float32([123, 117, 104])
    np.testing.assert_array_equal(network.inputs(picture)[0], square)
    assert network.predict(picture).sum() == pytest.approx(1, abs=1e-5)
    assert network.features(picture, "conv5").shape == (1, 6, 6, 16)

    settings = settings_of(record.read_config(folder))  # a whole config
    assert settings.network.width == 1 / 16
    card = (folder / "MODEL_CARD.md").read_text()
    assert (
        "small.caffemodel" in card
        and "squashes pictures to 256x256 pixels" in card
        and "Errors were not measured here" in card
    )
    with pytest.raises(UsageError, match="holds a run already"):
        workdir.write(folder, read, caffe_file.name, say=print)


def test_an_interrupted_import_begins_anew_and_another_run_stays(caffe_file, tmp_path):
    read = imported.read(caffe_file)
    folder = epath.Path(tmp_path / "run")
    workdir.write(folder, read, "a", say=print)
    (folder / record.CHECKPOINTS).rmtree()
    workdir.write(folder, read, "a", say=print)
    assert alexnet_jax.load(folder).step == 0

    other = epath.Path(tmp_path / "other")
    other.mkdir()
    record.record(other, imagenet2012.get_config().to_dict())
    before = (other / record.CONFIG_FILE).read_bytes()
    with pytest.raises(UsageError, match="holds a run already"):
        workdir.write(other, read, "a", say=print)
    assert (other / record.CONFIG_FILE).read_bytes() == before and len(list(other.iterdir())) == 2  # with the lock


@pytest.mark.parametrize("kind", ["file", "unwritable"])
def test_a_workdir_that_cannot_be(kind, caffe_file, tmp_path):
    place = tmp_path / "place"
    place.write_text("") if kind == "file" else place.mkdir()
    folder = epath.Path(place) if kind == "file" else epath.Path("/proc/none")
    with pytest.raises(UsageError, match="cannot be"):
        workdir.write(folder, imported.read(caffe_file), "a", say=print)


def test_imagenet_s_names_and_the_published_errors_are_on_the_card(tmp_path):
    from safetensors.numpy import save

    layers = networks.whole(networks.TORCHVISION, width=1 / 16, classes=1000)
    (tmp_path / "alexnet.safetensors").write_bytes(save(networks.state_dict(layers)))
    read = imported.read(tmp_path / "alexnet.safetensors")
    folder = epath.Path(tmp_path / "run")
    workdir.write(folder, read, "alexnet.safetensors", say=print)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "43.48 %" in card and "56.522" in card and "bilinear" in card
    assert preprocessings.load(folder / preprocessings.FILE_NAME).class_names[0] == "n01440764"


def test_the_command_takes_a_mean_image(forked, caffe_file, tmp_path):
    mean = np.random.default_rng(0).uniform(90, 140, (256, 256, 3)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(networks.binaryproto(mean))
    flags = f"--workdir={tmp_path}/run", f"--mean={tmp_path}/mean.binaryproto"
    status, _, err = forked("convert", "import", caffe_file, *flags)
    assert status == 0, err
    np.testing.assert_array_equal(alexnet_jax.load(tmp_path / "run").preprocessing.mean_image, mean)


def test_the_command(command, caffe_file, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    run = tmp_path / "runs" / "small net"
    status, out, err = command("convert", "import", caffe_file, f"--workdir={run}", f"--classes={names}").finish()
    assert status == 0, err
    assert out == (
        f"{run}: the recipe bvlc with width 0.0625, 225,772 parameters, 3 classes, ant to cat, crops of 227 pixels\n"
        f"python -m alexnet_jax.predict --workdir='{run}' IMAGE\n"
    )
    assert err.startswith("note: Caffe squashes pictures to 256x256 pixels") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "what to do? Known: import FILE, export"),
        (["improt"], "'improt'? Known: import FILE, export"),
        (["import"], "import which file?"),
        (["import", "FILE"], "--workdir is missing"),
        (["import", "none.pth", "--workdir=RUN"], "there is no file"),
        (
            ["import", "FILE", "--workdir=RUN", "--kind=torchvision"],
            "Caffe's bvlc, and the kind torchvision is given",
        ),
        (["import", "FILE", "--workdir=RUN", "--classes=FILE"], "is no text in UTF-8; store it as UTF-8"),
        (["import", "FILE", "--workdir=RUN", "--classes=README.md"], "and the network has 3; give a line for each"),
        (["import", "FILE", "--workdir=FILE/run"], "cannot be written: "),
        (["import", "FILE", "--workdir=RUN", "--kind=vgg"], "--kind"),
        (["import", "FILE", "--workdir=RUN", "--checkpoint=best"], "--checkpoint is for export; a file holds one netw"),
        (["import", "FILE", "--workdir="], "--workdir is empty; give a value, or leave the flag out"),
        (["import", "FILE", "more", "--workdir=RUN"], "'more' is not a flag"),
    ],
)
def test_mistakes_are_one_line(arguments, line, caffe_file, tmp_path, forked):
    places = {"FILE": str(caffe_file), "RUN": str(tmp_path / "run")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    status, out, err = forked("convert", *arguments)
    assert (status, out) == (2, "") and line in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not (tmp_path / "run").exists()


def test_a_hostile_file_runs_nothing(forked, tmp_path):
    mark = tmp_path / "ran"
    call = f"touch {mark}".encode()
    (tmp_path / "net.pth").write_bytes(b"cposix\nsystem\n(S'" + call + b"'\ntR.")
    (tmp_path / "net.ckpt").write_bytes(b"\x80\x02cposix\nsystem\n(X" + len(call).to_bytes(4, "little") + call + b"tR.")
    for name in ("net.pth", "net.ckpt"):
        status, _, err = forked("convert", "import", tmp_path / name, f"--workdir={tmp_path / 'run'}")
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert not mark.exists() and not (tmp_path / "run").exists()


@pytest.mark.long
def test_training_starts_from_imported_weights(command, data_dir, tmp_path):
    """Layers of an imported network, with a classifier anew: `--config.init_from`."""
    from safetensors.numpy import save

    layers = networks.whole(networks.TORCHVISION, width=0.125)
    (tmp_path / "alexnet.safetensors").write_bytes(save(networks.state_dict(layers)))
    status, _, err = command(
        "convert", "import", tmp_path / "alexnet.safetensors", f"--workdir={tmp_path / 'imported'}"
    ).finish()
    assert status == 0, err
    status, _, err = command(
        "main", "--config=configs/default.py", f"--workdir={tmp_path / 'tuned'}", f"--data_dir={data_dir}",
        "--config.dataset.name=elpv/64", "--config.dataset.crop_size=63", "--config.dataset.train_split=train[:32]",
        "--config.dataset.eval_split=test[:32]", "--config.network.recipe=torchvision", "--config.network.width=0.125",
        "--config.num_epochs=1", "--config.evaluate_every=1", "--config.save_every=1",
        f"--config.init_from={tmp_path / 'imported'}", "--config.fresh=('fc8',)", "--config.rates.all.kernel=0.0",
        "--config.rates.all.bias=0.0",
    ).finish()  # fmt: skip
    assert status == 0, err
    tuned, before = (alexnet_jax.load(tmp_path / name, data_dir=data_dir) for name in ("tuned", "imported"))
    assert np.array_equal(tuned.params["fc7"]["kernel"], before.params["fc7"]["kernel"])
    assert tuned.params["fc8"]["kernel"].shape[-1] == 2


def test_an_import_needs_no_torch_nor_caffe():
    program = "import sys, alexnet_jax.formats.workdir; assert not {'torch', 'caffe'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_network_of_ours_keeps_its_updates(tmp_path):
    network = made.network()
    file, _ = export(network, epath.Path(tmp_path / "net.safetensors"))
    folder = epath.Path(tmp_path / "run")
    workdir.write(folder, imported.read(file), file.name, say=print)
    assert alexnet_jax.load(folder).step == network.step > 0


@pytest.mark.parametrize(("recipe", "top1", "top5"), [("bvlc", 57.1, 80.2), ("caffenet", 57.4, 80.4)])
def test_published_errors_are_those_of_caffes_accuracies(recipe, top1, top5):
    expected = f"top-1 error {100 - top1:.1f} %, top-5 error {100 - top5:.1f} %"
    assert workdir.PUBLISHED[recipe].startswith(expected)
