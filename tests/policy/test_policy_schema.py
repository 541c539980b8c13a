"""The JSON Schema and the readers know the same language, and every policy that is shown is valid under it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.config.source import Node, parse_document
from gateway.config.values import parse_duration, parse_size
from gateway.policy.cases_read import read_case
from gateway.policy.exceptions_read import read_exception
from gateway.policy.parse import parse_policy
from gateway.policy.protection_read import read_protection
from gateway.policy.reader import Reader
from gateway.policy.rules_read import read_rule
from gateway.policy.schema import policy_schema
from gateway.policy.scope import Scope, read_detectors
from tests.policy.policy_texts import SHIPPED, document, examples, plain, table

SCHEMA = policy_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in SHIPPED} | examples()


def faults(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(plain(document(text).root))]


def rule(inside: str) -> str:
    return f"version: 1\nrules:\n  - {{name: r, {inside}}}\n"


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", TEXTS)
def test_every_policy_that_is_shown_is_valid(name: str) -> None:
    assert faults(TEXTS[name]) == []


@pytest.mark.parametrize("condition", table("## Conditions").values())
def test_every_condition_that_is_shown_is_valid(condition: str) -> None:
    assert faults(f"version: 1\nrules:\n  - name: r\n    when: {condition}\n    hold: true\n") == []


@pytest.mark.parametrize("action", table("## Actions").values())
def test_every_action_that_is_shown_is_valid(action: str) -> None:
    assert faults(f"version: 1\nrules:\n  - name: r\n    when: {{recipient: '*'}}\n    do: [{action}]\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "rules: []\n",
        "version: 2\n",
        "version: 1\nrule: []\n",
        rule("when: {recipient: '*'}"),
        rule("hold: true"),
        rule("when: {}, hold: true"),
        rule("when: {subjct: {tag: a}}, hold: true"),
        rule("when: {subject: {tags: a}}, hold: true"),
        rule("when: {kind: newsletter}, hold: true"),
        rule("when: {attachment: {type: exe}}, hold: true"),
        rule("when: {attachment: {count: {under: 3}}}, hold: true"),
        rule("when: {size: {over: 5}}, hold: true"),
        rule("when: {size: {}}, hold: true"),
        rule("when: {recipient: '*'}, require: {methods: [plain]}"),
        rule("when: {recipient: '*'}, require: {}"),
        rule("when: {recipient: '*'}, require: {tls: strong}"),
        rule("when: {recipient: '*'}, hold: false"),
        rule("when: {recipient: '*'}, hold: {expires: soon}"),
        rule("when: {recipient: '*'}, do: [{strip: a}]"),
        rule("when: {recipient: '*'}, do: []"),
        rule("when: {recipient: '*'}, hold: true, unknown: strict"),
        "version: 1\nprotection: {tls: none}\n",
        "version: 1\nexceptions: [{to: a.example, rules: [r], tls: encrypted, owner: o, reason: x}]\n",
        "version: 1\nexceptions: [{to: a, rules: [r], tls: none, owner: o, reason: x, until: 2031-12-31}]\n",
        "version: 1\ndetectors: {a: {near: {words: [b]}}}\n",
        "version: 1\ntests: [{name: a, message: {}, expect: {}}]\n",
    ],
)
def test_what_the_schema_refuses_the_readers_refuse_too(text: str) -> None:
    assert faults(text)
    assert parse_policy([document(text)]).faults


@pytest.mark.parametrize("text", ["90s", "15m", "1.5h", "5d", "2w", "500ms"])
def test_a_duration_is_one_in_both(text: str) -> None:
    assert parse_duration(text) > 0
    assert faults(f"version: 1\nprotection: {{fallback_after: {text}}}\n") == []


@pytest.mark.parametrize("text", ["25MB", "64KiB", "1.5GB", "10 MB", "100B"])
def test_a_size_is_one_in_both(text: str) -> None:
    assert parse_size(text) > 0
    assert faults(rule(f"when: {{size: {{over: {text}}}}}, hold: true")) == []


# -- the same words ---------------------------------------------------------------------------------------------------


class Asking(Reader):
    """Notes which keys the readers know at each place."""

    def __init__(self, text: str) -> None:
        super().__init__(parse_document(text.encode(), "p.yaml"))
        self.known: dict[str, set[str]] = {}

    def entries(
        self, node: Node, what: str, known: Collection[str], later: Collection[str] = ()
    ) -> Iterator[tuple[str, Node]]:
        assert self.known.setdefault(what, set(known)) == set(known), what
        return super().entries(node, what, known, later)


#: A text with every mapping of the language.
EVERYTHING = """
version: 1
protection: {tls: verified}
detectors: {mrn: {pattern: MRN, near: {words: [chart]}}}
rules:
  - name: r
    when:
      subject: {tag: a}
      header: {name: a}
      time: {days: mon}
      size: {over: 1MB}
      attachment: {type: pdf}
      content: {unreadable: true}
    require: {tls: verified}
    allow: {methods: pdf}
    hold: {for: a}
    do: [{footer: {text: a}}]
exceptions:
  - {to: a.example, rules: [r], tls: encrypted, owner: o, reason: x, until: 2031-12-31}
tests:
  - {name: t, message: {attachments: [{name: a}]}, recipient: {tls: none}, expect: {rules: [r]}}
"""


def known_to_readers() -> dict[str, set[str]]:
    reader = Asking(EVERYTHING)
    root, scope = reader.document.root, Scope()
    sections = root.mapping or {}
    read_detectors(reader, sections["detectors"], scope)
    read_protection(reader, root, sections["protection"])
    for node in sections["rules"].items or []:
        read_rule(reader, node, scope, {})
    for node in sections["exceptions"].items or []:
        read_exception(reader, node, scope, None)
    for node in sections["tests"].items or []:
        read_case(reader, node, {"r"})
    assert reader.faults == []
    return reader.known


def at(*path: str) -> dict[str, Any]:
    """The part of the schema at this path, below ``properties`` and whatever stands between."""
    part: dict[str, Any] = SCHEMA
    for name in path:
        part = part["$defs"]["condition"] if name == "condition" else part["properties"][name]
        part = part.get("items", part)
        for choice in part.get("anyOf", ()):
            part = choice if "properties" in choice else part
    return part


PLACES = {
    "key of protection": at("protection"),
    "key of a detector": SCHEMA["properties"]["detectors"]["additionalProperties"],
    "key of near": SCHEMA["properties"]["detectors"]["additionalProperties"]["properties"]["near"],
    "key of a rule": at("rules"),
    "condition": at("condition"),
    "subject condition": at("condition", "subject"),
    "key of header": at("condition", "header"),
    "key of time": at("condition", "time"),
    "bound": at("condition", "size"),
    "key of attachment": at("condition", "attachment"),
    "key of content": at("condition", "content"),
    "key of require": at("rules", "require"),
    "key of allow": at("rules", "allow"),
    "key of hold": at("rules", "hold"),
    "action": at("rules", "do"),
    "key of footer": at("rules", "do", "footer"),
    "key of an exception": at("exceptions"),
    "key of a test": at("tests"),
    "key of message": at("tests", "message"),
    "key of an attachment": at("tests", "message", "attachments"),
    "key of recipient": at("tests", "recipient"),
    "key of expect": at("tests", "expect"),
}
KNOWN = known_to_readers()


def test_every_place_of_the_language_is_compared() -> None:
    assert set(KNOWN) == set(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_readers_and_schema_know_the_same_keys(place: str) -> None:
    assert set(PLACES[place]["properties"]) == KNOWN[place]
    assert PLACES[place]["additionalProperties"] is False


def test_readers_and_schema_know_the_same_sections() -> None:
    (fault,) = parse_policy([parse_document(b"version: 1\nx: 1\n", "p.yaml")]).faults
    assert "unknown section" in fault.message
    for name in SCHEMA["properties"]:
        told = parse_policy([parse_document(f"version: 1\n{name}: 1\n".encode(), "p.yaml")]).faults
        assert not any("unknown section" in each.message for each in told), name


def properties(schema: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property anywhere in the schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from properties(part, path)
    elif isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield f"{path}/{name}", part
            yield from properties(part, f"{path}/{name}")
        for name in ("items", "anyOf", "oneOf", "$defs", "condition", "additionalProperties"):
            yield from properties(schema.get(name), path)


def test_every_key_is_explained() -> None:
    found = list(properties(SCHEMA))
    assert len(found) > 80
    assert [path for path, part in found if not part.get("description")] == []
