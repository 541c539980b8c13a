"""What the portal tells of what happens in it, for metrics."""

from __future__ import annotations

from typing import Final

__all__ = ["EVENTS", "PortalObserver"]

#: Everything that is told: the values of the label ``event`` of ``gateway_portal_messages_total``.
EVENTS: Final = (
    "deposited", "noticed", "notice_failed", "reminded", "phrase_made", "expired", "withdrawn",
    "landed", "code_asked", "code_limited", "code_wrong", "signed_in", "opened", "viewed", "downloaded", "replied",
)  # fmt: skip


class PortalObserver:
    """Hears what happens in the portal; this one listens to nothing."""

    def happened(self, event: str) -> None:
        """One of :data:`EVENTS`."""

    def opened(self, seconds: float) -> None:
        """A message was read for the first time, so long after it was deposited."""
