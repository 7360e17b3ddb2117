"""The private parts of libraries: each still works, is still needed, and can be missing."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from jax._src import compilation_cache as jax_cache
from jax._src import distributed
from orbax.checkpoint._src.serialization import tensorstore_utils

from alexnet_jax.runtime import compat, compilation_cache, processes
from tests.conftest import ROOT

OUTDATED = "the trick is no longer needed: remove it from runtime/compat.py"


@pytest.fixture(autouse=True)
def each_warning_once() -> Iterator[None]:
    compat.warn.cache_clear()
    yield
    compat.warn.cache_clear()


# The coordination service


def test_jax_has_no_public_client_of_its_coordination_service():
    assert not [name for name in vars(jax.distributed) if "client" in name or "key_value" in name], OUTDATED


def test_the_index_and_count_are_known_before_the_devices_are_counted():
    program = """
        import jax
        from alexnet_jax.runtime import compat
        print(compat.process_index(), compat.process_count(), compat.coordination_client())
        jax.config.update("jax_num_cpu_devices", 3)  # which JAX refuses once the devices are counted
        print(jax.device_count())
    """
    assert run(program) == "0 1 None\n3\n"


@pytest.mark.parametrize("missing", ["global_state", "client"])
def test_processes_run_on_where_jax_hides_its_client(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    if missing == "global_state":
        monkeypatch.delattr(distributed, "global_state")
    else:
        monkeypatch.setattr(distributed, "global_state", SimpleNamespace(process_id=1, num_processes=2))
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert not compat.has_coordination_client()
    assert (compat.process_index(), compat.process_count()) == (1, 2)
    for _ in range(2):
        assert compat.coordination_client() is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"warning: JAX {jax.__version__} has its coordination service in")
    synchronised: list[str] = []
    monkeypatch.setattr(processes.multihost_utils, "sync_global_devices", synchronised.append)
    processes.agree({"config.seed": 1})
    processes.enter("update 1")
    assert processes.first_then_rest(lambda: "made") == "made"
    assert len(synchronised) == 1
    assert processes._watchdog is None


def test_a_single_process_needs_nothing_of_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.delattr(distributed, "global_state")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    assert (compat.process_index(), compat.process_count(), compat.coordination_client()) == (0, 1, None)
    assert capsys.readouterr().err == ""


# The store of compiled programs


class Remembering:
    """A store that remembers what JAX asked."""

    def __init__(self) -> None:
        self._path, self.entries, self.asked = "memory", {}, 0

    def get(self, key: str) -> bytes | None:
        self.asked += 1
        return self.entries.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.entries[key] = value


@pytest.fixture
def own_cache() -> Iterator[None]:
    yield
    compilation_cache.use(compilation_cache.default_folder())


def compile_something() -> np.ndarray:
    jax.clear_caches()
    return np.asarray(jax.jit(lambda x: jnp.tanh(x) @ x)(np.eye(3, dtype=np.float32)))


def test_jax_reads_and_writes_the_store(own_cache: None):
    store = Remembering()
    assert compat.set_compilation_store(store)
    cold = compile_something()
    assert store.entries
    asked, entries = store.asked, dict(store.entries)
    np.testing.assert_array_equal(compile_something(), cold)
    assert store.asked > asked and store.entries == entries


def test_jax_has_no_public_way_to_bring_a_store():
    from jax.experimental.compilation_cache import compilation_cache as public

    names = {name for name in vars(public) if not name.startswith("_")}
    assert not [name for name in names if "store" in name or name == "set_cache" or "Interface" in name], OUTDATED


@pytest.mark.parametrize("missing", ["_cache", "_cache_initialized", "reset_cache"])
def test_jaxs_store_serves_where_it_takes_no_other(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, own_cache: None
):
    jax_cache.reset_cache()
    with monkeypatch.context() as patch:
        patch.delattr(jax_cache, missing)
        for _ in range(2):
            compilation_cache.use(str(tmp_path))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"warning: JAX {jax.__version__} accepts no other store")
    assert not isinstance(jax_cache._cache, compilation_cache.Entries)
    compile_something()
    assert list(tmp_path.iterdir())


# TensorStore's metrics


def blocks_after(call: Callable[[], object], calls: int = 20) -> int:
    """Blocks of memory that remain of so many calls, once caches are filled."""
    for _ in range(3):
        call()
    before = sys.getallocatedblocks()
    for _ in range(calls):
        call()
    return sys.getallocatedblocks() - before


def test_tensorstore_still_keeps_its_answers(tmp_path: Path):
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(tmp_path)}}
    array = tensorstore.open(spec, create=True, dtype=tensorstore.float32, shape=[4]).result()
    array.write(np.ones(4, np.float32)).result()
    kept = blocks_after(lambda: tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/"))
    assert kept > 20 * 20, OUTDATED


def test_orbax_asks_tensorstore_for_nothing(monkeypatch: pytest.MonkeyPatch):
    def collect(*_: object, **__: object) -> Any:
        raise AssertionError("orbax asked")

    monkeypatch.setattr(tensorstore, "experimental_collect_matching_metrics", collect)
    assert compat.stop_collecting_tensorstore_metrics()
    assert tensorstore_utils.get_tensorstore_raw_bytes("write") == 0


def test_an_orbax_that_does_not_ask_is_left_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.delattr(tensorstore_utils, "get_tensorstore_raw_bytes")
    assert not compat.stop_collecting_tensorstore_metrics()
    monkeypatch.setitem(sys.modules, "orbax.checkpoint._src.serialization", None)
    assert not compat.stop_collecting_tensorstore_metrics()
    assert capsys.readouterr().err == ""


# tensorboardX


def run(program: str, *path: Path) -> str:
    """What the program prints, with further folders of modules."""
    import textwrap

    lines = f"import sys; sys.path[:0] = {[str(folder) for folder in path]}\n{textwrap.dedent(program)}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT, check=True).stdout


def test_tensorboardx_imports_torch_unless_it_is_hidden(tmp_path: Path):
    (tmp_path / "torch.py").write_text("print('torch is imported')\nraise ImportError")
    bare = "from tensorboardX.event_file_writer import EventsWriter; from tensorboardX.summary import scalar"
    assert "torch is imported" in run(bare, tmp_path), OUTDATED
    ours = (
        "import alexnet_jax.workdir.metrics_log, importlib.util; print(importlib.util.find_spec('torch') is not None)"
    )
    assert run(ours, tmp_path) == "True\n", "hidden during the import alone"


def test_torch_that_is_there_stays(monkeypatch: pytest.MonkeyPatch):
    torch = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torch", torch)
    with compat.without_torch():
        assert sys.modules["torch"] is torch
    assert sys.modules["torch"] is torch


def test_a_writer_that_cannot_close_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorboardX.event_file_writer import EventsWriter

    writer = EventsWriter(str(tmp_path / "events"))
    file = writer._py_recordio_writer._writer

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "flush", full)
        patch.setattr(writer._py_recordio_writer, "flush", full)
        with pytest.raises(OSError, match="No space"):
            writer.close()
    assert not file.closed, OUTDATED
    compat.close_events_file(writer)
    assert file.closed
    compat.close_events_file(SimpleNamespace())
    assert isinstance(file, io.IOBase)
