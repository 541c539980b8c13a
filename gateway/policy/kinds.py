"""How mail of a special kind is treated: a built-in ``require`` that only removes methods.

Nobody should have to sign in somewhere to read that a colleague is on holiday; and a journal report that does not come
as mail is of no use to the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.mail.envelope import Kind
from gateway.mail.protection import Method

__all__ = ["LEFT", "UNTOLD"]

_WITHOUT_PORTAL = frozenset(Method) - {Method.PORTAL}

#: The methods that a kind leaves.
LEFT: Mapping[Kind, frozenset[Method]] = MappingProxyType(
    {
        Kind.DSN: _WITHOUT_PORTAL,
        Kind.RECEIPT: _WITHOUT_PORTAL,
        Kind.AUTO_REPLY: _WITHOUT_PORTAL,
        Kind.JOURNAL: frozenset({Method.TLS}),
    }
)

#: Mail that nobody waits for: where no method is left it is dropped with an event, not held.
UNTOLD = frozenset({Kind.DSN, Kind.RECEIPT, Kind.AUTO_REPLY})
