"""Which files below a folder are pictures."""

from pathlib import Path

import pytest

from alexnet_jax.data.picture_files import Skipped, pictures_below


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b/2.JPG",
        "b/10.png",
        "a.jpg",
        "a/deep/x.webp",
        "notes.txt",
        "b/photo.heic",
        ".hidden.jpg",
        ".DS_Store",
    ):
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "tree"


def names(tree: Path, skipped: Skipped) -> list[str]:
    return [str(Path(name).relative_to(tree)) for name in pictures_below(str(tree), skipped)]


def test_pictures_are_sorted_and_the_rest_is_named(tree: Path):
    skipped = Skipped()
    assert names(tree, skipped) == ["a/deep/x.webp", "a.jpg", "b/10.png", "b/2.JPG"]
    assert skipped.lines() == [
        f"ignoring 1 hidden files or folders, such as {tree}/.hidden.jpg",
        f"ignoring 2 files that do not end in .jpg, .jpeg, .png, .webp, .bmp, such as {tree}/b/photo.heic",
        "1 .heic files among these are pictures; convert them to JPEG to have them taken",
    ]
    assert skipped.unreadable == []


def test_links_are_followed_but_not_in_circles(tree: Path):
    (tree / "linked").symlink_to(tree / "b")
    (tree / "a/back").symlink_to(tree)
    (tree / "nothing.jpg").symlink_to(tree / "nowhere")
    skipped = Skipped()
    assert names(tree, skipped) == ["a/deep/x.webp", "a.jpg", "b/10.png", "b/2.JPG", "linked/10.png", "linked/2.JPG"]
    lines = skipped.lines()
    assert f"ignoring 1 links back to a folder above, such as {tree}/a/back" in lines
    assert f"ignoring 1 entries that are no file, or a link to nothing, such as {tree}/nothing.jpg" in lines


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path):
    skipped = Skipped()
    assert list(pictures_below(str(tmp_path / "gone"), skipped)) == []
    assert skipped.unreadable == [(str(tmp_path / "gone"), "No such file or directory")]
