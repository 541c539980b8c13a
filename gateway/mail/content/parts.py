"""The values of the content view: see ``gateway.mail.content``."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.mail.content.filetype import FileType

__all__ = ["Attachment", "Content", "TextPart"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text, line ends LF, and in words where it stands: ``subject``, ``body``, ``attachment report.csv``."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is not the body: ``type`` by its content, ``media_type`` as declared, ``size`` decoded, in octets.

    ``encrypted`` None: the format does not tell. ``inspected``: its text is among the texts, or it can have none.
    """

    name: str
    type: FileType
    media_type: str
    size: int
    encrypted: bool | None
    inspected: bool
    where: str


@dataclass(frozen=True, slots=True)
class Content:
    """All that a message says.

    ``unread``: what was not read, or not without doubt, in words; empty means that ``texts`` is everything.
    ``protected``: ``smime``, ``pgp``, ``pdf`` where the message as a whole is encrypted so already. (``pdf``: its only
    attachment is; the letter around it is not, and whether the file opens without a password is not known.)
    ``signed``: S/MIME or PGP/MIME. ``calendar_method``: of RFC 5546.
    """

    texts: tuple[TextPart, ...]
    attachments: tuple[Attachment, ...]
    unread: tuple[str, ...]
    protected: frozenset[str]
    signed: bool
    calendar_method: str
