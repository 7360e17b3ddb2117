"""The commands as users open them: `python -m alexnet_jax.NAME` in a process of its own."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from alexnet_jax.network.native import build
from tests.conftest import ROOT
from tests.waiting import wait_until

CONFIG = "--config=tests/configs/tiny.py"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: str) -> Path:
    """The workdir of a run that is through."""
    from tests.conftest import Command

    workdir = tmp_path_factory.mktemp("finished")
    status, out, err = Command("main", CONFIG, f"--workdir={workdir}", f"--data_dir={data_dir}").finish()
    assert status == 0, err
    assert err == "", "libraries are quiet"
    (workdir / "stdout").write_text(out)
    return workdir


def test_training_tells_and_leaves_what_it_promises(finished: Path):
    lines = (finished / "stdout").read_text().splitlines()
    assert lines[0].startswith("tiny: 12 updates of 32 images")
    assert "tower=2" in lines[0]
    assert lines[1] == build.load().line
    assert any(line.startswith("step 12/12") and "input wait" in line and "left 0:00" in line for line in lines)
    assert lines[-1].startswith("finished: top-1 error")
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {"train/loss", "train/images_per_second", "train/input_wait", "eval/top1"} <= set().union(*rows)
    assert rows[-1]["final/count"] == 50
    record = json.loads((finished / "config.json").read_text())
    assert record["config"]["momentum"] == 0.9
    assert "jax" in record["versions"]
    assert list(finished.glob("events.out.tfevents.*"))
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"7", "12"}


def test_a_finished_run_says_so(finished: Path, data_dir: str, command):
    status, out, err = command("main", CONFIG, f"--workdir={finished}", f"--data_dir={data_dir}").finish()
    assert (status, err) == (0, "")
    assert out.startswith("finished: all 12 updates of the run in")


def test_programs_that_cannot_be_cached_are_one_warning(finished: Path, data_dir: str, command):
    flags = (CONFIG, f"--workdir={finished}", f"--data_dir={data_dir}")
    status, out, err = command("main", *flags, JAX_COMPILATION_CACHE_DIR="/proc/nowhere").finish()
    assert status == 0 and out.startswith("finished: ")
    assert err.startswith("warning: compiled programs cannot be cached in /proc/nowhere: ") and err.count("\n") == 1


@pytest.mark.parametrize("devices", [1, 2])
def test_evaluation_repeats_the_runs_own_result_on_any_devices(finished: Path, data_dir: str, command, devices: int):
    result = json.loads((finished / "result.json").read_text())
    off = "C operations: off; the plain form in JAX runs"
    for views, native, line in (1, "auto", build.load().line), (10, "off", off):
        flags = (f"--workdir={finished}", f"--data_dir={data_dir}", f"--views={views}", "--json", f"--native={native}")
        status, out, err = command("evaluate", *flags, devices=devices).finish()
        assert (status, err) == (0, f"{line}\n")
        found = json.loads(out)
        assert found["top1"] == pytest.approx(result[f"top1_{views}_views"])
        assert found["loss"] == pytest.approx(result[f"loss_{views}_views"], rel=1e-5)
        assert (found["count"], found["step"], found["views"]) == (50, 12, views)
        assert "top5" not in found


def test_a_damaged_checkpoint_is_one_line_and_the_one_before_is_used(
    finished: Path, data_dir: str, command, tmp_path: Path
):
    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    (workdir / "result.json").unlink()
    for file in (workdir / "checkpoints" / "12" / "default").rglob("d/*"):
        file.write_bytes(b"")
    status, out, err = command("main", CONFIG, f"--workdir={workdir}", f"--data_dir={data_dir}").finish()
    assert (status, err) == (0, "")
    assert out.startswith(f"warning: the checkpoint {workdir}/checkpoints/12 is damaged: default/")
    assert " has 0 bytes, and " in out
    assert "resuming after update 7" in out
    assert json.loads((workdir / "result.json").read_text()) == json.loads((finished / "result.json").read_text())


def test_evaluation_names_its_checkpoints(finished: Path, data_dir: str, command):
    common = (f"--workdir={finished}", f"--data_dir={data_dir}")
    status, out, _ = command("evaluate", *common, "--checkpoint=7").finish()
    assert status == 0
    assert out.startswith("step 7  1 view  top-1 error ")
    status, _, err = command("evaluate", *common, "--checkpoint=8").finish()
    assert (status, err) == (2, "error: there is no checkpoint '8'; there are last, best, 7, 12\n")


# A run that neither evaluates nor saves by itself.
ENDLESS = [f"--config.{field}=10000.0" for field in ("num_epochs", "evaluate_every", "save_every")]
ENDLESS.append("--config.schedule=steps")


def make_pictures(folder: Path) -> None:
    """A tree of four pictures for `prepare folder`."""
    for split, label in itertools.product(("train", "val"), ("a", "b")):
        (folder / split / label).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(folder / split / label / "x.png")


def test_a_reader_that_leaves_ends_a_run_which_is_saved(tmp_path: Path, data_dir: str):
    words = ["tests.process", "main", CONFIG, *ENDLESS, f"--workdir={tmp_path}", f"--data_dir={data_dir}"]
    with subprocess.Popen(
        [sys.executable, "-um", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as training:  # `tests.process` prints a line for each update
        next(line for line in training.stdout if line.startswith("step"))
        training.stdout.close()
        err = training.stderr.read()
    assert training.returncode == 75
    assert err == "standard output has no reader; the run is saved and ends\n"
    assert [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_run_on_whose_log_no_room_is_left_goes_on(tmp_path: Path, data_dir: str):
    words = [sys.executable, "-m", "alexnet_jax.main", CONFIG, f"--data_dir={data_dir}"]
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [*words, f"--workdir={tmp_path}/a"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        silent = subprocess.run([*words, f"--workdir={tmp_path}/b"], stdout=full, stderr=full, cwd=ROOT)
    assert run.returncode == silent.returncode == 0, run.stderr
    assert run.stderr == "standard output cannot be written (No space left on device); the run goes on without it\n"
    assert (tmp_path / "a/result.json").exists() and (tmp_path / "b/result.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("words", [("main", "--dry_run"), ("convert", "export", "--to={tmp}/net.onnx")])
def test_a_result_that_cannot_be_printed_is_one_line(finished: Path, data_dir: str, tmp_path: Path, words):
    module, *rest = [word.format(tmp=tmp_path) for word in words]
    rest += [f"--workdir={finished}"] + [CONFIG] * (module == "main")
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-u", "-m", f"alexnet_jax.{module}", f"--data_dir={data_dir}", *rest],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    expected = "error: standard output cannot be written: No space left on device"
    assert (run.returncode, run.stderr.splitlines()[-1]) == (2, expected) and "Traceback" not in run.stderr


def test_ctrl_c_and_a_reader_that_leaves_together_save_a_run(tmp_path: Path, data_dir: str, command):
    with command("main", CONFIG, *ENDLESS, f"--workdir={tmp_path}", f"--data_dir={data_dir}").process as training:
        next(line for line in training.stdout if line.startswith("first update"))
        training.stdout.close()
        training.send_signal(signal.SIGINT)  # as `main ... | tee log` gets it from a terminal
        err = training.stderr.read()
    assert training.returncode == 130, err
    assert [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]


@pytest.mark.parametrize("name", ["main", "predict", "experiments"])
def test_ctrl_c_while_libraries_are_imported_is_one_line(name: str):
    words = [sys.executable, "-X", "importtime", "-m", f"alexnet_jax.{name}", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        next(line for line in process.stderr if line.split("|")[-1].strip() == "numpy")
        process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, out, lines) == (130, "", ["interrupted"])


def test_a_command_that_ignores_ctrl_c_ignores_it_while_libraries_are_imported():
    words = [sys.executable, "-X", "importtime", "-m", "alexnet_jax.predict"]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]  # as `nohup` and background jobs do
    with subprocess.Popen(ignoring, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        next(line for line in process.stderr if line.split("|")[-1].strip() == "numpy")
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert process.returncode == 2
    assert lines == ["error: no picture is named; name files, folders, or - for standard input"]


def test_a_preparation_whose_reader_leaves_after_a_line_ends_quietly(tmp_path: Path, command):
    make_pictures(tmp_path / "pictures")
    flags = (f"--source_dir={tmp_path}/pictures", f"--data_dir={tmp_path}/data")
    process = command("prepare", "folder", "name", *flags).process
    with process:
        assert process.stdout.readline() == "4 images of 2 classes in train, val\n"
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, "")


def test_names_that_are_no_utf_8_are_printed_on_a_strict_terminal(tmp_path: Path):
    make_pictures(tmp_path / "pictures")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/pictures/train/a/\xff.txt")).write_text("no picture")
    flags = (f"--source_dir={tmp_path}/pictures", f"--data_dir={tmp_path}/data")
    words = ["alexnet_jax.prepare", "folder", "name", *flags]
    run = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    assert run.returncode == 0, run.stderr
    assert r"\udcff.txt" in run.stdout


def test_a_command_without_standard_output_works(finished: Path, data_dir: str):
    words = [sys.executable, "-m", "alexnet_jax.main", CONFIG, f"--workdir={finished}", f"--data_dir={data_dir}"]
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_command_without_standard_error_prints_its_result_alone(finished: Path, data_dir: str):
    words = [sys.executable, "-m", "alexnet_jax.evaluate", f"--workdir={finished}", f"--data_dir={data_dir}", "--json"]
    closed = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert closed.returncode == 0
    result = json.loads((finished / "result.json").read_text())
    assert json.loads(closed.stdout)["top1"] == result["top1_1_views"]


def test_a_closed_stream_is_open_for_processes_that_a_command_starts():
    code = "import os, subprocess, sys; from alexnet_jax import cli; cli._open_standard_streams();"
    code += "sys.exit(subprocess.run([sys.executable, '-c', 'import os; os.fstat(2)']).returncode)"
    words = [sys.executable, "-c", code]
    assert subprocess.run(["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *words], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("words", ["main --dry_run", "evaluate", "predict", "prepare folder name"])
def test_a_reader_that_leaves_ends_other_commands_without_a_word(
    words: str, finished: Path, tmp_path: Path, data_dir: str, command
):
    module, *rest = words.split()
    flags = {
        "main": [CONFIG],
        "evaluate": [f"--workdir={finished}", f"--data_dir={data_dir}"],
        "predict": [f"--workdir={finished}", f"{tmp_path}/pictures"],
        "prepare": [f"--source_dir={tmp_path}/pictures", f"--data_dir={tmp_path}/data"],
    }[module]
    make_pictures(tmp_path / "pictures")
    with command(module, *rest, *flags, PYTHONUNBUFFERED="").process as process:  # Python then prints at the end
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 141, err
    assert not [word for word in ("Traceback", "BrokenPipeError", "error:") if word in err], err


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(tmp_path: Path, data_dir: str, command, number: signal.Signals, expected: int):
    long = "--config.num_epochs=100000"
    run = command("main", CONFIG, long, f"--workdir={tmp_path}", f"--data_dir={data_dir}")
    wait_until((tmp_path / "checkpoints" / "7").exists, run.process)
    run.process.send_signal(number)
    status, out, err = run.finish()
    assert (status, err) == (expected, "")
    assert "; the same command resumes here" in out.splitlines()[-1]
    step = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert f"saved after update {step:,}" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--config is missing; start with --config=configs/default.py"),
        (["--config=nowhere.py"], "--config names a file that cannot be read"),
        ([CONFIG, "--config.num_epoch=2"], 'Did you mean "num_epochs" instead of "num_epoch"?'),
        ([CONFIG, "--config.num_epochs=few"], "could not convert string to float: 'few'"),
        ([CONFIG, "--config.batch_size=31", "--config.mesh.data=2"], "cannot be divided by the mesh's data axis of 2"),
        ([CONFIG, "--config.mesh.data=2", "--config.mesh.tower=2"], "tower=2 needs 4 devices and there are 2"),
        ([CONFIG, "--config.rates.fc8.kernel=0.01"], "the config has no config.rates.fc8.kernel; a config file that"),
        ([CONFIG, "--config.weight_decays.fc8=0"], "the config has no config.weight_decays.fc8; a config file that"),
        ([CONFIG, "--config.rates.all.kernel=((0, 0.01)"], "is no table; a table is written ((0, 0.01), (30, 0.001))"),
        (
            [CONFIG, "--config.rates.all.kernel={0:0.01}"],
            "kernel={0:0.01}: that is a dict; write a tuple, such as ((0",
        ),
        (["--flagfile=/nowhere", CONFIG], "--flagfile: Unable to open flagfile: [Errno 2] No such file or directory"),
        ([CONFIG, "--nonsense"], "Unknown command line flag 'nonsense'"),
        ([CONFIG, "train"], "'train' is not a flag; flags start with --"),
        ([CONFIG, "--workdir=/proc/nowhere"], "the workdir /proc/nowhere cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path: Path, data_dir: str, forked, flags: list[str], message: str):
    workdir = [f"--workdir={tmp_path}"] if not any(flag.startswith("--workdir") for flag in flags) else []
    status, out, err = forked("main", *workdir, f"--data_dir={data_dir}", *flags)
    assert status == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "checkpoints").exists()


FILES = {
    "folder/neighbour.py": "",
    "folder/neighbours.py": "import neighbour\n",
    "syntax.py": "def get_config(:\n",
    "imports.py": "import nowhere\n",
    "raises.py": "def get_config():\n    raise ValueError('no such\\nthing')\n",
    "bare.py": "def get_config():\n    raise ValueError\n",
    "fails.py": "def get_config():\n    return 1 / 0\n",
    "exits.py": "import sys\n\n\ndef get_config():\n    sys.exit('stop')\n",
    "varied.py": "def get_config(name):\n    pass\n",
    "empty.py": "",
    "dictionary.py": "def get_config():\n    return {'seed': 1}\n",
    "nothing.py": "def get_config():\n    pass\n",
    "locked.py": "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
    "    config = ConfigDict({'seed': 1}).lock()\n    config.extra = 2\n",
}


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections 1.1.0 on Python 3.11
@pytest.mark.parametrize("overrides", [(), ("--config.num_epochs=1",)], ids=["plain", "override"])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "config.json",
            "--config=config.json is not a Python file; name one such as configs/default.py, or, to resume a run,",
        ),
        (
            "configs/defualt.py",
            "No such file or directory: 'configs/defualt.py'; did you mean configs/default.py?",
        ),
        ("configs", "cannot be read: [Errno 21] Is a directory: 'configs'"),
        ("syntax.py", "cannot be loaded: invalid syntax (syntax.py, line 1)"),
        ("imports.py", "cannot be loaded: No module named 'nowhere' (FOLDER/imports.py, line 1)"),
        ("raises.py", "no such thing (FOLDER/raises.py, line 2)"),
        ("bare.py", "ValueError (FOLDER/bare.py, line 2)"),
        ("fails.py", "ZeroDivisionError: division by zero (FOLDER/fails.py, line 2)"),
        ("exits.py", "whose code ends the program: exit('stop') (FOLDER/exits.py, line 5)"),
        ("varied.py", "the config has variants; name one, as --config=FILE:NAME"),
        ("configs/default.py:no_norm", "the config has no variants; leave out the colon in --config and what follows"),
        ("empty.py", "has no attribute 'get_config'"),
        ("locked.py", "cannot be added since the config is locked.\n"),
        ("folder/neighbours.py", "line 1); start in FOLDER/folder, or name that folder in PYTHONPATH"),
    ],
)
def test_a_config_that_cannot_be_loaded_is_one_line(tmp_path: Path, capsys, file: str, message: str, overrides: tuple):
    path = file
    if file in FILES:
        (tmp_path / "folder").mkdir()
        for name, text in FILES.items():
            (tmp_path / name).write_text(text)
        path = str(tmp_path / file)
    status, err = parse(capsys, f"--config={path}", *overrides)
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message.replace("FOLDER", str(tmp_path)) in err


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize(("file", "value"), [("dictionary.py", "{'seed': 1}"), ("nothing.py", "None")])
def test_a_config_that_is_none_is_one_line(tmp_path: Path, capsys, file: str, value: str):
    (tmp_path / file).write_text(FILES[file])
    status, err = parse(capsys, f"--config={tmp_path / file}")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: get_config() of --config returned {value}; it returns a ConfigDict, such as")


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_a_config_that_uses_the_devices_is_one_line(tmp_path: Path, mode: str):
    (tmp_path / "early.py").write_text(
        "import jax\n\nfrom tests.configs import tiny\n\n\ndef get_config():\n"
        "    config = tiny.get_config()\n    config.batch_size = 8 * jax.device_count()\n    return config\n"
    )
    flags = f"--config={tmp_path}/early.py", f"--workdir={tmp_path}/run", f"--distributed={mode}"
    run = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", *flags],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: the config, or a module that it imports, uses JAX's devices")
    assert run.stderr.count("\n") == 1


def test_a_config_of_the_checkout_elsewhere_is_told_the_name_of_the_package(tmp_path: Path):
    (tmp_path / "mine.py").write_text("from configs import default\n")
    run = subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", "--config=mine.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": installed(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr
    assert run.stderr.endswith("the configs are alexnet_jax.configs: `from alexnet_jax.configs import default`\n")


def installed(folder: Path) -> str:
    """A folder with the package as a wheel has it: the configs are a part of it, and not beside it."""
    site = folder / "site"
    shutil.copytree(ROOT / "alexnet_jax", site / "alexnet_jax", ignore=shutil.ignore_patterns("__pycache__", "configs"))
    shutil.copytree(ROOT / "configs", site / "alexnet_jax/configs", ignore=shutil.ignore_patterns("__pycache__"))
    return str(site)


def parse(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str]:
    """Status and standard error of a command that has `--config` and prints its config's name."""
    from absl import app, flags
    from ml_collections import config_flags

    from alexnet_jax import cli, command_line

    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values)
    flags.DEFINE_integer("verbosity", 0, "", flag_values=values)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "config_config", raising=False)  # ml_collections' name for the file's module
        patch.setattr("sys.argv", ["command", *arguments])
        patch.setattr(flags, "FLAGS", values)
        patch.setattr(app, "run", lambda main, flags_parser: main(flags_parser(["command", *arguments])))
        with pytest.raises(SystemExit) as left:
            cli.run(lambda: print(command_line.config_of(lambda: config.value).name))
    return left.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("name", "platform", "reason"), [("main", "cuda", ""), ("evaluate", "banana", "Unable to")])
def test_a_platform_that_is_not_there_is_one_line(finished: Path, data_dir: str, command, name, platform, reason):
    flags = (CONFIG,) if name == "main" else ()
    run = command(name, *flags, f"--workdir={finished}", f"--data_dir={data_dir}", JAX_PLATFORMS=platform)
    status, out, err = run.finish()
    assert (status, out) == (2, "")
    assert err.startswith(
        f"error: JAX_PLATFORMS is {platform!r}, and JAX cannot use the devices of this machine: {reason}"
    )
    assert err.endswith(" unset it, or name an installed platform such as cpu\n") and err.count("\n") == 1
    assert ("; see whether nvidia-smi shows a driver of version 580 or newer, else" in err) == ("cuda" in platform)


def test_a_mesh_that_cannot_be_is_refused_before_its_devices_are_made(tmp_path: Path, command):
    """A million devices of a CPU take all memory. Here the devices are those of a platform that is not there."""
    flags = CONFIG, f"--workdir={tmp_path}", "--config.mesh.data=1000000"
    status, out, err = command("main", *flags, JAX_PLATFORMS="banana").finish()
    assert (status, out, err.count("\n")) == (2, "", 1) and "divided by the mesh's data axis of 1000000; use" in err


@pytest.mark.parametrize("name", ["main", "evaluate", "prepare", "benchmark"])
def test_a_command_starts_by_its_file_too(name: str, tmp_path: Path):
    """As `python alexnet_jax/main.py`, from any folder."""
    file = ROOT / "alexnet_jax" / f"{name}.py"
    run = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1, "nothing is named"


def test_the_package_names_its_commands(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-m", "alexnet_jax"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert {"main", "evaluate", "prepare", "predict"} <= set(run.stderr.strip().rpartition("there are ")[2].split(", "))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("main", ["Trains: ", "--config:", "--data_dir:"]),
        ("convert", ["--to:", "--workdir:"]),
        ("evaluate", ["--weights:", "--workdir:", "--checkpoint:"]),
        ("features", ["--layer:", "--workdir:", "--neighbours=6 \\\n"]),
        ("figures", ["--[no]towers:", "--workdir:", "--native:"]),
        ("predict", ["--views:", "--workdir:", "--data_dir:"]),
    ],
)
def test_help_explains_and_is_no_failure(forked, name: str, words: list[str]):
    status, out, _ = forked(name, "--help")
    assert status == 0
    assert [word for word in words if word not in out] == []
