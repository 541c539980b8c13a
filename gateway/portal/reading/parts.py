"""The parts of a message as places in its bytes: what an index holds, and of their content only the beginning."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

__all__ = ["Branch", "MessageIndex", "Node", "Part", "Read"]

#: Reads octets ``start`` to ``end`` of the message, in pieces of any size.
Read = Callable[[int, int], AsyncGenerator[bytes, None]]


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf: ``start`` to ``end`` is its body in the message, still encoded; ``size`` is what it decodes to.

    ``number`` counts the leaves from 1. ``media_type`` and ``charset`` are what the message claims; ``encoding`` is in
    lower case, and one that we do not know is left as it stands. ``line``: how many characters each line of its base64
    has where all are alike, so that one can begin in the middle; 0 where one cannot. ``head`` are the first decoded
    octets. ``name`` is raw: see :func:`gateway.portal.reading.names.file_name`.
    """

    number: int
    start: int
    end: int
    media_type: str
    charset: str = ""
    flowed: bool = False
    delete_space: bool = False
    encoding: str = ""
    line: int = 0
    size: int = 0
    head: bytes = b""
    name: str = ""
    is_attachment: bool = False
    content_id: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """A multipart: ``kind`` is its subtype, ``root`` the Content-ID of the part that a ``related`` begins with."""

    kind: str
    children: tuple[Node, ...]
    root: str = ""


Node = Part | Branch


@dataclass(frozen=True, slots=True)
class MessageIndex:
    """Where everything stands in a message of ``size`` octets. ``header`` is its header block, or the beginning of it.

    ``is_cut``: there are more parts, or deeper ones, than are told apart; the rest is in the last of ``parts``.
    """

    size: int
    header: bytes
    root: Node
    parts: tuple[Part, ...]
    is_cut: bool = False

    def part(self, number: int) -> Part | None:
        """The leaf with this number; None where there is none."""
        return self.parts[number - 1] if 0 < number <= len(self.parts) else None
