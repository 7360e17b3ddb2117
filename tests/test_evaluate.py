"""The command `evaluate`: ensembles, and the files that it writes."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from alexnet_jax import train
from alexnet_jax.data import preprocessing
from tests.configs import tiny
from tests.conftest import ROOT


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.reader(opened))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> list[Path]:
    """The workdirs of two short runs, which differ in recipe and crop."""
    folders = [tmp_path_factory.mktemp(f"run{number}") for number in range(2)]
    for number, folder in enumerate(folders):
        config = tiny.get_config()
        config.seed, config.num_epochs = number, 0.5
        if number:
            config.network.recipe, config.dataset.crop_size = "one_tower", 48
        train.train_and_evaluate(config, str(folder), data_dir)
    return folders


@pytest.mark.long
def test_an_ensemble_and_its_files(runs: list[Path], data_dir: str, command, tmp_path: Path):
    both = [f"--workdir={folder}" for folder in runs]
    files = [tmp_path / name for name in ("confusion.csv", "confusion.PNG", "confusion.svg", "predictions.csv")]
    flags = [*(f"--confusion={file}" for file in files[:3]), f"--predictions={files[3]}", "--per_class", "--json"]
    started = [
        command("evaluate", f"--data_dir={data_dir}", *both, "--weights=3,1", *flags),
        command("evaluate", f"--data_dir={data_dir}", *both, "--per_class", "--split=test[:20]", devices=4),
        *(command("evaluate", f"--data_dir={data_dir}", one, "--json", "--dataset=elpv/64") for one in both),
    ]
    results = [run.finish() for run in started]
    assert [status for status, _, _ in results] == [0] * 4, results
    found = json.loads(results[0][1])
    alone = [json.loads(out) for _, out, _ in results[2:]]
    assert list(alone[0]) == ["step", "views", "dataset", "split", "count", "loss", "top1"], "as ever"
    assert found["count"] == 50 and "step" not in found and "top5" not in found
    for member, single, folder, weight in zip(found["members"], alone, runs, (0.75, 0.25), strict=True):
        assert (member["workdir"], member["step"], member["weight"]) == (str(folder), single["step"], weight)
        assert (member["top1"], member["loss"]) == pytest.approx((single["top1"], single["loss"]), rel=1e-5)
        result = json.loads((folder / "result.json").read_text())
        assert (single["top1"], single["loss"]) == pytest.approx((result["top1_1_views"], result["loss_1_views"]))
    table = rows(files[3])
    assert table[0] == ["name", "label", "prediction", "p(functional)", "p(defective)"] and len(table) == 51
    assert all(row[0].startswith("images/cell") for row in table[1:]), "the names of the data set"
    wrong = [row[1] for row in table[1:] if row[1] != row[2]]
    assert len(wrong) / 50 == pytest.approx(found["top1"])
    for row in found["per_class"]:
        assert row["top1"] * row["count"] == pytest.approx(wrong.count(row["class"]))
    matrix = rows(files[0])
    assert matrix[0] == ["true class", "functional", "defective"]
    pairs, names = [(row[1], row[2]) for row in table[1:]], matrix[0][1:]
    assert matrix[1:] == [[true, *(str(pairs.count((true, said))) for said in names)] for true in names]
    assert files[1].read_bytes()[:4] == b"\x89PNG" and b"<svg" in files[2].read_bytes()
    lines = results[1][1].splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == [str(folder) for folder in runs]
    assert lines[2].startswith("ensemble of 2  1 view  top-1 error ")
    assert lines[2].endswith("  20 images of elpv/64 test[:20]")
    assert [line.split()[0] for line in lines[3:]] == ["class", "functional", "defective"]


@pytest.mark.long
def test_errors_are_printed_though_a_file_cannot_be_written(runs: list[Path], data_dir: str, tmp_path: Path):
    words = [f"--workdir={runs[0]}", f"--data_dir={data_dir}", f"--confusion={tmp_path}/c.png"]
    limited = ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh"]  # 2,048 bytes, fewer than a picture has
    run = subprocess.run(
        [*limited, sys.executable, "-m", "alexnet_jax.evaluate", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 2 and "c.png cannot be written: File too large" in run.stderr
    assert "top-1 error" in run.stdout


@pytest.mark.long
def test_another_data_set_serves_where_the_runs_own_is_not(runs: list[Path], data_dir: str, command, tmp_path: Path):
    shutil.copytree(Path(data_dir) / "elpv" / "64", tmp_path / "mine" / "64")
    flags = f"--workdir={runs[1]}", "--split=test[:5]", "--json"
    there = command("evaluate", f"--data_dir={tmp_path}", *flags, "--dataset=mine")
    own = command("evaluate", f"--data_dir={data_dir}", *flags)
    found, expected = (json.loads(run.finish()[1]) for run in (there, own))
    assert found == expected | {"dataset": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "nothing was prepared"


@pytest.mark.long
def test_members_of_other_data_splits_and_classes_are_one_line(runs: list[Path], data_dir: str, forked, tmp_path: Path):
    def change(file: str, old: str, new: str) -> None:
        text = (other / file).read_text()
        assert text.count(old) == 1
        (other / file).write_text(text.replace(old, new))

    def message() -> str:
        status, out, err = forked("evaluate", f"--data_dir={data_dir}", f"--workdir={runs[0]}", f"--workdir={other}")
        assert (status, out) == (2, "") and err.count("\n") == 1
        return err

    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    change("config.json", '"name": "elpv/64"', '"name": "cells/64"')
    assert f"on elpv/64 and {other} on cells/64; name the data set to evaluate on with --dataset\n" in message()
    change("config.json", '"name": "cells/64"', '"name": "elpv/64"')
    change("config.json", '"eval_split": "test[:50]"', '"eval_split": "test[:40]"')
    assert f"on test[:50] and {other} on test[:40]; name the split with --split\n" in message()
    file = epath.Path(other / "preprocessing.npz")
    there = preprocessing.load(file)
    swapped = dataclasses.replace(there, class_names=there.class_names[::-1])
    file.write_bytes(preprocessing.to_bytes(swapped))
    assert "other has other classes than " in message()


@pytest.mark.long
def test_mistakes_with_ensembles_and_files_are_one_line(runs: list[Path], data_dir: str, forked, tmp_path: Path):
    one, other = (f"--workdir={folder}" for folder in runs)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link").symlink_to(runs[0])
    cases = {
        (one, f"--workdir={tmp_path}/link"): f"--workdir={tmp_path}/link is given twice; name each member once",
        (one, other, "--weights=1e-320,1e308"): "hold a number too small beside another; leave out such a member",
        (one, one): f"--workdir={runs[0]} is given twice; name each member once",
        (one, other, "--weights=1"): "there are 2 networks and 1 weight (1)",
        (one, f"--workdir={tmp_path}"): f"{tmp_path} holds no run: config.json is missing; name the --workdir of a",
        (one, other, "--checkpoint=99"): f"{runs[0]}: there is no checkpoint '99'; there are last, best, ",
        (one, "--confusion=matrix.txt"): "--confusion=matrix.txt does not end in .csv or .png or .svg",
        (one, "--predictions=p.csv", "--confusion=./p.csv"): "p.csv is named for two results, and the second would",
        (one, "--predictions=p.png"): "--predictions=p.png does not end in .csv",
        (one, f"--predictions={tmp_path}/folder.csv"): "folder.csv is a folder; name a file in it",
        (one, f"--predictions={tmp_path}/no/p.csv"): "cannot be written: No such file or directory; name another",
        (one, f"--predictions={tmp_path}/{'p' * 300}.csv"): "cannot be written: File name too long; name another",
    }
    for flags, message in cases.items():
        status, out, err = forked("evaluate", f"--data_dir={data_dir}", *flags)
        assert (status, out) == (2, ""), err
        assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"folder.csv", "link"}
