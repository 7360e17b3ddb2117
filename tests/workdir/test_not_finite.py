"""Runs that diverge: they end in one line, and leave nothing on disk that looks like a good state."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir.checkpoint import Checkpoints


def refuse(constant: str):
    raise AssertionError(f"{constant} is not JSON")


def assert_strict_json(workdir: Path) -> None:
    texts = (workdir / "metrics.jsonl").read_text().splitlines()
    texts += [file.read_text() for file in workdir.glob("*.json")]
    assert len(texts) > 1
    for text in texts:
        json.loads(text, parse_constant=refuse)


def test_the_advice_names_the_pixels_that_initial_values_of_he_need(tiny_config, data_dir: str, tmp_path: Path):
    rates = {"rates.all.kernel": ((0, 1e20),), "photometry.standardize": False, "photometry.each_image": False}
    config = tiny_config(num_epochs=0.5, **rates)
    assert config.network.he_init
    with pytest.raises(UsageError, match=r"is not finite; .*; set config\.photometry\.standardize=True, which initial"):
        train_and_evaluate(config, str(tmp_path), data_dir)


def test_a_run_that_diverges_in_its_last_update_is_no_success_and_its_state_never_the_best(
    tiny_config: Callable, data_dir: str, tmp_path: Path
):
    every = {"num_epochs": 0.5, "evaluate_every": 0.16, "save_every": 0.16}
    config = tiny_config(**every, **{"rates.all.kernel": ((0, 0.01), (0.6, 1e20))})
    with pytest.raises(UsageError, match=r"loss of update 3 is not finite; the checkpoint of update 2 is kept; lower"):
        train_and_evaluate(config, str(tmp_path), data_dir)
    assert not (tmp_path / "result.json").exists()
    assert_strict_json(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/top1" in row] == [1, 2]
    checkpoints = Checkpoints(epath.Path(tmp_path / "checkpoints"), read_only=True)
    assert checkpoints.steps() == [1, 2]
    evaluated = [(row["eval/top1"], row["eval/loss"], row["step"]) for row in rows if "eval/top1" in row]
    assert checkpoints.best_step() == min(evaluated)[2]
    checkpoints.close()


def test_a_loss_that_underflowed_is_finite_and_a_damaged_result_is_written_again(
    tiny_config: Callable, data_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Probabilities of labels fall below the smallest float32; their logarithms are numbers."""
    config = tiny_config(**{"num_epochs": 0.16, "rates.all.kernel": ((0, 300.0),)})
    train_and_evaluate(config, str(tmp_path), data_dir)
    file = tmp_path / "result.json"
    content = file.read_bytes()
    result = json.loads(content)
    assert all(np.isfinite(value) for value in result.values())
    assert min(result["loss_1_views"], result["loss_10_views"]) > 104, "the smallest float32 has the logarithm -103.3"
    assert "top5_1_views" not in result
    assert_strict_json(tmp_path)

    file.write_bytes(b"")  # as a power cut may leave it
    capsys.readouterr()
    train_and_evaluate(config, str(tmp_path), data_dir)
    assert file.read_bytes() == content
    assert capsys.readouterr().out.startswith(f"warning: {file} is damaged (")
