"""The walk over a message: entity by entity, each text to where it is judged, each doubt to where it is named."""

from __future__ import annotations

import re
from dataclasses import replace

from gateway.mail.content.attached import Leaf, read_attachment
from gateway.mail.content.bodies import BODY_TYPES, MARKUP, calendar_text, html_body, plain_text
from gateway.mail.content.decoding import decode
from gateway.mail.content.filetype import FileType
from gateway.mail.content.gathered import Gathered
from gateway.mail.content.mediatype import Parametrised, parse
from gateway.mail.content.mime import MAX_HEADER, MAX_SEEN, Entity, parts, read_entity
from gateway.mail.content.parts import Attachment, Content
from gateway.mail.content.words import decode_words, header_text

__all__ = ["Reading"]

_MAX_DEPTH = 40
_MAX_PARTS = 2000
#: How often the message may be searched for boundaries: real mail nests a few levels, and inner levels are small.
_MAX_SCANS = 12
#: Text around the parts of an encrypted message: more than a remark says something itself.
_MAX_REMARK = 300

_MESSAGES = frozenset({"message/rfc822", "message/global", "message/news"})
_UUENCODE = frozenset({"x-uuencode", "x-uue", "uuencode"})
_ADDRESSES = frozenset({"from", "to", "cc", "reply-to"})
_COMMENT = re.compile(r"\([^()]*\)")
_KNOWN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary", "base64", "quoted-printable"}) | _UUENCODE
_NO_NAMES = Parametrised("", {}, "")


class Reading:
    """One message being read."""

    def __init__(self, message: bytes, text_limit: int) -> None:
        self._message = message
        self._found = Gathered(len(message), text_limit)
        self._parts = 0
        self._messages = 0
        self._scans_left = _MAX_SCANS * len(message) + 65_536
        self._header_left = MAX_HEADER
        self._seen_left = MAX_SEEN
        self._boundaries: set[bytes] = set()
        self._almost: set[bytes] = set()

    def read(self) -> Content:
        """Everything in it."""
        protection = self._entity(self._message, 0, len(self._message), 0, "", "text/plain")
        if protection in {"smime", "pgp"}:
            self._found.protected.add(protection)
        for line in self._almost:
            if line not in self._boundaries and line.removesuffix(b"--") not in self._boundaries:
                self._found.doubt("message", "a line begins like a boundary and is none")
        return self._found.content()

    def _entity(self, data: bytes, start: int, end: int, depth: int, place: str, default: str) -> str:
        """Read one entity; how it is protected as a whole: ``smime``, ``pgp``, ``control``, ``signature`` or ""."""
        self._parts += 1
        if depth > _MAX_DEPTH or self._parts > _MAX_PARTS:
            self._give_up(data, start, end, place, "nested too deeply" if depth > _MAX_DEPTH else "too many parts")
            return ""
        entity = read_entity(data, start, end, max(0, self._header_left))
        self._header_left -= entity.body - start
        self._header(entity, place, depth)
        types = entity.fields.get("content-type", ())
        if len(types) > 1 and len(set(types)) > 1:
            self._found.doubt(f"{place}structure", "more than one Content-Type")
            self._found.raw(data, entity.body, end, f"{place}body")
        declared = parse(types[0]) if types else _NO_NAMES
        kind = declared.value if "/" in declared.value else "text/plain" if declared.value else default
        encoding = self._encoding(entity, place)
        leaf = Leaf(data, entity.body, end, encoding, kind, declared, (), place, depth)
        return self._multipart(leaf) if kind.startswith("multipart/") else self._single(leaf, entity)

    def _header(self, entity: Entity, place: str, depth: int) -> None:
        """What people read in the header; of the outermost message its addresses are not content."""
        found = self._found
        if entity.fault:
            found.doubt(f"{place}structure", entity.fault)
            found.raw(entity.loose, 0, len(entity.loose), f"{place}header")
        subjects = entity.fields.get("subject", ())
        for subject in subjects:
            self._field(subject, f"{place}subject")
        for name, values in entity.fields.items():
            if name == "subject" or (name.startswith("content-") and name != "content-description"):
                continue
            if name in _ADDRESSES and not depth:
                continue
            for value in values:
                if value not in subjects:
                    self._field(value, f"{place}{name}")

    def _field(self, value: bytes, where: str) -> None:
        if b"=?" not in value and value.isascii():
            self._found.text(value.decode("ascii"), where)
            return
        read = header_text(value)
        if read.fault:
            self._found.doubt(where, read.fault)
        for text in read.texts:
            texts, fault = decode_words(text)
            self._found.texts(texts, where)
            if fault:
                self._found.doubt(where, fault)

    def _encoding(self, entity: Entity, place: str) -> str:
        """The transfer encoding; b"" for none. Comments are white space (RFC 2045 section 6.1)."""
        values = entity.fields.get("content-transfer-encoding")
        if not values:
            return ""
        if len(set(values)) > 1:
            self._found.doubt(f"{place}structure", "more than one Content-Transfer-Encoding")
        name = values[0].decode("latin-1").lower()
        if name in _KNOWN_ENCODINGS:
            return name
        return _COMMENT.sub(" ", name).strip(" \t;\"'.") or ""

    def _give_up(self, data: bytes, start: int, end: int, place: str, fault: str) -> None:
        self._found.doubt(f"{place}structure", fault)
        self._found.raw(data, start, end, f"{place}body")

    def _multipart(self, whole: Leaf) -> str:
        """The parts, and the text before and after them, which some programs show."""
        data, start, end, encoding, place = whole.data, whole.start, whole.end, whole.encoding, whole.place
        if encoding not in {"", "7bit", "8bit", "binary"}:  # forbidden (RFC 2045 section 6.4); some decode it
            self._found.doubt(f"{place}structure", "a multipart with a transfer encoding")
            octets = decode(data[start:end], encoding).data
            self._found.raw(octets, 0, len(octets), f"{place}body")
        boundary = self._boundary(whole)
        self._scans_left -= end - start
        if boundary is None or self._scans_left < 0:
            self._give_up(data, start, end, place, "its parts cannot be told apart")
            return ""
        found = parts(data, start, end, boundary, max(0, _MAX_PARTS - self._parts), self._seen_left)
        self._seen_left -= found.seen
        self._boundaries.add(boundary)
        self._almost |= found.almost
        if whole.media_type == "multipart/signed":
            self._found.signed = True
        default = "message/rfc822" if whole.media_type == "multipart/digest" else "text/plain"
        children: list[str] = []
        around = 0
        for number, section in enumerate(found.sections, 1):
            if found.cut and number == len(found.sections):
                self._give_up(data, section.start, section.end, place, "too many parts, or lines like its boundary")
            elif section.kind == "part":
                children.append(self._entity(data, section.start, section.end, whole.depth + 1, place, default))
            else:
                around += section.end - section.start
                self._found.raw(data, section.start, section.end, f"{place}{section.kind}")
        return _together(whole.media_type, children) if around <= _MAX_REMARK and not found.cut else ""

    def _boundary(self, whole: Leaf) -> bytes | None:
        """The one boundary that is declared and there. More than one that fits is a doubt."""
        declared = whole.declared.all("boundary")
        fitting: list[bytes] = []
        for text in declared[:8]:
            for candidate in (text, text.rstrip(), (text.split() or [""])[0].partition("(")[0]):
                octets = candidate.encode("utf-8", "replace")
                if octets and octets not in fitting and _stands_in(whole, octets):
                    fitting.append(octets)
        if len(declared) > 1 or (len(fitting) > 1 and declared[0].encode("utf-8", "replace") != fitting[0]):
            self._found.doubt(f"{whole.place}structure", "its boundary is in doubt")
        return fitting[0] if fitting else None

    def _single(self, leaf: Leaf, entity: Entity) -> str:
        """A part without parts: a message, a text of the letter, or an attachment."""
        kind, declared, encoding, place = leaf.media_type, leaf.declared, leaf.encoding, leaf.place
        disposition = _NO_NAMES
        if "content-disposition" in entity.fields:
            disposition = parse(entity.fields["content-disposition"][0])
            for more in entity.fields["content-disposition"][1:]:
                self._found.texts(parse(more).all("filename", "name"), f"{place}attachment name")
        names = tuple(dict.fromkeys((*disposition.all("filename", "name"), *declared.all("name", "filename"))))
        for read in (declared, disposition):
            if read.fault and names:
                self._found.doubt(f"{place}attachment name", read.fault)
        leaf = replace(leaf, names=names) if names else leaf
        if kind in _MESSAGES:
            return self._message_part(leaf)
        if kind in {"message/partial", "message/external-body"}:
            self._give_up(leaf.data, leaf.start, leaf.end, place, f"{kind} is not complete in itself")
            return ""
        if encoding in _UUENCODE:
            return self._uuencoded(leaf)
        if kind in BODY_TYPES and not names and disposition.value != "attachment":
            return self._body(leaf)
        return read_attachment(self._found, leaf, self, self._enclosed(leaf))

    def _body(self, leaf: Leaf) -> str:
        found, kind, place = self._found, leaf.media_type, leaf.place
        if kind == "text/html":
            where = f"{place}body html"
        else:
            where = f"{place}calendar" if kind == "text/calendar" else f"{place}body"
        octets = found.octets(leaf.data, leaf.start, leaf.end, leaf.encoding, where)
        if kind in MARKUP:
            html_body(found, octets, leaf.declared, where)
            return ""
        if kind == "text/calendar":
            calendar_text(found, octets, leaf.declared, where)
            return ""
        return plain_text(found, octets, leaf.declared, where, self._enclosed(leaf))

    def _message_part(self, leaf: Leaf) -> str:
        """A message within the message; encoded ones are forbidden (RFC 2046 section 5.2.1), and happen."""
        if leaf.encoding in {"base64", "quoted-printable"}:
            if not self._found.may_open(leaf.end - leaf.start):
                self._give_up(leaf.data, leaf.start, leaf.end, leaf.place, "too much is nested")
                return ""
            decoded = decode(leaf.data[leaf.start : leaf.end], leaf.encoding)
            if decoded.fault:
                self._found.doubt(leaf.where, decoded.fault)
            self.open_entity(decoded.data, leaf, message=True)
            if leaf.encoding == "base64" and not read_entity(leaf.data, leaf.start, leaf.end).fields:
                return ""
        self._inner(leaf.data, leaf.start, leaf.end, leaf)
        return ""

    def open_entity(self, data: bytes, leaf: Leaf, *, message: bool) -> str:
        """Read decoded octets as an entity: a message of its own, or what a signature wraps."""
        if message:
            self._inner(data, 0, len(data), leaf)
            return ""
        return self._entity(data, 0, len(data), leaf.depth + 1, leaf.place, "text/plain")

    def _inner(self, data: bytes, start: int, end: int, leaf: Leaf) -> None:
        self._messages += 1
        place = f"message {self._messages} "
        for name in leaf.names:
            self._found.text(name, f"{leaf.place}attachment name")
        self._found.attachment(
            Attachment(
                leaf.name,
                FileType.MESSAGE,
                leaf.media_type,
                end - start,
                encrypted=False,
                inspected=True,
                where=leaf.where,
            )
        )
        self._entity(data, start, end, leaf.depth + 1, place, "text/plain")

    def _uuencoded(self, leaf: Leaf) -> str:
        """A part in uuencode: the text around its file is looked at, too."""
        enclosed = self._enclosed(leaf)
        octets = self._found.octets(leaf.data, leaf.start, leaf.end, "", leaf.where)
        before = self._parts
        plain_text(self._found, octets, _NO_NAMES, f"{leaf.place}body", enclosed)
        if self._parts == before:
            self._found.doubt(leaf.where, "no uuencode is in it")
        return ""

    def _enclosed(self, outer: Leaf) -> _Enclosed:
        return _Enclosed(self, outer)

    def read_enclosed(self, outer: Leaf, name: bytes, data: bytes, fault: str) -> None:
        """A file in uuencode, as if it were a part of its own; of a part in uuencode it is the content."""
        self._parts += 1
        whole = outer.encoding in _UUENCODE
        names = outer.names if whole and outer.names else tuple(header_text(name).texts)
        kind = outer.media_type if whole else "application/octet-stream"
        declared = outer.declared if whole else _NO_NAMES
        leaf = Leaf(data, 0, len(data), "", kind, declared, names, outer.place, outer.depth + 1)
        if fault:
            self._found.doubt(leaf.where, fault)
        if self._parts > _MAX_PARTS or leaf.depth > _MAX_DEPTH:
            self._found.doubt(leaf.where, "too many parts")
        elif whole and kind in BODY_TYPES:
            self._body(leaf)
        elif kind in _MESSAGES:
            self._message_part(leaf)
        else:
            read_attachment(self._found, leaf, self, self._enclosed(leaf))


class _Enclosed:
    """What to do with a file in the text of ``outer``."""

    __slots__ = ("_outer", "_reading")

    def __init__(self, reading: Reading, outer: Leaf) -> None:
        self._reading = reading
        self._outer = outer

    def __call__(self, name: bytes, data: bytes, fault: str) -> None:
        self._reading.read_enclosed(self._outer, name, data, fault)


def _stands_in(whole: Leaf, boundary: bytes) -> bool:
    """Whether a line begins with this boundary."""
    delimiter = b"--" + boundary
    if whole.data.startswith(delimiter, whole.start, whole.end):
        return True
    return whole.data.find(b"\n" + delimiter, whole.start, whole.end) >= 0


def _together(kind: str, children: list[str]) -> str:
    """How a multipart as a whole is protected: as the one thing in it, signature and control part apart."""
    match (kind, children):
        case ("multipart/encrypted", ["control", "pgp"]):
            return "pgp"
        case (_, [only]) if only in {"smime", "pgp"}:
            return only
        case ("multipart/signed", [signed, _]) if signed in {"smime", "pgp"}:
            return signed
    return ""
