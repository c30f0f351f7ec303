"""The Python interface is documented: sections, every parameter, examples that run."""

import doctest
import inspect
import re

import pytest
from fake_run import write_fake_run

import galbatch
from galbatch.report import RunPlots
from galbatch.store import Run

NAMES = [name for name in galbatch.__all__ if name != "__version__"]


def sections(doc):
    """Text under each heading that is underlined with dashes."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", inspect.cleandoc(doc), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)) | {"": parts[0]}


@pytest.mark.parametrize("name", NAMES)
def test_public_name_has_sections_and_names_every_parameter(name):
    thing = getattr(galbatch, name)
    found = sections(thing.__doc__)
    assert found[""].strip() and "Examples" in found
    listed = found.get("Parameters", found.get("Attributes", ""))
    if inspect.isfunction(thing):
        assert {"Parameters", "Returns", "Raises"} <= found.keys()
    if name != "Flag":  # an enumeration of the standard library: its members are on a page of their own
        told = {
            one.strip(" *")
            for line in re.findall(r"^([\w*, ]+?)(?: :.*)?$", listed, re.MULTILINE)
            for one in line.split(",")
        }
        assert inspect.signature(thing).parameters.keys() <= told


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    thing = getattr(galbatch, name)
    for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs={}, module=False):
        assert test.examples
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


@pytest.mark.parametrize("name", ["select", "near", "at", "samples", "color_map"])
def test_what_is_asked_of_a_run_most_has_sections_and_examples_that_run(name, tmp_path):
    write_fake_run(tmp_path / "f.run")
    method, run = getattr(Run, name), galbatch.open_run(tmp_path / "f.run")
    found = sections(method.__doc__)
    assert {"Parameters", "Returns", "Raises"} <= found.keys()
    told = re.findall(r"^([\w, ]+) : ", found["Parameters"], re.MULTILINE)
    assert ", ".join(told).split(", ") == list(inspect.signature(method).parameters)[1:]
    tests = doctest.DocTestFinder(recurse=False).find(method, name, globs={"run": run}, module=False)
    assert tests or name == "color_map"
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("kind", [Run, RunPlots])
def test_every_method_of_what_is_returned_is_explained_and_annotated(kind):
    for name, member in inspect.getmembers(kind, lambda m: inspect.isfunction(m) or isinstance(m, property)):
        if not name.startswith("_"):
            function = member.fget if isinstance(member, property) else member
            assert inspect.getdoc(function), f"{kind.__name__}.{name} has no docstring"
            assert inspect.signature(function).return_annotation is not inspect.Signature.empty, name
