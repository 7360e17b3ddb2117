"""The benchmark command: it runs, and its numbers mean what their names say."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet_jax.benchmarks import breakdown, gpu, our_step, start, step, timing, turns
from alexnet_jax.benchmarks import input as measured
from alexnet_jax.benchmarks import numbers as against_float64
from alexnet_jax.benchmarks.run import RunResult, describe, measure
from alexnet_jax.benchmarks.timing import Rate, median, rate_of
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.experiment.summary import rows_of
from alexnet_jax.network.sharding import make_mesh
from alexnet_jax.network.tower import make_tower
from alexnet_jax.workdir.progress import TimeBreakdown


def benchmark(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alexnet_jax.benchmark", *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=300)


@pytest.mark.long
def test_input(tmp_path):
    run = benchmark("input", "--images=12", "--batches=1", "--rounds=1", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert {"jpeg pillow", "raw", "jpeg, 1 worker", "raw, 1 worker"} <= result["rates"].keys()
    assert all(rate["wall"] > 0 and rate["cpu"] > 0 for rate in result["rates"].values())
    assert 10_000 < result["encoded"] < 80_000
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_measured(tmp_path):
    run = benchmark("speed", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("error: 'speed' cannot be measured; known: input, step, gpu, run, start")


def test_a_peer_that_cannot_be_imported(command, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    status, out, err = command("benchmark", "input", "--peer=torch", PYTHONPATH=str(tmp_path)).finish()
    assert (status, out) == (2, "")
    assert err.splitlines()[-2:] == [
        "ImportError: libcudart.so.13: cannot open shared object file",
        "error: --peer=torch needs PyTorch: pip install torch",
    ]


def test_rates():
    def slow():
        while True:
            time.sleep(0.02)
            yield None

    rate = rate_of(slow, batch_size=10, batches=5, warm_up=1)
    assert 0 < rate.wall <= 10 / 0.02 and rate.cpu > rate.wall  # each batch sleeps
    assert median([Rate(1, 9), Rate(3, 8), Rate(2, 7)]) == Rate(2, 8)


@pytest.mark.long
def test_the_parts_of_an_update_count_the_products_of_the_network():
    network = make_tower("original", num_classes=6, width=0.05)
    parts = breakdown.measure(network, make_mesh(data=1, tower=2), 2, 67)
    assert [part.name for part in parts if part.name.startswith("exchange")] == [
        f"exchange before {layer}" for layer in ("conv3", "fc6", "fc7", "fc8")
    ]
    products = {part.name: part for part in parts if part.flops}
    assert {name: part.flops for name, part in products.items()} == {
        row.name: 2 * 2 * row.multiply_adds
        for row in rows_of(network, 67)  # two images
    }
    assert [part.gradients for part in products.values()] == [1] + [2] * 7
    assert all(part.forward > 0 for part in products.values())


def test_the_table_says_how_many_times_as_fast():
    rates = {"raw": Rate(600, 500), "peer torch": Rate(100, 50), "peer torch floats": Rate(60, 30)}
    lines = measured.describe(measured.InputResult(rates, growth=2**20, memory=2**30, encoded=35_000))
    assert "JPEG of 35 KB" in lines[0]
    assert lines[3].startswith("raw") and lines[3].endswith("6.00 (10.00)")
    assert lines[-1] == "memory 1,024 MiB; 50 epochs of 256 images added +1.0 MiB"


def test_the_table_divides_a_rate_by_the_workers():
    rates = {"jpeg, 1 worker": Rate(900, 800), "jpeg, 16 workers, flips": Rate(12_800, 820)}
    lines = measured.describe(measured.InputResult(rates, growth=0, memory=0, encoded=0))
    assert [line.split()[-3:] for line in lines[3:5]] == [["900", "900", "800"], ["12,800", "800", "820"]]


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_the_numbers_of_workers_that_are_measured(cores, counts):
    assert measured.worker_counts(cores) == counts


def test_the_lines_of_a_run():
    breakdown = TimeBreakdown(
        updates=8, total=30.25, first=8.0, step=2.0, waited=0.25, paused={"evaluation": 5.0}, reporting=0.1
    )
    lines = describe(RunResult(breakdown, batch_size=32))
    assert "8 updates after the first, 2000.0 ms each (median), are 16.0 s: 16.0 images/s" in lines[0]
    assert any(line.split() == ["evaluation", "5.00", "s", "31.25%"] for line in lines)
    assert any(line.split() == ["the", "rest", "1.00", "s", "6.25%"] for line in lines)
    assert lines[-2].split() == ["all", "beside", "the", "updates", "14.25", "s", "89.06%"]


def test_a_run_of_one_update_has_no_time_of_an_update(tiny_config, data_dir):
    with pytest.raises(UsageError, match="the run has one update"):
        measure(read_settings(tiny_config(num_epochs=0.01)), data_dir, updates=None)


@pytest.mark.long
def test_run_and_start(command, data_dir):
    flags = ("--config=tests/configs/tiny.py", f"--data_dir={data_dir}", "--json")
    status, out, err = command("benchmark", "run", "--updates=4", *flags).finish()
    assert status == 0, err
    account = json.loads(out)["account"]
    assert account["updates"] == 3 and account["step"] > 0
    assert account["paused"].keys() == {"evaluation", "saves"}
    named = account["first"] + account["waited"] + sum(account["paused"].values())
    assert 0 < named < account["total"]
    status, out, err = command("benchmark", "start", *flags, "--config.seed=1", "--rounds=1").finish()
    assert status == 0, err
    result = json.loads(out)
    assert result["rounds"] == 1 and result["warm"] > 0 and result["cold"] > 0


def test_a_start_that_fails_is_said(command, data_dir):
    flags = ("--config=tests/configs/tiny.py", f"--data_dir={data_dir}", "--config.network.recipe=lenet")
    status, out, err = command("benchmark", "start", "--rounds=1", *flags).finish()
    assert (status, out) == (2, "")
    assert "no recipe 'lenet'" in err and err.endswith("error: the training did not start; its message is above\n")


def test_a_system_without_proc_is_refused_before_the_measurement(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "PROC", tmp_path / "self")
    message = f"from {tmp_path}/self, which Linux alone has; `benchmark run` and"
    with pytest.raises(UsageError, match=message):
        step.measure(rounds=1, peer=None)
    with pytest.raises(UsageError, match=message):
        measured.measure(images=2, batches=1, rounds=1, peer=None)


def test_processes_answer_in_turn(tmp_path, monkeypatch):
    (tmp_path / "counting.py").write_text(
        "import sys\n"
        "from alexnet_jax.benchmarks.turns import peak_memory, serve\n"
        "count = iter(range(int(sys.argv[1]), 100))\n"
        "serve({'next': lambda: next(count), 'memory': peak_memory, 'die': lambda: sys.exit(3),"
        " 'refuse': lambda: sys.exit(2)})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent}")
    one, other = turns.Process("counting", "10"), turns.Process("counting", "20")
    assert [process.ask("next") for process in (one, other, one)] == [10, 20, 11]
    assert 2**20 < one.ask("memory") < 2**30
    with pytest.raises(RuntimeError, match="counting ended with status 3 when asked for 'die'"):
        other.ask("die")
    with pytest.raises(UsageError, match="counting did not start; its message is above"):
        one.ask("refuse")
    for process in (one, other):
        process.close()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("step", "--updates=5"), "step has no use for --updates, a flag of run; leave it out"),
        (("input", "--data_dir=x"), "input has no use for --data_dir, a flag of run, start; leave it out"),
        (("start", "--peer=torch"), "start has no use for --peer, a flag of input, step, gpu; leave it out"),
        (("run", "--rounds=2"), "run has no use for --rounds, a flag of input, step, gpu, start; leave it out"),
    ],
)
def test_a_flag_that_a_measurement_does_not_read_is_refused(forked, arguments: tuple[str, ...], line: str):
    status, out, err = forked("benchmark", *arguments)
    assert (status, out, err) == (2, "", f"error: {line}\n")


def test_a_platform_that_is_not_there_is_named(command):
    status, out, err = command("benchmark", "step", "--rounds=1", JAX_PLATFORMS="cuda").finish()
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert lines[0] == "starting ours"
    assert lines[1].startswith("error: JAX_PLATFORMS is 'cuda', and JAX cannot use the devices of this machine: ")
    assert lines[2:] == ["error: alexnet_jax.benchmarks.our_step did not start; its message is above"]


def test_the_table_of_updates():
    part = {"name": "conv1", "forward": 0.5, "backward": 1.0, "flops": 1e11, "gradients": 1}
    result = step.StepResult(
        update={step.OURS: 32.0, step.NORM: 8.0},
        forward={step.OURS: 80.0, step.NORM: 40.0},
        memory={step.OURS: 2**30, step.NORM: 2**31},
        product={step.OURS: 2e11, step.NORM: 2.5e11},
        forms={step.NORM: {"update": "torch.compile, channels_last", "forward": "eager, channels_last"}},
        parts=[part],
    )
    lines = step.describe(result)
    assert lines[2].split()[:5] == ["ours", "32.0", "1.00x", "80.0", "1.00x"]
    assert lines[3].split()[:5] == ["torch", "8.0", "4.00x", "40.0", "2.00x"]
    assert lines[4].endswith("updates torch.compile, channels_last; ten views eager, channels_last")
    assert "66% of JAX's and 53% of torch's" in lines[5]  # 32 x 4.14 GFLOP of 200 and of 250
    assert lines[8].split() == ["conv1", "500", "ms", "1,000", "ms", "37.5%", "200", "100"]  # of 128 / 32 s
    assert lines[9].split() == ["not", "in", "any", "part", "62.5%"]


def test_the_measurement_of_a_gpu_needs_one(command):
    status, out, err = command("benchmark", "gpu", "--rounds=1").finish()
    assert (status, out) == (2, "")
    assert err == "error: JAX runs on cpu here, and this measurement is for a GPU; `benchmark step` is for others\n"


def test_the_tables_of_a_gpu():
    ours, other = "ours, bfloat16, 1,024", "ours, bfloat16, 128"
    result = gpu.GpuResult(
        device="H", line="CUDA operations: some", numbers={"pooling": [0.0, 1e-3]},
        update={"torch": 20.0, ours: 90.0, other: 50.0}, forward={"torch": 50.0, ours: 200.0, other: 70.0},
        first_update={ours: 12.0, other: 9.0}, cached_first_update=4.25,
        memory={"torch": 2**20, ours: 2**21, other: 2**22},
        kernels={ours: [("fusion", 0.5), ("conv: sm90", 0.25)]},
        forms={"torch": {"update": "eager", "forward": "compiled"}}, copied={ours: 80.0, other: 40.0}, copy=5e9,
        rates={"raw, 1 worker": 30.0, "raw, 2 workers": 60.0, "peer torch": 7.0}, from_disk={"raw": 57.0},
        whole_runs=[60.0, 35.5], seconds=9.0,
    )  # fmt: skip
    lines = gpu.describe(result)
    assert lines[0] == "H; CUDA operations: some"
    assert "pooling" in lines[3] and lines[3].split()[-2:] == ["0.0e+00", "1.0e-03"]
    assert f"{ours}: first update 4.2 s with the programs of the earlier start" in lines
    assert f"{ours}: 4.50 times the updates of torch (eager)" in lines
    assert any(line.strip() == "4.00 times its ten views (compiled)" for line in lines)
    assert "a copy of a batch alone: 5.0 GB/s" in lines
    at = lines.index(f"{ours}: 0.75 ms of an update in kernels, and 11377.03 ms between them")  # 1,024 images at 90/s
    assert lines[at + 1 : at + 3] == ["   0.500  fusion", "   0.250  conv: sm90"]
    assert lines[-4].endswith("57, 95% of the slower of input and updates")
    assert lines[-2] == "a whole run, from the command to its end: 60.0 s, then 35.5 s with its compiled programs"


def test_whole_runs_are_timed_with_an_empty_cache_and_again(data_dir, monkeypatch):
    flags = ["--config=tests/configs/tiny.py", f"--data_dir={data_dir}", "--config.num_epochs=0.3"]
    programs, run = [], subprocess.run

    def recorded(command, *, env, **options):
        folder = Path(env["JAX_COMPILATION_CACHE_DIR"])
        programs.append({file.name for file in folder.rglob("*") if file.suffix != ".atime"})
        ended = run(command, env=env, **options)
        programs.append({file.name for file in folder.rglob("*") if file.suffix != ".atime"})
        return ended

    with monkeypatch.context() as patch:
        patch.setattr(gpu.subprocess, "run", recorded)
        seconds = gpu._whole_runs(flags, print)
    assert len(seconds) == 2 and min(seconds) > 0
    assert not programs[0] and programs[1] and programs[2] == programs[1] == programs[3]
    lines = []
    assert gpu._whole_runs([*flags, "--config.network.recipe=lenet"], lines.append) == []
    assert lines == ["the whole run ended with status 2"]


def test_the_errors_against_float64_are_relative():
    def twice(x):
        return 2 * x if x.dtype == "float64" else 2.002 * x

    value, gradient = against_float64.compare(twice, [[1.0, -3.0]], [1.0, 2.0], "float32")
    assert value == pytest.approx(1e-3, rel=1e-3) and gradient == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.soak
def test_the_measurement_of_a_gpu_in_miniature(monkeypatch, data_dir):
    monkeypatch.setattr(gpu, "CASES", ((20, "float32"),))
    monkeypatch.setattr(gpu, "UPDATES", 2)
    lines = []
    run = ["--config=tests/configs/tiny.py", f"--data_dir={data_dir}"]
    result = gpu.measure(rounds=1, images=60, batches=1, peer=None, whole_run=run, say=lines.append)
    assert result.numbers["pooling, float32"][0] == 0.0 and result.line == our_step.native.load().line
    assert result.cached_first_update < result.first_update["ours, float32, 20"]
    assert len(result.whole_runs) == 2
    assert set(result.from_disk) == {"jpeg", "raw"} and all(rate > 0 for rate in result.from_disk.values())
    longest, milliseconds = result.kernels["ours, float32, 20"][0]
    assert longest and 0 < milliseconds < 20_000 / result.update["ours, float32, 20"]
    assert len(gpu.describe(result)) > 20 and any("conv1, bfloat16" in line for line in lines)


def test_the_fastest_form_of_the_peer(capfd):
    pytest.importorskip("torch", reason="pip install -r tests/torch-requirements.txt")
    from alexnet_jax.benchmarks import torch_step

    def seconds(form):
        return (2.0 if form.compiled else 3.0) + ("contiguous" in str(form))

    def seconds_without_compiler(form):
        if form.compiled:
            raise RuntimeError("no C++ compiler\nand a trace")
        return seconds(form)

    assert str(torch_step.fastest(seconds)) == "torch.compile, channels_last"
    assert capfd.readouterr().err == ""
    assert str(torch_step.fastest(seconds_without_compiler)) == "eager, channels_last"
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "warning: PyTorch is measured without torch.compile, channels_last: no C++ compiler"


def test_a_warm_start_has_the_cache_of_the_cold_one(monkeypatch: pytest.MonkeyPatch):
    def seconds(arguments, cache, say):
        is_warm = (Path(cache) / "entry").exists()
        (Path(cache) / "entry").touch()
        return 2.0 if is_warm else 9.0

    monkeypatch.setattr(start, "_seconds", seconds)
    result = start.measure([], rounds=3, say=lambda line: None)
    assert (result.cold, result.warm) == (9.0, 2.0)
    assert "first update: 9.0 s, or 2.0 s with a filled" in start.describe(result)[0]


def test_the_processor_time_of_a_living_child_counts():
    code = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True)\ninput()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        child.stdout.readline()
        found = timing._processor_seconds_of_child(Path(f"/proc/{child.pid}/stat"))
        child.kill()
    assert found == pytest.approx(0.4, abs=0.1)


def test_what_follows_a_layer_takes_the_difference_of_two_times(monkeypatch: pytest.MonkeyPatch):
    seconds = iter([1.0, 2.0, 1.5, 6.0])  # the product, its gradients; with what follows, and with all gradients
    monkeypatch.setattr(breakdown, "_seconds", lambda *_: next(seconds))
    tower = make_tower("original", num_classes=6, width=0.05)
    parts = breakdown.measure(tower.clone(layers=tower.layers[:1]), make_mesh(data=1, tower=2), 2, 67)
    assert [(part.forward, part.backward) for part in parts] == [(1.0, 2.0), (0.5, 2.5)]


def test_the_rate_of_a_product_counts_eight_of_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(our_step, "seconds_of", lambda run: (run(), 0.5)[1])
    assert our_step.product(64) == 8 * 2 * 64**3 / 0.5
