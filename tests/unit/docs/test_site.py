"""The documentation site: it builds without a warning, and its reference pages are the code's."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from galbatch.cli.main import COMMANDS
from galbatch.columns import QUANTITIES
from galbatch.store import StoreLayout
from galbatch.types import Flag

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[test]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return out


def test_site_names_every_command(site):
    text = (site / "cli.html").read_text()
    for name in COMMANDS:
        assert f"galbatch {name}" in text
    assert "--oversample" in text


def test_site_names_every_array_quantity_and_flag(site):
    text = (site / "format.html").read_text()
    for name in [
        *StoreLayout(1, 1, 2, ("b",), 8).arrays(),
        *QUANTITIES,
        "prior_driven_frac_{band}",
        "_healpix_29",
    ]:
        assert f"<code>{name}</code>" in text
    text = (site / "flags.html").read_text()
    for flag in Flag:
        assert f"<code>{flag.name}</code>" in text


@pytest.mark.parametrize(
    "words, page",
    [("sample_posterior", "api.html"), ("changelog", "changelog.html"), ("electrons/s", "guide/input")],
)
def test_search_finds(site, words, page):
    """The index that the search box reads, whose words end at blanks."""
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = [
        d["location"] for d in index if words in f"{d['title']} {d['text']}".lower().replace("(", " ").split()
    ]
    assert any(where.startswith(page) for where in found), found


def test_tutorials_are_pages_with_their_outputs(site):
    text = (site / "tutorials" / "first-run.html").read_text()
    assert "of 48 sources are good" in text and 'src="first-run-1.png"' in text
    assert (site / "tutorials" / "first-run-1.png").read_bytes()[:4] == b"\x89PNG"


def test_no_placeholder_is_left(site):
    for page in site.rglob("*.html"):
        assert not re.search(r"\[\[(?!data\])[a-z ]+\]\]", page.read_text()), page.name


def test_wheel_has_weights_page_and_layouts(tmp_path):
    """Built from a copy, so that nothing is left in the checkout and nothing stale in the wheel."""
    shutil.copytree(
        ROOT / "galbatch", tmp_path / "copy" / "galbatch", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    options = f"-m pip wheel --no-deps --no-build-isolation -q -w {tmp_path} ./copy".split()
    done = subprocess.run([sys.executable, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    models = [f"prior/models/{m}/{f}" for m in ("small", "base") for f in ("model.safetensors", "card.json")]
    others = (
        "report/templates/report.html report/templates/report.js py.typed cutouts/survey/layouts/generic.toml"
    )
    for wanted in (*models, *others.split(), "prior/models/base/validation.json"):
        assert f"galbatch/{wanted}" in names, f"{wanted} is not in the wheel"
    assert not [n for n in names if n.startswith(("tests/", "docs/", "benchmarks/"))]


def test_versions_agree():
    import galbatch

    version = galbatch.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_changelog_has_a_place_for_its_fragments(site):
    """Every fragment has a type that towncrier knows and is on the page; the marker is there once."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]
    marker, types = known["start_string"].strip(), {kind["directory"] for kind in known["type"]}
    assert (ROOT / "CHANGELOG.md").read_text().count(marker) == 1
    page = (site / "changelog.html").read_text()
    assert marker not in page
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())
    for path in (ROOT / "changelog.d").glob("*.md"):
        assert path.name.split(".")[1] in types and path.name.count(".") == 2, path.name
        assert " ".join(path.read_text().replace("`", "").split()) in words, path.name


@pytest.mark.ci("mike")
def test_versions_of_the_site_lie_side_by_side(tmp_path):
    """Two versions, published as the page says, from a copy."""
    for name in ("docs", "changelog.d"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.run", "demo-hats"))
    for name in ("mkdocs.yml", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = str(Path(sys.executable).parent)
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(command):
        done = subprocess.run(command.split(), cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git init -q .")
    run("git config user.name galbatch")
    run("git config user.email galbatch@example.org")
    run("git commit -q --allow-empty -m copy")
    run("mike deploy 0.0")
    run("mike deploy --update-aliases 0.1 latest")
    assert [v["version"] for v in json.loads(run("git show gh-pages:versions.json"))] == ["0.1", "0.0"]
    page = run("git show gh-pages:0.1/api.html")
    assert "sample_posterior" in page and "version-select" in page
