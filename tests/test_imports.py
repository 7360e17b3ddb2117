"""Who may import whom, and which library lives where."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "alexnet_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
DOORS = {"main", "evaluate", "predict", "prepare", "figures", "benchmark", "door"}

# Beside its own files and errors.py, what a package may import of ours.
ALLOWED = {
    "network": ["alexnet_jax.network"],
    "data": ["alexnet_jax.data"],
    "learning": ["alexnet_jax.learning", "alexnet_jax.network", "alexnet_jax.data.pipeline"],
}

# Where a library may be imported: file names, or packages with a slash.
HOMES = {
    "orbax": ["learning/checkpoint.py"],
    "absl": ["door.py", "main.py", "evaluate.py", "predict.py", "prepare.py", "figures.py", "benchmark.py"],
    "ml_collections": ["door.py", "main.py", "benchmark.py", "train.py", "settings.py", "workdirs.py"],
    "tensorflow_datasets": ["data/"],
    "grain": ["data/"],
    "tensorboardX": ["learning/events.py"],
    "tensorflow": [],
    "torch": ["benchmark.py", "benchmarks/"],
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
def test_imports_follow_the_layers(file: Path):
    place = file.relative_to(PACKAGE)
    for name in imports(file):
        if not name.startswith("alexnet_jax"):
            continue
        allowed = ALLOWED.get(place.parts[0])
        if allowed is not None:
            assert name.startswith((*allowed, "alexnet_jax.errors")), f"{place} imports {name}"
        imported = name.split(".")[1] if "." in name else ""
        if imported in DOORS - {"door"}:
            pytest.fail(f"{place} imports the door {name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(file: Path):
    place = str(file.relative_to(PACKAGE))
    for name in imports(file):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None:
            assert any(place.startswith(home) for home in homes), f"{place} imports {name}"


def test_every_file_is_seen():
    assert len(FILES) > 20


def test_training_does_without_torch():
    program = "import sys, alexnet_jax.train; assert 'torch' not in sys.modules; from tensorboardX import summary"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)
