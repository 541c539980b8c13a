"""A recipient's MX that writes down what it has taken and puts off a share; a program of its own, so that it outlives
every kill of the gateway: ``python -m tests.crash.flaky_peer``.

STARTTLS is offered, where it has a certificate. A share of the transactions is answered 451, at RCPT or at the final
dot, by a generator of random numbers with a given seed. What is taken is appended to the record *before* the 250 is
written: a line with the token of each recipient (its local part), and the digest of the body.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True)
class Peer:
    """What all sessions share."""

    context: ssl.SSLContext | None
    record: TextIO
    gate: Path | None
    share: float
    chance: random.Random = field(repr=False)

    def puts_off(self) -> bool:
        """Is it this one's turn to be put off? Half of the share at RCPT, half at the dot."""
        return self.chance.random() < self.share / 2

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One session, from the banner to its end."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await self._session(reader, writer)
        with contextlib.suppress(OSError):
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 flaky ESMTP\r\n")
        tokens: list[str] = []
        secure = False
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb in {b"EHLO", b"HELO"}:
                writer.write(b"250-flaky\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n")
                offers = self.context is not None and not secure
                writer.write(b"250 STARTTLS\r\n" if offers else b"250 ENHANCEDSTATUSCODES\r\n")
            elif verb == b"STAR" and self.context is not None:
                writer.write(b"220 2.0.0 go ahead\r\n")
                await writer.drain()
                await writer.start_tls(self.context)
                secure = True
            elif verb == b"RCPT":
                if self.puts_off():
                    writer.write(b"451 4.2.0 not now\r\n")
                else:
                    tokens.append(line.partition(b"<")[2].partition(b"@")[0].decode("ascii"))
                    writer.write(b"250 2.1.5 ok\r\n")
            elif verb == b"DATA":
                if not tokens:
                    writer.write(b"503 5.5.1 no recipients\r\n")
                else:
                    writer.write(b"354 go ahead\r\n")
                    writer.write(await self._body(reader, tokens))
                    tokens = []
            elif verb == b"QUIT":
                writer.write(b"221 2.0.0 bye\r\n")
                await writer.drain()
                return
            else:
                if verb in {b"MAIL", b"RSET"}:
                    tokens = []
                writer.write(b"250 2.0.0 ok\r\n")
            await writer.drain()

    async def _body(self, reader: asyncio.StreamReader, tokens: list[str]) -> bytes:
        digest = hashlib.sha256()
        in_body = False
        while (line := await reader.readline()) != b".\r\n":
            if not line.endswith(b"\r\n"):
                raise asyncio.IncompleteReadError(line, None)
            if in_body:
                digest.update(line.removeprefix(b"."))
            elif line == b"\r\n":
                in_body = True
        while self.gate is not None and self.gate.exists():  # noqa: ASYNC110  another process opens it
            await asyncio.sleep(0.02)
        if self.puts_off():
            return b"451 4.3.0 not now\r\n"
        for token in tokens:
            self.record.write(f"{token} {digest.hexdigest()}\n")
        self.record.flush()
        return b"250 2.0.0 taken\r\n"


async def serve(peer: Peer, address: str, port: int) -> None:
    """Listen until the program is ended; the first line of output is ``listening``."""
    server = await asyncio.start_server(peer.serve, address, port, limit=1 << 20)
    async with server:
        print("listening", flush=True)  # noqa: T201 - the one who started this program waits for it
        await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.flaky_peer")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", help="without one there is no TLS")
    parser.add_argument("--key")
    parser.add_argument("--record", required=True)
    parser.add_argument("--gate", type=Path, help="as long as there is such a file, no final dot is answered")
    parser.add_argument("--share", type=float, default=0.3, help="of the transactions are put off")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    with Path(options.record).open("a", encoding="ascii") as record, contextlib.suppress(KeyboardInterrupt):
        peer = Peer(context, record, options.gate, options.share, random.Random(options.seed))
        asyncio.run(serve(peer, options.address, options.port))


if __name__ == "__main__":
    main()
