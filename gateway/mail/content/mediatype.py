"""Content-Type and Content-Disposition: a value and its parameters (RFC 2045 section 5.1, RFC 2183, RFC 2231).

Parameters are read as leniently as mail programs do: unquoted file names with blanks, encoded words where RFC 2047
forbids them, the same parameter twice or in two notations. So a parameter has every value that some program sees.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.mail.content.charsets import read_text
from gateway.mail.content.words import decode_words, header_text

__all__ = ["Parametrised", "parse"]

_VALUE = re.compile(r"[ \t]*([^;\s(\"]*)")
_COMMON = re.compile(rb"([A-Za-z]+/[A-Za-z0-9.+-]+)(?:;[ \t]*charset=\"?([A-Za-z0-9_-]+)\"?)?")
_PARAMETER = re.compile(
    r"[;\s]*+([^\s=;\"]++)\s*+=\s*+(?:\"((?:[^\"\\]|\\.)*+)\"?+([^;]*+)|([^;]*+))|[;\s]*+[^;]*+", re.DOTALL
)
_SECTION = re.compile(r"([^*]++)(?:\*(\d{1,3}))?(\*)?\Z")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
#: More are no parameters of a mail.
_MAX_PARAMETERS = 500


class Parametrised(NamedTuple):
    """A value in lower case, and its parameters by lower-case name: each with its readings, the likeliest first."""

    value: str
    parameters: dict[str, tuple[str, ...]]
    fault: str

    def first(self, name: str) -> str:
        """The likeliest value of a parameter; "" without one."""
        found = self.parameters.get(name)
        return found[0] if found else ""

    def all(self, *names: str) -> tuple[str, ...]:
        """Every reading of these parameters, without repetition."""
        return tuple(dict.fromkeys(text for name in names for text in self.parameters.get(name, ()) if text))


def parse(raw: bytes) -> Parametrised:
    """The unfolded value of a field, taken apart. Never raises."""
    common = _COMMON.fullmatch(raw)
    if common is not None:
        charset: bytes | None = common[2]
        parameters: dict[str, tuple[str, ...]] = {} if charset is None else {"charset": (charset.decode("ascii"),)}
        return Parametrised(common[1].decode("ascii").lower(), parameters, "")
    read = header_text(raw)
    fault = read.fault
    values: list[str] = []
    found: dict[str, list[str]] = {}
    for text in read.texts:
        value, plain, sections = _scan(text)
        values.append(value)
        for name, parameter in plain:
            if name == "boundary":  # may look like an encoded word and is none
                found.setdefault(name, []).append(parameter)
                continue
            decoded = decode_words(parameter)
            fault = fault or decoded.fault
            found.setdefault(name, []).extend(decoded.texts)
        for name, numbered in sections.items():
            joined, doubt = _join(numbered)
            fault = fault or doubt
            found.setdefault(name, [])[:0] = joined
    return Parametrised(values[0], {name: tuple(dict.fromkeys(texts)) for name, texts in found.items()}, fault)


_Sections = dict[str, dict[int, tuple[str, bool]]]


def _scan(text: str) -> tuple[str, list[tuple[str, str]], _Sections]:
    """The value, the plain parameters, and those of RFC 2231 by number, with whether they are percent-encoded."""
    match = _VALUE.match(text)
    value = "" if match is None else match[1].lower()
    position = text.find(";")
    plain: list[tuple[str, str]] = []
    sections: _Sections = {}
    while 0 <= position < len(text) and len(plain) < _MAX_PARAMETERS:
        match = _PARAMETER.match(text, position)
        if match is None or match.end() == position:
            break
        position = match.end()
        if match[1] is None:
            continue
        name = match[1].lower()
        content = match[4].strip() if match[2] is None else _QUOTED_PAIR.sub(r"\1", match[2])
        section = _SECTION.match(name) if "*" in name else None
        if section is None:
            plain.append((name, content))
        else:
            numbered = sections.setdefault(section[1], {})
            numbered.setdefault(int(section[2] or 0), (content, section[3] is not None))
    return value, plain, sections


def _join(numbered: dict[int, tuple[str, bool]]) -> tuple[tuple[str, ...], str]:
    """The sections of one parameter put together (RFC 2231 section 4.1), in the order of their numbers."""
    octets = bytearray()
    charset = ""
    for place, number in enumerate(sorted(numbered)):
        content, encoded = numbered[number]
        if not encoded:
            octets += content.encode("utf-8", "replace")
            continue
        if place == 0 and content.count("'") >= 2:
            charset, _, content = content.split("'", 2)
        octets += unquote_to_bytes(content.encode("utf-8", "replace"))
    texts: list[str] = []
    fault = ""
    for text in read_text(bytes(octets), charset or "utf-8").texts:
        decoded = decode_words(text)
        fault = fault or decoded.fault
        texts += decoded.texts
    return tuple(texts), fault
