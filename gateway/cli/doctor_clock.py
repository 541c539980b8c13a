"""The doctor's look at the clock: whether it goes forward, and whether anything keeps it right.

No time server is asked. What the kernel knows of its own clock (adjtimex(2)) is what time services tell it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar

from gateway.cli.doctor_checks import Finding, Status

__all__ = ["ClockReading", "clock_steps", "clock_sync", "kernel_clock_error"]

#: Wall clock and monotonic clock may drift apart by this many seconds while the doctor works.
_DRIFT = 1.0
#: A wall clock before this moment (2025-01-01) was never set.
_LONG_AGO = 1735689600.0
#: Seconds of possible error from which the kernel holds its clock for unsynchronised (NTP_PHASE_LIMIT); timedatectl(1)
#: goes by the same. Not the flag STA_UNSYNC: chrony sets it to keep the kernel from writing the hardware clock.
_UNKEPT = 16.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Wall and monotonic clock, read at the same moment; seconds."""

    wall: float
    monotonic: float


def clock_steps(
    before: ClockReading, after: ClockReading, newest: dict[str, float], *, doubted: bool = False
) -> Finding:
    """Whether the wall clock is plausible.

    ``newest``: moments that must have passed, by what they are the moment of (epoch seconds).
    ``doubted``: what the gateway itself makes of it.
    """
    remedy = "let chrony or systemd-timesyncd set the clock; retries, certificates and signatures depend on it"
    if after.wall < _LONG_AGO:
        return Finding("clock", Status.BAD, "the clock was never set", remedy)
    step = (after.wall - before.wall) - (after.monotonic - before.monotonic)
    if abs(step) > _DRIFT:
        return Finding("clock", Status.WARNING, f"the clock was set by {step:+.1f} s just now", remedy)
    ahead = {what: moment - after.wall for what, moment in newest.items() if moment - after.wall > _DRIFT}
    if ahead:
        what, seconds = max(ahead.items(), key=lambda item: item[1])
        return Finding("clock", Status.BAD, f"{what} lies {seconds:.0f} s in the future: the clock went back", remedy)
    if doubted:
        detail = "the gateway holds it for wrong, by what it saw before: nothing ends for its age meanwhile"
        remedy = (
            "`gateway queue clock show` says why; set the clock, or say that it is right: `gateway queue clock accept`"
        )
        return Finding("clock", Status.WARNING, detail, remedy)
    return Finding("clock", Status.OK, "goes forward, and nothing in data_dir comes from the future")


# -- what keeps it ----------------------------------------------------------------------------------------------------


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2), as far as we read it; the rest is room for what the kernel writes."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("rest", ctypes.c_char * 256),
    ]


def kernel_clock_error() -> float | None:
    """The greatest error that the wall clock may have, in seconds, by what the kernel was told; None: not known."""
    timex = _Timex()  # modes 0: only read
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else float(timex.maxerror) / 1e6


def clock_sync(error: float | None) -> Finding:
    """Whether a time service keeps the clock right. ``error`` as of :func:`kernel_clock_error`."""
    remedy = "run chrony or systemd-timesyncd; `timedatectl` shows what it does"
    if error is None:
        detail = "could not tell: the system does not say whether its clock is kept right"
        return Finding("clock_sync", Status.NOTE, detail, "look at `timedatectl`, outside where this is a container")
    if error >= _UNKEPT:
        detail = "no time service keeps the clock right: it drifts by seconds a day"
        return Finding("clock_sync", Status.WARNING, detail, remedy)
    if error > _DRIFT:
        return Finding("clock_sync", Status.NOTE, f"kept right, but may be wrong by {error:.1f} s", remedy)
    return Finding(
        "clock_sync", Status.OK, f"kept right by a time service, to {max(error, 0.001) * 1000:.0f} ms or better"
    )
