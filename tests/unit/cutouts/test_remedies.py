"""Every error and warning of ``check`` is made with a remedy of its own."""

import ast
from pathlib import Path

import galbatch

ROOT = Path(galbatch.__file__).parent
VAGUE = ("see the message", "see above", "check it")


def findings():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                level = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                yield f"{path.name}:{node.lineno}", level, node.args[1:]


def test_errors_and_warnings_have_a_remedy_that_is_no_repetition():
    wrong = []
    for where, level, rest in findings():
        if level not in ("error", "warn"):
            continue
        remedy = rest[3] if len(rest) > 3 else None
        words = getattr(remedy, "value", "x") if remedy is not None else ""
        vague = isinstance(words, str) and (not words.strip() or words.lower().startswith(VAGUE))
        if remedy is None or vague or ast.dump(remedy) == ast.dump(rest[2]):
            wrong.append(where)
    assert len(list(findings())) > 30 and wrong == []
