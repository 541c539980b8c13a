"""What is found in a message while it is read, and how much of it there may be."""

from __future__ import annotations

from gateway.mail.content.charsets import as_lines, without_controls
from gateway.mail.content.decoding import decode
from gateway.mail.content.filetype import FileType
from gateway.mail.content.parts import Attachment, Content, TextPart
from gateway.mail.reply import clean_text

__all__ = ["Gathered", "shown"]

#: How many octets of an encoding stand for one of the text, at most, where people's programs wrote it.
_EXPANSION = {"base64": 2, "quoted-printable": 3}
_MAX_UNREAD = 100
_SLACK = 4096


class Gathered:
    """Texts, attachments and doubts, within the limits of one message of ``size`` octets."""

    def __init__(self, size: int, text_limit: int) -> None:
        self._texts: list[TextPart] = []
        self._attachments: list[Attachment] = []
        self._unread: dict[str, None] = {}
        self._text_left = max(0, text_limit)
        #: Octets that may still be decoded into messages of their own; each nesting of base64 is a copy.
        self._inner_left = 2 * size
        self.signed = False
        self.calendar_method = ""
        self.protected: set[str] = set()

    def text(self, text: str, where: str) -> None:
        """A text that was found; what exceeds the limit is cut."""
        if not text or text.isspace():
            return
        if len(text) > self._text_left:
            self.doubt(where, "there is more text than is read")
            text = text[: self._text_left]
            if not text:
                return
        self._text_left -= len(text)
        self._texts.append(TextPart(text, where))
        if not text.isascii() and "\u202e" in text:  # right-to-left override: the eye reads the other way
            reverse = text[: self._text_left][::-1]
            self._text_left -= len(reverse)
            if len(reverse) < len(text):
                self.doubt(where, "there is more text than is read")
            self._texts.append(TextPart(reverse, where))

    def texts(self, texts: tuple[str, ...], where: str) -> None:
        """Several readings of the same."""
        for text in texts:
            self.text(text, where)

    def doubt(self, where: str, fault: str) -> None:
        """Something was not read, or may read otherwise for others."""
        if len(self._unread) < _MAX_UNREAD:
            self._unread[f"{where}: {fault}"] = None
        else:
            self._unread["and more"] = None

    def raw(self, data: bytes, start: int, end: int, where: str) -> None:
        """The octets as they stand, as UTF-8 or Latin-1: better than nothing."""
        if start >= end:
            return
        stop = min(end, start + self._text_left)
        if stop < end:
            self.doubt(where, "there is more text than is read")
        octets = without_controls(as_lines(data[start:stop]))
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError:
            text = octets.decode("latin-1")
        self.text(text, where)

    def octets(self, data: bytes, start: int, end: int, encoding: str, where: str) -> bytes:
        """The decoded octets of a text. No more are decoded than text is still taken."""
        stop = min(end, start + self._text_left * _EXPANSION.get(encoding, 1) + _SLACK)
        if stop < end:
            self.doubt(where, "there is more text than is read")
        body = data[start:stop]
        octets, fault = decode(body, encoding)
        if fault:
            self.doubt(where, fault)
            self.raw(body, 0, len(body), where)
        return octets

    def may_open(self, size: int) -> bool:
        """Whether so many octets may be decoded, to be read as a message or file of their own."""
        if size > self._inner_left:
            return False
        self._inner_left -= size
        return True

    def attachment(self, attachment: Attachment) -> None:
        """Note an attachment; one that was not inspected is unread."""
        self._attachments.append(attachment)
        if not attachment.inspected:
            locked = "encrypted " if attachment.encrypted else ""
            self.doubt(attachment.where, f"{locked}{attachment.type} is not looked into")

    def content(self) -> Content:
        """All of it."""
        attachments = tuple(self._attachments)
        protected = frozenset(self.protected)
        if len(attachments) == 1 and attachments[0].type is FileType.PDF and attachments[0].encrypted:
            protected |= {"pdf"}
        return Content(
            tuple(self._texts), attachments, tuple(self._unread), protected, self.signed, self.calendar_method
        )


def shown(name: str) -> str:
    """A name of a stranger, for people's eyes."""
    return clean_text(name, 100)
