"""One process's share of limits that hold for the whole gateway."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WHOLE", "Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """The part of worker ``number`` (from 1) of ``processes`` workers."""

    number: int = 1
    processes: int = 1

    def of(self, limit: int) -> int:
        """This worker's part of ``limit``. All parts together are the limit, but nobody gets less than one."""
        part, rest = divmod(limit, self.processes)
        return max(part + (self.number <= rest), 1)

    @property
    def is_first(self) -> bool:
        """Whether this is the worker that speaks for all where once is enough."""
        return self.number == 1


#: A process that is alone.
WHOLE = Share()
