"""The tutorials run from top to bottom with fast settings; the outputs that they hold are small and real."""

import base64
import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("GALBATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))}
DEMO = {'LIMIT, DRAWS, MODE = 0, 16, "default"': 'LIMIT, DRAWS, MODE = 3, 3, "fast"'}
FAST = {
    "first-run": DEMO,
    "merger-fraction": DEMO,
    "a-catalogue-with-lsdb": DEMO,
    "your-own-hst-image": {
        'DATA = "hst_candels"': f'DATA = "{DATA}/hst_candels"',
        'DRAWS, MODE = 16, "default"': 'DRAWS, MODE = 2, "fast"',
    },
    "ceers-in-colours": {
        'DATA = "jwst_ceers"': f'DATA = "{DATA}/jwst_ceers"',
        '["f115w", "f200w", "f444w"]': '["f200w", "f277w", "f444w"]',
        'DRAWS, MODE, GALAXY = 16, "default"': 'DRAWS, MODE, GALAXY = 2, "fast"',
    },
    "training-on-your-simulation": {"GALAXIES, STEPS = 150, 60": "GALAXIES, STEPS = 12, 3"},
    "a-custom-prior": {"DRAWS = 64": "DRAWS = 4"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not (ROOT / "galbatch/prior/models/small/card.json").exists():
        pytest.skip("no shipped model: galbatch/prior/models/small")
    top = tmp_path_factory.mktemp("notebooks")
    (top / "catalogs").symlink_to(ROOT / "catalogs")
    (top / "docs" / "tutorials").mkdir(parents=True)
    return top / "docs" / "tutorials"


@pytest.mark.ci("nbformat", "nbclient", "ipykernel", "lsdb")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, folder, monkeypatch):
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    for old, new in FAST[name].items():
        assert text.count(old) == 1, old
        if str(DATA) in new and not Path(new.split('"')[1]).is_dir():
            pytest.skip(f"{new.split(chr(34))[1]} is not there: set GALBATCH_TEST_DATA")
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    # Any exception in a cell raises here.
    nbclient.NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    said = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in said if "image/png" in o.get("data", {})]
    assert pictures or name == "a-catalogue-with-lsdb", "the notebook shows no picture"
    errors = [
        o.text for o in said if o.output_type == "stream" and re.search(r"^(Error:|Traceback)", o.text, re.M)
    ]
    assert errors == [], "a command of a cell failed"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_there_and_small_and_name_no_machine(name):
    text = NOTEBOOKS[name].read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 2 and not [o for o in outputs if o["output_type"] == "error"]
    pictures = ["".join(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    assert all(len(base64.b64decode(picture)) < 150_000 for picture in pictures)
    assert len(text) < 400_000 and not re.search(r"/(tmp|home|root|work|Users)/", text)


def test_tutorials_are_in_the_site_and_linked():
    assert FAST.keys() == NOTEBOOKS.keys()
    site, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("mkdocs.yml", "README.md"))
    assert all(f"tutorials/{name}.md" in site for name in NOTEBOOKS)
    assert "docs/tutorials" in readme
