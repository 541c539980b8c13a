"""A process that the supervisor wants to run: forked to end with its parent, and started again when it died."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from gateway.app.channel import Channel
from gateway.app.seat import Seat

__all__ = ["Backoff", "Child", "describe_status", "fork", "kill"]

_log = structlog.get_logger()

_PR_SET_PDEATHSIG = 1
#: What the parent listens to; the child gets the default, or nothing where a terminal tells all of a group.
_DEFAULT = (signal.SIGTERM, signal.SIGCHLD)
_IGNORED = (signal.SIGINT, signal.SIGHUP)
#: Longest wait before a process that dies again and again is started.
LONGEST = 30.0
#: Who ran so long has earned a fresh start.
RAN_WELL = 60.0


def _prctl() -> Callable[[int, int], int] | None:
    """Loaded before the fork: nothing is looked up in the child."""
    if sys.platform != "linux":
        return None
    function: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    return function


_PRCTL = _prctl()


def fork(child: Callable[[], int]) -> int:
    """Run ``child`` in a process of its own, which ends with its result; the pid. The caller has one thread.

    It dies when we do, however that comes about. Nothing of the caller's stack runs in it: no handler, no clean-up.
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_DEFAULT, *_IGNORED))
    try:
        pid = os.fork()
        if not pid:
            _be(child, parent)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be(child: Callable[[], int], parent: int) -> None:
    status = 1
    try:
        if _PRCTL is not None:
            _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_DEFAULT, *_IGNORED))
        if os.getppid() == parent:  # else it died before the kernel was told
            status = child()
    except BaseException:  # noqa: BLE001  the last frame of this process
        _log.exception("process_failed")
    finally:
        os._exit(status)


def describe_status(status: int) -> str:
    """How a process ended, in words, from what ``waitpid`` says."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"ended with {code}"


@dataclass(slots=True)
class Backoff:
    """How long to wait before the next start: nothing, then 1 s, doubling to 30 s; all over after a good minute."""

    deaths: int = 0

    def died(self, ran: float) -> float:
        """It died after ``ran`` seconds; how many to wait."""
        if ran >= RAN_WELL:
            self.deaths = 0
        wait = 0.0 if not self.deaths else min(2.0 ** (self.deaths - 1), LONGEST)
        self.deaths += 1
        return wait


@dataclass(slots=True, eq=False)
class Child:
    """A process that should run. ``seat``: where it sits - a worker or web; health has none.

    ``takes_mail``: a worker, which has sockets of listeners. ``alarm`` is the kind that rings when it dies. ``answer``:
    of the last reload that it was asked to prepare, and what is wrong with it.
    """

    name: str
    seat: Seat | None = None
    takes_mail: bool = False
    alarm: str = ""
    pid: int = 0
    channel: Channel | None = None
    started: float = 0.0
    beat: float = 0.0
    ready: bool = False
    due: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    failed: str = ""
    answer: tuple[int, list[str]] = (0, [])

    @property
    def state(self) -> str:
        """Why it cannot do its work; "" where it can."""
        if self.ready:
            return ""
        return "it is starting" if self.pid else "it has died, and is started again"


def kill(child: Child, number: int) -> None:
    """Send it a signal, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(child.pid, number)
