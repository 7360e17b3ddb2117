"""The command `predict`: what it reads, what it prints, and what it says of pictures that are none."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import alexnet_jax
from alexnet_jax import answers, trained
from alexnet_jax.data import picture_batches
from alexnet_jax.drawing.predictions import Answer
from alexnet_jax.workdir.checkpoint import Checkpoints
from tests.conftest import ROOT
from tests.fuzz import Commands, Result


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def commands():
    started = Commands({"JAX_NUM_CPU_DEVICES": "2", "PYTHONIOENCODING": "utf-8:strict"})
    yield started
    started.close()


@pytest.fixture
def predict(commands: Commands, run: Path, tmp_path: Path):
    """Runs the command in the folder `cwd`."""
    (tmp_path / "cwd").mkdir()

    def start(*arguments: object, workdir: Path = run) -> Result:
        words = [f"--workdir={workdir}", *map(str, arguments)]
        return commands("predict", *words, folder=tmp_path, trains=True, seconds=120)

    return start


def draw(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 70, 3), np.uint8)).save(file)
    return file


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures in class folders and outside; `cwd/photos` as the command sees it."""
    folder = tmp_path / "cwd/photos"
    for seed, name in enumerate(("functional/b.png", "functional/a.png", "defective/deep/c.jpg", "none.webp")):
        draw(folder / name, seed)
    return folder


def test_answers_are_those_of_the_library_in_the_order_of_the_names(predict, run, tree):
    (tree / "notes.txt").write_text("no picture")
    result = predict("photos", "--json")
    assert result.status == 0, result.err
    found = [json.loads(line) for line in result.out.splitlines()]
    names = ["photos/defective/deep/c.jpg", "photos/functional/a.png", "photos/functional/b.png", "photos/none.webp"]
    assert [answer["image"] for answer in found] == names
    assert [answer["label"] for answer in found] == ["defective", "functional", "functional", None]
    network = alexnet_jax.load(run)
    expected = network.predict([tree.parent / name for name in names])
    for answer, row in zip(found, expected, strict=True):
        order = np.argsort(-row)
        assert [entry["class"] for entry in answer["predictions"]] == [network.classes[label] for label in order]
        np.testing.assert_allclose([entry["probability"] for entry in answer["predictions"]], row[order], rtol=1e-4)
    wrong = sum(answer["label"] not in (None, answer["predictions"][0]["class"]) for answer in found)
    assert f"{wrong} of 3 pictures in folders named as a class are wrong" in result.err
    assert "ignoring 1 file that does not end in .jpg" in result.err and "photos/notes.txt" in result.err


def test_a_share_of_known_pictures_and_as_many_columns_as_classes(predict, tree):
    shutil.copy(tree / "functional/a.png", tree / "defective/a.png")  # one of the two is wrong
    result = predict("photos/functional/a.png", "photos/defective/a.png", "photos/none.webp", "--csv")
    assert "1 of 2 pictures in folders named as a class are wrong (50.00%)" in result.err
    head, *lines = csv.reader(io.StringIO(result.out))
    assert head[2:] == ["class_1", "probability_1", "class_2", "probability_2"]
    assert {len(line) for line in lines} == {6}


def test_ten_views_and_fewer_classes_in_a_table(predict, run, tree):
    files = [tree / "none.webp", tree / "functional/a.png"]
    result = predict(*files, "--csv", "--views=10", "--top=1")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert list(rows[0]) == ["image", "label", "class_1", "probability_1"]
    assert [(row["image"], row["label"]) for row in rows] == [(str(files[0]), ""), (str(files[1]), "functional")]
    network = alexnet_jax.load(run)
    expected = network.predict(files, views=10)
    np.testing.assert_allclose([float(row["probability_1"]) for row in rows], expected.max(axis=1), rtol=1e-4)
    assert [row["class_1"] for row in rows] == [network.classes[label] for label in expected.argmax(axis=1)]


def test_text_has_a_block_for_each_picture(predict, tree):
    result = predict("photos/none.webp", "photos/functional/a.png")
    lines = result.out.splitlines()
    assert (lines[0], lines[3]) == ("photos/none.webp", "photos/functional/a.png  (folder: functional)")
    shares = [float(line.split("%")[0]) for line in (*lines[1:3], *lines[4:6])]
    assert shares[0] >= shares[1] and sum(shares) == pytest.approx(200, abs=0.1)
    assert {line.split()[1] for line in lines[1:3]} == {"defective", "functional"}


def test_more_pictures_than_a_batch_run_one_program(run, monkeypatch):
    squares = [(str(number), np.full((64, 64, 3), number, np.uint8)) for number in range(7)]
    network, sizes = alexnet_jax.load(run), []
    log_probs = type(network).log_probs

    def counted(network, block, **kind):
        sizes.append(len(block))
        return log_probs(network, block, **kind)

    monkeypatch.setattr(type(network), "log_probs", counted)
    found = [
        answer
        for block in answers.answered(network, iter(squares), print, batch_size=4, views=1, top=5)
        for answer in block
    ]
    assert [answer.name for answer in found] == list("0123456") and sizes == [4, 4]
    monkeypatch.undo()
    expected = network.predict([pixels for _, pixels in squares]).max(axis=1)
    np.testing.assert_allclose([answer.probabilities[0] for answer in found], expected, rtol=1e-4)


def test_few_sizes_of_batches_hold_any_number_of_pictures():
    sizes = [trained.choose_batch_size(total, 1) for total in (1, 2, 3, 100, 128, 129, 10**9)]
    assert sizes == [1, 2, 4, 128, 128, 128, 128]
    assert trained.choose_batch_size(10**9, 10) == 12


def test_pictures_are_read_in_order_and_not_far_ahead(tmp_path, monkeypatch):
    file = draw(tmp_path / "a.png")
    asked, broken = [], []

    def names():
        for number in range(40):
            asked.append(number)
            yield str(file if number % 4 else tmp_path / f"gone{number}.png")

    monkeypatch.setattr(picture_batches, "AHEAD", 5)
    pictures = answers.read(names(), 16, broken.append)
    assert next(pictures)[1].shape == (16, 16, 3)
    assert len(asked) <= 8
    assert len(list(pictures)) == 29
    assert [line.split("gone")[1].split(".")[0] for line in broken] == [str(number) for number in range(0, 40, 4)]


def test_standard_input_is_read_where_ctrl_c_is_heard(tmp_path, monkeypatch):
    """A thread of a pool that waits for it would not end, and the interpreter aborts at the next signal."""
    readers = []

    class Waiting(io.BytesIO):
        def read(self, *size):
            readers.append(threading.current_thread())
            return super().read(*size)

    file = draw(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Waiting(file.read_bytes())))
    broken: list[str] = []
    pictures = dict(answers.read([str(file), "-", "-"], 16, broken.append))
    np.testing.assert_array_equal(pictures["-"], pictures[str(file)])
    assert set(readers) == {threading.main_thread()}
    assert len(broken) == 1 and broken[0].startswith("standard input is no picture")


@pytest.mark.parametrize(("size", "most"), [(64, 256), (1024, 21), (4096, 2 * picture_batches.usable_cores())])
def test_large_squares_are_read_less_far_ahead(size, most):
    asked = iter(range(1000))
    read = picture_batches.read_ahead(map(str, asked), lambda name: np.zeros((1, 1, 3), np.uint8), print, size=size)
    next(read)
    assert next(asked) == max(most, 2 * picture_batches.usable_cores()) + 1
    read.close()


def test_standard_input_holds_one_picture(run, tree):
    def start(data: bytes, *words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "alexnet_jax.predict", f"--workdir={run}", "-", "--json", *words]
        return subprocess.run(command, input=data, capture_output=True, cwd=ROOT, timeout=180)

    good = start((tree / "functional/a.png").read_bytes())
    assert good.returncode == 0, good.stderr
    answer = json.loads(good.stdout)
    assert (answer["image"], answer["label"]) == ("-", None)
    probability = alexnet_jax.load(run).predict(tree / "functional/a.png").max()
    assert answer["predictions"][0]["probability"] == pytest.approx(probability, rel=1e-4)
    empty = start(b"")
    assert (empty.returncode, empty.stdout) == (2, b"")
    assert b"error: standard input is no picture: empty file\n" in empty.stderr


def test_broken_pictures_are_named_and_the_rest_go_on(predict, tree):
    (tree / "functional/aa.png").write_bytes((tree / "functional/a.png").read_bytes()[:100])
    (tree / "functional/emp\nty.jpg").write_bytes(b"")
    result = predict("photos/functional", "gone.png", "/dev/null", "--json")
    assert result.status == 1
    assert [json.loads(line)["image"][-5:] for line in result.out.splitlines()] == ["a.png", "b.png"]
    for words in (
        "error: photos/functional/aa.png is no picture: ",
        "error: photos/functional/emp\\nty.jpg is no picture: empty file\n",
        "error: gone.png cannot be read: No such file or directory\n",
        "error: /dev/null is no picture: not a file\n",
        "\n4 could not be read or predicted\n",
    ):
        assert words in result.err
    assert "Traceback" not in result.err


def test_a_folder_without_a_picture_is_named_beside_others(predict, tree):
    (tree / "empty").mkdir()
    result = predict("photos/empty", "photos/functional", "--json")
    assert result.status == 1 and len(result.out.splitlines()) == 2
    assert "error: there is no picture in photos/empty\n" in result.err
    assert result.err.endswith("\n1 could not be read or predicted\n")


def test_probabilities_that_are_not_finite_are_an_error(predict, run, tree, tmp_path):
    """Finite parameters overflow: no class is the likeliest one."""
    huge = tmp_path / "huge"
    shutil.copytree(run, huge)
    shutil.rmtree(huge / "checkpoints")
    network = alexnet_jax.load(run)
    checkpoints = Checkpoints(epath.Path(huge / "checkpoints"))
    params = jax.tree.map(lambda leaf: leaf * 1e25, network.params)
    checkpoints.save(1, {"params": params, "batch_stats": network.batch_stats}, top1=None)
    checkpoints.close()
    result = predict("photos/functional", "--csv", workdir=huge)
    assert result.status == 2 and result.out.splitlines()[1:] == []
    line = "error: photos/functional/a.png has probabilities that are not finite: the numbers of the network overflow\n"
    assert line in result.err and result.err.endswith("\nerror: no picture could be read or predicted\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["photos", "--workdir=elsewhere"],
            "--workdir is given several times; this command takes one",
        ),
        ([], "no picture is named; name files, folders, or - for standard input"),
        (["photos/empty"], "there is no picture in photos/empty"),
        (["gone.png", "-"], "no picture could be read or predicted"),
        (["-", "photos", "-"], "- is given several times, and standard input holds one picture"),
        (["photos", "--json", "--csv"], "--json and --csv are both given; choose one"),
        (["photos", "--picture=a.jpg"], "--picture=a.jpg does not end in .png or .svg"),
        (["photos", "--picture=photos"], "--picture=photos does not end in .png or .svg"),
        (["photos", "--picture=folder.png"], "--picture=folder.png is a folder"),
        (["photos", "--picture=nowhere/a.png"], "--picture=nowhere/a.png cannot be written: No such file"),
        (["photos/functional/a.png", "--picture=link.png"], "--picture=link.png is one of the pictures; name another"),
        (["photos", "--picture=photos/x.png"], "--picture=photos/x.png lies in photos, whose pictures are read; name"),
        (["photos", "--top=0"], "flag --top=0"),
        (["photos", "--views=3"], "flag --views=3"),
        (["photos", "--checkpoint=7"], "there is no checkpoint '7'"),
    ],
)
def test_a_wrong_command_is_one_line(predict, tree, words, message):
    (tree / "empty").mkdir()
    (tree.parent / "folder.png").mkdir()
    (tree.parent / "link.png").symlink_to(tree / "functional/a.png")
    before = (tree / "functional/a.png").read_bytes()
    result = predict(*words)
    assert (result.status, result.out) == (2, "")
    assert result.err.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in result.err
    assert (tree / "functional/a.png").read_bytes() == before


def test_a_workdir_without_a_run_or_checkpoint_is_one_line(predict, run, tree, tmp_path):
    empty = tmp_path / "no checkpoint"
    shutil.copytree(run, empty, ignore=lambda folder, names: [name for name in names if name == "checkpoints"])
    for workdir, message in ((tmp_path / "gone", "holds no run: config.json is missing"), (empty, "no checkpoint yet")):
        result = predict("photos", workdir=workdir)
        assert (result.status, result.out) == (2, "")
        assert message in result.err.splitlines()[-1]


def test_a_picture_shows_the_first_answers(predict, tree):
    for kind in ("png", "SVG"):
        result = predict("photos", f"--picture=answers.{kind}")
        assert result.status == 0, result.err
        content = (tree.parent / f"answers.{kind}").read_bytes()
        assert content.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    assert sorted(os.listdir(tree.parent)) == ["answers.SVG", "answers.png", "photos"]
    with Image.open(tree.parent / "answers.png") as image:
        assert image.width > 1000  # four pictures side by side


@pytest.mark.parametrize("form", ["--json", "--csv", ""])
def test_names_of_any_bytes(predict, tree, form):
    names = ["\udcff.png", "ä 名.png", 'a,b\n"c".png']
    (tree / "odd").mkdir()
    for name in names:
        shutil.copy(tree / "none.webp", tree / "odd" / name)
    result = predict("photos/odd", *([form] if form else []))
    assert result.status == 0, result.err
    if form == "--json":
        names[0] = r"\udcff.png"  # a lone surrogate is no text for other readers
        assert sorted(json.loads(line)["image"][11:] for line in result.out.splitlines()) == sorted(names)
    elif form == "--csv":
        rows = list(csv.DictReader(io.StringIO(result.out)))
        assert [row["image"][11:] for row in rows] == ['a,b\n"c".png', "ä 名.png", "\ufffd.png"]
    else:
        assert result.out.count("\n") == 9 and r'photos/odd/a,b\n"c".png' in result.out


def test_the_class_is_that_of_the_nearest_folder_in_either_form_of_unicode():
    classes = {"cat": "cat", "dog": "dog", "\u00e9t\u00e9": "\u00e9t\u00e9"}
    assert answers.truth_of("/x/cat/dog/inner/1.png", classes) == "dog"
    assert answers.truth_of("/x/e\u0301te\u0301/1.png", classes) == "\u00e9t\u00e9"
    assert answers.truth_of("/x/cat.png", classes) is None
    assert answers.truth_of("-", classes) is None


def test_a_folder_above_the_named_one_is_no_true_class(tmp_path, monkeypatch):
    """Where classes are people, every picture below /home/anna would be of anna."""
    (tmp_path / "cat/new").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cat/new")
    classes = {"cat": "cat", "dog": "dog"}
    for name in ("1.png", "./1.png", "../new/1.png", "dog/../1.png"):
        assert answers.truth_of(name, classes) is None
    assert answers.truth_of("dog/1.png", classes) == answers.truth_of("../new/dog/in/1.png", classes) == "dog"


def test_wordnet_ids_have_names():
    answer = Answer("a.png", np.zeros((8, 8, 3), np.uint8), ["n02123045", "n01440764"], [0.75, 0.25], "n02123045")
    assert answers.as_text(answer) == (
        "a.png  (folder: tabby (n02123045))\n   75.00%  tabby (n02123045)\n   25.00%  tench (n01440764)\n"
    )
    assert answers.as_row(answer) == "a.png,tabby (n02123045),tabby (n02123045),0.75,tench (n01440764),0.25\n"
    first = json.loads(answers.as_json(answer))
    assert (first["label"], first["predictions"][0]) == (
        "n02123045",
        {"class": "n02123045", "name": "tabby (n02123045)", "probability": 0.75},
    )


def test_names_of_any_kind_are_read_again_from_json_and_csv():
    name = "car\rret, \udcff.png"
    pixels = np.zeros((8, 8, 3), np.uint8)
    answer = Answer(name=name, pixels=pixels, classes=["a\rb"], probabilities=[1.0], truth=None)
    line = answers.as_json(answer)
    line.encode("utf-8")  # as other readers have it, no lone surrogate
    assert json.loads(line)["image"] == "car\rret, \\udcff.png" and "\\u" not in json.loads(line)["image"][:9]
    rows = list(csv.reader(io.StringIO(answers.as_row(answer), newline="")))
    assert rows == [[name, "", "a\rb", "1.0"]]


OUTPUT_FILE = """
import os, sys
from alexnet_jax import cli, cli_network

def main(mode, name):
    if mode == "protected":
        os.access = lambda path, mode: False  # to root, every file is writable
    print(cli_network.output_file("--predictions", name, (".csv",)))

cli.run(main, words=2)
"""


def test_an_output_follows_a_link_and_leaves_a_protected_file(tmp_path):
    """Runs in a subprocess: a second command, imported into this process, would define its flags twice."""
    (tmp_path / "real.csv").write_text("before")
    (link := tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    words = [sys.executable, "-c", OUTPUT_FILE]
    found = subprocess.run([*words, "free", link], cwd=ROOT, capture_output=True, text=True)
    assert (found.stdout, found.returncode) == (f"{os.path.realpath(tmp_path / 'real.csv')}\n", 0)
    refused = subprocess.run([*words, "protected", link], cwd=ROOT, capture_output=True, text=True)
    assert (refused.stdout, refused.returncode) == ("", 2)
    assert refused.stderr == f"error: --predictions={link} is there and write-protected; name another file\n"
