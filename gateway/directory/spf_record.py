"""SPF records as values: one TXT string to its terms, and the macros in them (RFC 7208 sections 4.6, 5, 6, 7).

Pure: nothing is looked up here. A fault anywhere in a record is a fault of the whole of it (section 4.6).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["Address", "Network", "SpfSyntaxError", "SpfTerm", "SpfTerms", "expand", "is_spf", "parse_spf"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MODIFIER = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9._-]*)=(?P<value>.*)\Z", re.DOTALL)
_DIRECTIVE = re.compile(r"(?P<qualifier>[+?~-]?)(?P<name>[A-Za-z0-9]+)(?P<rest>(?:[:/].*)?)\Z", re.DOTALL)
_CIDR = re.compile(r"(?P<name>.*?)(?:/(?P<four>0|[1-9]\d?))?(?://(?P<six>0|[1-9]\d{0,2}))?\Z", re.DOTALL)
_MACRO = re.compile(r"%\{(?P<letter>[slodiphcrtvSLODIPHCRTV])(?P<keep>\d*)(?P<reverse>[rR]?)(?P<cuts>[.+,/_=-]*)\}")
_ESCAPE = {"%%": "%", "%_": " ", "%-": "%20"}
_LITERAL = re.compile(r"[\x21-\x24\x26-\x7e]+")
_TOP = re.compile(r"\.(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?\Z")
_LONGEST_NAME = 253


class SpfSyntaxError(ValueError):
    """The record cannot be read; the message quotes the term."""


@dataclass(frozen=True, slots=True)
class SpfTerm:
    """One mechanism. ``qualifier``: ``+ - ~ ?``; ``name`` in lower case; ``text``: as it is written.

    ``target``: the name behind the colon, macros unexpanded, "" where there is none. ``network``: of ``ip4`` and
    ``ip6``. ``cidr4`` and ``cidr6``: prefix lengths for what ``a`` and ``mx`` find.
    """

    qualifier: str
    name: str
    text: str
    target: str = ""
    network: Network | None = None
    cidr4: int = 32
    cidr6: int = 128


@dataclass(frozen=True, slots=True)
class SpfTerms:
    """A record: its mechanisms in order, and where ``redirect`` leads ("" for nowhere)."""

    mechanisms: tuple[SpfTerm, ...]
    redirect: str = ""


def is_spf(text: bytes) -> bool:
    """Whether a TXT string is an SPF record: its version stands alone (section 4.5)."""
    return text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")


def parse_spf(text: bytes) -> SpfTerms:
    """The terms of a record. Raises :class:`SpfSyntaxError`."""
    try:
        words = text.decode("ascii").split(" ")[1:]
    except UnicodeDecodeError:
        raise SpfSyntaxError("the record holds bytes that are not ASCII") from None
    mechanisms: list[SpfTerm] = []
    modifiers: dict[str, str] = {}
    for word in filter(None, words):
        modifier = _MODIFIER.match(word)
        if modifier is None:
            mechanisms.append(_mechanism(word))
            continue
        name, value = modifier["name"].lower(), modifier["value"]
        if name in modifiers and name in ("redirect", "exp"):
            raise SpfSyntaxError(f"{name}= stands there twice")
        if name in ("redirect", "exp"):
            _require_domain(value, word)
        else:
            _require_macros(value, word)
        modifiers[name] = value
    return SpfTerms(tuple(mechanisms), modifiers.get("redirect", ""))


def _mechanism(word: str) -> SpfTerm:
    match = _DIRECTIVE.match(word)
    if match is None:
        raise SpfSyntaxError(f"{word!r} is no term")
    name, rest, qualifier = match["name"].lower(), match["rest"], match["qualifier"] or "+"
    if name == "all" and not rest:
        return SpfTerm(qualifier, name, word)
    if name in ("ip4", "ip6"):
        return SpfTerm(qualifier, name, word, network=_network(name, rest, word))
    if name in ("include", "exists", "ptr") and (rest or name == "ptr"):
        if rest:
            _require_domain(rest[1:] if rest[0] == ":" else "", word)
        return SpfTerm(qualifier, name, word, target=rest[1:])
    if name in ("a", "mx"):
        return _with_prefix(qualifier, name, rest, word)
    raise SpfSyntaxError(f"{word!r} is no mechanism")


def _with_prefix(qualifier: str, name: str, rest: str, word: str) -> SpfTerm:
    match = _CIDR.match(rest)
    assert match is not None
    target = match["name"]
    if target:
        _require_domain(target[1:] if target[0] == ":" else "", word)
    four, six = int(match["four"] or 32), int(match["six"] or 128)
    if four > 32 or six > 128:
        raise SpfSyntaxError(f"{word!r} has a prefix that is too long")
    return SpfTerm(qualifier, name, word, target=target[1:], cidr4=four, cidr6=six)


def _network(name: str, rest: str, word: str) -> Network:
    text, slash, prefix = rest[1:].partition("/")
    if rest[:1] == ":" and (not slash or re.fullmatch(r"0|[1-9]\d{0,2}", prefix)):
        try:
            made = ipaddress.ip_network(f"{text}{slash}{prefix}", strict=False)
        except ValueError:
            made = None
        if made is not None and made.version == int(name[2]) and "%" not in text:
            return made
    raise SpfSyntaxError(f"{word!r} names no network")


def _require_macros(text: str, word: str) -> None:
    position = 0
    while position < len(text):
        if text[position : position + 2] in _ESCAPE:
            position += 2
            continue
        match = _MACRO.match(text, position) or _LITERAL.match(text, position)
        if match is None or (match.re is _MACRO and match["keep"] and int(match["keep"]) == 0):
            raise SpfSyntaxError(f"{word!r} has a macro that is none")
        position = match.end()


def _require_domain(text: str, word: str) -> None:
    """A domain-spec (section 7.1): macros and text that end in a top label or in a macro."""
    _require_macros(text, word)
    if re.search(r"%\{[crtCRT]", text):
        raise SpfSyntaxError(f"{word!r} has a macro that belongs into explanations only")
    if not (text.endswith(("%%", "%_", "%-")) or re.search(r"%\{[^{}]*\}\Z", text) or _TOP.search(text)):
        raise SpfSyntaxError(f"{word!r} names no domain")


def expand(target: str, *, domain: str, address: Address, sender: tuple[str, str], helo: str) -> str:
    """``target`` with its macros filled in (section 7.3), cut from the left to what DNS takes.

    ``sender``: local part and domain. ``%{p}`` is "unknown", which section 7.3 allows: nobody should use it.
    """
    values = {
        "s": "@".join(sender),
        "l": sender[0],
        "o": sender[1],
        "d": domain,
        "i": _dotted(address),
        "p": "unknown",
        "v": "in-addr" if address.version == 4 else "ip6",
        "h": helo,
    }

    def filled(match: re.Match[str]) -> str:
        parts = re.split("[" + re.escape(match["cuts"] or ".") + "]", values[match["letter"].lower()])
        if match["reverse"]:
            parts.reverse()
        if match["keep"]:
            parts = parts[-int(match["keep"]) :]
        text = ".".join(parts)
        return quote(text, safe="-._~") if match["letter"].isupper() else text

    pattern = re.compile(f"{_MACRO.pattern}|%[%_-]")
    name = pattern.sub(lambda match: _ESCAPE.get(match[0]) or filled(match), target).removesuffix(".")
    while len(name) > _LONGEST_NAME and "." in name:
        name = name.partition(".")[2]
    return name


def _dotted(address: Address) -> str:
    """IPv4 as it is; IPv6 as 32 nibbles with dots between (section 7.3)."""
    return str(address) if address.version == 4 else ".".join(address.exploded.replace(":", ""))
