"""The tutorial about policy: its files are written, its commands run, and they say what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tutorial-policy.md"


def steps(text: str) -> Iterator[tuple[int, str, str]]:
    """The fenced blocks in order: line, language, content."""
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 2, match[1], match[2]


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block (``> `` goes on with it), and what it is shown to print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        count = next((index for index, line in enumerate(lines) if index and line[:2] not in {">", "> "}), len(lines))
        yield "\n".join([lines[0], *(line[2:] for line in lines[1:count])]), lines[count:]


def stable(text: str) -> list[str]:
    """Without what changes from run to run: digests, and blanks at the ends of lines."""
    return [re.sub(r"\bpolicy [0-9a-f]{12}\b", "policy DIGEST", line).rstrip() for line in text.splitlines()]


def is_shown(printed: list[str], shown: list[str]) -> bool:
    """``...`` on a line of its own stands for any lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + r"\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    program = tmp_path / "bin/gateway"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from gateway.cli import main; main()" "$@"\n')
    program.chmod(0o755)
    directory = tmp_path / "empty"
    directory.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {"PATH": f"{program.parent}:{environment['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    ran = 0
    for line, language, content in steps(PAGE.read_text(encoding="utf-8")):
        if language == "yaml":
            named = re.match(r"# (\S+)\n", content)
            assert named is not None, f"line {line}: the block does not name its file"
            file = directory / named[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
            continue
        assert language == "console", f"line {line}: {language}"
        for command, shown in commands(content):
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                environment[name] = value
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=directory,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            printed, expected = stable(done.stdout), stable("\n".join(shown))
            assert is_shown(printed, expected), f"line {line}: $ {command}\n{done.stdout}"
            ran += 1
    assert ran >= 8


def test_the_tutorial_shows_each_verb_that_helps_with_policy() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in ("check", "policy test", "policy schema", "explain"):
        assert f"$ gateway {words}" in text
