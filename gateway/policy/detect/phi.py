"""Protected health information: somebody, together with something about their health, in one message.

HIPAA (45 CFR 160.103) protects health information that can be tied to a person. Neither half alone says so: a Social
Security number in a letter of the tax office is none, a leaflet about diabetes is none. So both must be there, in any
of the message's texts: a name in the subject and a diagnosis in the body are a pair.

``IDENTIFIERS``: Social Security and Medicare numbers, labelled numbers of patients and members, labelled names of
patients, dates of birth. Of the other identifiers that 45 CFR 164.514(b)(2) lists, telephone numbers and mail addresses
are left out, since every business mail carries its sender's own; so are provider numbers (NPI, DEA), which say who
treats, not who is treated, and cards and accounts, which have rules of their own.

``HEALTH``: ICD-10-CM codes, drug codes, and words of the lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.policy.detect.detector import Detector, Match, Scan, Shared, edition

__all__ = ["Together"]


@dataclass(frozen=True, slots=True)
class Together(Shared):
    """What several detectors find, where at least one of ``who`` and one of ``what`` find something in the message."""

    name: str
    who: tuple[Detector, ...]
    what: tuple[Detector, ...]

    def find(self, text: str) -> list[Match]:
        """See ``Detector``."""
        return self.find_in_message([text])[0]

    def find_in_message(self, texts: Sequence[str]) -> list[list[Match]]:
        """See ``Detector``; the two halves may stand in different texts."""
        return self.find_in(Scan(texts))

    def find_in(self, scan: Scan) -> list[list[Match]]:
        """See ``Shared``."""
        if not any(scan.has(part) for part in self.who) or not any(scan.has(part) for part in self.what):
            return scan.nothing
        found = [scan.matches(part) for part in (*self.who, *self.what)]
        return [_joined([match for matches in found for match in matches[index]]) for index in range(len(scan.texts))]

    def canonical(self) -> Any:
        """The name and the edition of the whole package."""
        return {"detector": self.name, "edition": edition()}


def _joined(matches: list[Match]) -> list[Match]:
    """In order; those that overlap as one."""
    joined: list[Match] = []
    for match in sorted(matches, key=lambda match: (match.start, match.end)):
        if joined and match.start < joined[-1].end:
            joined[-1] = Match(joined[-1].start, max(joined[-1].end, match.end))
        else:
            joined.append(match)
    return joined
