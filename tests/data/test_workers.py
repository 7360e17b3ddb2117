"""Worker processes make the batches that threads make, end with their parent, and say what goes wrong."""

import collections
import contextlib
import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from alexnet_jax.data import filling, records, worker
from alexnet_jax.data import process as processes
from alexnet_jax.data import ring as rings
from alexnet_jax.data import workers as workers_module
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.errors import DatasetError, ReaderDiedError
from alexnet_jax.data.filling import EvalPlan, TrainPlan, from_json, to_json
from alexnet_jax.data.pipeline import eval_batches, train_batches
from alexnet_jax.data.workers import Batches, Workers
from alexnet_jax.errors import TEMPORARY
from tests.waiting import children, is_gone, wait_until

CROP = 56


@pytest.fixture(scope="module")
def source(data_dir: str):
    return open_dataset("elpv/64", data_dir).split("train[:50]+test[3:8]")  # of two files, with a gap


@pytest.fixture
def open_workers() -> Iterator[Callable[..., Workers]]:
    """Starts workers, and ends them with the test."""
    opened: list[Workers] = []

    def start(count: int = 2, refused: Callable[[str], None] = pytest.fail) -> Workers:
        opened.append(Workers(count, refused))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts a batch."""
    monkeypatch.setattr(rings, "PART", 1)


def training(source, count: int, *, seed=0, batch_size=24, start_step=0, shard=Shard(), workers=None, **options):  # noqa: B008
    plan = TrainPlan(batch_size, shard, CROP, seed, **options)
    return list(itertools.islice(train_batches(source, plan, start_step=start_step, workers=workers), count))


def assert_same(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for mine, yours in zip(one, other, strict=True):
            assert mine.dtype == yours.dtype
            np.testing.assert_array_equal(mine, yours)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_training_has_the_bytes_of_threads(source, count, open_workers, small_parts):
    workers = open_workers(count)
    for seed, start, shard, options in (
        (0, 0, Shard(), {}),
        (2**63 - 1, 1000, Shard(1, 2), {"crop_group": 5}),
        (7, 3, Shard(2, 3), {"rotation": 5.0, "scale": 0.15}),
    ):
        options |= {"seed": seed, "start_step": start, "shard": shard}
        assert_same(training(source, 9, workers=workers, **options), training(source, 9, **options))


@pytest.mark.parametrize("count", [1, 3])
def test_evaluation_has_the_bytes_of_threads(source, count, open_workers, small_parts):
    workers = open_workers(count)
    for views, shard, size in ((1, Shard(), 24), (10, Shard(1, 2), 8), (1, Shard(2, 3), 63)):
        plan = EvalPlan(size, shard, CROP, views)
        ours = list(eval_batches(source, plan, workers=workers))
        assert_same(ours, list(eval_batches(source, plan)))


def test_batches_in_use_are_left_alone_and_the_others_are_free_again(source, open_workers):
    workers = open_workers()
    batches = train_batches(source, TrainPlan(24, Shard(), CROP, seed=0), start_step=0, workers=workers)
    kept = [next(batches) for _ in range(3)]
    copies = [[array.copy() for array in batch] for batch in kept]
    views = [batch.image[2:5].T for batch in kept]  # a view keeps the memory, as a device's copy under way does
    labels = [batch.label for batch in kept]
    del kept
    for _ in range(40):
        next(batches)
    for view, label, copy in zip(views, labels, copies, strict=True):
        np.testing.assert_array_equal(view, copy[0][2:5].T)
        np.testing.assert_array_equal(label, copy[1])


def test_training_and_evaluations_share_the_workers(source, open_workers, small_parts):
    workers = open_workers()
    plan = EvalPlan(8, Shard(), CROP, 1)
    expected, whole = training(source, 12), list(eval_batches(source, plan))
    train = train_batches(source, TrainPlan(24, Shard(), CROP, seed=0), start_step=0, workers=workers)
    found = [next(train)]
    for _ in range(5):
        next(eval_batches(source, plan, workers=workers))  # given up in the middle, as at a signal
        assert_same(list(eval_batches(source, plan, workers=workers)), whole)
        found += [next(train), next(train)]
    two = [eval_batches(source, plan, workers=workers) for _ in range(2)]
    assert_same([next(two[0]), next(two[1]), next(two[0])], [whole[0], whole[0], whole[1]])
    assert_same([*found, next(train)], expected)


def test_an_iterator_that_is_closed_again_leaves_the_stream_to_the_next_one(source, open_workers):
    workers = open_workers()
    plan = EvalPlan(24, Shard(), CROP, 1)
    first, whole = eval_batches(source, plan, workers=workers), list(eval_batches(source, plan))
    assert isinstance(first, Batches)
    first.close()
    second = eval_batches(source, plan, workers=workers)
    first.close()  # as the garbage collector does
    third = eval_batches(source, plan, workers=workers)
    assert_same([next(second), next(third), next(second), next(third)], [whole[0], whole[0], whole[1], whole[1]])


def test_a_killed_worker_is_named(source, open_workers):
    before = children()
    workers = open_workers()
    batches = train_batches(source, TrainPlan(24, Shard(), CROP, seed=0), start_step=0, workers=workers)
    next(batches)
    struck, other = sorted(children() - before)
    os.kill(struck, signal.SIGKILL)
    wait_until(lambda: is_gone(struck))
    message = rf"^worker process {struck}, which read images, ended with SIGKILL, .* the same command again to resume$"
    with pytest.raises(ReaderDiedError, match=message) as raised:
        list(itertools.islice(batches, 100))
    assert raised.value.status == TEMPORARY
    assert is_gone(other)
    with pytest.raises(ReaderDiedError, match=message):
        eval_batches(source, EvalPlan(8, Shard(), CROP, 1), workers=workers)


def test_workers_end_with_the_program(source, open_workers):
    before = children()
    workers = open_workers(3)
    training(source, 1, workers=workers)
    started = children() - before
    assert len(started) == 3
    workers.close()
    assert all(map(is_gone, started))
    assert_same(training(source, 2, workers=workers), training(source, 2))  # by threads


PARENT = """
import os, signal, sys, time
from alexnet_jax.data.batch import Shard
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.filling import TrainPlan
from alexnet_jax.data.pipeline import train_batches
from alexnet_jax.data.workers import Workers
source = open_dataset("elpv/64", sys.argv[1]).split("train")
workers = Workers(2, print)
batches = train_batches(source, TrainPlan(24, Shard(), 56, seed=0), start_step=0, workers=workers)
next(batches)
print(*[int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split()], flush=True)
if sys.argv[2] == "exit":
    raise SystemExit(3)
if sys.argv[2] == "_exit":
    os._exit(3)
while True:
    next(batches)
"""


@pytest.mark.parametrize("ending", ["exit", "_exit", "kill"])
def test_workers_end_with_their_parent_however_it_ends(data_dir, tmp_path, ending):
    before = _shared_memory()
    environment = os.environ | {"PYTHONPATH": processes.PACKAGES}
    run = subprocess.Popen(
        [sys.executable, "-c", PARENT, data_dir, ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert run.stdout is not None
    started = [int(pid) for pid in run.stdout.readline().split()]
    assert len(started) == 2
    if ending == "kill":
        run.kill()
    assert run.communicate(timeout=60)[1] == ""
    assert run.returncode == (-signal.SIGKILL if ending == "kill" else 3)
    wait_until(lambda: all(map(is_gone, started)))
    assert _shared_memory() - before == set()


def _shared_memory() -> set[str]:
    """Files of shared memory, without the semaphores of process pools in other tests."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


def test_a_worker_whose_parent_is_gone_ends_though_the_pipe_is_open(monkeypatch):
    """As where a process that the parent forked keeps its end of the pipe."""
    ended = []
    monkeypatch.setattr(worker, "PARENT_CHECK_MS", 1)
    monkeypatch.setattr(os, "_exit", ended.append)
    questions, held = os.pipe()
    worker.end_with_parent(questions, parent=os.getppid() + 1)
    assert ended == [0]
    for file in (questions, held):
        os.close(file)


def test_signals_to_the_whole_group_leave_the_workers_at_work(source, open_workers):
    before = children()
    workers = open_workers()
    batches = train_batches(source, TrainPlan(24, Shard(), CROP, seed=0), start_step=0, workers=workers)
    for pid in children() - before:  # also before they run a line of Python
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    expected = training(source, 30)
    for number in range(30):
        assert_same([next(batches)], [expected[number]])
        for pid in children() - before:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)


class InThread(processes.Process):
    """A worker in a thread of this process, which sees what a test changes here."""

    def __init__(self, file: int):
        self.outstanding, self._rest = 0, b""
        questions, self._their_answers = os.pipe(), os.pipe()
        self._questions, asked = os.fdopen(questions[1], "wb", 0), os.fdopen(questions[0], "rb")
        self._answers, answers = os.fdopen(self._their_answers[0], "rb", 0), os.fdopen(self._their_answers[1], "wb", 0)
        self.answers = self._answers.fileno()

        def serve() -> None:
            with asked, answers, contextlib.suppress(BrokenPipeError):
                worker.serve(file, asked, answers)

        self._thread = threading.Thread(target=serve)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "Process", InThread)


def test_storage_that_fails_is_named_as_in_a_thread(source, open_workers, in_threads, monkeypatch):
    monkeypatch.setattr(records, "WAITS", (0.0, 0.0))

    def fails(self, index: int) -> bytes:
        if index == 7:
            raise OSError(errno.EIO, "Input/output error")
        return read(self, index)

    read = records.Records.__getitem__
    monkeypatch.setattr(records.Records, "__getitem__", fails)
    texts = []
    for workers in (None, open_workers()):
        batches = eval_batches(source, EvalPlan(5, Shard(), CROP, 1), workers=workers)
        assert next(batches).label.shape == (5,)
        with pytest.raises(DatasetError, match=r"example 7 of split .* cannot be read, tried for 0 s") as raised:
            next(batches)
        texts.append(str(raised.value))
        assert raised.value.status == 75
    assert texts[0] == texts[1]


def test_any_other_error_shows_the_trace_of_the_worker(source, open_workers, in_threads, monkeypatch):
    monkeypatch.setattr(filling, "decode", lambda encoded: 1 / 0)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback .*ZeroDivisionError: division by zero$"):
        training(source, 1, workers=open_workers())


def test_too_little_shared_memory_leaves_the_work_to_threads(source, open_workers, monkeypatch, tmp_path):
    reasons: list[str] = []
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    workers = open_workers(2, reasons.append)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        batches = train_batches(source, TrainPlan(24, Shard(), CROP, seed=0), start_step=0, workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert reasons == ["2 worker processes need 2 MiB of shared memory (File too large)"]
    assert_same(list(itertools.islice(batches, 2)), training(source, 2))
    assert not isinstance(batches, Batches)

    (tmp_path / "limit").write_text("1048576\n")
    monkeypatch.setattr(rings, "MEMORY_LIMITS", (tmp_path / "absent", tmp_path / "limit"))
    training(source, 1, workers=open_workers(2, reasons.append))
    assert reasons[1:] == ["2 worker processes need 2 MiB of shared memory (there is 1 MiB of free memory)"]


def test_no_room_for_an_evaluation_leaves_training_to_the_workers(source, open_workers, monkeypatch, tmp_path):
    reasons: list[str] = []
    workers = open_workers(2, reasons.append)
    train = train_batches(source, TrainPlan(24, Shard(), CROP, seed=0), start_step=0, workers=workers)
    (tmp_path / "limit").write_text("1000\n")
    monkeypatch.setattr(rings, "MEMORY_LIMITS", (tmp_path / "limit",))
    plan = EvalPlan(24, Shard(), CROP, 10)
    for _ in range(2):
        assert_same(list(eval_batches(source, plan, workers=workers)), list(eval_batches(source, plan)))
    assert len(reasons) == 1, "said once"
    assert isinstance(train, Batches)
    assert_same(list(itertools.islice(train, 9)), training(source, 9))


def test_processes_that_cannot_be_started_leave_the_work_to_threads(source, open_workers, monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "/no/python")
    reasons: list[str] = []
    ours = training(source, 2, workers=open_workers(2, reasons.append))
    assert reasons == ["2 worker processes cannot be started (No such file or directory)"]
    assert_same(ours, training(source, 2))


def test_a_module_in_the_working_directory_is_not_taken_for_a_library(source, open_workers, monkeypatch, tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert_same(training(source, 2, workers=open_workers()), training(source, 2))


def test_a_worker_imports_little():
    program = (
        "import sys, alexnet_jax.data.worker;"
        "assert not {'jax', 'flax', 'tensorflow_datasets', 'absl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=processes.PACKAGES)


def test_plans_survive_the_way_to_another_process():
    shared = {"batch_size": 12, "shard": Shard(1, 2), "crop_size": 8}
    for plan in (
        TrainPlan(**shared, seed=2**63 - 1, rotation=0.1, scale=1 / 3, crop_group=32),
        EvalPlan(**shared, views=10),
    ):
        assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize("workers", [1, 3, 16, 64])
@pytest.mark.parametrize("rows", [1, 7, 32, 128, 1000])
def test_a_ring_keeps_all_workers_busy_in_bounded_memory(workers, rows):
    plan = TrainPlan(batch_size=rows, shard=Shard(), crop_size=224, seed=0)
    ring = rings.ring_of(plan, workers)
    parts = [ring.part(number) for number in range(ring.parts)]
    assert [row for part in parts for row in part] == list(range(rows)) and all(parts)
    making = ring.slots - rings.HELD
    assert making >= 2 and making * ring.parts >= 1.5 * workers
    batches = max(2, -(-3 * workers // 2 // ring.parts) + 1)
    assert ring.size <= (batches + rings.HELD) * (ring.rows * (224 * 224 * 3 + 5) + 3 * 4096)


def test_the_work_is_shared_by_all_workers(source, open_workers, in_threads, small_parts, monkeypatch):
    asked, write = collections.Counter(), InThread.write

    def counted(self, message):
        asked[id(self)] += isinstance(message[-1], int)  # a part, and no stream
        write(self, message)

    monkeypatch.setattr(InThread, "write", counted)
    training(source, 9, workers=open_workers(3))
    assert len(asked) == 3 and min(asked.values()) > asked.total() / 10


def test_room_is_the_memory_that_is_available(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 300 kB\n")
    monkeypatch.setattr(rings, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(rings, "MEMORY_LIMITS", ())
    assert rings._room() == 300 * 1024
