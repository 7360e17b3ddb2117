"""The page on the use in Python runs, from its first block to its last, and the network's names are what it says."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import alexnet_jax.network
from alexnet_jax.formats.export import export
from tests.conftest import ROOT
from tests.formats import made

PAGE = ROOT / "docs" / "use-in-python.md"


@pytest.fixture
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_examples_with_a_trained_network_run(blocks, tmp_path, monkeypatch):
    export(made.network(classes=2), epath.Path(tmp_path / "net.safetensors"))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)).save(tmp_path / "cell.png")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks[:3]:
        exec(block.replace('"runs/elpv"', '"net.safetensors"'), names)
    assert names["probabilities"].shape == (2, 2)
    assert names["features"].ndim == 2 and names["maps"].ndim == 4
    assert names["logits"].shape == (2, 2)
    assert names["slopes"].shape == names["inputs"].shape and float(abs(names["slopes"]).max()) > 0


def test_the_examples_of_a_loop_of_ones_own_learn(blocks):
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as a user has them
        for block in blocks[3:]:
            exec(block, names)
    losses = names["losses"]
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05
    assert names["logits"].shape == (32, 10)


def test_every_name_of_the_network_exists():
    for name in alexnet_jax.network.__all__:
        assert getattr(alexnet_jax.network, name) is not None
        assert name in dir(alexnet_jax.network)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        alexnet_jax.network.nothing  # noqa: B018


def test_the_rooms_of_the_network_do_not_import_flax_by_themselves():
    program = "import sys, alexnet_jax.network, alexnet_jax.network.native.compiler; assert 'flax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
