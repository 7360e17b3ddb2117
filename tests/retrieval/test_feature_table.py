"""Features of folders and data sets, their neighbours, and the files that hold them."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from alexnet_jax import trained
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.errors import UsageError
from alexnet_jax.retrieval import feature_data, feature_file, feature_table
from alexnet_jax.retrieval.columns import Names, Rows, Scratch
from alexnet_jax.retrieval.feature_data import NO_CLASS, Folder, Split, open_pictures
from alexnet_jax.retrieval.feature_table import Table, compute, find_neighbours
from alexnet_jax.trained import Trained
from tests.conftest import ROOT
from tests.retrieval.made import content, draw, tree_in

CLASSES = ("functional", "defective")


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    with Scratch(str(tmp_path / "scratch")) as made:
        yield made


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return tree_in(tmp_path_factory.mktemp("tree") / "cells")


def silent(line):
    pass


def folder_of(tree, known=(), say=silent):
    return Folder(str(tree), known=known, say=say)


def table_of(network, pictures, scratch, layer="fc7", **options):
    options = dict(with_pixels=False, scratch=scratch, say=silent, progress=silent) | options
    return compute(network, pictures, layer, **options)


# ---- the pictures


def test_a_folder_has_names_classes_and_pictures_in_order(tree):
    said = []
    pictures = folder_of(tree, say=said.append)
    found = list(pictures.read(64))
    names = [str(path.relative_to(tree)) for path in sorted(tree.rglob("*.png"))]
    assert [picture.name for picture in found] == names
    assert pictures.class_names == ("a", "b ä")
    assert [pictures.class_names[picture.label] for picture in found] == [name.split("/")[0] for name in names]
    assert (pictures.total, pictures.broken) == (12, 1)
    assert len(said) == 1 and "99.jpg is no picture" in said[0]


def test_a_class_whose_name_is_no_utf_8_reaches_parquet(network, scratch, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in (b"a", b"caf\xe9"):  # in Latin-1, as old archives have names
        draw(tmp_path / "cells" / os.fsdecode(name) / "x.png", 0)
    table = table_of(network, folder_of(tmp_path / "cells"), scratch)
    feature_file.write(epath.Path(tmp_path / "x.parquet"), table, None, {})
    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["class"] for row in rows] == ["a", r"caf\xe9"]


def test_classes_that_the_network_knows_have_its_labels(tree):
    known = ("dog", unicodedata.normalize("NFD", "b ä"), "a")
    assert folder_of(tree, known).class_names == known
    labels = {picture.name.split("/")[0]: picture.label for picture in folder_of(tree, known).read(16)}
    assert labels == {"a": 2, "b ä": 1}
    assert folder_of(tree, ("a", "c")).class_names == ("a", "b ä")


@pytest.mark.parametrize("odd", ["top.png", "a/deep/x.png"])
def test_a_tree_of_another_depth_has_no_classes(tmp_path, odd):
    draw(tmp_path / "a/1.png", 0)
    draw(tmp_path / "b/1.png", 1)
    assert folder_of(tmp_path).class_names == ("a", "b")
    draw(tmp_path / odd, 2)
    pictures = folder_of(tmp_path, ("a", "b"))
    assert pictures.class_names == ()
    assert {picture.label for picture in pictures.read(16)} == {NO_CLASS}


def test_a_split_has_the_pixels_of_the_data_set_and_scales_others(data_dir):
    source = open_dataset("elpv/64", data_dir).split("test[:70]")
    found = list(Split("test[:70]", source, CLASSES).read(64))
    assert [picture.name for picture in found] == [source[i]["name"].decode() for i in range(70)]
    assert [picture.label for picture in found] == [source[i]["label"] for i in range(70)]
    from alexnet_jax.data.decoders import decode

    np.testing.assert_array_equal(found[69].pixels, decode(source[69]["image"]))
    assert next(iter(Split("test", source, CLASSES).read(48))).pixels.shape == (48, 48, 3)


def test_examples_without_names_have_their_place():
    source = [{"image": np.zeros((8, 8, 3), np.uint8), "label": 1}] * 3
    assert [picture.name for picture in Split("train", source, CLASSES).read(8)] == ["train:0", "train:1", "train:2"]


def test_a_folder_goes_before_a_data_set_of_its_name(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = dict(known=CLASSES, say=silent)
    assert isinstance(open_pictures("elpv/64", None, data_dir, **options), Split)
    draw(tmp_path / "elpv/64/x.png", 0)
    assert isinstance(open_pictures("elpv/64", None, data_dir, **options), Folder)
    with pytest.raises(UsageError, match=r"is a folder of pictures.*no split 'test'"):
        open_pictures("elpv/64", "test", data_dir, **options)


def test_a_data_set_without_the_default_split_names_its_splits(monkeypatch):
    data = SimpleNamespace(examples={"train": 3, "validation": 1})
    monkeypatch.setattr(feature_data, "open_data", lambda *_, **__: data)
    message = r"no split 'test', which is the default; name one: train or validation$"
    with pytest.raises(feature_data.MissingSplitError, match=message):
        open_pictures("own/64", None, None, known=CLASSES, say=silent)


# ---- the table


@pytest.mark.parametrize("layer", ["fc7", "conv5", "fc8"])
def test_features_are_those_of_the_network(network, tree, scratch, layer, monkeypatch):
    files, pictures, done = sorted(tree.rglob("*.png")), folder_of(tree), []
    expected = network.features(files, layer)
    monkeypatch.setattr(trained, "BATCH", 4)
    table = table_of(network, pictures, scratch, layer, progress=done.append)
    np.testing.assert_allclose(table.features.read(0, 99), expected, rtol=1e-5, atol=1e-6)
    assert table.names.read(0, 99) == [str(file.relative_to(tree)) for file in files]
    assert len(done) == 3 and done[-1] == 12


def test_neighbours_among_the_others_and_by_class(network, tree, scratch, monkeypatch):
    monkeypatch.setattr(feature_table, "ROUNDS", 1)
    monkeypatch.setattr(feature_table.exact_search, "rows_at_once", lambda features: 4)
    table, done = table_of(network, folder_of(tree), scratch), []
    found = find_neighbours(table, None, 3, scratch=scratch, progress=lambda *each: done.append(each))
    features = table.features.read(0, 11).astype(np.float64)
    distances = np.sqrt(np.square(features[:, None] - features[None]).sum(axis=-1))
    np.fill_diagonal(distances, np.inf)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(table.neighbours.read(0, 11), expected)
    np.testing.assert_array_equal(table.distances.read(0, 11), np.take_along_axis(distances, expected, axis=1))
    labels = table.labels.read(0, 11)
    np.testing.assert_allclose(found.by_place, (labels[expected] == labels[:, None]).mean(axis=0))
    same = (labels[:, None] == labels[None]) & ~np.eye(11, dtype=bool)
    assert found.by_chance == pytest.approx(same.sum() / (11 * 10))
    assert found.queries == 11 and done[-1] == (33, 33)


def test_neighbours_of_other_pictures_compare_classes_by_name(network, tree, scratch, tmp_path):
    for number, name in enumerate(["b ä", "b ä", "c"]):
        draw(tmp_path / "asked" / name / f"{number}.png", number)  # as in `tree`
    table = table_of(network, folder_of(tree), scratch)
    queries = table_of(network, folder_of(tmp_path / "asked"), scratch)
    found = find_neighbours(table, queries, 1, scratch=scratch, progress=lambda *each: None)
    names = [table.names.read(int(row), int(row) + 1)[0] for (row,) in queries.neighbours.read(0, 3)]
    assert names == ["a/00.png", "b ä/01.png", "b ä/02.png"]
    assert (queries.distances.read(0, 3) == 0).all()
    assert found.queries == 2 and found.by_place[0] == 0.5  # c is no class of the tree
    assert found.by_chance == pytest.approx(7 / 11)


def test_features_that_are_not_finite_are_a_warning_and_no_distances(network, tree, scratch, monkeypatch):
    def diverged(self, squares, layer, computed=Trained.features_of):
        features = computed(self, squares, layer).copy()
        features[3] = np.nan
        return features

    monkeypatch.setattr(Trained, "features_of", diverged)
    said = []
    table = table_of(network, folder_of(tree), scratch, say=said.append)
    assert re.fullmatch(r"warning: .* 1 pictures? hold.* NaN .*09\.png.*", said[-1])
    with pytest.raises(UsageError, match="row 3 of the queries holds NaN"):
        find_neighbours(table, None, 2, scratch=scratch, progress=lambda *each: None)


# ---- rows, names and files


def test_names_of_any_kind_come_back(scratch):
    names = Names(scratch)
    given = ["", "a", "ä/ö ☃.png", "x" * 300, "line\nline", "\udcff.png"]
    names.append(given[:2])
    names.append([])
    names.append(given[2:])
    expected = [*given[:-1], "\\xff.png"]
    assert names.read(0, 99) == expected and names.read(1, 3) == expected[1:3] and names.read(6, 9) == []
    assert names.take(np.array([[5, 0], [2, 2]])) == [expected[i] for i in (5, 0, 2, 2)]
    assert names.longest == 300


def table_by_hand(scratch, count, shape=(2, 3), offset=0):
    rng = np.random.default_rng(offset)
    table = Table(Names(scratch), Rows(scratch, np.int64), Rows(scratch, np.float32, shape), ("a", "b ä"))
    table.names.append([f"ordner ä/{i + offset}.png" for i in range(count)])
    table.labels.append(np.arange(count) % 3 - 1)
    table.features.append(rng.standard_normal((count, *shape)))
    table.codes = Rows(scratch, np.uint8, (4,))
    table.codes.append(rng.integers(0, 256, (count, 4)))
    return table


def with_neighbours(table, scratch, items):
    count = len(table.names)
    table.neighbours, table.distances = Rows(scratch, np.int64, (2,)), Rows(scratch, np.float64, (2,))
    table.neighbours.append((np.arange(count)[:, None] + [1, 2]) % items)
    table.distances.append(np.arange(count)[:, None] + [0.5, 1.5])
    return table


def test_an_npz_holds_the_table(scratch, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_file, "NAMES_AT_ONCE", 3)
    table = with_neighbours(table_by_hand(scratch, 7), scratch, 7)
    file = epath.Path(tmp_path / "x.npz")
    feature_file.write(file, table, None, {"layer": "conv5", "step": 9})
    found = content(file)
    assert found["features"].shape == (7, 2, 3) and found["features"].dtype == np.float32
    np.testing.assert_array_equal(found["features"], table.features.read(0, 7))
    assert found["names"].tolist() == table.names.read(0, 7)
    assert found["labels"].tolist() == [-1, 0, 1, -1, 0, 1, -1] and found["classes"].tolist() == ["a", "b ä"]
    np.testing.assert_array_equal(found["codes"], table.codes.read(0, 7))
    assert found["neighbours"][6].tolist() == [0, 1] and found["distances"][6].tolist() == [6.5, 7.5]
    assert found["neighbour_names"][6].tolist() == ["ordner ä/0.png", "ordner ä/1.png"]
    assert (found["layer"], found["step"]) == ("conv5", 9)
    first = (tmp_path / "x.npz").read_bytes()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    feature_file.write(file, table, None, {"layer": "conv5", "step": 9})
    assert (tmp_path / "x.npz").read_bytes() == first


def test_an_npz_holds_queries_apart(scratch, tmp_path):
    table, queries = table_by_hand(scratch, 5), with_neighbours(table_by_hand(scratch, 3, offset=50), scratch, 5)
    feature_file.write(epath.Path(tmp_path / "x.npz"), table, queries, {})
    found = content(tmp_path / "x.npz")
    assert len(found["features"]) == 5 and len(found["query_features"]) == len(found["neighbours"]) == 3
    assert found["query_names"].tolist() == [f"ordner ä/{i}.png" for i in (50, 51, 52)]
    assert found["neighbour_names"][2].tolist() == ["ordner ä/3.png", "ordner ä/4.png"]
    assert found["query_classes"].tolist() == ["a", "b ä"] and len(found["query_codes"]) == 3


def test_parquet_holds_the_same_rows(scratch, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(feature_file, "GROUP_ROWS", 4)
    table, queries = table_by_hand(scratch, 6), with_neighbours(table_by_hand(scratch, 5, offset=50), scratch, 6)
    feature_file.write(epath.Path(tmp_path / "x.parquet"), table, queries, {"layer": "conv5"})
    with parquet.ParquetFile(tmp_path / "x.parquet") as file:
        assert file.num_row_groups == 4
        found = file.read().to_pylist()
        assert file.schema_arrow.metadata[b"alexnet_jax.shape"] == b"[2, 3]"
        assert file.schema_arrow.metadata[b"alexnet_jax.layer"] == b'"conv5"'
    assert [row["is_query"] for row in found] == [False] * 6 + [True] * 5
    np.testing.assert_array_equal([row["features"] for row in found[6:]], queries.features.read(0, 5).reshape(5, 6))
    assert found[2] == found[2] | {"name": "ordner ä/2.png", "label": 1, "class": "b ä", "neighbours": None}
    assert found[0]["label"] is None and found[0]["class"] is None
    assert found[9]["neighbours"] == [4, 5] and found[9]["distances"] == [3.5, 4.5]
    assert found[9]["neighbour_names"] == ["ordner ä/4.png", "ordner ä/5.png"]
    assert found[9]["code"] == queries.codes.read(3, 4).tobytes()


def test_labels_of_queries_count_the_classes_of_the_table(scratch, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table, queries = table_by_hand(scratch, 6), table_by_hand(scratch, 6, offset=50)
    queries.class_names = (unicodedata.normalize("NFD", "b ä"), "c")  # as some systems store it
    feature_file.write(epath.Path(tmp_path / "x.parquet"), table, queries, {})
    found = parquet.read_table(tmp_path / "x.parquet").to_pylist()[6:]
    assert [row["label"] for row in found] == [None, 1, None] * 2
    assert [row["class"] for row in found[:3]] == [None, queries.class_names[0], "c"]


def test_classes_that_differ_in_their_unicode_form_alone_stay_apart(scratch):
    table = table_by_hand(scratch, 3)
    table.class_names = ("ä", unicodedata.normalize("NFD", "ä"))
    assert table.labels_among(table.class_names, np.array([-1, 0, 1])).tolist() == [-1, 0, 1]


def test_without_pyarrow_the_line_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"alexnet_jax\[parquet\]") as error:
        feature_file.need_pyarrow()
    assert "\n" not in str(error.value)


MEMORY = """
import resource, sys
import numpy as np
from etils import epath
from alexnet_jax.retrieval import feature_file
from alexnet_jax.retrieval.columns import Names, Rows, Scratch
from alexnet_jax.retrieval.feature_table import Table
count, file = int(sys.argv[1]), sys.argv[2]
if file.endswith("parquet"):
    feature_file.need_pyarrow()
with Scratch(sys.argv[3]) as scratch:
    table = Table(Names(scratch), Rows(scratch, np.int64), Rows(scratch, np.float32, (4096,)), ("a",))
    for start in range(0, count, 128):
        table.names.append([f"{i:09}" for i in range(start, start + 128)])
        table.labels.append(np.zeros(128, np.int64))
        table.features.append(np.random.default_rng(start).random((128, 4096), np.float32))
    feature_file.write(epath.Path(file), table, None, {})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_the_memory_does_not_grow_with_the_pictures(tmp_path, suffix):
    def megabytes(count):
        arguments = [str(count), str(tmp_path / f"x{suffix}"), str(tmp_path)]
        return int(subprocess.check_output([sys.executable, "-c", MEMORY, *arguments], text=True, cwd=ROOT))

    few, many = megabytes(17 * 1024), megabytes(27 * 1024)  # 0.3 and 0.4 GB of features, groups of 128 MB in Parquet
    assert many < few + 100


def test_a_full_disk_is_one_line(scratch, tmp_path):
    table = table_by_hand(scratch, 2000, shape=(512,))
    size = 1_000_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # writes fail then as on a full disk
    try:
        for suffix in feature_file.SUFFIXES:
            with pytest.raises(UsageError, match="cannot be written: File too large"):
                feature_file.write(epath.Path(tmp_path / f"x{suffix}"), table, None, {})
        rows = Rows(scratch, np.float32, (512,))
        with pytest.raises(UsageError, match="make room"):
            rows.append(np.zeros((2000, 512)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_codes_of_pixels_see_the_centre_crop_as_means_of_32_by_32_cells():
    square = np.random.default_rng(0).integers(0, 256, (70, 70, 3), np.uint8)
    expected = square[3:67, 3:67].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(feature_table._small(square, 64), expected, atol=1.01)  # Pillow rounds twice
