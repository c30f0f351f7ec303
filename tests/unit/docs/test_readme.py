"""The README and the guide say what works: every command in them is run, the slow ones in a reduced form."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from galbatch.cli.main import main

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
DEMO = "galbatch process catalogs/demo.parquet"
PLAN = "galbatch plan catalogs/demo.parquet --on catalogs/demo.run:64"
# Commands that take minutes: the options with which the tests run them (the last value of an option counts).
# None: run by the fixture `scratch`.
REDUCED = {
    DEMO: None,
    f"{DEMO} --limit 8 --mode fast --out try.run": None,
    f"{DEMO} --survey catalogs/demo.toml --bands f200w --draws 32 --out full.run": (
        "--draws 2 --mode fast --limit 2 --cluster none --quiet"
    ),
    f"{DEMO} --update catalogs/demo.run --out next.run": (
        "--draws 4 --mode fast --limit 3 --cluster none --quiet"
    ),
    f"{PLAN} --sources 784000 --deadline 24": "--mode fast",
    f"{PLAN} --sources 1000000": "--mode fast",
    f"{DEMO} --cluster local --workers 2 --out two.run": "--dry-run",
    f"{DEMO} --scheduler tcp://127.0.0.1:8786 --out far.run": "--dry-run",
    f"{DEMO} --out big.run": "--dry-run",
    f"{DEMO} --model galbatch/prior/models/small --limit 4 --out mine.run": "--dry-run",
    "galbatch simulate galaxies --n 2000 --seed 101 --out simulated": "--n 2 --npix 64",
}
# Minutes even when reduced: run under the marker `slow`, with this appended; options are checked always.
SLOW = {
    "galbatch validate": "--galaxies 4",
    "galbatch bench": "--seconds 0.05",
    "galbatch train": "--stop-after 2 --stamps 16",
}


def blocks(path, language):
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```", path.read_text(), re.MULTILINE | re.DOTALL)


def commands():
    found = {}
    for path in PAGES:
        for block in blocks(path, "sh"):
            for line in block.splitlines():
                for part in re.split(r"\s*&&\s*", re.sub(r"\s+# .*", "", line.strip())):
                    part = part.removeprefix(".venv/bin/")
                    if part.startswith("galbatch "):
                        found.setdefault(part, path.relative_to(ROOT))
    return found


COMMANDS = commands()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A folder where the commands are run: the demo's inputs, and a small run in place of ``demo.run``."""
    if not (ROOT / "galbatch/prior/models/small/card.json").exists():
        pytest.skip("no shipped model: galbatch/prior/models/small")
    folder = tmp_path_factory.mktemp("readme")
    for name in ("catalogs", "galbatch"):
        (folder / name).mkdir()
    for entry in (ROOT / "catalogs").iterdir():
        if not entry.name.endswith(".run"):
            (folder / "catalogs" / entry.name).symlink_to(entry)
    (folder / "galbatch" / "prior").symlink_to(ROOT / "galbatch" / "prior")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = "--limit 3 --draws 4 --mode fast --cluster none --quiet"
        assert main(shlex.split(f"process catalogs/demo.parquet {small}")) in (0, 3)
        Path("try.run").symlink_to("catalogs/demo.run")
    return folder


def test_readme_has_commands():
    assert len([c for c, path in COMMANDS.items() if path.name == "README.md"]) > 15
    assert not set(REDUCED) - set(COMMANDS), "a reduced form without its command"


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(tuple(SLOW))])
def test_command_works(command, scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    more = REDUCED.get(command, "")
    if more is None:
        assert Path("catalogs/demo.run/catalog.parquet").exists()
        return
    if "full.run" in command and not command.startswith(DEMO) and not Path("full.run").exists():
        first = next(c for c in REDUCED if "--out full.run" in c)
        assert main(shlex.split(f"{first} {REDUCED[first]}")[1:]) in (0, 3)
    assert main(shlex.split(f"{command} {more}")[1:]) in (0, 3), f"in {COMMANDS[command]}: {command}"


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(tuple(SLOW))])
def test_slow_command_works(command, scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    if " train " in command:
        assert main(shlex.split("simulate galaxies --n 12 --npix 96 --seed 101 --out simulated")) == 0
    more = next(options for start, options in SLOW.items() if command.startswith(start))
    assert main(shlex.split(f"{command} {more}")[1:]) in (0, 3)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(tuple(SLOW))])
def test_slow_command_has_these_options(command, capsys):
    """Without the time to run them here: each option that a page uses is in the command's help."""
    words = shlex.split(command)[1:]
    names = [words[0]] + [w for w in words[1:2] if words[0] in ("simulate", "model")]
    assert main([*names, "--help"]) == 0
    text = capsys.readouterr().out
    for word in words:
        assert not word.startswith("-") or word in text, f"galbatch {' '.join(names)} has no option {word}"


PYTHON = [(path, n, block) for path in PAGES for n, block in enumerate(blocks(path, "python"))]


@pytest.mark.parametrize("path, number, block", PYTHON, ids=lambda v: v.name if isinstance(v, Path) else "")
def test_python_in_the_pages_runs(path, number, block, scratch, monkeypatch):
    monkeypatch.chdir(scratch)
    before = "".join(earlier for p, n, earlier in PYTHON if p == path and n < number)
    exec(compile(before + block, f"{path.name}[{number}]", "exec"), {"__name__": "__page__"})


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    """To a file, and where they name a heading, to one that is there."""
    for target, heading in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", path.read_text()):
        there = path.parent / target if target else path
        assert there.exists(), f"{path.name} links to {target}"
        if heading and there != ROOT / "docs" / "api.md":  # its headings are made from the code
            titles = re.findall(r"^#+ (.+)$", there.read_text(), re.M)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{path.name} links to {target}#{heading}"


# ---- the two commands and CI ----


def marked_command():
    return re.search(r"<!-- test command -->\n```sh\n(.*?)\n```", README.read_text(), re.DOTALL)[1]


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    awk = re.search(r"command=\$\((awk .*?README\.md\")\)", script, re.DOTALL).group(1)
    found = subprocess.run(
        ["bash", "-c", f"repo={ROOT}; {awk}"], capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == marked_command()
    assert "set -euo pipefail" in script
    assert re.search(r'bash -euo pipefail -c "\$command"', script)


def test_test_command_installs_the_test_extra_and_runs_pytest():
    steps = marked_command().split(" && ")
    assert len(steps) == 3
    assert re.fullmatch(r"python3 -m venv (\S+)", steps[0])
    assert "pip install -e '.[test]'" in steps[1] and "/bin/pytest" in steps[2]


def ci_exit_code(folder):
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(["bash", ".ci/run"], cwd=folder, capture_output=True, env=environment).returncode


def test_ci_fails_when_the_command_fails(tmp_path):
    """The script, with another README, in another folder: a failing test command is a failing CI."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text())
    for command, code in (("echo fine && true", 0), ("true && false", 1)):
        (tmp_path / "README.md").write_text(f"<!-- test command -->\n```sh\n{command}\n```\n")
        subprocess.run("git init -q . && git add -A", shell=True, cwd=tmp_path, check=True)
        assert ci_exit_code(tmp_path) == code
    (tmp_path / "README.md").write_text("no command\n")
    assert ci_exit_code(tmp_path) == 1


def test_demo_truth_lies_on_the_posterior_mean(scratch, monkeypatch):
    """The truth that `show` draws is the source's own, to the pixel: shifted, it fits the mean worse."""
    import numpy as np

    import galbatch
    from galbatch.report.read import RunReader

    monkeypatch.chdir(scratch)
    reader = RunReader(galbatch.open_run("catalogs/demo.run"))
    best = []
    for source_id in reader.columns["source_id"].tolist():
        view = reader.view(source_id, "f200w")
        shifts = [(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2)]
        miss = [np.square(np.roll(view.truth, shift, (0, 1)) - view.mean).sum() for shift in shifts]
        best.append(shifts[int(np.argmin(miss))])
        assert any(np.isfinite(n.truth) for n in view.numbers)
    assert best.count((0, 0)) > len(best) / 2
