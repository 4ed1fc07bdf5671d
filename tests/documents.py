"""The documents of the project and their links."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# The text of each document, by its path in the repository.
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "bench/README.md",
    )
}
_CODE_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links(name: str) -> list[tuple[str, str]]:
    """Return the relative links of a document as (path in the repository, anchor)."""
    targets = re.findall(r"\]\(([^)\s]+)\)", _CODE_BLOCK.sub("", DOCUMENTS[name]))
    found = []
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        directory = os.path.dirname(name)
        found.append((os.path.normpath(os.path.join(directory, path)) if path else name, anchor))
    return found


def headings(document: str) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", _CODE_BLOCK.sub("", document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def defined_names() -> set[str]:
    """Return the names that modules of the agent define, methods as ``Class.method``."""
    names: set[str] = set()
    for path in (ROOT / "agent").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign):
                names.update(one.id for one in node.targets if isinstance(one, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(node.name)
                members = node.body if isinstance(node, ast.ClassDef) else []
                names.update(
                    f"{node.name}.{member.name}"
                    for member in members
                    if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef))
                )
    return names
