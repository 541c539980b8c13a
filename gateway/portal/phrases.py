"""Access phrases: four words that the sender tells the recipient by phone.

From the English list of BIP 39: 2,048 common words, of which no two begin with the same four letters, so that they can
be told and typed. Four of them are 44 bits, and tries are few.
"""

from __future__ import annotations

import re
import secrets
from functools import cache

from mnemonic import Mnemonic

__all__ = ["new_phrase", "normal_phrase"]

_WORDS = 4
_MOST = 200


@cache
def _words() -> tuple[str, ...]:
    return tuple(Mnemonic("english").wordlist)


def new_phrase() -> str:
    """Four words with blanks between."""
    return " ".join(secrets.choice(_words()) for _ in range(_WORDS))


def normal_phrase(text: str) -> str:
    """A phrase as somebody typed it, as it is compared: small letters, one blank between words."""
    return " ".join(re.findall(r"[a-z]+", text[:_MOST].lower()))
