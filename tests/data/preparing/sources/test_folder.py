"""Trees of images: the listed images, the lines about ignored entries, and the errors for other trees."""

import os
from pathlib import Path

import pytest

from alexnet_jax.data import folder_listing
from alexnet_jax.data.errors import DatasetError, MissingSourceError
from alexnet_jax.data.preparing.sources.folder import folder


def tree(path, files):
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"listed, not opened")
    return str(path)


def listed(listing) -> dict[str, list[tuple[str, int]]]:
    return {split: [(item.name, item.label) for item in items] for split, items in listing.splits.items()}


def test_the_images_of_each_split_and_a_line_for_all_that_is_ignored(tmp_path):
    images = ["train/b/1.JPG", "train/a/1.jpg", "train/a/2.png", "train/a/more/deeper/3.JFIF", "test/a/9.webp"]
    others = ["train/a/notes.txt", "train/a/4.heic", "train/5.jpg", "LICENSE", "train/a/._1.jpg", ".cache/x/y"]
    root = tree(tmp_path, images + others)
    (tmp_path / "train/a/back").symlink_to(tmp_path / "train")
    (tmp_path / "train/a/gone.jpg").symlink_to(tmp_path / "nowhere")
    said: list[str] = []
    listing = folder("mine", root, say=said.append)
    assert listing.class_names == ["a", "b"]
    assert listed(listing) == {
        "test": [("a/9.webp", 0)],
        "train": [("a/1.jpg", 0), ("a/2.png", 0), ("a/more/deeper/3.JFIF", 0), ("b/1.JPG", 1)],
    }
    assert sorted(said) == [
        "1 .heic file among these is a picture; convert it to JPEG to have it taken",
        "ignoring 1 entry that is no file, or a link to nothing: train/a/gone.jpg",
        "ignoring 1 image outside of class folders: train/5.jpg",
        "ignoring 1 link back to a folder above: train/a/back",
        "ignoring 2 hidden files or folders, such as .cache",
        "ignoring 3 files that do not end in .jpg, .jpeg, .jfif, .jpe, .jif, .png, .webp, .bmp, such as LICENSE",
        "the split 'test' has no image of 1 of the 2 classes: b",
    ]
    assert all(Path(item.file).read_bytes() for items in listing.splits.values() for item in items)


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    tree(tmp_path / "pictures", ["1.jpg", "2.jpg"])
    root = tree(tmp_path / "tree", ["train/a/0.jpg", "train/b/0.jpg", "val/a/0.jpg"])
    (tmp_path / "tree/train/a/more").symlink_to(tmp_path / "pictures")
    assert [name for name, _ in listed(folder("mine", root))["train"]] == [
        "a/0.jpg",
        "a/more/1.jpg",
        "a/more/2.jpg",
        "b/0.jpg",
    ]


def test_a_folder_without_a_held_out_split(tmp_path):
    files = [f"train/{kind}/{n}.jpg" for kind, count in (("a", 30), ("b", 10), ("c", 1)) for n in range(count)]
    said: list[str] = []
    listing = folder("mine", tree(tmp_path, files), held_out=0.2, say=said.append)
    assert said == [
        "no split but 'train': 8 images are held out as 'validation'",
        "the split 'validation' has no image of 1 of the 3 classes: c",
    ]
    labels = {split: [item.label for item in items] for split, items in listing.splits.items()}
    assert [labels["validation"].count(label) for label in range(3)] == [6, 2, 0]
    assert [labels["train"].count(label) for label in range(3)] == [24, 8, 1]
    assert listing == folder("mine", str(tmp_path), held_out=0.2)


def test_one_image_a_class_is_too_few_to_measure_an_error(tmp_path):
    said: list[str] = []
    listing = folder("mine", tree(tmp_path, ["train/a/1.jpg", "train/b/1.jpg"]), say=said.append)
    assert said == [
        "no split but 'train', and no image is held out, for each class has one alone; to measure an error, add images"
        " to the classes"
    ]
    assert set(listing.splits) == {"train"}


def test_a_share_to_hold_out_where_there_is_a_split_is_said_to_be_of_no_use(tmp_path):
    said: list[str] = []
    root = tree(tmp_path, [f"{split}/{kind}/1.jpg" for split in ("train", "val") for kind in "ab"])
    folder("mine", root, say=said.append)
    assert said == []
    folder("mine", root, held_out=0.1, say=said.append)
    assert said == ["nothing is held out: the tree has the splits train, val"]


def test_class_folders_alone_are_the_training_split(tmp_path):
    said: list[str] = []
    files = [f"{kind}/{inner}{n}.jpg" for kind in ("cat", "dog") for inner in ("", "more/") for n in range(5)]
    listing = folder("mine", tree(tmp_path, files), say=said.append)
    assert said == [
        f"no folder 'train': the 2 folders of {tmp_path} are used as the classes of 'train'",
        "no split but 'train': 2 images are held out as 'validation'",
    ]
    assert {split: len(items) for split, items in listing.splits.items()} == {"train": 18, "validation": 2}
    assert listing.class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (None, r"cross holds no image \(.jpg, .*\); fill the folder, or move it out of the tree"),
        ("cross/1.heic", "cross holds no image but 1 .heic file; convert it to JPEG"),
    ],
)
def test_a_class_folder_without_images_is_named(tmp_path, odd, message):
    root = tree(tmp_path, ["bird/1.jpg", "circle/1.jpg"] + ([odd] if odd else []))
    (tmp_path / "cross").mkdir(exist_ok=True)
    with pytest.raises(DatasetError, match=message):
        folder("mine", root)


def test_names_of_any_script_are_classes(tmp_path):
    names = [
        "caf\xa0noir",
        "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627",
        "\u732b\u3000\u72ac",
        "\U0001f469\u200d\U0001f52c",
    ]
    listing = folder("mine", tree(tmp_path, [f"train/{name}/1.jpg" for name in names]))
    assert listing.class_names == names


def test_a_class_has_either_form_of_unicode_in_each_split(tmp_path):
    root = tree(tmp_path, ["train/e\u0301/1.jpg", "train/a/1.jpg", "validation/\xe9/2.jpg", "validation/a/2.jpg"])
    listing = folder("mine", root)
    assert listing.class_names == ["a", "e\u0301"]
    assert listed(listing)["validation"] == [("a/2.jpg", 0), ("e\u0301/2.jpg", 1)]
    assert listing.splits["validation"][1].file == f"{root}/validation/\xe9/2.jpg"


def test_all_images_of_a_class_may_lie_in_subfolders(tmp_path):
    listing = folder("mine", tree(tmp_path, ["bird/1.jpg", "bird/2.jpg", "cross/red/1.jpg", "cross/blue/deep/2.jpg"]))
    assert sorted(item.name for items in listing.splits.values() for item in items) == [
        "bird/1.jpg",
        "bird/2.jpg",
        "cross/blue/deep/2.jpg",
        "cross/red/1.jpg",
    ]


def test_the_folder_that_macos_adds_to_archives_is_no_class(tmp_path):
    said: list[str] = []
    files = ["cat/1.jpg", "dog/1.jpg", "dog/__MACOSX/._1.jpg", "__MACOSX/cat/._1.jpg"]
    assert folder("mine", tree(tmp_path, files), say=said.append).class_names == ["cat", "dog"]
    assert "ignoring 2 hidden files or folders, such as __MACOSX" in said
    said.clear()
    root = tree(tmp_path / "splits", [f"{top}train/{name}" for top in ("", "__MACOSX/") for name in files])
    assert set(folder("mine", root, say=said.append).splits) == {"train"}


def test_a_folder_without_images_makes_no_split(tmp_path):
    said: list[str] = []
    root = tree(tmp_path, [f"train/{kind}/{n}.jpg" for kind in "ab" for n in range(10)])
    (tmp_path / "val/a").mkdir(parents=True)
    assert set(folder("mine", root, say=said.append).splits) == {"train", "validation"}
    assert said[0] == "the folder 'val' holds no image and makes no split"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["a/x/1.jpg", "b/x/1.jpg"],
            r"no folder 'train', and its folders a, b may be splits or classes, .* expected SPLIT/CLASS/IMAGE, .*"
            r": move classes into a folder 'train', or name the training split 'train'",
        ),
        (["Train/1.jpg", "Test/1.jpg"], r"no folder 'train' and holds the folders Test, Train; expected"),
        (["train/a/1.jpg"], r"'train' of .* has one class \(a\); at least two"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"], "has the class 'c', which 'train' has not"),
        (
            ["train/a/1.jpg", "train/b/1.txt"],
            r"train/b holds no image \(.jpg, .*\); fill the folder, or move it out of",
        ),
        (["train/a/1.jpg", "train/b/1.HEIC", "train/b/2.heic"], "b holds no image but 2 .heic files; convert them to"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.gif"], "val/a holds no image but 1 .gif file; convert it to"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/1.jpg", "val/2.jpg"],
            r"val holds 2 images outside of class folders; expected SPLIT/CLASS/IMAGE, .* move 'val' out of the tree",
        ),
        (["train/a/1.jpg", "train/ /1.jpg"], "has the class ' '; rename it: TFDS keeps the names in lines of a text"),
        (["train/a/1.jpg", "train/b\n/1.jpg"], r"has the class 'b\\n'; rename it"),
        (["train/a/1.jpg", "train/b\u2028c/1.jpg"], r"has the class 'b\\u2028c'; rename it"),
        (["train/a/1.jpg", "train/b\x85c/1.jpg"], r"has the class 'b\\x85c'; rename it"),
        (["train/a/1.jpg", "train/c\udce9/1.jpg"], r"has the class b'c\\xe9', and the name is not UTF-8; rename it"),
        (
            ["train/\xe9/1.jpg", "train/e\u0301/1.jpg"],
            r"has the class '.*' twice, in two Unicode forms \('e\\u0301' and '\\xe9'\); move the images of one into",
        ),
        (
            ["train/\xe9/1.jpg", "train/b/1.jpg", "val/\xe9/1.jpg", "val/e\u0301/1.jpg"],
            r"val has the class '.*' twice, in two Unicode forms",
        ),
        ([], "no folder 'train' and holds no folder; expected"),
    ],
)
def test_wrong_trees(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        folder("mine", tree(tmp_path, files))


def test_no_folder(tmp_path):
    with pytest.raises(MissingSourceError, match="cannot be read: No such file"):
        folder("mine", str(tmp_path / "nowhere"))


def test_a_class_folder_that_may_not_be_read(tmp_path, monkeypatch):
    root = tree(tmp_path, ["train/a/1.jpg", "train/b/1.jpg"])
    scandir = os.scandir

    def refuse(path):  # root may read all folders
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        DatasetError, match="train/b cannot be read: Permission denied; make the folder readable or move"
    ):
        folder("mine", root)


def test_a_long_listing_says_how_far_it_is(tmp_path, monkeypatch):
    root = tree(tmp_path, [f"{name}/{number}.jpg" for name in ("a", "b") for number in range(3)])
    monkeypatch.setattr(folder_listing, "SAY_EVERY", 0.0)
    said: list[str] = []
    folder("mine", root, say=said.append)
    lines = [line for line in said if "listed so far" in line]
    assert (
        lines[-1] == f"8 files and folders listed so far, now in {root}/b"
    )  # once each, though images are sought twice


def test_a_small_class_holds_out_one_image(tmp_path):
    listing = folder("mine", tree(tmp_path, [f"{kind}/{n}.jpg" for kind in "ab" for n in range(3)]))
    assert {split: len(items) for split, items in listing.splits.items()} == {"train": 4, "validation": 2}


@pytest.mark.parametrize("place", ["a", "b"])
def test_the_same_images_are_held_out_wherever_the_tree_lies(tmp_path, place):
    """Of each class the name with the smallest `sha256sum`: 13dc... of cat/3.jpg, 35d1... of dog/4.jpg."""
    root = tree(tmp_path / place, [f"train/{kind}/{n}.jpg" for kind in ("cat", "dog") for n in range(5)])
    held = listed(folder("mine", root, held_out=0.2, say=lambda _: None))["validation"]
    assert held == [("cat/3.jpg", 0), ("dog/4.jpg", 1)]
