"""Tag lists: what DKIM writes signatures and key records in (RFC 6376 section 3.2)."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error

__all__ = ["DkimError", "from_base64", "tags"]

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


class DkimError(ValueError):
    """A signature or a key record is not good; the message says why."""


def tags(value: bytes) -> dict[str, str]:
    """A tag list. Raises :class:`DkimError`, also where a tag stands twice."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise DkimError("the tag list is not text") from None
    found: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, content = part.partition("=")
        name = name.strip()
        if not equals or not _TAG.match(name) or name in found:
            raise DkimError("the tag list is malformed")
        found[name] = content.strip()
    return found


def from_base64(text: str) -> bytes:
    """Base64 with white space anywhere. Raises :class:`DkimError`."""
    try:
        return b64decode("".join(text.split()), validate=True)
    except (Base64Error, ValueError):
        raise DkimError("a value is not base64") from None
