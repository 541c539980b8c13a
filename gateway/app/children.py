"""Forking a process that ends with its parent, and when one that died is started again."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import structlog

__all__ = ["Backoff", "describe_status", "fork"]

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
