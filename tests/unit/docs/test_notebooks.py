"""The notebooks run from top to bottom, on a smaller run than they make by themselves."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETTINGS = 'LIMIT, DRAWS, MODE = 24, 16, "default"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not (ROOT / "galbatch/prior/models/small/card.json").exists():
        pytest.skip("no shipped model: galbatch/prior/models/small")
    top = tmp_path_factory.mktemp("notebooks")
    (top / "catalogs").symlink_to(ROOT / "catalogs")
    (top / "notebooks").mkdir()
    return top / "notebooks"


@pytest.mark.ci("nbformat", "nbclient", "ipykernel")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, folder):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    settings = [cell for cell in notebook.cells if SETTINGS in cell.source]
    assert len(settings) == 1
    settings[0].source = settings[0].source.replace(SETTINGS, 'LIMIT, DRAWS, MODE = 3, 3, "fast"')
    # Any exception in a cell raises here.
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    pictures = [
        out
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if "image/png" in out.get("data", {})
    ]
    assert pictures, "the notebook shows no picture"


@pytest.mark.ci("nbformat")
def test_there_are_two_and_they_hold_no_output():
    import nbformat

    assert [p.stem for p in NOTEBOOKS] == ["first-run", "merger-fraction"]
    for path in NOTEBOOKS:
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
