"""`~` in flags and variables that name a path. A shell expands `~` at the start of a word alone."""

from pathlib import Path

import pytest

from alexnet_jax import cli
from alexnet_jax.runtime import compilation_cache


def test_flags_that_name_a_path_expand_the_home_folder(tmp_path: Path, command):
    status, out, err = command("main", "--config=~/no.py", HOME=str(tmp_path)).finish()
    assert (status, out) == (2, "")
    assert f"{tmp_path}/no.py" in err and err.count("\n") == 1
    status, out, err = command("evaluate", "--workdir=~/run", HOME=str(tmp_path)).finish()
    expected = f"error: {tmp_path}/run holds no run: config.json is missing; name the --workdir of a training run\n"
    assert (status, out, err) == (2, "", expected)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("~/run", "/home/me/run"), ("/a/../b", "/b"), ("/a/~", "/a/~"), ("gs://bucket/~/run", "gs://bucket/~/run")],
)
def test_a_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, folder: str, expected: str):
    monkeypatch.setenv("HOME", "/home/me")
    assert cli.absolute(folder) == expected


def test_the_folder_of_compiled_programs_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "~/compiled")
    assert compilation_cache.default_folder() == "/home/me/compiled"
