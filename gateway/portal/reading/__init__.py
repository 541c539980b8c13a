"""A message made fit for a browser: its structure by places in its bytes, a document that only shows, files.

Pure: bytes come from whoever calls, by ``read(start, end)``; nothing is fetched, stored or asked.

1. ``parts``       what an index holds; ``structure``: one pass over the message that makes it
2. ``transfer``    encodings undone piece by piece, also from the middle
3. ``plan``        which part is shown, which is a file; ``patched``: a message with policy's edits, by ranges
4. ``view``        ``index_message``, ``gather``, ``compose``: from an index to what the page shows
5. ``heading``, ``names``, ``appointment``  From, To, Subject; file names; invitations in words
6. ``html``, ``styles``, ``links``, ``pictures``  HTML of strangers; ``plain``: plain text
7. ``document``    the document and the headers that it must be served with
8. ``download``    files and the whole message as HTTP answers, with ranges

What is shown and what is not, and why: docs/portal/reading.md.
"""

from __future__ import annotations

from gateway.portal.reading.document import HEADERS, Document
from gateway.portal.reading.download import Answer, attachment_answer, message_answer, part_octets
from gateway.portal.reading.heading import Heading, People, Person
from gateway.portal.reading.parts import MessageIndex, Part, Read
from gateway.portal.reading.patched import patched_read
from gateway.portal.reading.view import File, View, compose, files_of, gather, index_message

__all__ = [
    "HEADERS",
    "Answer",
    "Document",
    "File",
    "Heading",
    "MessageIndex",
    "Part",
    "People",
    "Person",
    "Read",
    "View",
    "attachment_answer",
    "compose",
    "files_of",
    "gather",
    "index_message",
    "message_answer",
    "part_octets",
    "patched_read",
]
