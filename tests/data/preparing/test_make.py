"""Prepared data sets: their content, which neither an interruption nor the number of processes changes."""

import dataclasses
import errno
import fcntl
import io
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data import statistics
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.errors import DatasetError, SourceError, UnwritableFolderError, WorkerDiedError
from alexnet_jax.data.preparing import images, shards
from alexnet_jax.data.preparing.listing import Item, Listing, read_span
from alexnet_jax.data.preparing.make import Options, plan, prepare
from alexnet_jax.data.preparing.sources.folder import folder

SIZE = 24
RECORD = {"command": "a command"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """24 training and 6 test images of two classes, of varied sizes and formats."""
    path, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 3)):
        for kind in ("cat", "dog"):
            (path / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (*rng.integers(20, 60, 2), 3), np.uint8)
                Image.fromarray(pixels).save(path / split / kind / f"{number}.{'png' if number % 2 else 'jpg'}")
    return path


def silent(done: int, todo: int) -> None:
    pass


def make(source, data_dir, progress=silent, say=print, wait=False, **options) -> Path:
    options = Options(**{"size": SIZE, "per_shard": 5} | options)
    listing = folder("pets", str(source), say=lambda _: None)
    return prepare(listing, options, str(data_dir), record=RECORD, progress=progress, say=say, wait=wait)


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def decoded(stored) -> np.ndarray:
    if isinstance(stored, np.ndarray):
        return stored
    with Image.open(io.BytesIO(stored)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("encoding", shards.ENCODINGS)
def test_what_is_made_opens_with_tfds_and_with_ours(tree, tmp_path, encoding):
    path = make(tree, tmp_path, encoding=encoding)
    builder = tfds.builder_from_directory(path)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 24, "test": 6}
    data = open_dataset("pets", str(tmp_path))
    assert data.class_names == ["cat", "dog"] and data.image_size == SIZE
    theirs = builder.as_data_source("train")
    ours = data.split("train")
    for a, b in zip(theirs, ours, strict=True):
        assert a["label"] == b["label"] and a["name"] == b["name"]
        np.testing.assert_array_equal(a["image"], decoded(b["image"]))
    names = [example["name"].decode() for example in theirs]
    assert len(set(names)) == 24 and names != sorted(names)
    assert all((example["label"] == 0) == example["name"].startswith(b"cat") for example in theirs)
    pixels = np.stack([example["image"] for example in theirs])
    np.testing.assert_array_equal(data.statistics.mean_image, pixels.mean(0))
    np.testing.assert_allclose(data.statistics.covariance, np.cov(pixels.reshape(-1, 3).T, bias=True), rtol=1e-9)
    with np.load(path / statistics.FILE_NAME) as arrays:
        np.testing.assert_allclose(
            arrays["eigenvectors"].T * arrays["eigenvalues"] @ arrays["eigenvectors"], arrays["covariance"], rtol=1e-9
        )
        np.testing.assert_allclose(arrays["standard_deviations"] ** 2, arrays["eigenvalues"])
        np.testing.assert_allclose(arrays["channel_means"], pixels.mean((0, 1, 2)))
    assert '"cat": 12' in (path / "prepared.json").read_text()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["1.0.0"]


class Break(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("at", [1, 4, 5, 6, 13, 23, 29])
def test_a_break_at_any_image_does_not_show(tree, tmp_path, at):
    whole = content(make(tree, tmp_path / "whole"))

    def break_off(done: int, todo: int) -> None:
        if done == at:
            raise Break

    with pytest.raises(Break):
        make(tree, tmp_path / "broken", break_off)
    work = tmp_path / "broken" / "pets" / str(SIZE) / ".incomplete-1.0.0"
    (work / "data" / "rest.part").write_bytes(b"left by kill -9")
    counts = []
    path = make(tree, tmp_path / "broken", lambda done, todo: counts.append(todo))
    assert content(path) == whole
    finished = max(end for end in (0, 3, 6, 10, 15, 20, 25) if end < at)  # of 6 and 24 images in shards of up to 5
    assert counts[0] == 30 - finished, "finished shards are not made again"


KILLED = """
import os, sys
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing import shards
from alexnet_jax.data.preparing.sources.folder import folder
place = int(sys.argv[3])
seen = 0
def replace(a, b, real=os.replace):
    global seen
    seen += 1
    if seen == place: os.kill(os.getpid(), 9)
    real(a, b)
os.replace = replace
options = preparation.Options(size=24, per_shard=5)
listing, record = folder("pets", sys.argv[1]), {"command": "a command"}
preparation.prepare(listing, options, sys.argv[2], record=record, progress=lambda a, b: None)
"""


@pytest.mark.parametrize("at", [3, 4])
def test_killed_between_writing_and_renaming(tree, tmp_path, at):
    """Odd: before a shard gets its name; even: before its summary does."""
    whole = content(make(tree, tmp_path / "whole"))
    run = subprocess.run([sys.executable, "-c", KILLED, str(tree), str(tmp_path / "killed"), str(at)], check=False)
    assert run.returncode == -9
    assert content(make(tree, tmp_path / "killed")) == whole


def killed_at_once(item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_one_line_and_the_same_command_goes_on(tree, tmp_path):
    listing = dataclasses.replace(folder("pets", str(tree), say=lambda _: None), read=killed_at_once)
    options = Options(size=SIZE, per_shard=5, processes=2)
    with pytest.raises(WorkerDiedError, match="was killed or found no memory; run the same command") as died:
        prepare(listing, options, str(tmp_path / "killed"), record=RECORD, progress=silent, say=print)
    assert died.value.processes == 2 and not multiprocessing.active_children()
    assert content(make(tree, tmp_path / "killed", processes=2)) == content(make(tree, tmp_path / "whole"))


def test_processes_do_not_show(tree, tmp_path, monkeypatch):
    done = []
    # A process that starts would import the program, and JAX with it.
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="a_program_that_is_not_there"))
    path = make(tree, tmp_path / "two", lambda count, todo: done.append((count, todo)), processes=2)
    assert sys.modules["__main__"].__spec__.name == "a_program_that_is_not_there"
    assert content(path) == content(make(tree, tmp_path / "one"))
    assert done[-1] == (30, 30)


def test_a_damaged_shard_is_made_again(tree, tmp_path):
    whole = content(make(tree, tmp_path / "whole"))

    def break_off(done: int, todo: int) -> None:
        if done == 20:
            raise Break

    with pytest.raises(Break):
        make(tree, tmp_path / "broken", break_off)
    data = tmp_path / "broken" / "pets" / str(SIZE) / ".incomplete-1.0.0" / "data"
    os.truncate(sorted(data.iterdir())[0], 10)
    assert content(make(tree, tmp_path / "broken")) == whole


def with_broken(tree: Path, path: Path) -> Path:
    for file in tree.rglob("*.*"):
        target = path / file.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (path / "train/cat/0.jpg").write_bytes(b"")
    (path / "train/dog/1.png").write_bytes(bytes((path / "train/dog/1.png").stat().st_size))  # as long as when mended
    cut = (path / "test/dog/0.jpg").read_bytes()
    (path / "test/dog/0.jpg").write_bytes(cut[: len(cut) // 2])
    return path


def test_broken_images_stop_at_the_end_with_a_list(tree, tmp_path):
    source = with_broken(tree, tmp_path / "tree")
    with pytest.raises(
        DatasetError, match=r"3 images are broken: .*; .*broken.txt lists all; repair the images and run again"
    ):
        make(source, tmp_path / "data")
    work = tmp_path / "data" / "pets" / str(SIZE) / ".incomplete-1.0.0"
    listed = dict(line.split("\t") for line in (work / "broken.txt").read_text().splitlines())
    assert listed.keys() == {"train/cat/0.jpg", "train/dog/1.png", "test/dog/0.jpg"}
    assert listed["train/cat/0.jpg"] == "empty file"
    (source / "train/cat/0.jpg").rename(source / "train/cat/line\nbreak.jpg")
    with pytest.raises(DatasetError, match=r"train/cat/line\\nbreak.jpg \(empty file\)"):
        make(source, tmp_path / "data")
    assert "train/cat/line\\nbreak.jpg\tempty file" in (work / "broken.txt").read_text().splitlines()
    (source / "train/cat/line\nbreak.jpg").rename(source / "train/cat/0.jpg")
    # Mended, the data set is as if nothing had been wrong.
    for name in listed:
        (source / name).write_bytes((tree / name).read_bytes())
    assert content(make(source, tmp_path / "data")) == content(make(source, tmp_path / "other"))


def test_broken_images_are_left_out(tree, tmp_path):
    source = with_broken(tree, tmp_path / "tree")
    said: list[str] = []
    path = make(source, tmp_path / "data", say=said.append, skip_broken=True)
    assert said == [f"left out 3 broken images; {path}/prepared.json lists them: left_out"]
    data = open_dataset("pets", str(tmp_path / "data"))
    assert len(data.split("train")) == 22 and len(data.split("test")) == 5
    assert "test/dog/0.jpg" in (path / "prepared.json").read_text()


def test_a_shard_may_lose_all_its_images(tree, tmp_path):
    source = with_broken(tree, tmp_path / "tree")
    make(source, tmp_path / "data", skip_broken=True, per_shard=1)
    data = open_dataset("pets", str(tmp_path / "data"))
    assert len([example["label"] for example in data.split("train")]) == 22


def test_a_split_without_a_readable_image(tree, tmp_path):
    source = with_broken(tree, tmp_path / "tree")
    for file in (source / "test").rglob("*.*"):
        file.write_bytes(b"x")
    with pytest.raises(DatasetError, match="no image of the split 'test' can be read"):
        make(source, tmp_path / "data", skip_broken=True)


@pytest.mark.parametrize(("bits", "factor"), [(8, 256), (10, 64), (12, 16), (14, 4), (16, None)])
def test_dark_images_of_16_bits_are_named(tree, tmp_path, bits: int, factor: int | None):
    """Scaling each image by its own highest value would change what a dark picture shows."""
    shutil.copytree(tree, tmp_path / "tree")
    for kind in ("cat", "dog"):
        values = np.linspace(0, 2**bits - 1, 30 * 40).reshape(30, 40).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "tree/train" / kind / "deep.png")
    said: list[str] = []
    make(tmp_path / "tree", tmp_path / "data", say=said.append)
    line = (
        f"2 images of 16 bits with no value above {2**bits - 1:,} of 65,535: stored at 1/{factor} of the full"
        f" brightness; multiply the values by {factor} and prepare under another name"
    )
    assert said == ([line] if factor else [])


def test_a_class_without_a_readable_training_image(tree, tmp_path):
    """The network would have a class that training never shows."""
    source = with_broken(tree, tmp_path / "tree")
    for file in (source / "train/dog").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        SourceError,
        match=r"no image of the class 'dog' in 'train' can be read; .*broken.txt gives the reasons; repair the images",
    ):
        make(source, tmp_path / "data", skip_broken=True)
    work = tmp_path / "data" / "pets" / str(SIZE) / ".incomplete-1.0.0"
    assert (work / "broken.txt").read_text().count("train/dog/") == 12
    shutil.rmtree(source / "train/dog")
    shutil.copytree(tree / "train/dog", source / "train/dog")
    assert make(source, tmp_path / "data", skip_broken=True).is_dir()


def test_a_class_without_a_readable_image_in_another_split(tree, tmp_path):
    source = with_broken(tree, tmp_path / "tree")
    for file in (source / "test/dog").iterdir():
        file.write_bytes(b"x")
    said: list[str] = []
    make(source, tmp_path / "data", say=said.append, skip_broken=True)
    assert said[0] == "the split 'test' has no image of 1 of the 2 classes: dog"


def test_a_label_outside_the_classes(tmp_path):
    listing = Listing("odd", ["a", "b"], {"train": [Item("x", 2, __file__, 0, 10, 0)]}, lambda item: (b"x", 2), [], "")
    with pytest.raises(DatasetError, match="label 2, outside the 2 classes"):
        prepare(listing, Options(), str(tmp_path), record={}, progress=silent)


def test_two_runs_at_once(tree, tmp_path):
    def again(done: int, todo: int) -> None:
        make(tree, tmp_path)

    with pytest.raises(DatasetError, match="another run is preparing"):
        make(tree, tmp_path, again)


def test_a_second_run_waits_for_the_first_and_prepares_nothing(tree, tmp_path):
    second = ThreadPoolExecutor()
    waiting: list[Future] = []

    def begin_second(done: int, todo: int) -> None:
        if done == 1:
            waiting.append(
                second.submit(
                    make, tree, tmp_path, progress=lambda done, todo: made.append(done), say=said.append, wait=True
                )
            )

    made: list[int] = []
    said: list[str] = []
    with second:
        path = make(tree, tmp_path, begin_second)
        assert waiting[0].result() == path and not made
    assert said == [f"waiting for another run, which is preparing {path.parent / '.incomplete-1.0.0'}"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["1.0.0"]


def test_a_file_system_without_locks(tree, tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said: list[str] = []
    assert make(tree, tmp_path, say=said.append).is_dir()
    assert len(said) == 1 and "has no locks; prepare this data set in one run at a time" in said[0]


@pytest.mark.parametrize("split", ["v1.0", "test set", "all"])
def test_a_name_that_tfds_cannot_read_is_refused_for_a_split(tree, tmp_path, split):
    shutil.copytree(tree, tmp_path / "tree")
    (tmp_path / "tree/test").rename(tmp_path / "tree" / split)
    with pytest.raises(
        SourceError, match=f"'{split}' is no name for a split; rename .* letters, digits, _ and - alone"
    ):
        make(tmp_path / "tree", tmp_path)


def test_a_split_name_with_a_hyphen_opens(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "tree")
    (tmp_path / "tree/test").rename(tmp_path / "tree/my-val2")
    make(tmp_path / "tree", tmp_path)
    assert len(open_dataset("pets", str(tmp_path)).split("my-val2[:50%]")) == 3


def listing_of(tree, splits: dict[str, str]) -> Listing:
    """The tree's images with its splits under other names."""
    whole = folder("pets", str(tree), say=lambda _: None)
    return dataclasses.replace(whole, splits={splits[name]: items for name, items in whole.splits.items()})


@pytest.mark.parametrize(("train", "measured"), [("training", ["training"]), ("test2", ["test2", "test"])])
def test_a_source_without_the_split_train(tree, tmp_path, train, measured):
    """As TFDS's `imagenet_v2`, which has the split `test` alone: statistics are those of all images."""
    options = Options(size=SIZE, per_shard=5, encoding="raw")
    prepare(listing_of(tree, {"train": train, "test": "test"}), options, str(tmp_path), record=RECORD, progress=silent)
    data = open_dataset("pets", str(tmp_path))
    images = [example["image"] for split in measured for example in data.split(split)]
    np.testing.assert_array_equal(data.statistics.mean_image, np.stack(images).mean(0))


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_a_disk_that_the_library_finds_full(tree, tmp_path, monkeypatch, words):
    class Writer:
        def __init__(self, path, options):
            Path(path).touch()

        def write(self, record):
            raise RuntimeError(f"pwrite() failed: {words}, writing a file")

        def close(self):
            pass

    monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", Writer)
    with pytest.raises(DatasetError, match=r"the disk of .* is full; make room and run the same command"):
        make(tree, tmp_path)


def test_want_of_memory_is_no_broken_image(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(images.geometry, "resize_and_crop", mock.Mock(side_effect=MemoryError))
    with pytest.raises(WorkerDiedError, match="killed or found no memory; run the same command"):
        make(tree, tmp_path, skip_broken=True)


def test_a_source_folder_whose_name_is_no_text(tree, tmp_path):
    source = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(tree, source)
    make(source, tmp_path / "data")
    assert open_dataset("pets", str(tmp_path / "data")).provenance.description == r"Images of caf\udce9"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; making one is a right of root's."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount a small disk here")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk(tree, tmp_path, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1_700_000))
    with pytest.raises(DatasetError, match=r"the disk of .* is full; make room and run the same command"):
        make(tree, small_disk, encoding="raw")
    filler.unlink()
    assert content(make(tree, small_disk, encoding="raw")) == content(make(tree, tmp_path / "whole", encoding="raw"))


def test_a_folder_that_cannot_be_written(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableFolderError, match="cannot be written: Not a directory"):
        make(tree, tmp_path / "file")


def test_another_source_under_the_same_name(tree, tmp_path):
    """Shards of a first attempt with other images are not mixed in."""

    def break_off(done: int, todo: int) -> None:
        if done == 12:
            raise Break

    shutil.copytree(tree, tmp_path / "tree")
    for file in (tmp_path / "tree").rglob("*.jpg"):
        Image.new("RGB", (30, 30), "red").save(file)
    with pytest.raises(Break):
        make(tmp_path / "tree", tmp_path / "data", break_off)
    with pytest.raises(Break):
        make(tmp_path / "tree", tmp_path / "data", break_off, per_shard=4)
    assert content(make(tree, tmp_path / "data")) == content(make(tree, tmp_path / "whole"))


def test_pictures_that_change_after_an_interruption_are_read_again(tmp_path):
    """Names and sizes stay the same: files of a format without compression, in the same folder or in another one."""

    def break_off(done: int, todo: int) -> None:
        if done == 7:
            raise Break

    for source, colour in (("tree", "red"), ("other", "blue")):
        for split, kind, number in itertools.product(("train", "test"), "ab", range(3)):
            file = tmp_path / source / split / kind / f"{number}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 30), colour).save(file)
            os.utime(file, (1, 1))
    blue = content(make(tmp_path / "other", tmp_path / "whole"))
    for data in ("of_another_folder", "of_other_pictures"):
        with pytest.raises(Break):
            make(tmp_path / "tree", tmp_path / data, break_off)
    assert content(make(tmp_path / "other", tmp_path / "of_another_folder")) == blue
    for file in (tmp_path / "tree").rglob("*.bmp"):
        Image.new("RGB", (30, 30), "blue").save(file)
    assert content(make(tmp_path / "tree", tmp_path / "of_other_pictures"))["statistics.npz"] == blue["statistics.npz"]


def test_entries_that_are_no_image_count_as_broken(tree, tmp_path):
    listing = folder("pets", str(tree), say=lambda _: None)
    odd = dataclasses.replace(listing, problems=[("n97.tar", "a link, not a file")])
    with pytest.raises(DatasetError, match=r"1 image is broken: n97\.tar \(a link, not a file\)"):
        prepare(odd, Options(size=SIZE), str(tmp_path), record=RECORD, progress=silent)


def test_images_have_the_order_of_earlier_versions_wherever_they_lie(tmp_path):
    """`printf dog/0.jpg | b2sum -l 128` begins with 03a7: the smallest."""
    items = [Item(f"{kind}/{n}.jpg", 0, f"/any/{n}", 0, 1, 0) for kind in ("cat", "dog") for n in range(5)]
    listing = Listing("pets", ["cat", "dog"], {"train": items}, read_span, [], "")
    [job] = plan(listing, Options(), tmp_path)["train"]
    expected = "dog/0 cat/3 cat/2 dog/1 dog/2 cat/1 cat/0 dog/3 dog/4 cat/4"
    assert [item.name.removesuffix(".jpg") for item in job.items] == expected.split()
