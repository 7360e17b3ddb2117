"""`~` in flags and variables that name a path. A shell expands `~` at the start of a word alone."""

from pathlib import Path

import pytest

from alexnet_jax import paths
from alexnet_jax.errors import UsageError
from alexnet_jax.runtime import compilation_cache


def test_flags_that_name_a_path_expand_the_home_folder(tmp_path: Path, forked):
    for words in (["--config=~/no.py"], ["--config", "~/no.py"]):
        status, out, err = forked("main", *words, HOME=str(tmp_path))
        assert (status, out) == (2, "")
        assert f"{tmp_path}/no.py" in err and err.count("\n") == 1
    status, out, err = forked("evaluate", "--workdir=~/run", HOME=str(tmp_path))
    expected = f"error: {tmp_path}/run holds no run: config.json is missing; name the --workdir of a training run\n"
    assert (status, out, err) == (2, "", expected)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("~/run", "/home/me/run"), ("/a/../b", "/b"), ("/a/~", "/a/~"), ("gs://bucket/~/run", "gs://bucket/~/run")],
)
def test_a_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, folder: str, expected: str):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.absolute(folder) == expected


def test_a_name_in_one_line():
    assert paths.in_one_line("a\nb\x1b[m\u2028\udce9") == r"a\nb\x1b[m\u2028\udce9"
    for name in ("C:\\photos\\1.png", "\u06a9\u200c\u0647", "\u732b\u3000\u72ac", "\U0001f469\u200d\U0001f52c", "it's"):
        assert paths.in_one_line(name) == name


@pytest.mark.parametrize("name", ["~nobody-at-all", "~nobody-at-all/run", "~nobody-at-all/../run"])
def test_a_user_who_is_not_there_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"there is no user 'nobody-at-all'; write the whole path, or \./~nobody-at-all"
    ):
        paths.absolute(name)


def test_a_file_whose_name_begins_like_a_home_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~draft.png").write_bytes(b"")
    assert paths.absolute("~draft.png") == f"{tmp_path}/~draft.png"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http://host/run", "is no address of storage that can be read; name a folder, or an address that begins with"),
        ("://", "is no address of storage"),
        ("file:///tmp/run", "is an address; name the path alone: /tmp/run"),
        ("gs://bucket/run", "gs://bucket/run: the package for gs:// is not installed; pip install gcsfs"),
        ("s3://bucket/run", "s3://bucket/run cannot be reached: no credentials; check the address, the network and"),
    ],
)
def test_an_address_that_cannot_be_reached_is_one_line(name: str, words: str, monkeypatch: pytest.MonkeyPatch):
    class Storage:
        def __init__(self, name: str):
            self._name = name

        def exists(self):
            raise ImportError("gcsfs") if self._name.startswith("gs") else ConnectionError("no\n  credentials")

    monkeypatch.setattr(paths.epath, "Path", Storage)
    with pytest.raises(UsageError) as error:
        paths.check_address(name)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_addresses_that_can_be_reached_and_local_paths_pass(monkeypatch: pytest.MonkeyPatch):
    class Storage:
        def __init__(self, name: str):
            assert name == "gs://bucket/run"

        def exists(self):
            return False

    monkeypatch.setattr(paths.epath, "Path", Storage)
    for name in ("gs://bucket/run", "/a/b", "run", "C:/x", ""):
        paths.check_address(name)


@pytest.mark.parametrize("flags", [("--workdir=",), ("--workdir=a", "--workdir", " "), ("--workdir=a", "--split=")])
def test_an_empty_text_is_no_value(forked, flags: tuple[str, ...]):
    """Such as that of `--workdir=$RUN` where the variable is not set: an empty path would be this folder."""
    status, out, err = forked("evaluate", *flags)
    name = flags[-1].partition("=")[0] if "=" in flags[-1] else "--workdir"
    assert (status, out, err) == (2, "", f"error: {name} is empty; give a value, or leave the flag out\n")


def test_an_empty_word_is_none(forked):
    status, out, err = forked("predict", "--workdir=a", "")
    assert (status, out) == (2, "")
    assert err == "error: a word of the command line is empty; leave it out, or see whether its variable is set\n"


def test_the_folder_of_compiled_programs_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "~/compiled")
    assert compilation_cache.default_folder() == "/home/me/compiled"
