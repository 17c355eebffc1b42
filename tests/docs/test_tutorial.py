"""The notebook docs/tutorial.ipynb runs from its first cell to its last."""

from pathlib import Path

import pytest

from tests.waiting import LIMIT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorial.ipynb"


def shown(notebook, cell):
    """Return what a cell shows: kind -> content."""
    outputs = next(c for c in notebook.cells if c.id == cell).outputs
    return {kind: text for o in outputs for kind, text in o.get("data", {}).items()}


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_every_cell_runs(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": "."}})
    client.execute(cwd=str(tmp_path))
    for cell in ("look-figure", "run-figure", "compare-figure"):
        assert "</svg>" in shown(notebook, cell)["image/svg+xml"]
    assert "labeled_only" in shown(notebook, "compare-code")["text/html"]
    clients = shown(notebook, "deploy-code")["text/html"]
    assert clients.count(">ok</td>") == 4  # two devices, two rounds
