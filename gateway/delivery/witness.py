"""Hears what a session shows while it opens: for those who want more of it than the evidence that every attempt keeps.

Deliveries have none. A witness decides nothing, and what it raises ends the session.
"""

from __future__ import annotations

import ssl

from gateway.delivery.wire import RawReply
from gateway.mail.attempt import Stage

__all__ = ["Witness"]


class Witness:
    """This one listens to nothing; override what is wanted. Called in the order of the session."""

    def connected(self) -> None:
        """The TCP connection stands."""

    def replied(self, stage: Stage, reply: RawReply) -> None:
        """The peer said this; EHLO is heard twice where TLS was begun between."""

    def secured(self, ssl_object: ssl.SSLObject) -> None:
        """The handshake is done, and nothing of it judged yet."""
