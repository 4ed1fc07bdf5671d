"""The documents of the project and their links."""

from __future__ import annotations

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
