"""The error tree: whose fault, temporary or permanent, which SMTP code, and what a peer may be told.

::

    GatewayError
    ├── ConfigError            the operator's files; carries every fault with its place
    ├── StoreError             our own storage; a client sees 451 4.3.0 and keeps its message
    │   ├── StoreFull          no room: 452 4.3.1, heals by itself
    │   ├── StoreBusy          another writer holds the database: 451 4.3.0
    │   ├── StoreAway          the database server is out of reach: 451 4.3.0, heals by itself
    │   ├── StoreFailed        a write or sync failed: the store takes nothing more until restarted (promise P8)
    │   ├── StoreCorrupt       what was read is not what was written
    │   └── KeyMissing         rows exist whose key-encryption key was not given: refuse to start
    ├── Refusal                what we answer to an SMTP client, with the label for metrics and log
    ├── QueueError             an operator asked for something that the state table does not allow
    └── GuardViolation         the last line of defence: a session below the required assurance was about to carry mail

Faults of a *peer* are not exceptions outside the session that met them: they are values
(:class:`gateway.mail.attempt.Failure`), because they are ordinary outcomes of a delivery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "ConfigError",
    "Fault",
    "GatewayError",
    "GuardViolation",
    "KeyMissing",
    "QueueError",
    "Refusal",
    "StoreAway",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreFailed",
    "StoreFull",
]


class GatewayError(Exception):
    """Base of everything that this package raises on purpose.

    ``code``/``enhanced``/``public`` are what an SMTP client may be told; the exception's own text is for the log.
    """

    code: ClassVar[int] = 451
    enhanced: ClassVar[str] = "4.3.0"
    public: ClassVar[str] = "Local error in processing, please try again later"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in a file of the operator's: printed as ``FILE:LINE:COL: message`` (lines and columns from 1)."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class ConfigError(GatewayError):
    """The configuration cannot be used; ``faults`` holds everything that is wrong with it, not only the first."""

    def __init__(self, faults: list[Fault] | tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


class StoreError(GatewayError):
    """Something in our own storage did not work."""


class StoreFull(StoreError):
    """No room: below the free-space floor, or the file system said so."""

    code = 452
    enhanced = "4.3.1"
    public = "Insufficient system storage, please try again later"


class StoreBusy(StoreError):
    """The database stayed locked by another process for too long."""


class StoreAway(StoreError):
    """The database server is out of reach, or the connection to it broke.

    Where it broke during a write, nobody knows whether that write stands: it must be called neither good nor undone.
    """


class StoreFailed(StoreError):
    """A write or a sync failed. It is never retried and called good: the store takes nothing more."""


class StoreCorrupt(StoreError):
    """What was read back is not what was written: wrong length, digest, or a body that is gone."""


class KeyMissing(StoreError):
    """The store holds data sealed under a key-encryption key that the configuration does not give."""


class Refusal(GatewayError):
    """An answer to an SMTP client other than success.

    ``reason`` is a short label out of a closed set, used in metrics and logs. ``detail`` goes to the log only.
    """

    def __init__(self, code: int, enhanced: str, text: str, *, reason: str, detail: str = "") -> None:
        super().__init__(f"{code} {enhanced} {text}")
        self.reply_code = code
        self.reply_enhanced = enhanced
        self.text = text
        self.reason = reason
        self.detail = detail

    @property
    def line(self) -> str:
        """The reply as it goes over the wire, without the line end."""
        return f"{self.reply_code} {self.reply_enhanced} {self.text}"


class QueueError(GatewayError):
    """The queue cannot do what was asked; the text says why and what would work."""


class GuardViolation(GatewayError):
    """Mail was about to be sent over a session that attained less than the delivery requires. Always a bug of ours."""
