"""Image and conda recipe agree with pyproject.toml, and the wheel runs where no checkout is."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = {"torch": "pytorch", "dask": "dask-core", "matplotlib": "matplotlib-base"}


def split(requirement):
    name, _, rest = re.fullmatch(r"([A-Za-z0-9_-]+)(\[[^\]]*\])?\s*(.*)", requirement.strip()).groups()
    return CONDA.get(name, name).replace("_", "-"), rest.replace(" ", "")


def test_conda_recipe_needs_what_the_package_needs():
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    wanted = {split(d) for d in PROJECT["dependencies"]} | {("python", PROJECT["requires-python"])}
    assert {split(d) for d in recipe["requirements"]["run"]} == wanted
    assert recipe["context"]["version"] == PROJECT["version"]
    assert recipe["build"]["python"]["entry_points"] == [f"galbatch = {PROJECT['scripts']['galbatch']}"]


def test_image_installs_the_package_with_extras_that_exist():
    text = (ROOT / "jobs" / "docker" / "Dockerfile").read_text()
    torch = next(d for d in PROJECT["dependencies"] if d.startswith("torch"))
    assert f"'{torch}'" in text and f"galbatch:{PROJECT['version']}" in text
    for extras in re.findall(r"EXTRAS=(\S+)", text):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys(), extras
    for copied in re.findall(r"^COPY (.*) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in copied.split())


@pytest.mark.slow
def test_a_wheel_passes_twine_and_runs_the_demo_from_outside_the_checkout(tmp_path):
    """Installed beside the environment's own libraries, with nothing of the checkout in reach."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "galbatch", copy / "galbatch", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    pip, place = [sys.executable, "-m", "pip", "-q"], tmp_path / "site"
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, copy], check=True)
    shutil.rmtree(copy)
    wheel = next(tmp_path.glob("*.whl"))
    twine = pytest.importorskip("twine.commands.check", reason="needs twine: pip install -e '.[ci]'")
    assert not twine.check([str(wheel)], strict=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", place, wheel], check=True)
    for name in ("demo.parquet", "demo.toml", "demo"):
        (tmp_path / name).symlink_to(ROOT / "catalogs" / name)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    galbatch = [sys.executable, "-P", "-m", "galbatch"]
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import galbatch; print(galbatch.__file__)"],
        cwd=tmp_path, env=environment, text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(place))
    options = "--limit 2 --mode fast --draws 4 --cluster none".split()
    run = [*galbatch, "process", "demo.parquet", *options]
    done = subprocess.run(run, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo.run" / "catalog.parquet").is_file()
