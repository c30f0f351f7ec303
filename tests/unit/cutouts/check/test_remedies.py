"""Every finding of ``check`` is made with a remedy of its own."""

import ast
from pathlib import Path

import galbatch

ROOT = Path(galbatch.__file__).parent
VAGUE = ("see the message", "see above", "check it")


def findings():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                yield f"{path.name}:{node.lineno}", node.args[1:]


def texts(remedy):
    """What a remedy may be, as far as it is written out."""
    if isinstance(remedy, ast.IfExp):
        return texts(remedy.body) + texts(remedy.orelse)
    return [remedy.value] if isinstance(remedy, ast.Constant) else [] if remedy else [""]


def test_every_finding_has_a_remedy_that_is_no_repetition():
    wrong = []
    for where, rest in findings():
        remedy = rest[3] if len(rest) > 3 else None
        vague = any(not text.strip() or text.lower().startswith(VAGUE) for text in texts(remedy))
        if vague or ast.dump(remedy) == ast.dump(rest[2]):
            wrong.append(where)
    assert len(list(findings())) > 30 and wrong == []
