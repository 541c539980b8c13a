"""Footers in the parts of a message that a reader shows as its text.

Each alternative of the body gets them - plain text at its end, HTML before ``</body>`` - in the part's own charset and
transfer encoding; a plain text whose charset cannot hold them becomes UTF-8. Attachments, attached messages and
calendar parts are left alone. What is signed, encrypted, a report, or not understood without doubt gets none, and the
notes say why: a footer must not break what it stands under.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.mail.edits.changes import Footer
from gateway.mail.edits.encoded_words import codec_of
from gateway.mail.edits.entities import Entity, Unclear, children, content_type, read_entity, single
from gateway.mail.edits.patches import Patch, smallest_patch
from gateway.mail.edits.transfer import to_base64, to_quoted_printable
from gateway.mail.headers import Field

__all__ = ["MAX_SIZE", "Footed", "add_footers"]

#: Larger messages are not held in memory for this.
MAX_SIZE = 25_000_000

_MAX_DEPTH = 12
_LONGEST_LINE = 998
#: Longer texts are not held several times over: as octets, as characters, with the footer, encoded.
_MAX_TEXT = 5_000_000
#: What a part's new octets may be: they are in memory until the message is sent. A footer alone is a few of them; all
#: of the text is new only where it gets another encoding.
_MAX_NEW = 2_000_000
#: So many ends of an HTML document are looked at, the last first.
_MOST_ENDS = 20
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})
_CLOSED = {
    "multipart/signed": "the message is signed",
    "multipart/encrypted": "the message is encrypted",
    "application/pkcs7-mime": "the message is signed or encrypted",
    "application/x-pkcs7-mime": "the message is signed or encrypted",
    "multipart/report": "the message is a report",
    "multipart/form-data": "the message is a form",
    "multipart/appledouble": "the message is a file",
}
#: Charsets that readers take for windows-1252 (WHATWG Encoding, section 4.2).
_CALLED_LATIN = frozenset({"ascii", "iso8859-1"})
_CHARSET = re.compile(rb';[ \t\r\n]*charset[ \t]*=[ \t]*(?:"[^"\r\n]*"|[^\s;"]+)', re.IGNORECASE)
#: Reads any octets, each as one character, and writes them as they were.
_TRANSPARENT = "iso8859-1"
_BODY_END = re.compile(r"</(?:body|html)\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Footed:
    """What footers make of a message: patches below its header block, and its fields as they are to be.

    ``notes`` say where they were left out, and why.
    """

    fields: tuple[Field, ...]
    patches: tuple[Patch, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether they stand in at least one part."""
        return bool(self.patches)


def add_footers(message: bytes, footers: Sequence[Footer]) -> Footed:
    """Put the footers, in their order, into this message of at most :data:`MAX_SIZE`.

    Takes time in proportion to the size. Raises :class:`gateway.mail.headers.HeaderError` never: what is wrong
    with the message is a note.
    """
    if len(message) > MAX_SIZE:
        return Footed((), notes=(f"the message is larger than {MAX_SIZE // 1_000_000} MB",))
    work = _Work(message, footers)
    try:
        top = read_entity(message, 0, len(message))
    except Unclear as error:
        return Footed((), notes=(str(error),))
    work.body(top, 0)
    if not work.patches and not work.notes:
        work.notes.append("the message has no part that is shown as its text")
    return Footed(work.top or top.fields, tuple(work.patches), tuple(dict.fromkeys(work.notes)))


class _Work:
    """One message on its way to having footers."""

    def __init__(self, message: bytes, footers: Sequence[Footer]) -> None:
        self.message = message
        self.footers = footers
        self.patches: list[Patch] = []
        self.notes: list[str] = []
        self.top: tuple[Field, ...] = ()

    def body(self, entity: Entity, depth: int) -> bool:
        """Put them into what this entity shows as text. Whether it is a text at all, or says why not."""
        try:
            return self._body(entity, depth)
        except Unclear as error:
            self.notes.append(str(error))
            return True

    def _body(self, entity: Entity, depth: int) -> bool:
        kind = entity.media_type
        if depth > _MAX_DEPTH:
            raise Unclear("parts stand too deep inside each other")
        if kind in _CLOSED:
            raise Unclear(_CLOSED[kind])
        if kind == "multipart/alternative":
            shown = [self.body(part, depth + 1) for part in children(self.message, entity)]
            return any(shown)  # not the first alone: each alternative gets them
        if kind == "multipart/related":
            return self.body(_root(entity, list(children(self.message, entity))), depth + 1)
        if kind.startswith("multipart/"):
            return any(self.body(part, depth + 1) for part in children(self.message, entity))
        if kind not in ("text/plain", "text/html") or (depth and entity.is_attachment):
            return False
        self._text(entity, top=not depth)
        return True

    def _text(self, entity: Entity, *, top: bool) -> None:
        if entity.end - entity.body > _MAX_TEXT:
            raise Unclear(f"the text is larger than {_MAX_TEXT // 1_000_000} MB")
        body = self.message[entity.body : entity.end]
        part = _TextPart(body, entity)
        part.append(self.footers)
        found = part.fields(top=top)
        patch = smallest_patch(body, part.encoded, entity.body)
        if len(patch.new) > _MAX_NEW:
            raise Unclear("the text is too large to be encoded anew")
        if top:
            self.top = found
        elif found != entity.fields:
            block = b"".join([field.raw for field in found])
            self.patches.append(Patch(entity.start, entity.body, block + b"\r\n"))
        self.patches.append(patch)


def _root(entity: Entity, parts: list[Entity]) -> Entity:
    """The root of a multipart/related (RFC 2387 section 3.2): the one that ``start`` names, else the first."""
    if not parts:
        raise Unclear("multipart/related without parts")
    start = entity.mime.get_param("start")
    if isinstance(start, str):
        for part in parts:
            identifier = single(part.fields, "content-id")
            if identifier is not None and identifier.text == start:
                return part
    return parts[0]


class _TextPart:
    """A text on its way: decoded, longer, encoded as it was where that is possible."""

    def __init__(self, body: bytes, entity: Entity) -> None:
        self._entity = entity
        self._body = body
        self._encoding = entity.encoding
        self._content = _decoded(body, entity.encoding)
        self._to_utf8 = False
        self.encoded = b""
        if b"-----BEGIN PGP " in self._content:
            raise Unclear("the text is signed or encrypted with PGP")

    def append(self, footers: Sequence[Footer]) -> None:
        """Put them in and encode the part again."""
        if self._entity.media_type == "text/html":
            added = "\r\n".join(footer.markup for footer in footers)
            codec, text = self._read()
            added = _fitting(added, codec or "ascii")
            place = _end_of_html(text)
            new = (
                f"{text[:place]}{'' if text[:place].endswith(chr(10)) else _eol(text)}{added}{_eol(text)}{text[place:]}"
            )
        else:
            added = self._plain(footers)
            codec, text = self._read(added)
            ended = not text or text.endswith("\n")
            new = f"{text}{'' if ended else _eol(text)}{added.replace(chr(10), _eol(text))}"
            new = new if ended else new.removesuffix(_eol(text))
        codec = codec or _TRANSPARENT
        try:
            content = new.encode(codec)
        except UnicodeEncodeError:
            content, codec = self._as_utf8(new, text), "utf-8"
        longest = max(len(line.encode(codec, "replace")) for line in added.split("\n"))
        self._encode(content, codec, too_long=longest > _LONGEST_LINE)

    def _plain(self, footers: Sequence[Footer]) -> str:
        """An empty line before each; line ends are LF here, one at the end."""
        flowed = str(self._entity.mime.get_param("format", "")).lower() == "flowed"
        blocks = ["\n".join(_stuffed(line) if flowed else line for line in footer.lines) for footer in footers]
        return "".join(f"\n{block}\n" for block in blocks)

    def _read(self, added: str = "") -> tuple[str, str]:
        """The codec to read and write with, and the text. Raises :class:`Unclear`.

        No codec: what the octets mean is not known, but that ASCII among them means itself. Then each is a character
        here, comes out as it was, and what is added has to be ASCII.
        """
        charset = self._entity.mime.get_content_charset("us-ascii") or "us-ascii"
        try:
            codec = codec_of(charset)
        except LookupError:
            codec = ""
        else:
            with contextlib.suppress(ValueError):
                return codec, self._content.decode(codec)
        if added.isascii() and (not codec or _holds_ascii(codec)):
            return "", self._content.decode(_TRANSPARENT)
        try:
            text = self._content.decode("utf-8")
        except ValueError:
            raise Unclear(f"the text is not valid in its charset {charset[:40]}") from None
        self._to_utf8 = True
        return "utf-8", text

    def _as_utf8(self, new: str, text: str) -> bytes:
        """In another charset, because its own does not have the footer's characters."""
        self._to_utf8 = True
        if codec_of(self._entity.mime.get_content_charset("us-ascii") or "us-ascii") in _CALLED_LATIN:
            with contextlib.suppress(ValueError):
                new = self._content.decode("windows-1252") + new[len(text) :]
        return new.encode("utf-8", "replace")

    def _encode(self, content: bytes, codec: str, *, too_long: bool) -> None:
        """In the transfer encoding that it had, if that can hold it."""
        named = self._encoding
        if named in _IDENTITY:
            too_wide = named in ("", "7bit") and not content.isascii()
            if not (too_wide or (too_long and named != "binary")):
                self.encoded = content
                return
            self._encoding = "quoted-printable"
        if self._encoding == "quoted-printable" and _holds_ascii(codec):
            content = re.sub(rb"\r?\n", b"\r\n", content)
            self.encoded = self._inserted(content) or to_quoted_printable(content)
            return
        self._encoding = "base64"
        self.encoded = to_base64(content)

    def _inserted(self, content: bytes) -> bytes:
        """Quoted-printable text as it was written, with what is new in it; empty where that is not possible."""
        if self._entity.encoding != "quoted-printable":
            return b""
        patch = smallest_patch(self._content, content, 0)
        rest = self._content[patch.start :]
        cut = self._body.rfind(rest[:6]) if rest else len(self._body)
        if patch.start != patch.end or cut < 0:
            return b""
        encoded = self._body[:cut] + to_quoted_printable(patch.new) + self._body[cut:]
        return encoded if binascii.a2b_qp(encoded) == content else b""

    def fields(self, *, top: bool) -> tuple[Field, ...]:
        """The part's fields, with another encoding or charset where there is one. Raises :class:`Unclear`."""
        found = list(self._entity.fields)
        if self._encoding == self._entity.encoding and not self._to_utf8:
            return tuple(found)
        if top and single(self._entity.fields, "mime-version") is None:
            found.append(Field("mime-version", b"MIME-Version: 1.0\r\n"))
        if self._to_utf8:
            old = single(self._entity.fields, "content-type")
            _put(found, Field("content-type", _in_utf8(old, self._entity)))
        if self._encoding != self._entity.encoding:
            raw = f"Content-Transfer-Encoding: {self._encoding}\r\n".encode("ascii")
            _put(found, Field("content-transfer-encoding", raw))
        return tuple(found)


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding in _IDENTITY:
        return body
    try:
        if encoding == "quoted-printable":
            return binascii.a2b_qp(body)
        if encoding == "base64":
            return binascii.a2b_base64(body)
    except binascii.Error:
        raise Unclear("the text is damaged base64") from None
    raise Unclear(f"the text has an unknown encoding {encoding[:40]}")


def _put(found: list[Field], new: Field) -> None:
    """In the place of the old one, or at the end."""
    places = [index for index, field in enumerate(found) if field.name == new.name]
    if places:
        found[places[0]] = new
        return
    if found and not found[-1].raw.endswith(b"\r\n"):
        found[-1] = Field(found[-1].name, found[-1].raw + b"\r\n")
    found.append(new)


def _in_utf8(old: Field | None, entity: Entity) -> bytes:
    """The Content-Type field with another charset. Raises :class:`Unclear` where that does not come out as meant."""
    if old is None:
        return b"Content-Type: text/plain; charset=utf-8\r\n"
    raw, count = _CHARSET.subn(b"; charset=utf-8", old.raw)
    if not count:
        raw = old.raw.rstrip(b" \t\r\n;") + b"; charset=utf-8\r\n"
    mime = content_type(Field("content-type", raw), "text/plain")
    if mime.get_content_type() != entity.media_type or mime.get_content_charset() != "utf-8":
        raise Unclear("the content type cannot be changed to another charset")
    return raw


def _stuffed(line: str) -> str:
    """A line that stands alone in format=flowed (RFC 3676 sections 4.2 to 4.4)."""
    line = line if line == "-- " else line.rstrip(" ")
    return f" {line}" if line.startswith((" ", ">", "From ")) else line


def _eol(text: str) -> str:
    return "\n" if "\n" in text and "\r\n" not in text else "\r\n"


def _holds_ascii(codec: str) -> bool:
    return "a\r\n".encode(codec) == b"a\r\n"


def _end_of_html(text: str) -> int:
    """Where the visible document ends: before the last ``</body>`` or ``</html>`` that is no comment."""
    ends = [match.start() for match in _BODY_END.finditer(text)]
    body = [place for place in ends if text[place + 2 : place + 6].lower() == "body"]
    for place in reversed((body or ends)[-_MOST_ENDS:]):
        comment = text.rfind("<!--", 0, place)
        if comment < 0 or text.find("-->", comment, place) >= 0:
            return place
    return len(text)


def _fitting(markup: str, codec: str) -> str:
    """Markup that this charset can hold: characters that it does not have become references."""
    try:
        markup.encode(codec)
    except UnicodeEncodeError:
        return markup.encode(codec, "xmlcharrefreplace").decode(codec)
    return markup
