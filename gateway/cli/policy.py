"""``gateway policy``: run the policy's own tests; the language as a schema for editors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import click
from rich.table import Table
from rich.text import Text

from gateway.cli import CliContext, common_options
from gateway.cli.words import printable, terminal
from gateway.mail.address import Address
from gateway.mail.protection import Decision, Disposition, RuleMatch
from gateway.policy.schema import policy_schema
from gateway.protect.rehearsal import Rehearsed, rehearse

__all__ = ["outcome_words", "policy", "rehearsed_as_json"]


@click.group(name="policy", no_args_is_help=False)
def policy() -> None:
    """Try policies out, and help with writing them."""


@policy.command(name="test")
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the results as JUnit XML, too.",
)
@common_options
def test(context: CliContext, *, junit: Path | None) -> int:
    """Run the tests of every policy file of the configuration. Exit status 1 where one fails."""
    loaded = context.load()
    now = time.time()
    kinds = {connector.name: connector.kinds for connector in loaded.settings.connectors}
    results = [rehearse(loaded.policy, case, now, kinds) for case in loaded.cases]
    if junit is not None:
        junit.write_text(_junit(results), "utf-8")
    failed = sum(not result.passed for result in results)
    if context.json:
        context.print_json({"ok": not failed, "tests": [rehearsed_as_json(result) for result in results]})
        return 1 if failed else 0
    _print_table(results)
    if not results:
        click.echo("no tests: policy files have none; see `tests` in docs/policy.md")
        return 0
    click.echo(f"{len(results)} test{'' if len(results) == 1 else 's'}, {failed or 'none'} failed")
    return 1 if failed else 0


def _print_table(results: list[Rehearsed]) -> None:
    if not results:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("", "test", "recipient", "outcome", "rules"):
        table.add_column(column, overflow="fold")
    for result in results:
        mark = Text("ok", "green") if result.passed else Text("FAILED", "bold red")
        name = printable(result.case.name)
        for (outcome, rules), recipients in _alike(result).items():
            table.add_row(mark, name, recipients, outcome, rules)
            mark, name = Text(""), ""
    console = terminal()
    console.print(table)
    for result in results:
        place = result.case.place
        for text in result.differences:
            click.echo(f"{place.file}:{place.line}:{place.column}: {result.case.name}: {text}")


def _alike(result: Rehearsed) -> dict[tuple[str, str], str]:
    """The recipients of a message, in one line for all of whom the same becomes of it."""
    alike: dict[tuple[str, str], list[Address]] = {}
    for recipient, decision in result.decisions:
        rules = ", ".join(_matched(match) for match in decision.requirement.rules) or "-"
        alike.setdefault((outcome_words(decision), rules), []).append(recipient)
    return {
        outcome: f"{recipients[0]} and {len(recipients) - 1} more" if len(recipients) > 1 else str(recipients[0])
        for outcome, recipients in alike.items()
    }


def _matched(match: RuleMatch) -> str:
    return f"{match.name} (?)" if "(cannot be known)" in match.effect else match.name


def outcome_words(decision: Decision) -> str:
    """What is done, in a few words: ``tls (verified)``, ``portal``, ``hold: review``, ``reject: ...``."""
    requirement = decision.requirement
    if requirement.disposition is not Disposition.DELIVER:
        return f"{requirement.disposition}: {requirement.reason}"
    if decision.method is None:
        return "bounce: no method is left"
    return f"tls ({requirement.tls})" if decision.method == "tls" else str(decision.method)


def rehearsed_as_json(result: Rehearsed) -> dict[str, object]:
    """A result for programs."""

    def shape(recipient: Address, decision: Decision) -> dict[str, object]:
        return decision.as_json(str(recipient))

    place = result.case.place
    return {
        "name": result.case.name,
        "file": place.file,
        "line": place.line,
        "passed": result.passed,
        "differences": list(result.differences),
        "recipients": [shape(recipient, decision) for recipient, decision in result.decisions],
    }


def _junit(results: list[Rehearsed]) -> str:
    """The results in the form that CI systems read."""
    failed = sum(not result.passed for result in results)
    suite = ET.Element("testsuite", name="policy", tests=str(len(results)), failures=str(failed), errors="0")
    for result in results:
        place = result.case.place
        case = ET.SubElement(suite, "testcase", classname=_clean(place.file), name=_clean(result.case.name))
        if not result.passed:
            text = _clean("\n".join(result.differences))
            failure = ET.SubElement(case, "failure", message=text.splitlines()[0])
            failure.text = f"{_clean(place.file)}:{place.line}\n{text}"
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """XML 1.0 has no control characters."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


@policy.command(name="schema")
def schema() -> int:
    """Print the JSON Schema of policy files.

    Editors that speak YAML check and explain a file that begins with
    `# yaml-language-server: $schema=policy.schema.json`.
    """
    click.echo(json.dumps(policy_schema(), indent=2, ensure_ascii=False))
    return 0
