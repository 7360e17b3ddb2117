"""ImageNet's official archives: the listed images, and the errors for other archives."""

import importlib.resources
import io
import tarfile
import tracemalloc

import numpy as np
import pytest
import scipy.io
from PIL import Image

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.errors import DatasetError, MissingSourceError, PartialArchiveError
from alexnet_jax.data.preparing import make as preparation
from alexnet_jax.data.preparing.listing import read_span
from alexnet_jax.data.preparing.sources import archives, imagenet

TFDS = importlib.resources.files("tensorflow_datasets") / "datasets" / "imagenet2012"
IDS = TFDS.joinpath("labels.txt").read_text().split()
TRUTH = TFDS.joinpath("validation_labels.txt").read_text().split()


def jpeg(color=(10, 20, 30), size=(12, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "JPEG")
    return file.getvalue()


def tar(entries: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in entries.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                archive.addfile(info)
    return file.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def color_of(label: int) -> tuple[int, int, int]:
    return label % 250, label // 4, 128


def write_2012(path, ids=IDS, validation=(3, 1, 2, 50_000), extra=None):
    """The two archives of 2012 with one image a class; validation images in the order given."""
    classes = {f"{key}.tar": tar({f"{key}_{IDS.index(key)}.JPEG": jpeg(color_of(IDS.index(key)))}) for key in ids}
    (path / "ILSVRC2012_img_train.tar").write_bytes(tar(classes | (extra or {})))
    images = {f"ILSVRC2012_val_{n:08}.JPEG": jpeg(color_of(IDS.index(TRUTH[n - 1]))) for n in validation}
    (path / "ILSVRC2012_img_val.tar").write_bytes(tar(images))


def color_found(item) -> np.ndarray:
    with Image.open(io.BytesIO(read_span(item)[0])) as image:
        return np.asarray(image.convert("RGB"))[5, 5].astype(int)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp("official")
    write_2012(path)
    return path


def test_2012(official):
    listing = imagenet.imagenet2012(str(official), partial=True)
    assert listing.class_names == IDS and not listing.problems
    assert [item.label for item in listing.splits["train"]] == list(range(1000))
    for item in listing.splits["train"][::100]:
        assert np.abs(color_found(item) - color_of(item.label)).max() <= 4
    assert listing.splits["validation"][0].name == "ILSVRC2012_val_00000003.JPEG"
    for item in listing.splits["validation"]:
        assert listing.class_names[item.label] == TRUTH[int(item.name[15:23]) - 1]
        assert np.abs(color_found(item) - color_of(item.label)).max() <= 4


def test_2012_prepared(official, tmp_path):
    """From the archives to the examples: every split, label and picture."""
    listing = imagenet.imagenet2012(str(official), partial=True)
    options = preparation.Options(size=8, per_shard=400)
    preparation.prepare(listing, options, str(tmp_path), record={}, progress=lambda done, todo: None)
    data = open_dataset("imagenet2012", str(tmp_path))
    assert data.class_names == IDS
    seen = set()
    for example in data.split("train"):
        with Image.open(io.BytesIO(example["image"])) as image:
            assert np.abs(np.asarray(image)[4, 4].astype(int) - color_of(example["label"])).max() <= 6
        assert example["name"].decode().startswith(IDS[example["label"]])
        seen.add(example["label"])
    assert seen == set(range(1000))
    for example in data.split("validation"):
        assert IDS[example["label"]] == TRUTH[int(example["name"][15:23]) - 1]


def test_2012_counts_the_images(official):
    with pytest.raises(
        PartialArchiveError, match=r"1,000 images and the official archive 1,281,167; download the archive again"
    ):
        imagenet.imagenet2012(str(official))


def test_2012_hostile_members_are_listed_and_never_read(tmp_path):
    hostile = {
        "../n99.tar": jpeg(),
        "/etc/n98.tar": jpeg(),
        "n97.tar": special("n97.tar", tarfile.SYMTYPE, "/etc/passwd"),
        "n96.tar": special("n96.tar", tarfile.LNKTYPE, "ILSVRC2012_img_val.tar"),
        "n95.tar": special("n95.tar", tarfile.CHRTYPE),
    }
    (archives := tmp_path / "in").mkdir()
    write_2012(archives, extra=hostile)
    before = sorted(tmp_path.rglob("*"))
    listing = imagenet.imagenet2012(str(archives), partial=True)
    assert dict(listing.problems) == {
        "../n99.tar": "its path leaves the archive",
        "/etc/n98.tar": "its path leaves the archive",
        "n97.tar": "a link, not a file",
        "n96.tar": "a link, not a file",
        "n95.tar": "not a plain file",
    }
    assert len(listing.splits["train"]) == 1000
    assert sorted(tmp_path.rglob("*")) == before


def test_2012_missing_archive(tmp_path):
    (tmp_path / "train.tar").write_bytes(tar({}))
    with pytest.raises(MissingSourceError, match=r"ILSVRC2012_img_train.tar is missing.*the folder holds train.tar"):
        imagenet.imagenet2012(str(tmp_path))


def test_2012_missing_classes(tmp_path):
    write_2012(tmp_path, ids=IDS[2:])
    with pytest.raises(DatasetError, match=f"lacks 2 of 1000 classes: {IDS[0]}, {IDS[1]};"):
        imagenet.imagenet2012(str(tmp_path), partial=True)


def test_2012_archives_of_the_wrong_kind(official, tmp_path):
    val, train = "ILSVRC2012_img_val.tar", "ILSVRC2012_img_train.tar"
    (tmp_path / val).write_bytes((official / val).read_bytes())
    (tmp_path / train).write_bytes((official / val).read_bytes())
    with pytest.raises(DatasetError, match="not the archive of a class; is the file the training tar"):
        imagenet.imagenet2012(str(tmp_path), partial=True)
    (tmp_path / train).write_bytes((official / train).read_bytes())
    (tmp_path / val).write_bytes(tar({"ILSVRC2010_val_00000001.JPEG": jpeg()}))
    with pytest.raises(DatasetError, match=r"ILSVRC2010_val_00000001.*the file is another archive"):
        imagenet.imagenet2012(str(tmp_path), partial=True)
    (tmp_path / val).write_bytes(tar({"ILSVRC2012_val_00050001.JPEG": jpeg()}))
    with pytest.raises(DatasetError, match="the file is another archive"):
        imagenet.imagenet2012(str(tmp_path), partial=True)


@pytest.mark.parametrize("share", [0, 0.3, 0.77, 0.9995])
def test_a_cut_off_archive(official, tmp_path, share):
    whole = (official / "ILSVRC2012_img_train.tar").read_bytes()
    whole = whole.rstrip(b"\0")  # the end of the last member, at the latest
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(whole[: int(share * len(whole))])
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"not a whole tar archive|lacks"):
        imagenet.imagenet2012(str(tmp_path), partial=True)


def test_not_an_archive(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"<html>please log in</html>" * 100)
    with pytest.raises(DatasetError, match=r"not a whole tar archive.*2,600 bytes"):
        list(archives.members(str(path)))


def test_a_header_that_claims_gigabytes(tmp_path):
    info = special("x", tarfile.GNUTYPE_LONGNAME)
    info.size = 3 * 2**30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(info.tobuf())
        file.truncate(4 * 2**30)  # a hole: no disk is used
    tracemalloc.start()
    with pytest.raises(DatasetError, match="not a whole tar archive"):
        list(archives.members(str(path)))
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def write_2010(path, numbers=(1, 2), truth="2\n1\n"):
    """Three synsets, of which the third is no class; the ids are not in the order of the numbers."""
    rows = [(1, "n00000002", 0), (2, "n00000001", 0), (3, "n00000003", 2)]
    kind = [("ILSVRC2010_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array([(number, key, "a word", children) for number, key, children in rows], kind)
    file = io.BytesIO()
    scipy.io.savemat(file, {"synsets": synsets.reshape(-1, 1)})
    devkit = {
        "devkit-1.0/data/meta.mat": file.getvalue(),
        "devkit-1.0/data/ILSVRC2010_validation_ground_truth.txt": truth.encode(),
    }
    (path / "ILSVRC2010_devkit-1.0.tar").write_bytes(tar(devkit))
    classes = {f"{rows[n - 1][1]}.tar": tar({f"{rows[n - 1][1]}_1.JPEG": jpeg()}) for n in numbers}
    (path / "ILSVRC2010_images_train.tar").write_bytes(tar(classes))
    images = {f"val/ILSVRC2010_val_{n:08}.JPEG": jpeg() for n in (2, 1)}
    (path / "ILSVRC2010_images_val.tar").write_bytes(tar(images))


def test_2010(tmp_path):
    write_2010(tmp_path)
    listing = imagenet.imagenet2010(str(tmp_path), partial=True)
    assert listing.class_names == ["n00000001", "n00000002"]
    assert {item.name: item.label for item in listing.splits["train"]} == {
        "n00000001/n00000001_1.JPEG": 0,
        "n00000002/n00000002_1.JPEG": 1,
    }
    assert {item.name[-5 - 1]: item.label for item in listing.splits["validation"]} == {"1": 0, "2": 1}


def test_2010_with_the_test_split(tmp_path):
    write_2010(tmp_path)
    images = {f"test/ILSVRC2010_test_{n:08}.JPEG": jpeg() for n in (2, 3, 1)}
    (tmp_path / "ILSVRC2010_images_test.tar").write_bytes(tar(images))
    (tmp_path / "ILSVRC2010_test_ground_truth.txt").write_text("1\n1\n2\n")
    listing = imagenet.imagenet2010(str(tmp_path), partial=True)
    assert {item.name[-5 - 1]: item.label for item in listing.splits["test"]} == {"1": 1, "2": 1, "3": 0}
    assert {item.name[-5 - 1]: item.label for item in listing.splits["validation"]} == {"1": 0, "2": 1}


def test_2010_a_label_outside_the_classes(tmp_path):
    write_2010(tmp_path, truth="2\n3\n")
    with pytest.raises(DatasetError, match="holds 3, a label outside the 2 classes"):
        imagenet.imagenet2010(str(tmp_path), partial=True)


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("ILSVRC2010_images_test.tar", "ILSVRC2010_test_ground_truth.txt"),
        ("ILSVRC2010_test_ground_truth.txt", "ILSVRC2010_images_test.tar"),
    ],
)
def test_2010_a_half_of_the_test_split_is_named(tmp_path, there: str, missing: str):
    write_2010(tmp_path)
    (tmp_path / there).write_bytes(b"")
    said: list[str] = []
    listing = imagenet.imagenet2010(str(tmp_path), partial=True, say=said.append)
    assert set(listing.splits) == {"train", "validation"}
    assert said[-1] == f"{tmp_path / there} makes no split 'test': {missing} is not beside it"


def test_2010_without_devkit(tmp_path):
    with pytest.raises(MissingSourceError, match=r"meta.mat of the 2010 development kit is missing"):
        imagenet.imagenet2010(str(tmp_path))


def test_2012_counts_the_validation_images_too(official, monkeypatch):
    monkeypatch.setitem(imagenet.IMAGES, "ILSVRC2012_img_train.tar", 1000)
    with pytest.raises(PartialArchiveError, match=r"img_val\.tar holds 4 images and the official archive 50,000"):
        imagenet.imagenet2012(str(official))


def test_counts_of_2010_are_those_of_the_challenge():
    from alexnet_jax.configs import imagenet2010

    counts = {kind: imagenet.IMAGES[f"ILSVRC2010_images_{kind}.tar"] for kind in ("train", "val", "test")}
    assert counts == {"train": 1_261_406, "val": 50_000, "test": 150_000}
    assert counts["train"] == imagenet2010.get_config().dataset.train_images
