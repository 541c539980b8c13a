"""Taking a tag such as ``[secure]`` out of a subject, and leaving the rest as it was written.

What is taken out is what the condition ``subject: {tag: ...}`` finds: ``[tag]``, ``(tag)`` or ``tag:``, in any case,
after NFKC, without format characters (zero-width spaces, soft hyphens), white space runs as one blank - in plain text,
in encoded words, or across both. So the text is normalised with a note, for each character, of what it came from.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from gateway.mail.edits.encoded_words import Piece, encode_words, fold_field, is_foldable, pieces, text_of

__all__ = ["without_tags"]

#: A tag in a tag in a tag ("[sec[secure]ure]"): so many times it is looked for anew.
_ROUNDS = 10


def without_tags(raw: bytes, tags: frozenset[str]) -> tuple[bytes, frozenset[str]]:
    """A Subject field (with its line ends) without the tags, and those that were found in it.

    A field without any is returned as it is; one of nothing but tags becomes an empty field.
    """
    name, _, rest = raw.partition(b":")
    value = rest.removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
    found_pieces = pieces(value)
    text = "".join(piece.text for piece in found_pieces)
    owners = [index for index, piece in enumerate(found_pieces) for _ in piece.text]
    gone, found = _tagged(text, tags, owners)
    if not found:
        return raw, frozenset()
    wanted = "".join(char for index, char in enumerate(text) if not gone[index])
    edited = _rebuilt(value, found_pieces, gone)
    if text_of(edited) != wanted or not is_foldable(edited):
        # Where words move together the white space between them may appear or vanish: then all of it is written anew.
        return fold_field(name.decode("ascii").strip(), wanted.replace("\t", " ")), found
    return name + b":" + edited.encode("utf-8", "surrogateescape") + b"\r\n", found


@dataclass(slots=True)
class _Normal:
    """Normalised text; character ``i`` came from ``starts[i]`` to ``ends[i]`` of the original."""

    text: str
    starts: list[int]
    ends: list[int]

    def part(self, begin: int, end: int) -> _Normal:
        return _Normal(self.text[begin:end], self.starts[begin:end], self.ends[begin:end])

    def take(self, other: _Normal, begin: int, end: int) -> None:
        self.text += other.text[begin:end]
        self.starts += other.starts[begin:end]
        self.ends += other.ends[begin:end]


def _tagged(text: str, tags: frozenset[str], owners: list[int]) -> tuple[bytearray, frozenset[str]]:
    """Which characters of the text belong to tags, and to which; ``owners`` is the piece that each stands in."""
    gone = bytearray(len(text))
    found: set[str] = set()
    normal = _normal(text)
    one, several = _patterns(tags)
    for _ in range(_ROUNDS):
        left = _Normal("", [], [])
        position = 0
        for match in several.finditer(normal.text):
            found.update(next(group for group in each.groups() if group) for each in one.finditer(match[0]))
            begin, end = _with_one_blank(normal, match.start(), match.end(), owners)
            begin = max(begin, position)
            left.take(normal, position, begin)
            start, stop = normal.starts[begin], normal.ends[end - 1]
            gone[start:stop] = b"\1" * (stop - start)
            position = end
        if not position:
            break
        left.take(normal, position, len(normal.text))
        if left.text.startswith(" "):
            gone[left.starts[0] : left.ends[0]] = b"\1" * (left.ends[0] - left.starts[0])
            left = left.part(1, len(left.text))
        if left.text.endswith(" "):
            gone[left.starts[-1] : left.ends[-1]] = b"\1" * (left.ends[-1] - left.starts[-1])
            left = left.part(0, len(left.text) - 1)
        normal = left
    return gone, frozenset(found)


def _with_one_blank(normal: _Normal, begin: int, end: int, owners: list[int]) -> tuple[int, int]:
    """What goes with a tag that has a blank, or an end, on both sides: one blank, of the encoded word it stands in."""
    after = normal.text[end : end + 1] == " "
    if not begin:
        return begin, end + after
    if normal.text[begin - 1] != " " or not after:
        return begin, end
    first, last = normal.starts[begin], normal.ends[end - 1] - 1
    if owners[normal.starts[begin - 1]] == owners[first] and owners[normal.starts[end]] != owners[last]:
        return begin - 1, end
    return begin, end + 1


@lru_cache(maxsize=64)
def _patterns(tags: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The forms that ``gateway.policy`` finds a tag in: one of them, and several in a row."""
    names = sorted({tag.casefold() for tag in tags}, key=lambda tag: (-len(tag), tag))
    word = "|".join(re.escape(name) for name in names)
    plain = rf"(?:\[ ?(?:{word}) ?\]|\( ?(?:{word}) ?\)|(?<![\w-])(?:{word}) ?:)"
    return (
        re.compile(rf"\[ ?({word}) ?\]|\( ?({word}) ?\)|({word}) ?:"),
        re.compile(rf"{plain}(?: ?{plain})*"),
    )


def _normal(text: str) -> _Normal:
    """NFKC, without format characters, white space runs as one blank and none at the ends, case-folded."""
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for chunk, start, end in _chunks(text):
        normal = chunk if chunk.isascii() else unicodedata.normalize("NFKC", chunk)
        for char in normal:
            if not char.isascii() and unicodedata.category(char) == "Cf":
                continue
            if char.isspace():
                if out and out[-1] == " ":
                    ends[-1] = end
                    continue
                folded = " "
            else:
                folded = "?" if "\ud800" <= char <= "\udfff" else char.casefold()
            out += folded
            starts += [start] * len(folded)
            ends += [end] * len(folded)
    first = 1 if out and out[0] == " " else 0
    last = len(out) - 1 if len(out) > first and out[-1] == " " else len(out)
    return _Normal("".join(out[first:last]), starts[first:last], ends[first:last])


def _chunks(text: str) -> list[tuple[str, int, int]]:
    """The text in parts that normalise by themselves, with their place."""
    if text.isascii():
        return [(char, index, index + 1) for index, char in enumerate(text)]
    found: list[tuple[str, int, int]] = []
    start = 0
    for index in range(1, len(text)):
        if _stands_alone(text[start:index], text[index]):
            found.append((text[start:index], start, index))
            start = index
    if text:
        found.append((text[start:], start, len(text)))
    return found


def _stands_alone(before: str, char: str) -> bool:
    """Whether nothing of ``char`` goes into the characters before it when they are normalised."""
    if char.isascii() or len(before) > 30:
        return True
    if unicodedata.combining(char):
        return False
    last = before[-1]
    return unicodedata.normalize("NFKC", last + char) == unicodedata.normalize("NFKC", last) + unicodedata.normalize(
        "NFKC", char
    )


def _rebuilt(value: str, found: list[Piece], gone: bytearray) -> str:
    """The value less the characters of its text that are gone."""
    parts: list[tuple[str, Piece]] = []
    position = 0
    for piece in found:
        flags = gone[position : position + len(piece.text)]
        position += len(piece.text)
        if not any(flags):
            parts.append((value[piece.start : piece.end], piece))
        elif piece.encoding:
            left = "".join(char for char, out in zip(piece.text, flags, strict=True) if not out)
            parts.append((encode_words(left, piece.charset, piece.encoding) if left else "", piece))
        else:
            parts.append((_plain_rest(value[piece.start : piece.end], flags), piece))
    return "".join(
        part
        for index, (part, piece) in enumerate(parts)
        # White space between two encoded words goes with either of them.
        if piece.text or piece.encoding or (index and parts[index - 1][0] and parts[index + 1][0])
    )


def _plain_rest(raw: str, flags: bytearray) -> str:
    """Plain text without some of its characters; a fold goes with the white space behind it."""
    kept: list[str] = []
    fold = ""
    index = 0
    for char in raw:
        if char in "\r\n":
            fold += char
            continue
        if not flags[index]:
            kept.append(fold + char)
        fold = ""
        index += 1
    return "".join(kept) + fold
