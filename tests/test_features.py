"""The command `features` as users start it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.retrieval import codes
from tests.conftest import ROOT
from tests.fuzz import MAX_LINES
from tests.retrieval.made import content, tree_in
from tests.waiting import wait_until

CLASSES = ("functional", "defective")


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return tree_in(tmp_path_factory.mktemp("tree") / "cells")


@pytest.fixture
def features(commands, run, tmp_path, data_dir):
    """Runs the command in an empty folder."""
    for name in ("cwd", "home", "tmp"):
        (tmp_path / name).mkdir()

    def start(*arguments, workdir=run):
        flags = [f"--workdir={workdir}", f"--data_dir={data_dir}", *map(str, arguments)]
        return commands("features", *flags, folder=tmp_path, trains=True, seconds=120)

    return start


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_becomes_a_file_and_broken_pictures_are_counted(features, network, tree, tmp_path):
    result = features(tree, "--output=x.npz", "--neighbours=2")
    assert result.status == 1, result.err
    assert "99.jpg is no picture" in result.err and "1 could not be read and is not in" in result.err
    assert re.search(r"11 pictures, \d+ features of fc7 each\n.*by chance.*\nwritten to .*x\.npz\n", result.out)
    found = content(tmp_path / "cwd/x.npz")
    np.testing.assert_allclose(found["features"], network.features(sorted(tree.rglob("*.png"))), rtol=1e-5, atol=1e-6)
    assert found["neighbours"].shape == (11, 2) and found["classes"].tolist() == ["a", "b ä"]
    labels, alike = found["labels"], found["labels"][found["neighbours"]] == found["labels"][:, None]
    chance = np.mean([(labels == label).sum() - 1 for label in labels]) / 10
    assert (
        f"of the class of the query: {alike[:, 0].mean():.1%} of the nearest neighbours, {alike.mean():.1%} of the"
        f" nearest 2; {chance:.1%} by chance (11 queries)\n"
    ) in result.out
    assert files_of(tmp_path / "cwd") == ["x.npz"] and not files_of(tmp_path / "tmp")


def test_broken_queries_are_counted(features, tree, tmp_path):
    (tmp_path / "queries").mkdir()
    shutil.copy(tree / "a/00.png", tmp_path / "queries")
    (tmp_path / "queries/x.png").write_bytes(b"no picture")
    flags = f"--queries={tmp_path}/queries", "--neighbours=1", "--output=x.npz"
    result = features("elpv/64", "--split=test[:20]", *flags)
    assert result.status == 1 and "1 could not be read and is not in" in result.err


def test_a_data_set_with_queries_and_codes(features, network, tmp_path, data_dir):
    result = features(
        "elpv/64", "--split=train[:60]", "--queries=elpv/64", "--queries_split=test[:20]", "--neighbours=4",
        "--codes=16", "--code_updates=3", "--seed=3", "--layer=conv5", "--output=x.npz",
    )  # fmt: skip
    assert (result.status, len(result.err.splitlines())) == (0, 1), result.err
    assert re.search(r"codes of 16 bits: .* 4 exact neighbours of 20 held-out pictures .* of 60\n", result.out)
    for name in ("autoencoder on conv5", "autoencoder on pixels", "random hyperplanes in conv5", "exact distances"):
        assert re.search(rf"^{name}.*( +\d+\.\d%){{3}}$", result.out, re.M), result.out
    assert re.search(r"^ +recall@4  recall@40  same class in 4$", result.out, re.M)
    assert re.search(r"^exact distances in conv5 +100\.0% +100\.0% +\d+\.\d%$", result.out, re.M)
    assert re.search(r"^any order +6\.7% +66\.7% +\d+\.\d%$", result.out, re.M)
    found = content(tmp_path / "cwd/x.npz")
    assert found["features"].ndim == 4 and found["codes"].shape == (60, 2) and found["query_codes"].shape == (20, 2)
    x = found["features"].reshape(60, -1)
    vectors = codes.Vectors(60, lambda places: x[places], lambda: iter([x]))
    expected = codes.train_autoencoder(vectors, 16, seed=3, updates=3)(x)
    assert np.unpackbits(found["codes"] ^ expected).mean() < 0.02, "of another seed it would be a half"
    from alexnet_jax.data.decoders import decode

    image = open_dataset("elpv/64", data_dir).split("test[7:8]")[0]["image"]
    np.testing.assert_allclose(
        found["query_features"][7], network.features(decode(image), "conv5")[0], rtol=1e-4, atol=1e-5
    )


def errors(tree, tmp_path):
    """Arguments, and a part of the line that they give."""
    out = "--output=x.npz"
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "photo.npz").symlink_to(tree / "a/00.png")
    (tmp_path / "preprocessing.npz").write_text("of a run")
    return [
        ((out,), "no pictures are named"),
        ((tree, tree, out), "one word too many"),
        ((tree,), "--output is missing"),
        ((tree, "--output=x.csv"), "does not end in .npz or .parquet"),
        ((tree, f"--output={tmp_path}/nowhere/x.npz"), "cannot be written: No such file"),
        ((tree, f"--output={tmp_path}/pipe.npz"), "is not a file"),
        ((tree, f"--output={tmp_path}/photo.npz"), f"lies in {tree}, whose pictures are read; name a file in another"),
        ((tree, f"--output={tmp_path}/preprocessing.npz"), "is a file of a run, which needs it; name another file"),
        ((tree, out, "--queries=x"), "--queries is given without --neighbours or --codes"),
        ((tree, out, "--queries_split=test"), "--queries_split is given without --queries"),
        ((tree, out, "--seed=1"), "--seed is given without --codes, which alone reads the flag"),
        ((tree, out, "--code_updates=1"), "--code_updates is given without --codes"),
        ((tree, out, "--codes=12"), "no multiple of 8"),
        ((tree, out, "--codes=2048"), "no multiple of 8 from 8 to 1,024"),
        ((tree, out, "--neighbours=0"), "--neighbours=0"),
        ((tree, out, "--neighbours=12"), "12 neighbours were asked for, and there are 11 items"),
        ((tree, out, "--layer=fc9"), "no layer 'fc9'; its layers are conv1"),
        (
            (tree, out, "--split=test"),
            "has no split 'test'; leave out the split, or name the prepared data set with its size, cells/SIZE",
        ),
        (("nothing", out), "there is no folder 'nothing', and there is no data set 'nothing'"),
        ((f"{tmp_path}/file.txt", out), "is not a folder"),
        ((f"{tmp_path}/empty", out), "there is no picture in the folder"),
        (("elpv/64", out, "--split=validation"), "no split 'validation'; it has"),
        (("elpv/64", out, "--split=test[:0%]"), "holds no example"),
        (
            (tree, out, "--codes=8", "--code_updates=1"),
            "among at least 20 others, and there are 11; give more pictures, or ask for fewer neighbours",
        ),
    ]


def test_mistakes_are_one_line_and_leave_nothing(features, tree, tmp_path):
    for arguments, part in errors(tree, tmp_path):
        result = features(*arguments)
        last = result.err.splitlines()[-1]
        assert result.status == 2 and last.startswith("error: ") and part in last, (arguments, result)
        assert not files_of(tmp_path / "cwd") and not files_of(tmp_path / "tmp"), arguments
        assert "Traceback" not in result.err and len(result.err.splitlines()) <= MAX_LINES, result.err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--neighbours=11", "11 neighbours were asked for, and there are 10 items"),
        ("--codes=8 --neighbours=5", "among at least 10 others, and there are 9; give more pictures"),
    ],
)
def test_features_are_kept_where_a_broken_picture_leaves_too_few(features, tree, tmp_path, flag, message):
    few = tmp_path / "few"
    shutil.copytree(tree, few)
    if "--codes" in flag:
        (few / "a/00.png").unlink()
    result = features(few, "--output=x.npz", *flag.split())
    assert result.status == 2 and message in result.err.splitlines()[-1], result.err
    assert "written to " in result.out and result.err.splitlines()[-2].startswith("1 could not be read and is not in")
    found = content(tmp_path / "cwd/x.npz")
    count = 10 if "--codes" in flag else 11
    assert len(found["names"]) == len(found["labels"]) == len(found["features"]) == count
    assert "codes" not in found and ("neighbours" in found) == ("--codes" in flag)
    assert files_of(tmp_path / "cwd") == ["x.npz"]


def test_features_are_kept_where_no_query_can_be_read(features, tree, tmp_path):
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries/x.png").write_bytes(b"no picture")
    result = features(tree, "--output=x.npz", f"--queries={tmp_path}/queries", "--neighbours=1")
    assert result.status == 2 and result.err.splitlines()[-1] == "error: no picture could be read", result.err
    assert len(content(tmp_path / "cwd/x.npz")["features"]) == 11


def test_a_missing_workdir_and_only_broken_pictures_are_one_line(features, tmp_path):
    result = features("elpv/64", "--output=x.npz", workdir=tmp_path / "nothing")
    assert result.status == 2 and "holds no run: config.json is missing" in result.err
    assert len(result.err.splitlines()) == 1
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/x.jpg").write_bytes(b"")
    result = features(tmp_path / "broken", "--output=x.npz")
    assert result.status == 2 and result.err.splitlines()[-1] == "error: no picture could be read"


@pytest.mark.long
def test_an_interrupted_command_keeps_the_file_from_before(command, run, data_dir, tmp_path):
    (tmp_path / "x.npz").write_bytes(b"before")
    arguments = ["elpv/64", "--split=train", f"--output={tmp_path}/x.npz", "--codes=8", "--code_updates=100000"]
    started = command("features", *arguments, f"--workdir={run}", f"--data_dir={data_dir}")
    kept = "(deleted)"  # in the name of the file of rows
    wait_until(lambda: any(kept in name for name in open_files(started.process.pid)), started.process)
    started.process.send_signal(signal.SIGINT)
    status, _, err = started.finish()
    assert status == 130 and err.splitlines()[-1] == "interrupted"
    assert files_of(tmp_path) == ["x.npz"] and (tmp_path / "x.npz").read_bytes() == b"before"


def open_files(pid):
    names = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(link))
    return names


def test_the_help_has_an_example(features):
    result = features("--help")
    assert "python -m alexnet_jax.features --workdir=runs/elpv cells --output=cells.npz" in result.out


def test_the_command_is_a_file_that_starts_from_any_folder(tmp_path):
    arguments = [sys.executable, str(ROOT / "alexnet_jax/features.py")]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "") and "no pictures are named" in done.stderr
