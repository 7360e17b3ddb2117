"""The command that exports, as a user starts it: what is written and said, and mistakes in one line."""

import shutil

import numpy as np
import pytest

import alexnet_jax

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.mark.parametrize("ending", ["onnx", "stablehlo", "safetensors"])
def test_a_network_is_written_with_its_page(run, command, tmp_path, ending):
    file = tmp_path / f"my cells.{ending}"
    status, out, err = command("convert", "export", f"--workdir={run}", f"--to={file}").finish()
    assert status == 0, err
    assert str(file) in out and "2 classes of elpv/64" in out and f"my cells.{ending}.README.md" in out
    assert "CC BY-NC-SA 4.0" in (tmp_path / f"my cells.{ending}.README.md").read_text()
    if ending == "safetensors":
        pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
        found, expected = alexnet_jax.load(file).predict(pixels), alexnet_jax.load(run).predict(pixels)
        np.testing.assert_array_equal(found, expected)


def test_the_page_of_a_run_that_is_not_through_has_the_licence(run, forked, tmp_path):
    """Its card is not written yet."""
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("MODEL_CARD.md", "result.json"))
    status, _, err = forked("convert", "export", f"--workdir={copy}", f"--to={tmp_path}/net.safetensors")
    assert status == 0, err
    assert "CC BY-NC-SA 4.0" in (tmp_path / "net.safetensors.README.md").read_text()


def test_mistakes_are_one_line_with_status_2(run, forked, tmp_path):
    empty = tmp_path / "empty"
    shutil.copytree(run, empty, ignore=shutil.ignore_patterns("checkpoints"))
    (tmp_path / "folder.onnx").mkdir()
    to = f"--to={tmp_path / 'net.onnx'}"
    cases = {
        ("export", f"--workdir={run}"): "--to is missing",
        ("export", to): "--workdir is missing",
        ("export", f"--workdir={run}", to, "--checkpoint=9"): "there is no checkpoint '9'",
        ("export", f"--workdir={tmp_path / 'nothing'}", to): "holds no run: config.json is missing",
        ("export", f"--workdir={empty}", to): "no checkpoint",
        ("export", f"--workdir={run}", f"--to={tmp_path / 'folder.onnx'}"): "is a folder",
        ("export", f"--workdir={run}", f"--to={tmp_path / 'no' / 'net.onnx'}"): "cannot be written",
        ("export", f"--workdir={run}", "--to=net.txt"): "does not end in .stablehlo or .onnx",
        ("export", f"--workdir={run}", to, "--kind=caffe"): "ends in .caffemodel",
        ("export", f"--workdir={run}", f"--to={tmp_path / 'a.caffemodel'}"): "cannot hold the recipe 'original'",
        ("export", f"--workdir={run}", to, "--mean=x"): "are for import",
        ("export", "net.onnx", f"--workdir={run}"): "--to=net.onnx",
        ("export", f"--workdir={run}", to, "--native=off"): "--native is of no use here",
        ("import", "net.onnx", f"--workdir={empty}", to): "--to is for export",
    }
    for case, reason in cases.items():
        status, out, err = forked("convert", *case)
        assert status == 2 and out == "", case
        assert reason in err and len(err.strip().splitlines()) == 1, (case, err)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "folder.onnx"}
