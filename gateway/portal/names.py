"""Names of a deposit that leave the house: the link's token, the code that is typed instead, the address for bounces.

All are derived from a secret of the store and the recipient's id, so that a reminder can say them again though only
what finds them is kept. None of them opens anything: they name a deposit, no more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["Names", "handle_of", "normal_typed"]

#: Letters and digits that nobody takes for each other, read or told by phone.
_CLEAR = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
_TYPED = 8


class Names:
    """Derives the names; ``secret`` is the store's loop secret, of which this uses a key of its own."""

    def __init__(self, secret: bytes) -> None:
        self._key = HKDF(hashes.SHA256(), 32, salt=None, info=b"portal").derive(secret)

    def _digest(self, purpose: str, *parts: str) -> bytes:
        return hmac.digest(self._key, "\0".join((purpose, *parts)).encode(), "sha256")

    def token(self, message: str, n: int) -> str:
        """What stands in the link: 26 letters and digits, 128 bits."""
        return _base32(self._digest("token", message, str(n))[:16])

    def typed(self, message: str, n: int) -> str:
        """The code that can be typed instead, without its dash. Not unique for certain."""
        number = int.from_bytes(self._digest("typed", message, str(n))[:10], "big")
        letters = []
        for _ in range(_TYPED):
            number, letter = divmod(number, len(_CLEAR))
            letters.append(_CLEAR[letter])
        return "".join(letters)

    def verp(self, message: str, n: int) -> str:
        """What stands behind the ``+`` in the envelope sender of its notices: 16 letters and digits, 80 bits."""
        return _base32(self._digest("verp", message, str(n))[:10])

    def keyed(self, purpose: str, *parts: str) -> bytes:
        """A digest that only this store can make: of codes and phrases, which are short enough to be guessed."""
        return self._digest(f"secret {purpose}", *parts)


def handle_of(token: str) -> bytes:
    """What finds the deposit of a link's token."""
    return hashlib.sha256(b"portal token\0" + token.encode("utf-8", "replace")).digest()[:16]


def normal_typed(text: str) -> str:
    """A typed code as it is kept: capitals, without dashes and blanks; "" where it cannot be one."""
    letters = re.sub(r"[\s-]", "", text).upper()
    return letters if len(letters) == _TYPED and all(letter in _CLEAR for letter in letters) else ""


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()
