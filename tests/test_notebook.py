"""The notebook of the sample runs from its first cell to its last."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "examples/htautau"


@pytest.mark.filterwarnings("default")  # of the kernel's own packages
def test_the_notebook_trains_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPFAAS_STORE", str(tmp_path / "store"))
    notebook = nbformat.read(FOLDER / "htautau.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": FOLDER}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    (auc,) = re.findall(r"AUC on unseen events: ([0-9.]+)", text)
    assert float(auc) > 0.78
    assert sum("image/png" in output.get("data", {}) for output in outputs) > 3
