"""The cache of compiled programs changes no number, and no failure of it stops a run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.network import sharding
from alexnet_jax.network.recipes import layers_of
from alexnet_jax.network.tower import Tower
from alexnet_jax.runtime import compat, compilation_cache
from alexnet_jax.runtime.compilation_cache import Entries
from tests import small


@pytest.fixture
def use() -> Iterator[Callable[[Path], None]]:
    """Makes this process cache compiled programs in a folder of the test."""
    yield lambda folder: compilation_cache.use(str(folder))
    compilation_cache.use(compilation_cache.default_folder())


def three_updates() -> list[np.ndarray]:
    """The state after three updates of a small network, compiled as training is: donated, sharded, by YNNPACK."""
    tower = Tower(layers_of("original", width=0.03), num_classes=2, he_init=True)
    mesh = sharding.make_mesh(data=1, tower=2)
    steps = small.steps(tower, mesh)
    state, batch = steps.init(jax.random.key(0)), sharding.put_batch(small.batch(4, classes=2), mesh)
    for _ in range(3):
        state, _ = steps.train_step(state, batch, jax.random.key(1))
    return jax.tree.leaves(jax.device_get(state))


def test_a_cold_a_warm_and_a_damaged_cache_give_the_same_bits(use: Callable, tmp_path: Path):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compat.set_compilation_store(None)
        without = three_updates()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    use(tmp_path)
    cold = three_updates()
    entries = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert any(name.startswith("jit_train_step") for name in entries)
    use(tmp_path)
    warm = three_updates()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == entries
    for number, file in enumerate(sorted(tmp_path.iterdir())):
        file.write_bytes(damaged(file.read_bytes())[number % 3])
    use(tmp_path)
    mended = three_updates()
    for other in (cold, warm, mended):
        for a, b in zip(without, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert {file.name for file in tmp_path.iterdir()} == entries.keys()
    assert all(Entries(tmp_path).get(name.removesuffix(".compiled")) for name in entries)


def damaged(stored: bytes) -> list[bytes]:
    """Cut off, with one bit turned, and empty."""
    turned = bytearray(stored)
    turned[len(turned) // 2] ^= 1
    return [stored[: len(stored) // 3], bytes(turned), b""]


def test_a_warm_start_compiles_nothing(use: Callable, tmp_path: Path):
    def hits() -> list[bool]:
        heard: list[bool] = []
        names = {"/jax/compilation_cache/cache_hits": True, "/jax/compilation_cache/cache_misses": False}

        def listen(event: str, **_: object) -> None:
            if event in names:
                heard.append(names[event])

        jax.monitoring.register_event_listener(listen)
        try:
            jax.jit(lambda x: jnp.sin(x) @ x)(np.ones((3, 3), np.float32))
        finally:
            jax.monitoring.unregister_event_listener(listen)
        return heard

    use(tmp_path)
    assert hits() == [False]
    use(tmp_path)
    assert hits() == [True]


@pytest.mark.parametrize("damage", range(3))
def test_a_damaged_entry_is_a_miss_and_is_written_again(tmp_path: Path, damage: int):
    entries = Entries(tmp_path)
    entries.put("one", b"program")
    file = tmp_path / "one.compiled"
    file.write_bytes(damaged(file.read_bytes())[damage])
    assert entries.get("one") is None
    entries.put("one", b"program")
    assert Entries(tmp_path).get("one") == b"program"


def test_an_entry_under_another_name_is_a_miss(tmp_path: Path):
    entries = Entries(tmp_path)
    entries.put("one", b"program")
    (tmp_path / "one.compiled").rename(tmp_path / "two.compiled")
    assert entries.get("two") is None


def test_the_least_recently_used_entries_are_evicted(tmp_path: Path):
    entries = Entries(tmp_path, max_bytes=1000)
    for key in ("a", "b", "c"):
        entries.put(key, bytes(250))
        time.sleep(0.01)
    assert entries.get("a") == bytes(250)
    time.sleep(0.01)
    entries.put("d", bytes(250))
    assert {key for key in "abcd" if entries.get(key)} == {"a", "c", "d"}


def test_many_small_entries_are_not_listed_at_each_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    listed = mock.Mock(side_effect=Entries._evict, autospec=True)
    monkeypatch.setattr(Entries, "_evict", lambda self: listed(self))
    entries = Entries(tmp_path, max_bytes=64_000)
    for number in range(150):
        entries.put(str(number), bytes(500))
    assert listed.call_count == 1 + 149 // 3  # the first one, and then each that goes beyond 1,000 bytes
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 64_000


def test_a_partial_entry_of_a_dead_process_is_removed_after_an_hour(tmp_path: Path):
    old, young, foreign = (tmp_path / f"{name}.part" for name in ("0" * 32, "1" * 32, "film.mp4"))
    for file, age in ((old, 4000), (young, 0), (foreign, 4000)):
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age,) * 2)
    Entries(tmp_path).put("one", b"program")
    assert not old.exists() and young.exists() and foreign.exists()


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "file").touch()
    entries = Entries(tmp_path / "file" / "cache")
    entries.put("one", b"program")
    entries.put("two", b"program")
    assert entries.get("one") is None
    err = capsys.readouterr().err
    assert err.startswith(f"warning: compiled programs cannot be cached in {tmp_path}/file/cache: ")
    assert err.count("\n") == 1


def test_a_process_killed_while_it_writes_leaves_complete_entries(tmp_path: Path):
    program = (
        "import sys, pathlib, alexnet_jax.runtime.compilation_cache as c; e = c.Entries(pathlib.Path(sys.argv[1]))\n"
        "for i in range(10**6): e.put('ab'[i % 2], bytes([i % 251]) * 20_000_000)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "b.compiled").exists():
            assert time.monotonic() < deadline and process.poll() is None
        while not list(tmp_path.glob("*.part")):
            assert time.monotonic() < deadline and process.poll() is None
        process.send_signal(signal.SIGKILL)
    for key in "ab":
        value = Entries(tmp_path).get(key)
        assert value is not None and value == value[:1] * 20_000_000


def test_threads_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture):
    wrong = []

    def work(number: int) -> None:
        entries = Entries(tmp_path, max_bytes=20_000)  # of what the others write, too
        for turn in range(100):
            key = str((number + turn) % 7)
            entries.put(key, key.encode() * 5000)
            found = entries.get(key)
            if found is not None and found != key.encode() * 5000:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and capsys.readouterr().err == ""
    assert sum(file.stat().st_size for file in tmp_path.glob("*")) <= 20_000 + 4 * 5032


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/some/where")
    assert compilation_cache.default_folder() == "/some/where"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert compilation_cache.default_folder() == "/x/alexnet_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert compilation_cache.default_folder() == "/home/me/.cache/alexnet_jax"
