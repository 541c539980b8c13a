"""Numbers of health care: Medicare beneficiaries, providers, prescribers, drugs."""

from __future__ import annotations

from gateway.policy.detect.checksums import dea_ok, luhn_ok
from gateway.policy.detect.engine import NO_MATCH, Program, Spans, View, accepted, digits_of, in_address, token
from gateway.policy.detect.surroundings import OTHER_THINGS, PHONE_LABEL, Context, glued, glued_in_front

__all__ = ["GATES", "dea", "mbi", "ndc", "npi"]

# -- Medicare Beneficiary Identifier ----------------------------------------------------------------------------------

_A = "[AC-HJKMNP-RT-Yac-hjkmnp-rt-y]"  # CMS leaves out S, L, O, I, B and Z
_AN = "[0-9AC-HJKMNP-RT-Yac-hjkmnp-rt-y]"
_MBI = token(rf"[1-9]{_A}{_AN}[0-9](?: ?- ?| )?{_A}{_AN}[0-9](?: ?- ?| )?{_A}{{2}}[0-9]{{2}}")
_MBI_WORDS = Context(Program(r"(?i)\bmbi\b|medicare|beneficiary|\bhicn?\b|\bmember\b|\bsubscriber\b"))


def mbi(view: View) -> Spans:
    """Eleven characters in the order that CMS gives, in one case, 4-3-4 with dashes or blanks or in one piece."""
    return accepted(_MBI, _judge_mbi, view)


def _judge_mbi(plain: bytes, start: int, end: int, last: int) -> int:
    written = plain[start:end]
    if not (written.isupper() or written.islower()) or glued(plain, start, end):
        return NO_MATCH
    if _MBI_WORDS.near(plain, start, end, last):
        return end
    if b" " in written or in_address(plain, start, end) or OTHER_THINGS.before(plain, start):
        return NO_MATCH
    return end


# -- National Provider Identifier -------------------------------------------------------------------------------------

_NPI = token(r"[12][0-9]{9}|[12][0-9]{3}[- ][0-9]{3}[- ][0-9]{3}")
_NPI_WORDS = Context(
    Program(
        r"(?i)\bnpis?\b|national provider|\bproviders?\b|\bnppes\b|\bprescribers?\b|\bphysicians?\b|\brendering\b"
        r"|\breferring\b|\btaxonomy\b|\bpractitioner\b"
    )
)
_LUHN_OF_80840 = 24  # the card issuer prefix of health applications in the US, which is not written


def npi(view: View) -> Spans:
    """Ten digits beginning with 1 or 2, the Luhn digit over 80840 and them, near words of providers."""
    return accepted(_NPI, _judge_npi, view) if view.has(_NPI_WORDS.words) else iter(())


def _judge_npi(plain: bytes, start: int, end: int, last: int) -> int:
    if not luhn_ok(digits_of(plain, start, end), _LUHN_OF_80840) or glued(plain, start, end):
        return NO_MATCH
    if PHONE_LABEL.before(plain, start) or OTHER_THINGS.before(plain, start) or in_address(plain, start, end):
        return NO_MATCH
    return end if _NPI_WORDS.near(plain, start, end, last) else NO_MATCH


# -- DEA registration -------------------------------------------------------------------------------------------------

_DEA = token(r"(?i:[A-HJ-MPRSTUX][A-Z9][- ]?[0-9]{7})")
_DEA_WORDS = Context(
    Program(
        r"(?i)\bdea\b|\bprescri|\bcontrolled substance|\bregistrant|\bpharmac|\bnarcotic|\bschedule i|\bsuboxone"
        r"|\bbuprenorphine|\bnpi\b|\blicense"
    )
)
_PRACTITIONERS = b"ABFGM"  # what almost all registrations begin with


def dea(view: View) -> Spans:
    """Registrant type, a letter or 9, and seven digits of which the last one checks."""
    return accepted(_DEA, _judge_dea, view)


def _judge_dea(plain: bytes, start: int, end: int, last: int) -> int:
    if not dea_ok(digits_of(plain, end - 7, end)) or glued_in_front(plain, start):
        return NO_MATCH  # behind it, hospitals add a number of their own: -001
    if _DEA_WORDS.near(plain, start, end, last):
        return end
    bare = end - start == 9 and plain[start] in _PRACTITIONERS and plain[start : start + 2].isupper()
    if not bare or OTHER_THINGS.before(plain, start) or in_address(plain, start, end):
        return NO_MATCH
    return end


# -- National Drug Code -----------------------------------------------------------------------------------------------

_NDC = token(r"[0-9]{4}-[0-9]{4}-[0-9]{2}|[0-9]{5}-[0-9]{3,4}-[0-9]{2}|[0-9]{5}-[0-9]{4}-[0-9]|[0-9]{10,11}")
_NDC_WORDS = Context(
    Program(
        r"(?i)\bndcs?\b|\bdrug|\brx\b|\bmedication|\btabs?\b|\btablet|\bcaps?\b|\bcapsule|\bmg\b|\bmcg\b|\bpharmac"
        r"|\bdispens|\bprescri|\bvial|\binject|\brefill"
    )
)
_NDC_LABEL = Context(Program(r"(?i)\bndcs?[ -]?(?:11|10)?[ .:#=-]*(?:code|no|number|is)?[ .:#=-]*$"), 20, 0, 12)


def ndc(view: View) -> Spans:
    """Labeler, product and package: 4-4-2, 5-3-2, 5-4-1 or 5-4-2 digits, near words of drugs."""
    return accepted(_NDC, _judge_ndc, view) if view.has(_NDC_WORDS.words) else iter(())


def _judge_ndc(plain: bytes, start: int, end: int, last: int) -> int:
    if glued(plain, start, end):
        return NO_MATCH
    context = _NDC_WORDS if b"-" in plain[start:end] else _NDC_LABEL
    return end if context.near(plain, start, end, last) else NO_MATCH


GATES = (_MBI, _NPI, _NPI_WORDS.words, _DEA, _NDC, _NDC_WORDS.words)
"""What must be in a text at all for these detectors to look closer."""
