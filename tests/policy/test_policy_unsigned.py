"""`gateway check` says whose mail would leave without any DKIM signature, because a rule changes what it covers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.mail.dkim.keys import SigningKey
from gateway.mail.edits import Edits, Footer
from gateway.policy.bundle import load_all
from gateway.policy.unsigned import breaking

KEY = json.dumps(SigningKey.generate("ed25519").pem.decode())
RULES = """version: 1
rules:
  - {name: tag, when: {recipient_domain: x.example}, do: [{prepend_subject: "[Ext]"}]}
  - {name: foot, when: {recipient_domain: y.example}, do: [{footer: "Sent safely"}]}
  - {name: note, when: {recipient_domain: z.example}, do: [{add_header: {name: X-Sent-By, value: gateway}}]}
"""


def told(directory: Path, senders: str, dkim: str = "", rules: str = RULES, stage: str = "enforce") -> list[str]:
    (directory / "policy.yaml").write_text(rules)
    config = directory / "gateway.yaml"
    config.write_text(
        "hostname: gw.clinic.example\npostmaster: ops@clinic.example\npolicies: policy.yaml\nconnectors:\n"
        f"  - {{name: c, accept: {{networks: [10.0.0.0/8]}}, stage: {stage}, senders: {senders}}}\n{dkim}"
    )
    return [str(note) for note in load_all(config).notices if "loses the DKIM" in note.message]


def test_it_names_domains_rules_and_changes_at_their_place(tmp_path: Path) -> None:
    (note,) = told(tmp_path, "[a.example, b.example]", f"dkim: {{b.example: [{{selector: s, key: {KEY}}}]}}\n")
    assert f"{tmp_path / 'gateway.yaml'}:5:" in note
    assert "no key under `dkim` for a.example: mail that a rule changes (foot, tag: footer, prepend_subject)" in note


@pytest.mark.parametrize(
    ("senders", "signed", "expected"),
    [
        ("a.example", "a.example", 0),
        ("a.example", "sub.a.example", 1),
        ('"*.a.example"', "sub.a.example", 0),
        ('"*.a.example"', "b.example", 1),
        ('"*"', "b.example", 0),
    ],
)
def test_a_key_for_what_the_connector_sends_is_enough(tmp_path: Path, senders: str, signed: str, expected: int) -> None:
    assert len(told(tmp_path, senders, f"dkim: {{{signed}: [{{selector: s, key: {KEY}}}]}}\n")) == expected


def test_without_such_changes_or_where_policy_is_not_applied_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert told(tmp_path, '"*"')
    assert not told(tmp_path, "a.example", stage="observe")
    only_note = "version: 1\nrules:\n" + RULES.splitlines()[-1] + "\n"
    assert not told(tmp_path, "a.example", rules=only_note)


@pytest.mark.parametrize(
    ("edits", "kinds"),
    [
        (Edits(), ()),
        (Edits(add_headers=(("X-A", "b"),), remove_headers=frozenset({"x-b"})), ()),
        (Edits(add_headers=(("Reply-To", "a@b.example"),)), ("add_header",)),
        (Edits(remove_headers=frozenset({"message-id"})), ("remove_header",)),
        (
            Edits(strip_tags=frozenset({"x"}), replace_subject="", prepend_subject=("a",), footers=(Footer("f"),)),
            ("strip_tag", "replace_subject", "prepend_subject", "footer"),
        ),
    ],
)
def test_which_changes_usually_break_a_signature(edits: Edits, kinds: tuple[str, ...]) -> None:
    assert breaking(edits) == kinds
