"""Whatever a run says reaches the report's HTML only through ``escaped``."""

import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from galbatch.report.page import SCRIPTS

JS = "\n".join(
    (files("galbatch.report") / "templates" / name).read_text(encoding="utf-8") for name in SCRIPTS
)
# Numbers, lengths and pieces of HTML that are escaped where they are made.
SAFE = (
    r"escaped\(.*\)|withError\(.*\)|text\(.*\)|percent\(.*\)|strip\(i.*\)|style|label|about|gradeOf\(i\)|i|cells|"
    r"of\(band, stem\)|cell\(i\)|viewers\(i\)|(?:rows|strips|heads)\.join\(\"\"\)|"
    r"\(high - mid\)\.toFixed\(digits\)|\(mid - low\)\.toFixed\(digits\)|mid\.toFixed\(digits\)|"
    r"data\.panels\.map\(.*\$\{escaped\(t\)\}.*|flags\.length \? .*flags\.join.*|"
    r"data\.bands\.map\(.*of\(band, stem\).*"
)


def test_every_value_put_into_html_is_escaped():
    html = [line for line in JS.splitlines() if re.search(r"`[^`]*<\w|^\s+<\w", line)]
    values = [v for line in html for v in re.findall(r"\$\{((?:[^{}]|\{[^{}]*\})*)\}?", line)]
    assert len(values) > 25 and [v for v in values if not re.fullmatch(SAFE, v)] == []
    assert JS.count("innerHTML") == 4 and "const label = escaped(" in JS


def test_escaped_leaves_no_character_that_html_reads():
    if (node := shutil.which("node")) is None:
        pytest.skip("needs node")
    function = re.search(r"function escaped\(value\) \{.*?\n\}", JS, re.S).group()
    hostile = "<img src=x onerror=alert(1)>\"'`&"
    code = f"{function}\nprocess.stdout.write(escaped(process.argv[1]));"
    said = subprocess.run([node, "-e", code, hostile], capture_output=True, text=True, check=True).stdout
    assert not set("<>\"'`") & set(said) and "&#60;img" in said
