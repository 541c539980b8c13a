"""Examining messages: small ones where they are, large ones in processes of their own.

A process is started when the first large message comes and ends when none came for a while. One that takes too long is
killed, and what it was looking at is unknown - which policy takes as reason for more care, never for less. Where all
are busy for too long the message stays with its sender for now (:class:`ScanBusy`): load must not turn into holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

import gateway
from gateway.errors import GatewayError
from gateway.policy.content import ContentFacts
from gateway.policy.examine import Examiner, examine
from gateway.scanning.child import MESSAGE_LIMIT
from gateway.scanning.frames import LONGEST_ANSWER, LONGEST_FRAME, facts_from_json, framed

__all__ = ["AT_ONCE_LIMIT", "BUDGET", "ScanBusy", "Scanners"]

_log = structlog.get_logger()

#: The child finds this very package, and nothing by its environment or working directory.
_CHILD = "import sys; sys.path.insert(0, sys.argv.pop()); from gateway.scanning.child import main; main()"

#: Octets up to which a message is examined at once: the event loop must not be held up for longer than 50 ms.
AT_ONCE_LIMIT = 256 * 1024
#: Seconds that examining one message may take; what is not known by then stays unknown.
BUDGET = 20.0
#: Seconds that a message waits for a process; the client of an SMTP session waits, too.
_PATIENCE = 10.0
#: Seconds without work after which a process ends.
_IDLE = 60.0


class ScanBusy(GatewayError):
    """All scanning processes are busy; later there will be room."""

    public = "The service is busy, please try again later"


@dataclass(slots=True, eq=False)
class _Scanner:
    """A process, and whether it has ended."""

    process: asyncio.subprocess.Process

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


@dataclass(slots=True)
class Scanners:
    """Examines messages; ``processes`` large ones at a time. :meth:`close` ends the processes."""

    processes: int = 1
    budget: float = BUDGET
    patience: float = _PATIENCE
    idle: float = _IDLE
    _free: asyncio.Queue[_Scanner | None] = field(init=False)
    _timers: dict[_Scanner, asyncio.TimerHandle] = field(default_factory=dict)
    _all: set[_Scanner] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._free = asyncio.Queue()
        for _ in range(self.processes):
            self._free.put_nowait(None)  # a place without a process

    async def examine(self, wanted: Examiner, message: bytes | AsyncIterator[bytes]) -> ContentFacts:
        """The answers for this message. Raises :class:`ScanBusy`, and what reading the message raises."""
        if not wanted.questions:
            return ContentFacts()
        if isinstance(message, bytes) and len(message) <= AT_ONCE_LIMIT:
            return examine(message, wanted)
        pieces = _pieces(message) if isinstance(message, bytes) else message
        begun = b""
        async for piece in pieces:
            begun += piece
            if len(begun) > AT_ONCE_LIMIT:
                break
        else:
            return examine(begun, wanted)
        return await self._elsewhere(wanted, _after(begun, pieces))

    async def _elsewhere(self, wanted: Examiner, message: AsyncIterator[bytes]) -> ContentFacts:
        scanner = await self._take()
        try:
            async with asyncio.timeout(self.budget):
                if scanner is None:
                    scanner = await self._start()
                facts = await _ask(scanner, wanted, message)
        except TimeoutError:
            self._end(scanner)
            scanner = None
            return ContentFacts.unknown(f"examining it took longer than {self.budget:g} s")
        except _Broken as error:
            self._end(scanner)
            scanner = None
            _log.warning("scanner_broken", error=str(error))
            return ContentFacts.unknown("examining it failed")
        except BaseException:
            self._end(scanner)
            scanner = None
            raise
        else:
            return facts
        finally:
            self._put_back(scanner)

    async def close(self) -> None:
        """End the processes; what they were looking at is unknown."""
        for timer in self._timers.values():
            timer.cancel()
        for scanner in list(self._all):
            scanner.kill()
            with contextlib.suppress(ProcessLookupError):
                await scanner.process.wait()
        self._all.clear()

    async def _take(self) -> _Scanner | None:
        """A process that waits, or a place for one."""
        try:
            async with asyncio.timeout(self.patience):
                scanner = await self._free.get()
        except TimeoutError:
            raise ScanBusy("all scanning processes are busy") from None
        if scanner is not None:
            self._timers.pop(scanner).cancel()
            if scanner.process.returncode is not None:
                self._all.discard(scanner)
                return None
        return scanner

    def _put_back(self, scanner: _Scanner | None) -> None:
        if scanner is not None:
            self._timers[scanner] = asyncio.get_running_loop().call_later(self.idle, self._rest, scanner)
        self._free.put_nowait(scanner)

    def _rest(self, scanner: _Scanner) -> None:
        """Nothing came for a while: the process ends, its place stays."""
        places = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for place in places:
            self._free.put_nowait(None if place is scanner else place)
        self._timers.pop(scanner, None)
        self._end(scanner)

    def _end(self, scanner: _Scanner | None) -> None:
        if scanner is not None:
            scanner.kill()
            self._all.discard(scanner)

    async def _start(self) -> _Scanner:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-c",
                _CHILD,
                str(Path(gateway.__file__).parents[1]),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin"},
                limit=LONGEST_ANSWER,
            )
        except OSError as error:
            raise _Broken(f"no process could be started: {error.strerror}") from error
        scanner = _Scanner(process)
        self._all.add(scanner)
        return scanner


class _Broken(Exception):
    """The process ended, or answered what it must not."""


async def _ask(scanner: _Scanner, wanted: Examiner, message: AsyncIterator[bytes]) -> ContentFacts:
    into, out = scanner.process.stdin, scanner.process.stdout
    assert into is not None
    assert out is not None
    try:
        into.write(framed(pickle.dumps(wanted)))
        sent = 0
        async for piece in message:
            if sent > MESSAGE_LIMIT:
                break  # it has seen that there is more than it looks at
            for start in range(0, len(piece), LONGEST_FRAME):
                into.write(framed(piece[start : start + LONGEST_FRAME]))
                await into.drain()
            sent += len(piece)
        into.write(framed(b""))
        await into.drain()
        size = int.from_bytes(await out.readexactly(4), "big")
        if size > LONGEST_ANSWER:
            raise _Broken(f"the answer has {size} octets")
        return facts_from_json(await out.readexactly(size))
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise _Broken(f"the process ended: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Broken(f"the answer cannot be read: {error}") from error


async def _pieces(message: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(message), LONGEST_FRAME):
        yield message[start : start + LONGEST_FRAME]


async def _after(begun: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begun
    async for piece in rest:
        yield piece
