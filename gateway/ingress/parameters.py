"""The arguments of MAIL and RCPT, parsed by us and without any I/O.

RFC 5321 section 4.1.2 (paths; source routes of appendix C are accepted and ignored), SIZE RFC 1870, BODY RFC 6152,
SMTPUTF8 RFC 6531, RET, ENVID, NOTIFY, ORCPT RFC 3461, AUTH= RFC 4954 section 5. REQUIRETLS (RFC 8689) is not offered,
so it is refused: a promise that is not kept would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import Refusal
from gateway.ingress.refusals import Reason, refusal
from gateway.mail.address import Address, AddressError
from gateway.mail.envelope import Notify

__all__ = ["MailParameters", "RcptParameters", "parse_mail", "parse_rcpt", "unxtext"]

# A path: either quoted strings, in which anything may stand, or no space and no angle bracket (RFC 5321 section 4.1.2).
_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^<>" ])*)>(?: +(.*))?\Z', re.DOTALL)
_ROUTE = re.compile(r"@[A-Za-z0-9.\[\]:-]+(?:,@[A-Za-z0-9.\[\]:-]+)*:")
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*\Z")
_VALUE = re.compile(r"[!-<>-~\u0080-\U0010ffff]+\Z")  # esmtp-value: no space, no "=", no controls
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")  # RFC 3461 section 4
_ORCPT_TYPE = re.compile(r"[A-Za-z0-9-]+\Z")
_MAX_ENVID = 100  # RFC 3461 section 4.4
_MAX_ORCPT = 500  # RFC 3461 section 4.2, before decoding
_MAX_DIGITS = 20  # RFC 1870 section 4


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What MAIL said. ``sender`` is None for ``<>``; ``size`` is 0 where none was declared; ``envid`` is decoded."""

    sender: Address | None
    size: int = 0
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class RcptParameters:
    """What RCPT said. ``orcpt`` is decoded, ``type;address``."""

    address: Address
    notify: frozenset[Notify] = frozenset()
    orcpt: str = ""


def parse_mail(argument: str, *, extended: bool = True) -> MailParameters:
    """The argument of MAIL. Raises :class:`gateway.errors.Refusal`."""
    path, pairs = _split(argument, "FROM", extended=extended)
    size, body, smtputf8, ret, envid = 0, "", False, "", ""
    for keyword, value in pairs:
        match keyword:
            case "SIZE":
                size = _size(value)
            case "BODY":
                body = _one_of(keyword, value, ("7BIT", "8BITMIME"))
            case "SMTPUTF8":
                if value is not None:
                    raise _malformed("SMTPUTF8 takes no value")
                smtputf8 = True
            case "RET":
                ret = _one_of(keyword, value, ("FULL", "HDRS"))
            case "ENVID":
                envid = _envid(value)
            case "AUTH":
                # Who submitted the mail first; we do not pass it on, so its syntax is all that matters.
                _auth(value)
            case _:
                raise _unknown(keyword)
    sender = None if path == "" else _address(path, smtputf8=smtputf8, enhanced="5.1.7")
    return MailParameters(sender, size, body, smtputf8, ret, envid)


def parse_rcpt(argument: str, hostname: str, *, extended: bool = True, smtputf8: bool = False) -> RcptParameters:
    """The argument of RCPT; ``<Postmaster>`` is that of ``hostname`` (RFC 5321 section 4.1.1.3).

    Raises :class:`gateway.errors.Refusal`.
    """
    path, pairs = _split(argument, "TO", extended=extended)
    notify: frozenset[Notify] = frozenset()
    orcpt = ""
    for keyword, value in pairs:
        match keyword:
            case "NOTIFY":
                notify = _notify(value)
            case "ORCPT":
                orcpt = _orcpt(value, smtputf8=smtputf8)
            case _:
                raise _unknown(keyword)
    if not path:
        raise refusal(501, "5.1.3", "A recipient cannot be empty", Reason.SYNTAX)
    if path.lower() == "postmaster":
        path = f"postmaster@{hostname}"
    return RcptParameters(_address(path, smtputf8=smtputf8, enhanced="5.1.3"), notify, orcpt)


def unxtext(text: str) -> str:
    """Decode xtext (RFC 3461 section 4); raises ``ValueError`` for what is not, or decodes to no printable ASCII."""
    if not _XTEXT.match(text):
        raise ValueError("not xtext")
    decoded = re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match.group(1), 16)), text)
    if not decoded.isascii() or not decoded.isprintable():
        raise ValueError("holds characters that are not printable ASCII")
    return decoded


def _malformed(text: str) -> Refusal:
    return refusal(501, "5.5.4", text, Reason.SYNTAX)


def _unknown(keyword: str) -> Refusal:
    return refusal(555, "5.5.4", f"Parameter {keyword} is not offered here", Reason.SYNTAX)


def _split(argument: str, verb: str, *, extended: bool) -> tuple[str, list[tuple[str, str | None]]]:
    """The path without its brackets and route, and the parameters with upper-case keywords."""
    command = {"FROM": "MAIL", "TO": "RCPT"}[verb]
    syntax = f"Syntax: {command} {verb}:<address>" + (" [parameters]" if extended else "")
    head, colon, rest = argument.partition(":")
    # Spaces around the colon are wrong, but old clients of good faith send them behind it.
    if not colon or head.upper() != verb:
        raise refusal(501, "5.5.4", syntax, Reason.SYNTAX)
    match = _PATH.match(rest.strip(" "))
    if match is None:
        raise refusal(501, "5.5.4", syntax, Reason.SYNTAX)
    path, tail = match.group(1), match.group(2) or ""
    route = _ROUTE.match(path)
    if route is not None:
        path = path[route.end() :]
        if not path:  # a way to nobody is not the null path
            raise refusal(501, "5.5.4", syntax, Reason.SYNTAX)
    if tail and not extended:
        raise refusal(501, "5.5.4", "Parameters need EHLO", Reason.SYNTAX)
    return path, _pairs(tail)


def _pairs(tail: str) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    seen: set[str] = set()
    for word in tail.split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if not _KEYWORD.match(keyword) or (equals and not _VALUE.match(value)):
            raise _malformed("A parameter is malformed")
        if keyword in seen:
            raise _malformed(f"Parameter {keyword} is given twice")
        seen.add(keyword)
        pairs.append((keyword, value if equals else None))
    return pairs


def _address(path: str, *, smtputf8: bool, enhanced: str) -> Address:
    try:
        return Address.parse(path, smtputf8=smtputf8)
    except AddressError as error:
        # Its messages can quote a piece of the address; only ASCII may go into a reply without SMTPUTF8.
        text = str(error).encode("ascii", "backslashreplace").decode("ascii")
        code = 553 if not path.isascii() and not smtputf8 else 501
        status = "5.6.7" if code == 553 else enhanced
        raise refusal(code, status, f"Address is not valid: {text[:200]}", Reason.SYNTAX) from None


def _size(value: str | None) -> int:
    if value is None or len(value) > _MAX_DIGITS or not (value.isascii() and value.isdigit()):
        raise _malformed("SIZE needs a number of bytes")
    return int(value)


def _one_of(keyword: str, value: str | None, allowed: tuple[str, ...]) -> str:
    found = (value or "").upper()
    if found not in allowed:
        raise _malformed(f"{keyword} can be {' or '.join(allowed)}")
    return found


def _envid(value: str | None) -> str:
    if value is None or len(value) > _MAX_ENVID:
        raise _malformed("ENVID needs a value of at most 100 characters")
    return _decoded("ENVID", unxtext, value)


def _auth(value: str | None) -> None:
    if value is None:
        raise _malformed("AUTH needs a value")
    _decoded("AUTH", unxtext, value)


def _decoded(keyword: str, decode: Callable[[str], str], value: str) -> str:
    try:
        return decode(value)
    except ValueError as error:
        raise _malformed(f"{keyword}: {error}") from None


def _notify(value: str | None) -> frozenset[Notify]:
    words = (value or "").upper().split(",")
    try:
        notify = frozenset(Notify(word) for word in words)
    except ValueError:
        raise _malformed("NOTIFY can be NEVER, or a list of SUCCESS, FAILURE, DELAY") from None
    if Notify.NEVER in notify and len(notify) > 1:
        raise _malformed("NOTIFY=NEVER stands alone")
    return notify


def _orcpt(value: str | None, *, smtputf8: bool) -> str:
    kind, semicolon, address = (value or "").partition(";")
    if not semicolon or not _ORCPT_TYPE.match(kind) or not address or len(address) > _MAX_ORCPT:
        raise _malformed("ORCPT needs type;address")
    if kind.lower() == "utf-8":
        # RFC 6533 section 3: UTF-8 as it is, or \x{HEX}; both only within SMTPUTF8. Kept as written.
        if not address.isprintable() or not (smtputf8 or address.isascii()):
            raise _malformed("ORCPT holds characters that are not allowed")
        return f"{kind};{address}"
    return f"{kind};{_decoded('ORCPT', unxtext, address)}"
