"""Encoded words (RFC 2047) and folding: a field's text in its pieces, and a new text as a field.

Reading is for changing: each piece knows which characters of the field it stands for, so that what is not changed
stays octet for octet. Writing holds to the RFC: words of at most 75 characters, lines of 78 where that is possible.
"""

from __future__ import annotations

import binascii
import codecs
import re
from base64 import b64encode
from dataclasses import dataclass

from gateway.mail.edits.changes import ONCE

__all__ = ["Piece", "codec_of", "encode_words", "fold_field", "is_foldable", "pieces", "text_of"]

#: RFC 5322 section 2.1.1, less CRLF: what lines should not, and must not, be longer than.
_LINE = 78
_LONGEST_LINE = 998
_LONGEST_WORD = 75
#: Tokens of ASCII that are longer are encoded: they could not be folded.
_LONGEST_TOKEN = 900

_WORD_START = re.compile(r"=\?([^?\s=]{1,80})\?([bBqQ])\?")
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/.,:;@#$%&'(){}[]~^|")
_HEX = re.compile(rb"=([0-9A-Fa-f]{2})")
#: Codecs of Python that are no charsets of mail; some take quadratic time.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters ``start`` to ``end`` of a field's value, and the text that a reader sees for them.

    ``encoding`` is ``q`` or ``b`` for encoded words in ``charset``, "" for plain text and for the white space between
    two encoded words, which nobody sees.
    """

    start: int
    end: int
    text: str
    encoding: str = ""
    charset: str = ""


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    charset: str
    encoding: str
    octets: bytes


def text_of(value: str) -> str:
    """The text that a reader sees for a field's value; octets that cannot be decoded are lone surrogates."""
    return "".join(piece.text for piece in pieces(value))


def pieces(value: str) -> list[Piece]:
    """The pieces of a value, folded or not, in order and without gaps. Takes linear time and never raises."""
    found: list[Piece] = []
    position = 0
    for run in _runs(value):
        if position < run[0].start:
            found.append(_plain(value, position, run[0].start))
        found += _decoded(run)
        position = run[-1].end
    if position < len(value):
        found.append(_plain(value, position, len(value)))
    return found


def _plain(value: str, start: int, end: int) -> Piece:
    return Piece(start, end, value[start:end].replace("\r", "").replace("\n", ""))


def _runs(value: str) -> list[list[_Word]]:
    """Encoded words, those together that nothing but white space stands between."""
    runs: list[list[_Word]] = []
    for word in _words(value):
        if runs and not value[runs[-1][-1].end : word.start].strip():
            runs[-1].append(word)
        else:
            runs.append([word])
    return runs


def _words(value: str) -> list[_Word]:
    words: list[_Word] = []
    position, close, line = 0, -1, -1
    while (match := _WORD_START.search(value, position)) is not None:
        position = match.end()
        if close < position:
            close = value.find("?=", position)
            if close < 0:
                break
        if line < position:
            line = value.find("\n", position)
            line = len(value) if line < 0 else line
        if line < close:
            continue
        octets = _octets(value[position:close], match[2].lower())
        if octets is None:
            continue
        words.append(_Word(match.start(), close + 2, match[1].partition("*")[0], match[2].lower(), octets))
        position = close + 2
    return words


def _octets(encoded: str, encoding: str) -> bytes | None:
    """What an encoded word holds, or None where it is none."""
    try:
        raw = encoded.encode("ascii")
    except UnicodeEncodeError:
        return None
    if encoding == "q":
        return _HEX.sub(lambda match: bytes((int(match[1], 16),)), raw.replace(b"_", b" "))
    try:
        return binascii.a2b_base64(raw.rstrip(b"=") + b"=" * (-len(raw.rstrip(b"=")) % 4))
    except binascii.Error:
        return None


def _decoded(run: list[_Word]) -> list[Piece]:
    """The pieces of words that follow each other; one for several where a character was cut in two."""
    texts = [_decode(word.octets, word.charset) for word in run]
    found: list[Piece] = []
    index = 0
    while index < len(run):
        first = last = index
        text = texts[index]
        while last + 1 < len(run) and run[last + 1].charset.lower() == run[first].charset.lower():
            last += 1
        if last > first and None in texts[first : last + 1]:
            text = _decode(b"".join(word.octets for word in run[first : last + 1]), run[first].charset)
        if text is None or None not in texts[first : last + 1]:
            last, text = first, texts[first]
        if text is None:
            text = run[first].octets.decode("ascii", "surrogateescape")
        found.append(Piece(run[first].start, run[last].end, text, run[first].encoding, run[first].charset))
        if last + 1 < len(run):
            found.append(Piece(run[last].end, run[last + 1].start, ""))
        index = last + 1
    return found


def codec_of(charset: str) -> str:
    """The name of Python's codec for a charset of mail. Raises ``LookupError`` where there is none."""
    if not charset.isascii() or not charset.isprintable():
        raise LookupError(charset)
    name = codecs.lookup(charset).name
    if name.replace("-", "_") in _NO_CHARSETS:
        raise LookupError(charset)
    b"".decode(name)  # some are no text encodings, which shows here
    return name


def _decode(octets: bytes, charset: str) -> str | None:
    try:
        text = octets.decode(codec_of(charset))
    except (ValueError, LookupError):
        return None
    # A line end in an encoded word is none in the field: it must not become one.
    return text.replace("\r", " ").replace("\n", " ")


def encode_words(text: str, charset: str = "utf-8", encoding: str = "", *, used: int = 0) -> str:
    """The text as encoded words, on lines of their own but for the first, which has ``used`` characters already.

    Without ``encoding`` the shorter one is taken. What ``charset`` does not have makes it UTF-8; lone surrogates that
    stand for octets become these again where all of the text is ASCII beside them, else replacement characters.
    """
    octets = _encode(text, charset)
    if octets is None:
        charset, octets = "utf-8", text.encode("utf-8", "replace")
    if not encoding:
        encoding = "q" if sum(octet not in _SAFE for octet in octets) * 2 <= len(octets) else "b"
    words: list[str] = []
    position = 0
    while position < len(text):
        room = max(min(_LONGEST_WORD, _LINE - (used if not words else 1)), 40)
        size = min(len(text) - position, 60)
        word = _word(text[position : position + size], charset, encoding)
        while len(word) > room and size > 1:
            size = max(size * 3 // 4, 1)
            word = _word(text[position : position + size], charset, encoding)
        words.append(word)
        position += size
    return "\r\n ".join(words)


def _encode(text: str, charset: str) -> bytes | None:
    try:
        return text.encode(charset)
    except (ValueError, LookupError):
        pass
    try:
        return text.encode("ascii", "surrogateescape")
    except ValueError:
        return None


def _word(text: str, charset: str, encoding: str) -> str:
    octets = _encode(text, charset)
    if octets is None:
        octets = text.encode("utf-8", "replace")
    if encoding == "b":
        return f"=?{charset}?b?{b64encode(octets).decode('ascii')}?="
    encoded = "".join(chr(octet) if octet in _SAFE else "_" if octet == 0x20 else f"={octet:02X}" for octet in octets)
    return f"=?{charset}?q?{encoded}?="


def is_foldable(value: str) -> bool:
    """Whether this can stand in a field as it is: lines that are not too long, each with something on it."""
    first, *others = value.split("\r\n")
    if any("\r" in line or "\n" in line or len(line) > _LONGEST_LINE - _LINE for line in (first, *others)):
        return False
    return all(line[:1] in (" ", "\t") and line.strip(" \t") for line in others)


def fold_field(name: str, value: str) -> bytes:
    """A header field with this value, encoded where it has to be, in lines of 78 characters where that is possible.

    ``value`` holds no line ends. Fields of addresses and ids are folded only.
    """
    value = value.strip(" \t")
    literal = value.isascii() and (
        name.lower() in ONCE or ("=?" not in value and all(len(token) <= _LONGEST_TOKEN for token in value.split()))
    )
    folded = _fold(value, len(name) + 2) if literal else encode_words(value, used=len(name) + 2)
    return f"{name}: {folded}\r\n".encode("ascii")


def _fold(value: str, used: int) -> str:
    lines = [""]
    for token in re.findall(r"[ \t]*[^ \t]+", value):
        if len(lines[-1]) + len(token) + (used if len(lines) == 1 else 0) > _LINE and token[0] in " \t" and lines[-1]:
            lines.append("")
        lines[-1] += token
    return "\r\n".join(lines)
