"""Whether a message is going round in circles (RFC 5321 section 6.3), by Received fields and by our own marks."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.ingress.refusals import Reason, refusal
from gateway.mail.address import Address
from gateway.mail.headers import Field
from gateway.mail.loopmark import MAX_PASSES, count_passes

__all__ = ["MAX_RECEIVED", "looping_recipients"]

#: So many Received fields and it is a loop whatever the marks say.
MAX_RECEIVED = 30


def looping_recipients(key: bytes, found: Sequence[Field], recipients: Sequence[Address]) -> frozenset[str]:
    """``Address.key`` of the recipients that have passed three times, where some have not.

    Raises :class:`gateway.errors.Refusal` where all have, or the message has too many Received fields.
    """
    if sum(field.name == "received" for field in found) >= MAX_RECEIVED:
        raise refusal(554, "5.4.6", "Too many hops, this message is looping", Reason.LOOP, detail="received")
    passes = count_passes(key, found, recipients)
    looping = frozenset(recipient for recipient, count in passes.items() if count >= MAX_PASSES)
    if looping and len(looping) == len(passes):
        raise refusal(554, "5.4.6", "This message is looping through this gateway", Reason.LOOP, detail="mark")
    return looping
