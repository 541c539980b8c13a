"""OpenPGP messages (RFC 9580): whether they are encrypted, or only look like it.

The armour of a message that is merely signed or compressed has the same words around it. What is inside is told by
its packets: session keys, then encrypted data.
"""

from __future__ import annotations

from gateway.mail.content.decoding import from_base64

__all__ = ["BEGIN_MESSAGE", "is_encrypted", "is_whole_armour"]

BEGIN_MESSAGE = b"-----BEGIN PGP MESSAGE-----"
_END_MESSAGE = b"-----END PGP MESSAGE-----"
_HEAD = 131_072

# RFC 9580 section 5: packet type ids.
_SESSION_KEYS = frozenset({1, 3})
_MARKERS = frozenset({10, 21})
_ENCRYPTED_DATA = frozenset({9, 18, 20})


def is_whole_armour(text: bytes) -> bool:
    """The text is one armoured message and nothing else but white space."""
    text = text.strip()
    return text.startswith(BEGIN_MESSAGE) and text.endswith(_END_MESSAGE) and text.count(b"-----BEGIN") == 1


def is_encrypted(data: bytes) -> bool:
    """Whether ``data``, armoured or not, begins with an encrypted message."""
    data = data.lstrip()[:_HEAD]
    return _packets_encrypt(_without_armour(data) if data.startswith(b"-----BEGIN") else data)


def _without_armour(data: bytes) -> bytes:
    """The octets between the armour's header lines and its checksum or end (RFC 9580 section 6.2)."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    blank = next((number for number, line in enumerate(lines) if not line.strip()), len(lines))
    body: list[bytes] = []
    for line in lines[blank + 1 :]:
        if line.startswith((b"-----", b"=")):
            break
        body.append(line)
    return from_base64(b"".join(body)).data


def _packets_encrypt(data: bytes) -> bool:
    position, keys = 0, 0
    while position < len(data):
        kind, start, length = _packet(data, position)
        if kind in _ENCRYPTED_DATA:
            return True
        if length is None or kind not in _SESSION_KEYS | _MARKERS:
            return False
        keys += kind in _SESSION_KEYS
        position = start + length
    return keys > 0 and len(data) > _HEAD // 2  # so many recipients that their keys fill the head


def _packet(data: bytes, position: int) -> tuple[int, int, int | None]:
    """Type, start of the content and its length of a packet (RFC 9580 section 4.2); None: no definite length."""
    tag = data[position]
    head = data[position + 1 : position + 6].ljust(5, b"\xff")
    if not tag & 0x80:
        return -1, 0, None
    if tag & 0x40:
        first = head[0]
        if first < 192:
            return tag & 0x3F, position + 2, first
        if first < 224:
            return tag & 0x3F, position + 3, ((first - 192) << 8) + head[1] + 192
        return tag & 0x3F, position + 6, int.from_bytes(head[1:5], "big") if first == 255 else None
    octets = (1, 2, 4, 0)[tag & 3]
    length = int.from_bytes(head[:octets], "big") if octets else None
    return tag >> 2 & 0x0F, position + 1 + octets, length
