"""mkdocs hook: every notebook in ``tutorials`` becomes a page, its outputs as they are in the file."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

NOTEBOOK = re.compile(r"\]\((?!\w+:)([^)]+)\.ipynb\)")  # a link to a notebook


def on_files(files: Any, config: Any) -> Any:
    """mkdocs calls this with the files of the site."""
    from mkdocs.structure.files import File

    for path in sorted((Path(config["docs_dir"]) / "tutorials").glob("*.ipynb")):
        text, pictures = page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=data))
        files.remove(files.get_file_from_path(f"tutorials/{path.name}"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this with the text of a page: links to notebooks, right in the repository, lead to their
    pages."""
    return NOTEBOOK.sub(r"](\1.md)", markdown)


def page(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
    """(Markdown, pictures by name) of a notebook."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = _joined(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(NOTEBOOK.sub(r"](\1.md)", source))
            continue
        parts.append(_fenced(source, "python"))
        for output in cell["outputs"]:
            data = output.get("data", {})
            if output["output_type"] == "stream":
                parts.append(_fenced(_joined(output["text"]), "text"))
            elif "image/png" in data:
                name = f"{stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(_joined(data["image/png"]))
                parts.append(f"![What the cell above draws]({name})")
            elif "text/html" in data:  # no blank line may end the block of HTML
                parts.append(
                    '<div style="overflow-x: auto">'
                    + re.sub(r"\n\s*\n", "\n", _joined(data["text/html"]))
                    + "</div>"
                )
            elif "text/plain" in data:
                parts.append(_fenced(_joined(data["text/plain"]), "text"))
    return "\n\n".join(parts) + "\n", pictures


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _fenced(text: str, kind: str) -> str:
    return f"````{kind}\n{text.rstrip()}\n````"
