"""What can be run: each scenario by its name, as ``--scenarios`` takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["SPECIAL", "STREAMS", "Scenario"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A stream of messages of ``size`` octets, so many on a connection, so many connections at a time.

    ``rate``: so many a second begin, whatever becomes of earlier ones; ``None``: as fast as they are answered.
    """

    name: str
    size: int
    messages: int
    per_connection: int
    connections: int
    tls: bool = True
    rate: float | None = None

    @property
    def label(self) -> str:
        """For people."""
        size = f"{self.size / 1_000_000:g} MB" if self.size >= 1_000_000 else f"{self.size // 1024} KB"
        parts = [size, f"{self.per_connection} a connection", f"{self.connections} at a time"]
        if not self.tls:
            parts.append("without TLS")
        if self.rate is not None:
            parts.append(f"{self.rate:g} a second")
        return ", ".join(parts)

    def quick(self) -> Scenario:
        """A tenth of the messages: to see that it works."""
        return replace(self, messages=max(4, self.messages // 10))


STREAMS: Final = (
    Scenario("4k20", size=4096, messages=4000, per_connection=20, connections=20),
    Scenario("4k1", size=4096, messages=1000, per_connection=1, connections=20),
    Scenario("64k20", size=65536, messages=1000, per_connection=20, connections=20),
    Scenario("64k1", size=65536, messages=500, per_connection=1, connections=20),
    Scenario("5m20", size=5_000_000, messages=40, per_connection=20, connections=4),
    Scenario("5m1", size=5_000_000, messages=40, per_connection=1, connections=4),
    Scenario("latency", size=4096, messages=1500, per_connection=20, connections=20, rate=100),
    Scenario("plain", size=4096, messages=4000, per_connection=20, connections=20, tls=False),
)

#: Not a stream alone; what each does stands in README.md.
SPECIAL: Final = ("memory", "crowd", "slow", "backlog")
