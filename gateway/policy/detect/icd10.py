"""ICD-10-CM codes: looked up in the published list, because every letter with two digits looks like one."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from functools import cache
from importlib import resources

from gateway.policy.detect.engine import NEVER, NO_MATCH, Program, Spans, View, accepted, in_address, token
from gateway.policy.detect.surroundings import OTHER_THINGS, Context, Label, glued

__all__ = ["GATES", "WIDTH", "code_kind", "icd10", "load_codes"]

WIDTH = 8
"""Bytes of an entry: the code without dot, filled with blanks to 7, then ``b`` (billable) or ``h`` (header)."""

_ICD10 = token(r"(?i:[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4}|[0-9A-Z]{1,4})?)")
_DOTTED = token(r"[A-Z][0-9][0-9A-Z]\.[0-9A-Z]{1,4}")
_WORDS = Program(r"(?i)icd|\bdiagnos|\bdx|\bcomorbid|\bproblem list|\bimpression\b|\bhcc\b|\bcodes?\b")
_CONTEXT = Context(
    Program(
        r"(?i)icd|\bdiagnos|\bdx|\bcomorbid|\bproblem list|\bimpression\b|\bhcc\b"
        r"|(?:^|[^0-9a-z -] ?|\b(?:billing|secondary|primary|principal|procedure|claims?|medical|coded|the|these|with"
        r"|and|use|using|under|following|his|her|their) )codes?\b(?: is| are| was| of)?[ :#=(]*$"
    ),
    before=48,
    after=0,
    carry=16,
)
_CONTEXT_BEHIND = Context(Program(r"(?i)icd|\bdiagnos|\bdx\b"), before=0, after=24, carry=0)
_VERSION = Label(
    Program(
        r"(?i)\b(?:version|ver|v|release|rel|rev|revision|model|firmware|build|section|sec|figure|fig|table|chapter"
        r"|clause|appendix|annex|exhibit|item|part|room|rm|suite|ste|unit|gate|seat|row|bay|rack|page|slide|article"
        r"|paragraph|para|exit|size|route|hwy|highway|control|grade|cell|column|bldg|building|locker|aisle|bin|shelf"
        r"|flight|type|class|series|line|level|zone|stall|step|apt|apartment|postcode|zip|ref|key|note|bolt)"
        r"[ .:#=(]*(?:no\b)?[ .:#=(]*$"
    )
)


def icd10(view: View) -> Spans:
    """Codes of the list: billable ones with their dot by themselves, all others near words of coding."""
    return accepted(_ICD10 if view.has(_WORDS) else _DOTTED, _judge, view)


def _judge(plain: bytes, start: int, end: int, last: int) -> int:
    written = plain[start:end]
    kind = code_kind(written)
    if not kind or glued(plain, start, end) or plain[end : end + 1] in {b"@", b"_"}:
        return NO_MATCH
    if _CONTEXT.near(plain, start, end, last) or _CONTEXT_BEHIND.near(plain, start, end, NEVER):
        return end
    if kind == b"h" or b"." not in written or not written[:1].isupper():
        return NO_MATCH
    before = plain[max(0, start - 2) : start]
    if before[1:] in {b".", b"-", b"_", b"#"} and before[:1].isalnum():
        return NO_MATCH
    labelled = _VERSION.before(plain, start) or OTHER_THINGS.before(plain, start)
    return NO_MATCH if labelled or in_address(plain, start, end) else end


GATES = (_ICD10, _DOTTED, _WORDS)
"""What must be in a text at all for the detector to look closer."""


def code_kind(written: bytes) -> bytes:
    """``b`` for a billable code, ``h`` for one that has codes below it, nothing for what is none. Any case, any dot."""
    wanted = written.upper().replace(b".", b"").ljust(WIDTH - 1)
    codes = load_codes()
    place = bisect_left(_Keys(codes), wanted)
    entry = codes[place * WIDTH : place * WIDTH + WIDTH]
    return entry[-1:] if entry[:-1] == wanted else b""


@cache
def load_codes() -> bytes:
    """The list, sorted: 0.8 MB in one piece, read once (before a fork: shared)."""
    packed = resources.files(__package__).joinpath("data", "icd10cm.zlib").read_bytes()
    return zlib.decompress(packed)


class _Keys:
    """The entries' codes as a sequence for ``bisect``."""

    __slots__ = ("codes",)

    def __init__(self, codes: bytes) -> None:
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes) // WIDTH

    def __getitem__(self, index: int) -> bytes:
        return self.codes[index * WIDTH : index * WIDTH + WIDTH - 1]
