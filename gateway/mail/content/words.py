"""Encoded words in header fields (RFC 2047), read as leniently as mail programs read them.

They are decoded wherever they stand: without white space around them, within quotes, with blanks and line ends
inside, cut in the middle of a character.
"""

from __future__ import annotations

import binascii
import re

from gateway.mail.content.charsets import Readings, read_text
from gateway.mail.content.decoding import from_base64

__all__ = ["decode_words", "header_text"]

_START = re.compile(r"=\?([^?\s]{0,80})\?([bBqQ])\?")


def header_text(value: bytes) -> Readings:
    """The value of a field as text, encoded words left alone: UTF-8 (RFC 6532), else as Latin-1 and in doubt."""
    if b"\r" in value or b"\n" in value:
        value = value.replace(b"\r", b"").replace(b"\n", b"")
    return read_text(value)


def decode_words(text: str) -> Readings:
    """``text`` with its encoded words decoded: one reading, or a second where a charset is in doubt."""
    if "=?" not in text:
        return Readings((text,), "")
    pieces = _pieces(text)
    first: list[str] = []
    second: list[str] = []
    fault = ""
    for charset, content in pieces:
        if isinstance(content, str):
            first.append(content)
            second.append(content)
            continue
        read = read_text(bytes(content), charset.partition("*")[0])  # RFC 2231 section 5: a language after an asterisk
        fault = fault or read.fault
        first.append(read.texts[0])
        second.append(read.texts[-1])
    texts = ("".join(first), "".join(second))
    return Readings(texts if texts[0] != texts[1] else texts[:1], fault)


def _pieces(text: str) -> list[tuple[str, str | bytearray]]:
    """Plain text, and the octets of neighbouring words of one charset together: characters may be cut between them."""
    pieces: list[tuple[str, str | bytearray]] = []
    done = position = 0
    while (start := text.find("=?", position)) >= 0:
        match = _START.match(text, start)
        if match is None:
            position = start + 2
            continue
        end = text.find("?=", match.end())
        if end < 0:
            break
        between = text[done:start]
        charset, octets = match[1].lower(), _octets(match[2], text[match.end() : end])
        last_charset, last = pieces[-1] if pieces else ("", "")
        follows = isinstance(last, bytearray) and not between.strip()
        if between and not follows:
            pieces.append(("", between))
        if follows and isinstance(last, bytearray) and last_charset == charset:
            last += octets
        else:
            pieces.append((charset, bytearray(octets)))
        done = position = end + 2
    if done < len(text):
        pieces.append(("", text[done:]))
    return pieces


def _octets(encoding: str, content: str) -> bytes:
    octets = content.encode("utf-8", "replace")
    if encoding in "bB":
        return from_base64(octets).data
    return binascii.a2b_qp(octets, header=True)
