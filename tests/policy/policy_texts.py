"""Every policy that the project shows: shipped files, and examples on the page about the language."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.config.source import Document, Node, parse_document

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/policy.md"
SHIPPED = sorted((ROOT / "policies").glob("*.yaml"))


def section(title: str) -> str:
    """The text of the page under a heading, up to the next one of its level."""
    level = title.partition(" ")[0]
    text = PAGE.read_text(encoding="utf-8").partition(f"\n{title}\n")[2]
    return re.split(rf"\n#{{1,{len(level)}}} ", text)[0]


def examples() -> dict[str, str]:
    """The policies of the page and of the README, by where they begin."""
    return {
        f"{page.name}:{text.count(chr(10), 0, match.start(1)) + 1}": whole(match[1])
        for page in (PAGE, ROOT / "README.md")
        for text in [page.read_text(encoding="utf-8")]
        for match in re.finditer(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    }


def whole(text: str) -> str:
    """An example as a file: the version is left away where it says nothing."""
    return text if text.startswith("version:") else f"version: 1\n{text}"


def table(title: str) -> dict[str, str]:
    """The last column of the table under a heading, by the first: both are code."""
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in section(title).splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): row[-1].strip().strip("`").replace("\\|", "|") for row in rows}


def document(text: str) -> Document:
    return parse_document(text.encode(), str(PAGE.parent / "policy.yaml"))


def plain(node: Node) -> object:
    """What stands there, as a reader of JSON Schema takes it."""
    if node.mapping is not None:
        return {key: plain(value) for key, value in node.mapping.items()}
    if node.items is not None:
        return [plain(item) for item in node.items]
    return node.scalar
