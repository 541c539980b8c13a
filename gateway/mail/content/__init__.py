"""What a message says: every text in it as a reader sees it, its attachments, and exactly what could not be read.

1. ``mime``       header and body, the parts of a multipart
2. ``mediatype``  types and parameters; ``words``: encoded words in fields
3. ``decoding``   base64, quoted-printable, uuencode; then ``charsets``
4. ``html_text``, ``flowed``, ``textforms``: notations that stand between the octets and the words
5. ``filetype``   what an attachment is, by its content; ``locked``, ``cms``, ``openpgp``: what is encrypted
6. ``reading``    the walk over all of it; ``bodies`` and ``attached`` read its leaves, ``gathered`` keeps the limits

Where programs differ, the text of every reading is given, or the place is named in ``unread``: policy takes for
unknown what is not read. Nothing is skipped silently.
"""

from __future__ import annotations

from gateway.mail.content.filetype import FileType
from gateway.mail.content.gathered import Gathered
from gateway.mail.content.parts import Attachment, Content, TextPart
from gateway.mail.content.reading import Reading

__all__ = ["TEXT_LIMIT", "Attachment", "Content", "FileType", "TextPart", "read_content"]

#: Characters of text that are taken out of one message.
TEXT_LIMIT = 10_000_000


def read_content(message: bytes, *, text_limit: int = TEXT_LIMIT) -> Content:
    """Everything that ``message`` says. Never raises; time and memory are linear in its size.

    Text beyond ``text_limit`` characters is cut, and ``unread`` says so.
    """
    try:
        return Reading(message, text_limit).read()
    except Exception as error:  # noqa: BLE001 - whatever a stranger wrote, policy must be able to judge it: as unknown
        gathered = Gathered(len(message), text_limit)
        gathered.doubt("message", f"it could not be read ({type(error).__name__})")
        gathered.raw(message, 0, len(message), "message")
        return gathered.content()
