"""The command group: help, laziness, exit codes, messages, completion."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest

from galbatch.cli import main as cli_main
from galbatch.errors import InputError, Stopped

ROOT = Path(__file__).parents[3]


def run_python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.parametrize("name", list(cli_main.COMMANDS))
def test_command_has_help_and_is_in_the_readme(name, capsys):
    assert cli_main.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"galbatch {name}" in text
    assert len(text.splitlines()) > 4, "help text is missing"
    assert not re.search(r"default: (True|False|None)", text)
    command = cli_main.cli.get_command(click.Context(cli_main.cli), name)
    assert (command.help or "").strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"galbatch {name} {parameter.opts[0]} has no help text"
    assert re.search(rf"galbatch {name}\b", (ROOT / "README.md").read_text()), "not mentioned in README.md"


def test_every_command_module_is_listed():
    modules = {
        path.stem.replace("_", "-")
        for path in (ROOT / "galbatch" / "cli").glob("*.py")
        if re.search(r"^(def command\(|command = )", path.read_text(), re.MULTILINE)
    }
    assert modules == set(cli_main.COMMANDS)


def test_help_is_fast():
    seconds = []
    for _ in range(3):
        start = os.times()
        done = run_python("-m", "galbatch", "--help")
        end = os.times()  # CPU: a busy machine takes longer by the clock
        seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
        assert done.returncode == 0
    assert all(name in done.stdout for name in cli_main.COMMANDS)
    assert min(seconds) < 0.5


HEAVY = "torch dask distributed numba matplotlib astropy pyarrow zarr pandas"


@pytest.mark.parametrize(("code", "heavy"), [
    ("import galbatch, galbatch.types, galbatch.config", HEAVY),
    ("from galbatch.cli.main import main; main(['--help'])", HEAVY),
    ("from galbatch.cli.main import main; main(['process', '--help'])", HEAVY),
    ("from galbatch.run import status", "torch dask"),
    ("from galbatch.run import verify", "torch dask"),
    ("import galbatch.morphology", "torch numba"),
])  # fmt: skip
def test_import_and_help_load_nothing_heavy(code, heavy):
    said = f"import sys; print('LOADED', [m for m in {heavy.split()} if m in sys.modules])"
    done = run_python("-c", f"{code}; {said}")
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stdout + done.stderr


def test_import_configures_nothing():
    done = run_python(
        "-c",
        "import logging, warnings;"
        "state = lambda: (list(logging.root.handlers), list(warnings.filters));"
        "before = state();"
        "import galbatch, galbatch.cli.main; print(before == state())",
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("raised, code, said", [
    (InputError("catalogue x.parquet has no column 'ra': add it."), 1, "no column 'ra'"),
    (Stopped("stopped after 3 batches: 'galbatch resume x.run' goes on."), 4, "resume x.run"),
    (KeyboardInterrupt(), 4, "resume"),
    (ZeroDivisionError("division by zero"), 1, "GALBATCH_TRACEBACK"),
    (click.UsageError("give a catalogue"), 1, "give a catalogue"),
])  # fmt: skip
def test_errors_become_one_message_and_a_code(raised, code, said, monkeypatch, capsys):
    @click.command()
    def command():
        raise raised

    monkeypatch.setattr(cli_main.cli, "get_command", lambda ctx, name: command)
    monkeypatch.delenv("GALBATCH_TRACEBACK", raising=False)
    assert cli_main.main(["process"]) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    if type(raised) is ZeroDivisionError:
        assert cli_main.main(["--traceback", "process"]) == 1
        assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("returned, code", [(None, 0), (0, 0), (3, 3), (4, 4), (True, 0), ("exit", 3)])
def test_returned_code_is_the_exit_code(returned, code, monkeypatch):
    callback = lambda: click.get_current_context().exit(3) if returned == "exit" else returned  # noqa: E731
    monkeypatch.setattr(cli_main.cli, "get_command", lambda ctx, name: click.Command("x", callback=callback))
    assert cli_main.main(["process"]) == code


def test_same_warning_is_printed_once(monkeypatch, capsys):
    def callback():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for _ in range(3):
                warnings.warn("the WCS says 0.03 arcsec", stacklevel=1)

    before = warnings.showwarning
    monkeypatch.setattr(cli_main.cli, "get_command", lambda ctx, name: click.Command("x", callback=callback))
    assert cli_main.main(["process"]) == 0
    assert warnings.showwarning is before
    assert capsys.readouterr().err.count("the WCS says 0.03 arcsec") == 1


def test_unknown_command_names_the_nearest(capsys):
    assert cli_main.main(["reprot", "x.run"]) == 1
    assert "Did you mean 'report'?" in capsys.readouterr().err


def test_version(capsys):
    assert cli_main.main(["--version"]) == 0
    assert re.search(r"\d+\.\d+\.\d+", capsys.readouterr().out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell, capsys):
    assert cli_main.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_GALBATCH_COMPLETE" in script and "galbatch" in script


def test_completion_completes_commands():
    asked = {"_GALBATCH_COMPLETE": "bash_complete", "COMP_WORDS": "galbatch pro", "COMP_CWORD": "1"}
    done = run_python("-m", "galbatch", env={"PATH": "/usr/bin"} | asked)
    assert "plain,process" in done.stdout.split()
