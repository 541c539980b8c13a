"""The content of one message over one connection, from its first octet to the answer: by DATA or by BDAT.

1. what comes is scanned (``data``, ``chunking``) and fed to the :class:`gateway.ingress.reception.Reception`
2. whatever happens on the way, the content is read to its end, or the session ends: to go on with commands from the
   middle of a message would be to take the rest of it for commands
3. the intake makes it durable, in a task that nothing cancels; then the answer
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from structlog.typing import FilteringBoundLogger

from gateway.errors import GatewayError, Refusal
from gateway.ingress.chunking import Chunk, ChunkScanner
from gateway.ingress.connection import Connection, Disconnect
from gateway.ingress.data import DataScanner, Violation
from gateway.ingress.memory import Hold
from gateway.ingress.reader import CHUNK, STREAM_LIMIT
from gateway.ingress.reception import Reception
from gateway.ingress.refusals import Reason, from_error, refusal
from gateway.ingress.terms import Services
from gateway.ingress.transaction import Transaction

__all__ = ["Content", "discard"]

#: A client that goes on beyond this multiple of its limit is cut off: it was told SIZE.
OVERRUN = 4


class Content:
    """The content of one message. :meth:`end` is called once, whatever became of it.

    ``refusal`` is the first thing that is wrong with it; what still comes of it is then read and thrown away.
    """

    def __init__(
        self,
        connection: Connection,
        transaction: Transaction,
        services: Services,
        hold: Hold,
        commits: set[asyncio.Task[str]],
        log: FilteringBoundLogger,
    ) -> None:
        self._connection = connection
        self._transaction = transaction
        self._services = services
        self._hold = hold
        self._commits = commits
        self._log = log
        self._reception = Reception(transaction, services)
        self._chunks = ChunkScanner()
        self._handed_over = False
        self.result = "incomplete"

    @property
    def refusal(self) -> Refusal | None:
        """Why the message will not be taken; None as long as it may be."""
        return self._reception.refusal

    async def receive_data(self) -> None:
        """Read what follows ``354``, to the end of data. Raises ``Disconnect`` and ``ConnectionError`` only."""
        connection, scanner = self._connection, DataScanner()
        with self._in_step():
            while not scanner.done:
                piece = scanner.feed(await connection.read_data(CHUNK))
                await self._feed(piece, scanner.violation, scanner.received)
                if scanner.received > overrun(self._transaction.size_limit):
                    raise Disconnect(refusal(421, "4.3.0", "Far too much data", Reason.TOO_LARGE))
            connection.unread(scanner.rest)

    async def receive_chunk(self, chunk: Chunk) -> None:
        """Read one chunk of BDAT, exactly. Raises ``Disconnect`` and ``ConnectionError`` only."""
        connection, scanner, left = self._connection, self._chunks, chunk.size
        if scanner.received + chunk.size > overrun(self._transaction.size_limit):
            raise Disconnect(too_large(self._transaction.size_limit))
        with self._in_step():
            while left:
                octets = await connection.read_data(min(left, CHUNK))
                left -= len(octets)
                piece = scanner.feed(octets)
                await self._feed(piece, scanner.violation, scanner.received)
            if chunk.last:
                piece = scanner.finish()
                await self._feed(piece, scanner.violation, scanner.received)

    async def accept(self) -> None:
        """Hand the message over and answer; it counts as accepted whether or not anybody hears the answer.

        Raises :class:`gateway.errors.Refusal`: it was not taken.
        """
        submission = await self._reception.finish()
        self._handed_over = True  # the spool is the intake's now: nothing here may forget it while it commits
        commit = asyncio.get_running_loop().create_task(self._services.intake.accept(submission))
        self._commits.add(commit)
        commit.add_done_callback(self._commits.discard)
        try:
            message_id = await asyncio.shield(commit)
        except Exception as error:  # noqa: BLE001 - whatever happened to it, the client gets a coded answer
            if not isinstance(error, GatewayError):
                self._log.error("commit_failed", message=submission.message.id, exc_info=error)
            with contextlib.suppress(Exception):
                await submission.spool.abort()
            raise from_error(error) from None
        # Whoever closed before this may never know; a client that only half-closed reads it all the same.
        gone = self._connection.has_ended
        try:
            await self._connection.push(f"250 2.0.0 Accepted as {message_id}")
            await self._connection.flush()
        except ConnectionError:
            gone = True
        self.result = "client_gone" if gone else "accepted"
        log = self._log.warning if gone else self._log.info
        log(
            "accepted",
            message=message_id,
            connector=submission.connector.name,
            size=submission.message.size,
            recipients=len(submission.message.envelope.recipients),
            violations=list(submission.violations),
            client_gone=gone,
        )

    async def end(self) -> None:
        """Count what became of it, and forget what is left of it."""
        self._services.metrics.received(self._reception.connector, self.result)
        try:
            if not self._handed_over:
                await self._reception.abort()
        finally:
            self._hold.release()

    async def _feed(self, piece: bytes, violation: Violation | None, received: int) -> None:
        reception = self._reception
        if violation is not None:
            await reception.void(violation)
        if reception.refusal is None:
            try:
                self._hold.cover(received)
            except Refusal as refused:
                await reception.give_up(refused)
        if piece:
            await reception.feed(piece)
        if reception.refusal is not None:
            self._hold.release()  # nothing is kept any more

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """Any fault of ours on the way ends the session."""
        try:
            yield
        except (Disconnect, ConnectionError):
            raise
        except Exception as error:
            self._log.error("command_failed", message=self._transaction.id, exc_info=error)
            raise Disconnect(refusal(421, "4.3.0", GatewayError.public, Reason.STORE)) from error


def overrun(limit: int) -> int:
    """How much may come of a message that may have ``limit`` octets, before its client is cut off."""
    return OVERRUN * limit + STREAM_LIMIT


def too_large(limit: int) -> Refusal:
    """The answer to a message, or a chunk, beyond the limit."""
    return refusal(552, "5.3.4", f"Message size exceeds {limit} bytes", Reason.TOO_LARGE)


async def discard(connection: Connection, size: int) -> None:
    """Read octets that no message takes. Raises ``ConnectionError`` where the client leaves before."""
    while size:
        size -= len(await connection.read_data(min(size, CHUNK)))
