"""The training loop in this process: resuming, stopping, refusing."""

import concurrent.futures
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax import loop
from alexnet_jax.errors import UsageError
from alexnet_jax.learning import stuck_loss
from alexnet_jax.learning.stuck_loss import StuckLoss
from alexnet_jax.loop import _some_labels, errors_of
from alexnet_jax.runtime.interruption import Interrupted
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir import checkpoint
from tests.comparing import assert_same, metrics_of


@pytest.fixture
def interrupt_after(before_each_batch: Callable):
    """Sends this process a signal as it fetches a batch, by number."""
    due: list[tuple[int, signal.Signals]] = []

    def act(experiment, fetched: int) -> None:
        if due and fetched + 1 == due[0][0]:
            signal.raise_signal(due.pop(0)[1])

    before_each_batch(act)
    return lambda batches, number: due.append((batches, number))


def test_a_run_resumed_twice_ends_with_the_same_bits(
    tiny_config: Callable, data_dir: str, tmp_path: Path, interrupt_after: Callable, capsys: pytest.CaptureFixture
):
    rates = {"rates.all.kernel": ((0, 0.002), (0.5, 0.001))}
    config = tiny_config(**rates)
    whole = train_and_evaluate(config, str(tmp_path / "whole"), data_dir)
    assert int(whole.step) == 12
    printed = capsys.readouterr().out

    for batches, number, status in [(3, signal.SIGTERM, 75), (6, signal.SIGINT, 130)]:
        interrupt_after(batches, number)
        with pytest.raises(Interrupted) as caught:
            train_and_evaluate(config, str(tmp_path / "parts"), data_dir)
        assert caught.value.code == status
    output = capsys.readouterr().out
    assert "saved after update 3; the same command resumes here" in output
    assert "saved after update 9" in output
    parts = train_and_evaluate(config, str(tmp_path / "parts"), data_dir)
    assert "resuming after update 9" in capsys.readouterr().out
    assert_same(whole, parts)

    training = [row for row in metrics_of(tmp_path / "whole") if "train/loss" in row]
    assert [row["step"] for row in training] == list(range(1, 13)), "a row a hundredth of the run"
    assert [row["train/learning_rate"] for row in training] == pytest.approx([0.002] * 6 + [0.001] * 6)
    for layer in ("conv1", "fc8"):
        length = np.linalg.norm(np.ravel(whole.params[layer]["kernel"]))  # both towers
        assert training[-1][f"train/kernel_norm/{layer}"] == pytest.approx(length, rel=1e-5)

    evaluations = [
        [row for row in metrics_of(tmp_path / name) if "eval/top1" in row or "final/top1_1_views" in row]
        for name in ("whole", "parts")
    ]
    assert evaluations[0] == evaluations[1]
    assert evaluations[0][-1]["final/count"] == 50

    row = next(row for row in metrics_of(tmp_path / "whole") if "eval/loss" in row)
    assert (
        f"epoch {row['epoch']:.1f}  evaluation of 50 images: loss {row['eval/loss']:.4f}  top-1 error"
        f" {row['eval/top1']:.1%}\n"
    ) in printed

    harmless = {"name": "x", "evaluate_every": 0.5, "save_every": 0.5, "dataset.on_device": False, "dataset.workers": 1}
    again = train_and_evaluate(tiny_config(**rates, **harmless), str(tmp_path / "whole"), data_dir)
    assert "finished: all 12 updates" in capsys.readouterr().out
    assert_same(whole, again)

    row = next(row for row in metrics_of(tmp_path / "whole") if row["step"] == 12 and "eval/loss" in row)
    metrics = json.loads((tmp_path / "whole/checkpoints/12/metrics/metrics").read_text())
    assert metrics == {name: row[f"eval/{name}"] for name in ("top1", "loss")}, "the best is chosen by both"


def test_some_labels_come_from_all_of_a_split_that_is_sorted_by_class():
    """From the first examples alone, a healthy run would look like one that has learned nothing but frequencies."""
    split = [{"label": label} for label in np.repeat(np.arange(10), 500)]
    labels = _some_labels(split, 100)
    assert (len(labels), set(np.bincount(labels))) == (100, {10})
    assert _some_labels(split[:7], 100) == [0] * 7


def test_the_errors_of_a_result_in_words():
    result = {"top1_1_views": 0.25, "top1_10_views": 0.2, "count": 1234}
    assert errors_of(result) == "top-1 error 25.0% (centre), 20.0% (ten views) of 1,234 images"


def test_a_run_that_started_from_another_resumes_its_own_checkpoint(
    tiny_config: Callable, data_dir: str, tiny_run: Path, tmp_path: Path, interrupt_after: Callable, capsys
):
    config = tiny_config(init_from=str(tiny_run), num_epochs=1.0)
    whole = train_and_evaluate(config, str(tmp_path / "whole"), data_dir)
    interrupt_after(3, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train_and_evaluate(config, str(tmp_path / "parts"), data_dir)
    parts = train_and_evaluate(config, str(tmp_path / "parts"), data_dir)
    assert "resuming after update 3" in capsys.readouterr().out
    assert_same(whole, parts)


@pytest.mark.parametrize(
    ("field", "values"),
    [("train_split", r"train\[:10%\] there, train here"), ("eval_split", r"test\[:50\] there, test here")],
)
def test_what_follows_from_the_data_set_is_compared_too(
    tiny_config: Callable, data_dir: str, tiny_run: Path, tmp_path: Path, field: str, values: str
):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(UsageError, match=rf"another config: dataset\.{field} \({values}\)"):
        train_and_evaluate(tiny_config(num_epochs=0.5, **{f"dataset.{field}": None}), str(workdir), data_dir)


def test_the_check_for_a_stuck_loss_sees_the_mean_of_each_update(
    tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    losses: dict[int, float] = {}
    entered = []
    monkeypatch.setattr(StuckLoss, "add", lambda self, step, loss: losses.update({step: loss}))
    monkeypatch.setattr(loop.processes, "enter", lambda phase, *, slow=False: entered.append((phase, slow)))
    train_and_evaluate(tiny_config(num_epochs=0.5), str(tmp_path), data_dir)
    assert losses == pytest.approx(
        {row["step"]: row["train/loss"] for row in metrics_of(tmp_path) if "train/loss" in row}
    )
    # The watchdog gives the first update, which compiles, more time.
    updates = [each for each in entered if each[0].startswith("update")]
    assert updates == [("update 1", True), ("update 2", False), ("update 3", False)]


@pytest.mark.parametrize(
    ("at", "there", "on_failed_save"),
    [(3, "at the beginning", "continue"), (9, "after update 7", "continue"), (3, "at the beginning", "stop")],
)
def test_a_signal_whose_save_fails_says_where_the_run_goes_on(
    tiny_config: Callable,
    data_dir: str,
    tmp_path: Path,
    interrupt_after: Callable,
    capsys,
    monkeypatch,
    at,
    there,
    on_failed_save,
):
    config = tiny_config(on_failed_save=on_failed_save)
    interrupt_after(at, signal.SIGTERM)
    saved = []

    def no_room(folder, state, real=checkpoint._no_room):
        saved.append(int(state.step))
        return real(folder, state) if saved[-1] == 7 else "there is no room"

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_no_room", no_room)
        with pytest.raises(Interrupted) as caught:
            train_and_evaluate(config, str(tmp_path), data_dir)
    assert caught.value.code == 75 and saved == ([3] if at == 3 else [7, 9])
    *_, warning, last = capsys.readouterr().out.splitlines()
    assert warning == f"warning: the checkpoint of update {at} could not be written: there is no room"
    assert last == f"update {at} is not saved; the same command resumes {there}"
    assert int(train_and_evaluate(config, str(tmp_path), data_dir).step) == 12
    assert ("resuming after update 7" in capsys.readouterr().out) == (at == 9)


def test_the_result_of_a_shorter_run_goes_when_a_longer_one_begins(
    tiny_config: Callable, data_dir: str, tmp_path: Path, interrupt_after: Callable
):
    def config(epochs: float):
        made = tiny_config(num_epochs=epochs)
        made.rates.all.update(kernel=((0, 0.01),), bias=((0, 0.02),))
        return made

    train_and_evaluate(config(0.4), str(tmp_path), data_dir)
    files = tmp_path / "result.json", tmp_path / "MODEL_CARD.md"
    assert all(file.exists() for file in files)
    interrupt_after(1, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train_and_evaluate(config(1.0), str(tmp_path), data_dir)
    assert not any(file.exists() for file in files)

    files[1].write_text("mine")
    train_and_evaluate(config(1.0), str(tmp_path), data_dir)
    assert json.loads(files[0].read_text())["step"] == 6 and files[1].read_text() == "mine"


def test_a_program_may_train_in_a_thread_and_name_a_workdir_from_its_folder(
    tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(train_and_evaluate, tiny_config(num_epochs=0.1), Path("run"), Path(data_dir)).result()
    assert (tmp_path / "run/result.json").exists() and list((tmp_path / "run/checkpoints").glob("[0-9]*"))


def test_another_config_is_refused_by_name(tiny_config: Callable, data_dir: str, tiny_run: Path):
    with pytest.raises(UsageError, match=r"another config: momentum \(0.9 there, 0.8 here\)$"):
        train_and_evaluate(tiny_config(num_epochs=0.5, momentum=0.8), str(tiny_run), data_dir)


def test_a_run_whose_checkpoints_are_all_damaged_is_one_line(
    tiny_config: Callable, data_dir: str, tiny_run: Path, tmp_path: Path
):
    workdir = shutil.copytree(tiny_run, tmp_path / "run")
    for file in (workdir / "checkpoints").rglob("d/*"):
        file.write_bytes(b"")
    (workdir / "result.json").unlink()
    with pytest.raises(UsageError, match=r"^no checkpoint of this workdir can be read; name another workdir$"):
        train_and_evaluate(tiny_config(num_epochs=0.5), str(workdir), data_dir)


def test_the_result_of_a_run_without_checkpoints_is_not_overwritten(
    tiny_run: Path, tmp_path: Path, tiny_config, data_dir
):
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    kept = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    for config in (tiny_config(num_epochs=0.5), tiny_config(num_epochs=0.5, momentum=0.8)):
        with pytest.raises(UsageError, match="run holds the result of a run whose checkpoints are gone"):
            train_and_evaluate(config, tmp_path / "run", data_dir)
    assert kept == {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}


def test_a_network_that_learns_the_frequencies_of_the_classes_alone_is_a_warning(
    tiny_config: Callable, data_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stuck_loss, "WINDOW", 2)
    monkeypatch.setattr(StuckLoss, "add", lambda self, step, _, add=StuckLoss.add: add(self, step, 0.66))
    config = tiny_config(**{"num_epochs": 0.7, "dataset.train_split": "train[:20%]"})
    train_and_evaluate(config, str(tmp_path), data_dir)
    line = "warning: after 4 updates the loss, 0.6600, is still that of a network that has learned the frequencies of"
    assert line in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny_config: Callable, data_dir: str, tmp_path: Path
):
    explode = (((0, 0.01), (0.75, 1e30)),) * 2
    config = tiny_config(**dict(zip(("rates.all.kernel", "rates.all.bias"), explode, strict=True)))
    with pytest.raises(
        UsageError, match=r"the loss of update 1[0-2] is not finite; the checkpoint of update 7 is kept"
    ):
        train_and_evaluate(config, str(tmp_path), data_dir)
    saved = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert saved == {"7"}


def test_a_state_that_is_not_finite_is_never_saved(
    tiny_config: Callable, data_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint, "all_finite", lambda arrays: False)
    with pytest.raises(UsageError, match="state of update 7 is not finite; there is no checkpoint yet"):
        train_and_evaluate(tiny_config(), str(tmp_path), data_dir)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesh.data": 3, "mesh.tower": 1}, "config.batch_size is .* cannot be divided by the mesh's data axis of 3"),
        ({"mesh.tower": 3}, "config.mesh.tower is 3 and the recipe 'original' has 2 towers; use 1 or 2, or None"),
        ({"dataset.crop_size": 80}, "crop_size is 80 and the images of elpv/64 have 64 pixels"),
        ({"dataset.crop_size": 10}, "image is too small: .*leaves none"),
        ({"rates.conv9": {"kernel": ((0, 0.1),), "bias": ((0, 0.1),)}}, "config.rates.conv9 names no layer"),
        (
            {"rates.all.kernel": ((0, 0.1), (1.0, 0.2))},
            "config.rates.all.kernel changes at 1: .* are shares of the run",
        ),
        ({"network.recipe": "lenet"}, "no recipe 'lenet'; known"),
    ],
)
def test_mistakes_end_before_anything_starts(
    tiny_config: Callable, data_dir: str, tmp_path: Path, change: dict, message: str
):
    config = tiny_config().unlock()
    for key, value in change.items():
        *parents, leaf = key.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    with pytest.raises(UsageError, match=message):
        train_and_evaluate(config, str(tmp_path), data_dir)
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())


def test_a_workdir_that_cannot_be_written_is_named(tiny_config: Callable, data_dir: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/run cannot be written: .*Not a directory"):
        train_and_evaluate(tiny_config(), str(tmp_path / "file" / "run"), data_dir)
