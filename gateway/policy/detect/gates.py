"""Everything that could interest a built-in detector, as one automaton."""

from __future__ import annotations

from functools import cache

from gateway.policy.detect import clinical, icd10, identity, lexicon, payment
from gateway.policy.detect.engine import Gates

__all__ = ["gates"]


@cache
def gates() -> Gates:
    """The gates of all built-in detectors; made once."""
    return Gates((*identity.GATES, *payment.GATES, *clinical.GATES, *icd10.GATES, lexicon.load_lexicon()))
