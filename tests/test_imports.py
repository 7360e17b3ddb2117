"""Who may import whom, and which library lives where."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "alexnet_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = {"main", "evaluate", "prepare", "benchmark", "predict", "figures", "features", "convert"}

# What a room may import of ours beside its own files, errors.py, paths.py and strict_json.py. Files and folders outside
# of every room, which are the commands and what they call, may import all rooms.
ROOMS = {
    "experiment": ["learning", "workdir", "network", "data", "runtime"],
    "learning": ["network", "data.batch"],
    "workdir": ["learning", "runtime"],
    "network": [],
    "data": [],
    "runtime": [],
    "drawing": ["data.imagenet_names", "workdir.atomic"],
    "evaluation": ["trained", "experiment", "learning", "workdir", "network", "data", "runtime"],
    "retrieval": ["trained", "experiment", "workdir", "data"],
    "model_card": ["configs", "experiment", "learning", "workdir", "network", "data"],
    "report": ["trained", "evaluation", "retrieval", "drawing", "learning", "workdir", "network", "data"],
    "formats": ["trained", "model_card", "configs", "experiment", "workdir", "network", "data"],
}

# Where a library may be imported: files, or folders with a slash.
HOMES = {
    "orbax": ["workdir/checkpoint.py", "runtime/compat.py"],
    "absl": [
        "cli.py",
        "cli_network.py",
        "command_line.py",
        "config_flag.py",
        "main.py",
        "evaluate.py",
        "prepare.py",
        "benchmark.py",
        "features.py",
        "figures.py",
        "predict.py",
        "convert.py",
        "experiments/__main__.py",
    ],
    "ml_collections": [
        "command_line.py",
        "config_flag.py",
        "benchmark.py",
        "train.py",
        "experiment/settings.py",
        "experiments/run.py",
    ],
    "tensorflow_datasets": ["data/"],
    "tensorboardX": ["workdir/", "runtime/compat.py"],
    "tensorflow": [],
    "torch": ["benchmark.py", "benchmarks/"],
    "matplotlib": ["drawing/"],
}


def imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_rooms(file: Path):
    place = file.relative_to(PACKAGE)
    room = place.parts[0]
    for name in imports(file):
        if not name.startswith("alexnet_jax."):
            continue
        imported = name.removeprefix("alexnet_jax.")
        assert imported.split(".")[0] not in COMMANDS, f"{place} imports the command {name}"
        if room in ROOMS:
            allowed = [room, "errors", "paths", "strict_json", *ROOMS[room]]
            assert any(f"{imported}.".startswith(f"{other}.") for other in allowed), f"{place} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(file: Path):
    place = str(file.relative_to(PACKAGE))
    for name in imports(file):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None:
            assert any(place.startswith(home) for home in homes), f"{place} imports {name}"


# Names with an underscore that are public: of the standard library, and of named tuples.
PUBLIC = {"_exit", "_asdict", "_fields", "_make", "_replace"}


def private_names(tree: ast.Module) -> list[str]:
    """The uses of another library's private names, as far as the syntax shows them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [f"{getattr(node, 'module', None) or ''}.{alias.name}".strip(".") for alias in node.names]
            found += [name for name in names if re.search(r"(^|\.)_(?!_)|^jax\.interpreters", name)]
        elif isinstance(node, ast.Attribute):
            is_private = re.match("_(?!_)", node.attr) and node.attr not in PUBLIC
            is_ours = ast.unparse(node.value) in ("self", "cls", "super()")
            if (is_private and not is_ours) or ast.unparse(node) in ("sys.modules", "jax.interpreters"):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            found += [ast.unparse(node) for name in node.args[1:2] if re.match("'_(?!_)", ast.unparse(name))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += re.findall(r"^[\w.]+\._(?!_)[\w.]+$", node.value)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_private_names_of_libraries_stay_in_compat(file: Path):
    found = private_names(ast.parse(file.read_text()))
    assert bool(found) == (file.relative_to(PACKAGE) == Path("runtime/compat.py")), found


@pytest.mark.parametrize(
    "line",
    [
        "import jax._src.distributed",
        "from jax._src import distributed",
        "from jax.interpreters import mlir",
        "from orbax.checkpoint._src.serialization import utils",
        "writer._file.close()",
        "self._writer._file.close()",
        "sys.modules['torch'] = None",
        "getattr(client, '_state')",
        "importlib.import_module('jax._src.core')",
    ],
)
def test_a_private_name_is_found(line: str):
    assert private_names(ast.parse(line))
    assert not private_names(ast.parse("os._exit(0); self._x = cls._y; jax.__version__; batch._replace(mask=None)"))


def test_every_room_and_file_is_seen():
    assert {file.relative_to(PACKAGE).parts[0] for file in FILES} > set(ROOMS)
    assert len(FILES) > 50


def test_training_does_without_torch():
    program = "import sys, alexnet_jax.train; assert 'torch' not in sys.modules; from tensorboardX import summary"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("name", [*sorted(COMMANDS), "experiments/__main__"])
def test_commands_print_results_by_one_function(name: str):
    """`cli.print_results` knows what to do where standard output cannot be written; `output.say` prints other lines."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    printing = [call for call in calls if call.func.id == "print"]
    assert not [call.lineno for call in printing if "file" not in {keyword.arg for keyword in call.keywords}]


STARTED = [file for file in FILES if "\n    cli.run(" in file.read_text()]


@pytest.mark.parametrize("file", STARTED, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_command_is_ready_for_ctrl_c_before_it_imports_libraries(file: Path):
    guard = "if __name__ == '__main__':\n    from alexnet_jax import startup\n    startup.leave_on_interrupt()"
    for node in ast.parse(file.read_text()).body:
        if ast.unparse(node) == guard:
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert {str(name).split(".")[0] for name in names} <= sys.stdlib_module_names, ast.unparse(node)
    raise AssertionError(f"{file} does not call startup.leave_on_interrupt")


def test_every_command_is_seen():
    assert {file.stem for file in STARTED} >= COMMANDS | {"__main__", "worker"}
    names = [name.split(".")[0] for name in imports(PACKAGE / "startup.py")]
    assert set(names) <= sys.stdlib_module_names


def test_test_files_define_each_flag_once():
    """All test files are imported into one process, where a second definition of a flag ends the collection."""

    def file_of(name: str) -> Path | None:
        """The file of a module, or of the module that has the imported name."""
        path = PACKAGE.parent / Path(*name.split("."))
        candidates = (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py"))
        return next((file for file in candidates if file in FILES), None)

    reached, waiting = set[Path](), [*TESTS.rglob("test_*.py"), *TESTS.rglob("conftest.py")]
    while waiting:
        files = {file for name in imports(waiting.pop()) if (file := file_of(name))} - reached
        reached |= files
        waiting += files
    assert PACKAGE / "prepare.py" in reached
    defined = [name for file in reached for name in re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', file.read_text())]
    assert len(defined) == len(set(defined)), sorted(defined)
