"""Numbers of people: Social Security numbers, telephone numbers, dates of birth, numbers of patients, their names."""

from __future__ import annotations

from gateway.policy.detect.engine import NO_MATCH, Program, Spans, View, accepted, digits_of, in_address, token
from gateway.policy.detect.surroundings import OTHER_THINGS, Context, Label, glued

__all__ = ["GATES", "date_of_birth", "patient_id", "patient_name", "us_phone", "us_ssn"]

# -- Social Security numbers ------------------------------------------------------------------------------------------

_SSN = token(
    r"[0-9]{3} ?[-./_]? ?[0-9]{2} ?[-./_]? ?[0-9]{4}(?:-?[A-DFMTW][0-9]?)?"  # the letter: old Medicare numbers
    r"|[0-9](?: [0-9]){8}"
)
_SSN_STRONG = token(r"[0-9]{3} ?[-.] ?[0-9]{2} ?[-.] ?[0-9]{4}(?:-?[A-DFMTW][0-9]?)?")
_SSN_WORDS = Context(
    Program(
        r"(?i)\bssn|\bss ?#|\bss ?no\b|\bs\.s\.n|\bssan\b|soc(?:ial)?\.? ?sec|\bsocial(?: number| ?#| ?:| is\b)"
        r"|seguro social|\bitin\b|taxpayer id|\btin\b|\bnss\b"
    ),
    before=80,
)
_SSN_SAMPLES = {b"078051120", b"219099999"}  # a wallet insert and an SSA pamphlet: never anybody's, widely printed


def us_ssn(view: View) -> Spans:
    """3-2-4 digits of an area, group and serial that SSA can have given out."""
    return accepted(_SSN if view.has(_SSN_WORDS.words) else _SSN_STRONG, _judge_ssn, view)


def _judge_ssn(plain: bytes, start: int, end: int, last: int) -> int:
    written = plain[start:end]
    digits = digits_of(plain, start, end)[:9]
    if not _ssn_possible(digits) or glued(plain, start, end) or plain[end : end + 1] == b"@":
        return NO_MATCH
    separators = _ssn_separators(written)
    if separators is None:
        return NO_MATCH
    if separators in {b"--", b".."} and (last > start - 60 or not OTHER_THINGS.before(plain, start)):
        return end
    return end if _SSN_WORDS.near(plain, start, end, last) else NO_MATCH


def _ssn_possible(digits: bytes) -> bool:
    area = digits[:3]
    return not (
        area in {b"000", b"666"}
        or area >= b"900"
        or digits[3:5] == b"00"
        or digits[5:9] == b"0000"
        or digits in _SSN_SAMPLES
    )


def _ssn_separators(written: bytes) -> bytes | None:
    """``--``, ``..``, two blanks, nothing - or ``None`` for ``12345-6789``, which is a ZIP code."""
    if written[1:2] == b" " and written[3:4] == b" ":
        return b"  "
    rest = written[3:]
    first = rest[: len(rest) - len(rest.lstrip(b" -./_"))]
    rest = rest[len(first) + 2 :]
    second = rest[: len(rest) - len(rest.lstrip(b" -./_"))]
    if bool(first) != bool(second):
        return None
    return (first.strip() or first[:1]) + (second.strip() or second[:1])


# -- telephone numbers ------------------------------------------------------------------------------------------------

_PHONE = token(r"(?:\+?1 ?[-. ]? ?)?\(?[2-9][0-8][0-9]\)? ?[-./]? ?[2-9][0-9]{2} ?[-. ]? ?[0-9]{4}")
_PHONE_STRONG = token(
    r"\+1 ?[-. ]? ?\(?[2-9][0-8][0-9]\)? ?[-./]? ?[2-9][0-9]{2} ?[-. ]? ?[0-9]{4}"
    r"|(?:1 ?[-. ]? ?)?(?:\([2-9][0-8][0-9]\) ?[-./]?|1?[2-9][0-8][0-9] ?[-.]) ?[2-9][0-9]{2} ?[-. ] ?[0-9]{4}"
)
_PHONE_WORDS = Context(
    Program(r"(?i)\b(?:tel|telephone|phones?|ph|fax|cell|mobile|call|text|dial|reach|contact|whatsapp|sms)\b"),
    before=40,
    after=20,
    carry=30,
)


def us_phone(view: View) -> Spans:
    """Ten digits of the North American Numbering Plan."""
    return accepted(_PHONE if view.has(_PHONE_WORDS.words) else _PHONE_STRONG, _judge_phone, view)


def _judge_phone(plain: bytes, start: int, end: int, last: int) -> int:
    digits = digits_of(plain, start, end)[-10:]
    if digits[1:3] == b"11" or digits[4:6] == b"11" or glued(plain, start, end) or in_address(plain, start, end):
        return NO_MATCH
    written = plain[start:end]
    dotted = written.count(b"-") + written.count(b".") >= 2
    if (b")" in written and b"(" in written) or dotted or plain[start : start + 1] == b"+" or written[:2] == b"1-":
        return NO_MATCH if OTHER_THINGS.before(plain, start) else end
    return end if _PHONE_WORDS.near(plain, start, end, last) else NO_MATCH


# -- dates of birth ---------------------------------------------------------------------------------------------------

_BIRTH = Program(
    r"(?i)(?:^|[^0-9a-z])(d\.? ?o\.? ?b\b\.?|date of birth|birth ?dates?|birth day and year|dobs"
    r"|born(?: on)?|fecha de nacimiento|f\. ?nac)"
)
_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|ene|abr|ago|dic)[a-zé]*\.?"
_DATE = token(
    r"(?:0?[1-9]|1[0-2]) ?[-/. ] ?(?:0?[1-9]|[12][0-9]|3[01]) ?[-/. ] ?(?:1[89][0-9]{2}|20[0-9]{2}|[0-9]{2})"
    r"|(?:0?[1-9]|[12][0-9]|3[01]) ?[-/.] ?(?:0?[1-9]|1[0-2]) ?[-/.] ?(?:1[89][0-9]{2}|20[0-9]{2}|[0-9]{2})"
    r"|(?:1[89][0-9]{2}|20[0-9]{2}) ?[-/.] ?(?:0?[1-9]|1[0-2]) ?[-/.] ?(?:0?[1-9]|[12][0-9]|3[01])"
    r"|(?:1[89][0-9]{2}|20[0-9]{2})(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:1[89][0-9]{2}|20[0-9]{2})"
    rf"|(?i:{_MONTHS}) (?:0?[1-9]|[12][0-9]|3[01])(?i:st|nd|rd|th)?,? ?(?:1[89][0-9]{{2}}|20[0-9]{{2}})"
    rf"|(?:0?[1-9]|[12][0-9]|3[01])(?i:st|nd|rd|th)?[ -](?i:de |of )?(?i:{_MONTHS}),?[ -](?i:de |del )?"
    r"(?:1[89][0-9]{2}|20[0-9]{2}|[0-9]{2})"
)
_BIRTH_REACH = 40
_BIRTH_BEHIND = 24
_LONGEST_DATE = 24


def date_of_birth(view: View) -> Spans:
    """A whole date behind a label of birth, or directly in front of one."""
    if not view.has(_BIRTH):
        return
    plain = view.plain
    position = last = 0
    while (label := _BIRTH.search(plain, position)) is not None:
        position = label[1]
        found = _date_behind(plain, label[1]) or _date_before(plain, label[0], last)
        if found is not None and found[0] >= last:
            last = found[1]
            position = max(position, last)
            yield found


def _date_behind(plain: bytes, start: int) -> tuple[int, int] | None:
    found = _date_in(plain, start - 1, start + _BIRTH_REACH + _LONGEST_DATE)
    return found if found is not None and found[0] <= start + _BIRTH_REACH else None


def _date_before(plain: bytes, end: int, last: int) -> tuple[int, int] | None:
    found = _date_in(plain, max(last, end - _BIRTH_BEHIND), end)
    return found if found is not None and found[1] >= end - 4 else None


def _date_in(plain: bytes, start: int, end: int) -> tuple[int, int] | None:
    found = _DATE.search(plain[start:end])  # a slice: what a search may look at must not grow with the text
    return None if found is None else (found[0] + start, found[1] + start)


# -- patients ---------------------------------------------------------------------------------------------------------

_NUMBER = r"(?: ?(?:no|number|num|nr|id|identification|identifier|acct|account))"
_PATIENT_ID = Program(
    r"(?i:\b(?:mrn|emrn|empi|m\.r\.n\.?|medical record" + _NUMBER + r"?|med\.? rec\.?" + _NUMBER + r"?"
    r"|(?:health|hospital|medical) record" + _NUMBER + r"?"
    r"|(?:chart|patient|pt|member|subscriber|beneficiary|enrollee|insured|medicaid|medicare|health ?plan|encounter)"
    r"(?:'s)?(?: ?#|" + _NUMBER + r"{1,2})))"
    r"(?i:[ .:#=(_-]|\bis\b|\bno\b|\bnumber\b){0,8}([A-Za-z]{0,4}-?[0-9][0-9A-Za-z-]{3,15})(?:$|[^0-9A-Za-z])"
)


def patient_id(view: View) -> Spans:
    """A number that is labelled as that of a medical record, chart, patient, member or subscriber."""
    return accepted(_PATIENT_ID, _judge_patient_id, view)


def _judge_patient_id(plain: bytes, start: int, end: int, last: int) -> int:  # noqa: ARG001  # a judge's face
    return end if len(digits_of(plain, start, end)) >= 4 else NO_MATCH


_WORD = r"[A-ZÀ-ÖØ-Þ][A-Za-zÀ-ÖØ-öø-ÿ'-]+"
_PATIENT_NAME = Program(
    r"(?:\b(?i:patient|pt|member|subscriber|insured|beneficiary|enrollee|claimant)(?i:'s)?"
    r"(?:(?i: (?:full )?name)?(?i: ?[:=] ?| is | - )(?:(?:Mr|Mrs|Ms|Mx|Miss)\.? )?|,? (?:Mr|Mrs|Ms|Mx|Miss)\.? )"
    r"|\bpatient,? |\bPt )"
    rf"({_WORD},? (?:[A-Z]\.? |"
    r"(?:de|la|las|los|del|van|von|der|den|di|da|dos|bin|al|el|y|e) )*"
    rf"{_WORD})(?:$|[^0-9A-Za-zÀ-ÖØ-öø-ÿ])"
)
_NO_NAME = Label(
    Program(
        r"(?i)\b(?:Access|Account|Accounts|Advocate|Advisory|Affairs|Appointment|Billing|Care|Center|Centre|Community"
        r"|Department|Education|Engagement|Experience|Financial|First|Group|Health|Hospital|Id|Information|Is|Medical"
        r"|Monitoring|Name|New|No|Not|Office|Only|Outreach|Please|Portal|Program|Records|Registration|Relations|Rights"
        r"|Safety|Satisfaction|Security|See|Services|Support|Survey|System|Team|The|This|Training|Unknown|Update"
        r"|Verification|Will|Your)\b"
    )
)


def patient_name(view: View) -> Spans:
    """Two or more capitalised words behind ``patient``, ``member``, ``insured`` as a label."""
    return accepted(_PATIENT_NAME, _judge_name, view)


def _judge_name(plain: bytes, start: int, end: int, last: int) -> int:  # noqa: ARG001  # a judge's face
    return NO_MATCH if _NO_NAME.words.within(plain, start, end) else end


GATES = (
    _SSN,
    _SSN_STRONG,
    _SSN_WORDS.words,
    _PHONE,
    _PHONE_STRONG,
    _PHONE_WORDS.words,
    _BIRTH,
    _PATIENT_ID,
    _PATIENT_NAME,
)
"""What must be in a text at all for these detectors to look closer."""
