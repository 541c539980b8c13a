"""Conditions on what stands around a message: addresses, connector, kind, size, number of recipients, time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from gateway.mail.envelope import Kind
from gateway.policy.conditions import Truth
from gateway.policy.facts import MessageFacts
from gateway.policy.patterns import AddressPattern, DomainPattern

__all__ = [
    "DAYS",
    "ConnectorIs",
    "FromIs",
    "KindIs",
    "RecipientCount",
    "RecipientDomainIs",
    "RecipientIs",
    "SenderIs",
    "SizeIs",
    "TimeIs",
]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class SenderIs:
    """The envelope sender fits one of the patterns."""

    patterns: tuple[AddressPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Always known."""
        return any(pattern.matches(facts.sender) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"sender": [...]}``."""
        return {"sender": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class FromIs:
    """The mailbox in From fits one of the patterns."""

    patterns: tuple[AddressPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until the header was read."""
        if facts.author is None:
            return None
        return any(pattern.matches(facts.author) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"from": [...]}``."""
        return {"from": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class RecipientIs:
    """The envelope recipient fits one of the patterns."""

    patterns: tuple[AddressPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Always known."""
        return any(pattern.matches(facts.recipient) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"recipient": [...]}``."""
        return {"recipient": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class RecipientDomainIs:
    """The domain of the envelope recipient fits one of the patterns."""

    patterns: tuple[DomainPattern, ...]

    def truth(self, facts: MessageFacts) -> Truth:
        """Always known."""
        return any(pattern.matches(facts.recipient.domain) for pattern in self.patterns)

    def canonical(self) -> Any:
        """``{"recipient_domain": [...]}``."""
        return {"recipient_domain": sorted({pattern.text for pattern in self.patterns})}


@dataclass(frozen=True, slots=True)
class ConnectorIs:
    """The message came in by one of these connectors."""

    names: frozenset[str]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until the header was read: markers in it choose the connector."""
        return None if facts.connector is None else facts.connector in self.names

    def canonical(self) -> Any:
        """``{"connector": [...]}``."""
        return {"connector": sorted(self.names)}


@dataclass(frozen=True, slots=True)
class KindIs:
    """The message is of one of these kinds."""

    kinds: frozenset[Kind]

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until the header was read."""
        return None if facts.kind is None else facts.kind in self.kinds

    def canonical(self) -> Any:
        """``{"kind": [...]}``."""
        return {"kind": sorted(self.kinds)}


@dataclass(frozen=True, slots=True)
class SizeIs:
    """The message has more than ``over`` and less than ``under`` octets."""

    over: int | None = None
    under: int | None = None

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until it has arrived."""
        return _between(facts.size, self.over, self.under)

    def canonical(self) -> Any:
        """``{"size": [over, under]}``."""
        return {"size": [self.over, self.under]}


@dataclass(frozen=True, slots=True)
class RecipientCount:
    """The envelope has more than ``over`` and less than ``under`` recipients."""

    over: int | None = None
    under: int | None = None

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown until the envelope is complete."""
        return _between(facts.recipients, self.over, self.under)

    def canonical(self) -> Any:
        """``{"recipient_count": [over, under]}``."""
        return {"recipient_count": [self.over, self.under]}


def _between(value: int | None, over: int | None, under: int | None) -> Truth:
    if value is None:
        return None
    return (over is None or value > over) and (under is None or value < under)


@dataclass(frozen=True, slots=True)
class TimeIs:
    """It is one of these days, and between these minutes of the day, in this zone.

    ``start`` is included, ``end`` is not; where ``end`` is not later than ``start`` the time runs over midnight, and
    belongs to the day that it began on. Both 0: the whole day.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: str

    def truth(self, facts: MessageFacts) -> Truth:
        """Unknown where nobody says what time it is."""
        if facts.time is None:
            return None
        try:
            now = datetime.fromtimestamp(facts.time, ZoneInfo(self.zone))
        except (ValueError, OverflowError, OSError):
            return None
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days

    def canonical(self) -> Any:
        """``{"time": [days, start, end, zone]}``."""
        return {"time": [sorted(self.days), self.start, self.end, self.zone]}
