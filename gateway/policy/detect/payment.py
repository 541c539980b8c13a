"""Numbers of payment: cards, US bank routing numbers, IBANs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.policy.detect.checksums import aba_ok, iban_ok, luhn_ok
from gateway.policy.detect.engine import NO_MATCH, Program, Spans, View, accepted, digits_of, in_address, token
from gateway.policy.detect.surroundings import OTHER_THINGS, PHONE_LABEL, Context, Label, glued

__all__ = ["GATES", "credit_card", "iban", "us_bank_routing"]

# -- cards ------------------------------------------------------------------------------------------------------------

_GAP = r" ?[-. ] ?"
_CARD = token(
    r"[2-68][0-9]{12,18}"
    rf"|[2-68][0-9]{{3}}(?:{_GAP}[0-9]{{4}}){{3}}(?:{_GAP}[0-9]{{1,3}})?"
    rf"|3[0-9]{{3}}{_GAP}[0-9]{{6}}{_GAP}[0-9]{{4,5}}"
    rf"|3[0-9]{{3}}(?:{_GAP}[0-9]{{4}}){{2}}{_GAP}[0-9]{{2,3}}"
    rf"|4[0-9]{{3}}(?:{_GAP}[0-9]{{3}}){{3}}"
    rf"|[2-68][0-9]{{7}}{_GAP}[0-9]{{8}}|[56][0-9]{{5}}{_GAP}[0-9]{{10,13}}"
)
_CARD_WORDS = Context(
    Program(
        r"(?i)\bcards?\b|\bvisa\b|master ?card|\bamex\b|american express|\bdiscover\b|\bdiners\b|\bjcb\b|\bmaestro\b"
        r"|union ?pay|\bcredit\b|\bdebit\b|\bcc ?#|\bccn?\b|\bcvv|\bcvc|\bpan\b|\bexp(?:iry|ires|iration|\.|:| date)"
        r"|\btarjeta"
    )
)
# Issuer ranges by their first six digits, with the lengths in use (ISO/IEC 7812; what the schemes publish).
_ISSUERS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (400000, 499999, (13, 16, 19)),  # Visa
    (510000, 559999, (16,)),  # Mastercard
    (222100, 272099, (16,)),
    (340000, 349999, (15,)),  # American Express
    (370000, 379999, (15,)),
    (601100, 601199, (16, 19)),  # Discover
    (622126, 622925, (16, 17, 18, 19)),
    (644000, 659999, (16, 19)),
    (300000, 305999, (14, 16)),  # Diners Club
    (309500, 309599, (14, 16)),
    (360000, 369999, (14, 16, 19)),
    (380000, 399999, (14, 16, 19)),
    (352800, 358999, (16, 17, 18, 19)),  # JCB
    (620000, 629999, (16, 17, 18, 19)),  # UnionPay
    (810000, 817199, (16, 17, 18, 19)),
    (501800, 501899, (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (502000, 502099, (13, 14, 15, 16, 17, 18, 19)),
    (503800, 503899, (13, 14, 15, 16, 17, 18, 19)),
    (589300, 589399, (13, 14, 15, 16, 17, 18, 19)),
    (630400, 630499, (13, 14, 15, 16, 17, 18, 19)),
    (675900, 675999, (13, 14, 15, 16, 17, 18, 19)),
    (676100, 676399, (13, 14, 15, 16, 17, 18, 19)),
)


def credit_card(view: View) -> Spans:
    """13 to 19 digits of a known issuer and length, with the Luhn digit."""
    return accepted(_CARD, _judge_card, view)


def _judge_card(plain: bytes, start: int, end: int, last: int) -> int:
    stop = _card_end(plain, start, end)
    if stop == NO_MATCH or glued(plain, start, stop) or plain[stop : stop + 1] == b"@":
        return NO_MATCH
    if _CARD_WORDS.near(plain, start, stop, last):
        return stop
    length = len(digits_of(plain, start, stop))
    if length == stop - start and length in {13, 17, 18, 19}:
        return NO_MATCH  # in one piece: article numbers, clocks in milliseconds, keys of databases
    if _in_number_table(plain, start, stop) or OTHER_THINGS.before(plain, start) or in_address(plain, start, stop):
        return NO_MATCH
    return stop


def _card_end(plain: bytes, start: int, end: int) -> int:
    """Where the card number ends: a last short group may be a security code that follows it."""
    if _card_ok(digits_of(plain, start, end)):
        return end
    group = len(plain[start:end]) - len(plain[start:end].rstrip(b"0123456789"))
    if group < 4:
        shorter = start + len(plain[start : end - group].rstrip(b" -."))
        if _card_ok(digits_of(plain, start, shorter)):
            return shorter
    return NO_MATCH


def _card_ok(digits: bytes) -> bool:
    if len(digits) < 13 or len(set(digits)) == 1 or not luhn_ok(digits):
        return False
    issuer = int(digits[:6])
    return any(low <= issuer <= high and len(digits) in lengths for low, high, lengths in _ISSUERS)


_FOUR_BEFORE = Program(r"(?:^|[^0-9])[0-9]{4}[ .]$")
_FOUR_AFTER = Program(r"^[ .][0-9]{4}(?:$|[^0-9])")


def _in_number_table(plain: bytes, start: int, end: int) -> bool:
    """Whether the groups go on before or behind: a table of numbers - unless what follows is a card number too."""
    if _FOUR_BEFORE.within(plain, start - 6, start):
        return not _card_ok(digits_of(plain, max(0, start - 20), start))
    return _FOUR_AFTER.within(plain, end, end + 6) and not _card_ok(digits_of(plain, end + 1, end + 20))


# -- routing numbers --------------------------------------------------------------------------------------------------

_ROUTING = token(r"[0-9]{9}|[0-9]{4}[- ][0-9]{4}[- ][0-9]")
_ROUTING_WORDS = Context(
    Program(
        r"(?i)\brouting\b|\brtg\b|\baba\b|\brtn\b|\btransit\b|\bwire\b|\bach\b|direct deposit|\bbank\b|\bchecking\b"
    )
)
_NOT_ROUTING = Label(
    Program(
        r"(?i)\b(?:ssn|social security(?: number)?|account|acct|checking|savings)(?: ?(?:no|number|num|#)\b)?[ .:#=]*$"
    )
)


def us_bank_routing(view: View) -> Spans:
    """Nine digits with the ABA check digit and a Federal Reserve prefix, near words of banking."""
    return accepted(_ROUTING, _judge_routing, view) if view.has(_ROUTING_WORDS.words) else iter(())


def _judge_routing(plain: bytes, start: int, end: int, last: int) -> int:
    digits = digits_of(plain, start, end)
    prefix = int(digits[:2])
    if not (prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80):
        return NO_MATCH
    if not aba_ok(digits) or digits == b"000000000" or glued(plain, start, end):
        return NO_MATCH
    labelled = (
        _NOT_ROUTING.before(plain, start) or OTHER_THINGS.before(plain, start) or PHONE_LABEL.before(plain, start)
    )
    return end if not labelled and _ROUTING_WORDS.near(plain, start, end, last) else NO_MATCH


# -- IBAN -------------------------------------------------------------------------------------------------------------

_IBAN = token(r"(?i:[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?)")
# Country and length, from the SWIFT registry of ISO 13616.
_IBAN_LENGTHS: Mapping[str, int] = MappingProxyType(
    {
        country: length
        for length, countries in {
            15: "NO",
            16: "BE",
            18: "DK FI FK FO GL NL SD",
            19: "MK SI",
            20: "AT BA EE KZ LT LU MN XK",
            21: "CH HR LI LV",
            22: "BG BH CR DE GB GE IE ME RS VA",
            23: "AE GI IL IQ OM SO TL",
            24: "AD CZ ES MD PK RO SA SE SK TN VG",
            25: "LY PT ST",
            26: "IS TR",
            27: "BI DJ FR GR IT MC MR SM",
            28: "AL AZ BY CY DO GT HU LB NI PL SV",
            29: "BR EG PS QA UA",
            30: "JO KW MU YE",
            31: "MT SC",
            32: "LC",
            33: "RU",
        }.items()
        for country in countries.split()
    }
)


def iban(view: View) -> Spans:
    """Country, two check digits (mod 97) and as many characters as that country's IBANs have."""
    return accepted(_IBAN, _judge_iban, view)


def _judge_iban(plain: bytes, start: int, end: int, last: int) -> int:  # noqa: ARG001  # a judge's face
    length = _IBAN_LENGTHS.get(plain[start : start + 2].decode("latin-1").upper())
    if length is None:
        return NO_MATCH
    compact = bytearray()
    stop = start
    while stop < end and len(compact) < length:
        if plain[stop : stop + 1].isalnum():
            compact.append(plain[stop])
        stop += 1
    if len(compact) < length or plain[stop : stop + 1].isalnum():
        return NO_MATCH
    return stop if iban_ok(bytes(compact).upper()) else NO_MATCH


GATES = (_CARD, _ROUTING, _ROUTING_WORDS.words, _IBAN)
"""What must be in a text at all for these detectors to look closer."""
