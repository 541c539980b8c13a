"""Detectors: identifiers and health content in text. Pure, linear in the text, and without state of their own.

1. ``detector``      the face, and ``Scan``: one message at which several detectors look
2. ``engine``        patterns over a view of the text with one byte a character; ``gates``: all of them in one pass
3. ``surroundings``  context words that speak for a number, labels that give it to something else; ``checksums``
4. ``identity``, ``payment``, ``clinical``   one function a detector
5. ``icd10``         codes, looked up in ``data/icd10cm.zlib`` (``build_icd10`` tells how it is made)
6. ``lexicon``       words of health, from ``data/health.txt``
7. ``phi``           both halves in one message
8. ``own``           what a policy defines itself

For policy authors: docs/reference/detectors.md, with precision and recall on the evaluation set in tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.policy.detect import clinical, icd10, identity, lexicon, payment
from gateway.policy.detect.detector import BuiltIn, Detector, Match, Scan
from gateway.policy.detect.engine import MAX_MATCHES
from gateway.policy.detect.gates import gates
from gateway.policy.detect.own import own_detector
from gateway.policy.detect.phi import Together

__all__ = ["BUILT_IN", "HEALTH", "IDENTIFIERS", "MAX_MATCHES", "Detector", "Match", "Scan", "own_detector", "prepare"]

IDENTIFIERS = ("us_ssn", "mbi", "patient_id", "patient_name", "date_of_birth")
"""Who: one half of ``phi``; see there why not telephone numbers and mail addresses."""

HEALTH = ("icd10", "ndc", "health_terms")
"""What about them: the other half."""

_SINGLE = {
    "us_ssn": identity.us_ssn,
    "credit_card": payment.credit_card,
    "pci": payment.credit_card,
    "npi": clinical.npi,
    "mbi": clinical.mbi,
    "dea": clinical.dea,
    "icd10": icd10.icd10,
    "ndc": clinical.ndc,
    "health_terms": lexicon.health_terms,
    "us_phone": identity.us_phone,
    "date_of_birth": identity.date_of_birth,
    "patient_id": identity.patient_id,
    "patient_name": identity.patient_name,
    "us_bank_routing": payment.us_bank_routing,
    "iban": payment.iban,
}
_DETECTORS: dict[str, Detector] = {name: BuiltIn(name, spans) for name, spans in _SINGLE.items()}
_DETECTORS["phi"] = Together(
    "phi", tuple(_DETECTORS[name] for name in IDENTIFIERS), tuple(_DETECTORS[name] for name in HEALTH)
)

BUILT_IN: Mapping[str, Detector] = MappingProxyType(_DETECTORS)
"""The built-in detectors by name. ``pci`` is ``credit_card`` under the name of its standard."""


def prepare() -> None:
    """Compile what every scan needs and load all data now: before a fork, so that the processes share it."""
    icd10.load_codes()
    gates().prepare()
    for program in gates().programs:
        program.prepare()
