"""Every notebook runs from top to bottom in a fresh kernel; their own asserts are the proofs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHECKPOINT = ROOT / "data/shapes/umm/ema.safetensors"
SECONDS_PER_CELL = 180
"""Generous: it also bounds the start of the kernel, on a machine that may be busy."""


@pytest.fixture
def kernel(tmp_path: Path) -> AsyncKernelManager:
    """A kernel of this very interpreter, whatever kernels the user has installed."""
    folder = tmp_path / "kernels" / "this-python"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "this python", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder.parent)], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name=folder.name, kernel_spec_manager=specs)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, kernel: AsyncKernelManager) -> None:
    if not CHECKPOINT.is_file():
        pytest.skip(f"no embedded checkpoint at {CHECKPOINT}: make it with configs/shapes/pretrain.yaml")
    content = nbformat.read(notebook, as_version=4)  # a copy: the file itself stays as it is
    resources = {"metadata": {"path": str(ROOT)}}
    limits = {"timeout": SECONDS_PER_CELL, "startup_timeout": SECONDS_PER_CELL}
    NotebookClient(content, km=kernel, resources=resources, **limits).execute()
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    shown = [output.data for cell in code for output in cell.outputs if output.output_type == "execute_result"]
    assert sum("image/png" in data for data in shown) >= 3


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_small_and_whole(notebook: Path) -> None:
    """With the outputs of one run in order, without errors, and no larger than a reader wants to clone."""
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    assert notebook.stat().st_size < 1.5e6
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
