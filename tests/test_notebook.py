"""The notebook runs from its first cell to its last, in any folder, and is stored without outputs."""

import os
import subprocess
import sys

import nbformat
import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"
PROGRAM = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.long
def test_the_notebook_runs_in_any_folder(data_dir, tmp_path):
    environment = os.environ | {
        "TFDS_DATA_DIR": data_dir, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "JAX_NUM_CPU_DEVICES": "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(NOTEBOOK), str(tmp_path / "run.ipynb")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = [output for cell in nbformat.read(tmp_path / "run.ipynb", 4).cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3, "kernels, maps, neighbours"
    text = "".join(output.get("text", "") for output in outputs)
    assert "error on 200 photographs" in text
    assert any("<Trained " in output.get("data", {}).get("text/plain", "") for output in outputs)
