"""Which files below a folder are pictures."""

from pathlib import Path

import pytest

from alexnet_jax.data import folder_listing
from alexnet_jax.data.folder_listing import Seen
from alexnet_jax.data.picture_files import pictures_below


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b/2.JPG",
        "b/10.png",
        "a.jpg",
        "a/deep/x.webp",
        "notes.txt",
        "b/pho\nto.heic",
        ".hidden.jpg",
        ".DS_Store",
    ):
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return tmp_path / "tree"


def names(tree: Path, seen: Seen) -> list[str]:
    return [str(Path(name).relative_to(tree)) for name in pictures_below(str(tree), seen)]


def test_pictures_are_sorted_and_the_rest_is_named(tree: Path):
    seen = Seen()
    assert names(tree, seen) == ["a/deep/x.webp", "a.jpg", "b/10.png", "b/2.JPG"]
    assert list(seen.lines()) == [
        f"ignoring 1 hidden file or folder: {tree}/.hidden.jpg",
        "ignoring 2 files that do not end in .jpg, .jpeg, .jfif, .jpe, .jif, .png, .webp, .bmp, such as"
        f" {tree}/b/pho\\nto.heic",
        "1 .heic file among these is a picture; convert it to JPEG to have it taken",
    ]
    assert seen.unreadable == []


def test_links_are_followed_but_not_in_circles(tree: Path):
    (tree / "linked").symlink_to(tree / "b")
    (tree / "a/back").symlink_to(tree)
    (tree / "nothing.jpg").symlink_to(tree / "nowhere")
    seen = Seen()
    assert names(tree, seen) == ["a/deep/x.webp", "a.jpg", "b/10.png", "b/2.JPG", "linked/10.png", "linked/2.JPG"]
    lines = list(seen.lines())
    assert f"ignoring 1 link back to a folder above: {tree}/a/back" in lines
    assert f"ignoring 1 entry that is no file, or a link to nothing: {tree}/nothing.jpg" in lines


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path):
    seen = Seen()
    assert list(pictures_below(str(tmp_path / "gone"), seen)) == []
    assert seen.unreadable == [(str(tmp_path / "gone"), "No such file or directory")]


def test_a_long_listing_says_how_far_it_is(tree: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    assert len(names(tree, Seen(said.append))) == 4
    assert said == []  # ten seconds have not passed
    monkeypatch.setattr(folder_listing, "SAY_EVERY", 0.0)
    names(tree, Seen(said.append))
    assert said[0] == f"0 files and folders listed so far, now in {tree}"
    assert said[-1] == f"11 files and folders listed so far, now in {tree}"  # `a`, `a/deep` and `b` are among them
    assert f"4 files and folders listed so far, now in {tree}/a/deep" in said
