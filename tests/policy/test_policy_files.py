"""How a policy is cut into files means nothing: any section in any file, any order of files."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mail.address import Address
from gateway.policy import evaluate
from gateway.policy.parse import parse_policy
from gateway.policy.whole import facts_of
from tests.policy.policy_texts import SHIPPED, document

SENDER, TO = Address.parse("dr@clinic.example"), (Address.parse("pat@isp.example"),)
MESSAGES = [
    b"From: dr@clinic.example\r\nSubject: [secure] x\r\n\r\nhello\r\n",
    b"From: dr@clinic.example\r\nSubject: [secrue] x\r\n\r\nhello\r\n",
    b"From: dr@clinic.example\r\nSubject: results\r\n\r\nSSN 536-22-8726, patient diagnosis E11.9\r\n",
    b"From: dr@clinic.example\r\nSubject: results\r\nContent-Type: text/plain; charset=nowhere\r\n\r\n\xff\r\n",
]


def pieces(policy: dict[str, Any]) -> list[tuple[str, Any]]:
    """The policy in its smallest parts: single rules, exceptions and tests, single groups and detectors."""
    found: list[tuple[str, Any]] = []
    for section, content in policy.items():
        if isinstance(content, list):
            found += [(section, [entry]) for entry in content]
        elif section in {"groups", "detectors"}:
            found += [(section, {name: entry}) for name, entry in content.items()]
        elif section != "version":
            found.append((section, content))
    return found


def as_files(parts: list[tuple[str, Any]], cuts: list[int]) -> list[str]:
    """So many files, each part in the one that its cut says."""
    files: dict[int, dict[str, Any]] = {}
    for (section, content), cut in zip(parts, cuts, strict=True):
        file = files.setdefault(cut, {"version": 1})
        if isinstance(content, list):
            file.setdefault(section, []).extend(content)
        elif section in {"groups", "detectors"}:
            file.setdefault(section, {}).update(content)
        else:
            file[section] = content
    return [yaml.safe_dump(file, sort_keys=False) for file in json.loads(json.dumps([*files.values()]))]  # no anchors


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_cut_into_files_and_their_order_mean_nothing(data: st.DataObject) -> None:
    shipped = data.draw(st.sampled_from(SHIPPED))
    text = shipped.read_text(encoding="utf-8")
    parts = data.draw(st.permutations(pieces(yaml.safe_load(text))))
    cuts = data.draw(st.lists(st.integers(0, 4), min_size=len(parts), max_size=len(parts)))
    files = data.draw(st.permutations(as_files(parts, cuts)))
    whole, cut = parse_policy([document(text)]), parse_policy([document(file) for file in files])
    assert cut.faults == ()
    assert cut.policy.digest == whole.policy.digest
    assert len(cut.cases) == len(whole.cases)
    for message in MESSAGES:
        facts = facts_of(whole.policy, message, sender=SENDER, recipients=TO, time=1_800_000_000.0)
        assert evaluate(cut.policy, facts) == evaluate(whole.policy, facts)
