"""What a backlog costs: ``python -m bench.backlog [--sizes 10000 100000 1000000]``.

For each size a store is filled through the project's own schema - sealed bodies, counters, events - with recipients
that wait (``deferred``, an hour from now) or, with ``--due``, with mail that is due when the gateway starts, for a
sink that takes it. Then the gateway starts, and this prints: seconds until ``ready``, until the first ``250`` to new
mail, CPU over ten idle seconds, memory, how fast new mail goes through, the size of the store. The first line is an
empty store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.memory import held
from bench.processes import tree, worked
from bench.relays import Sink, sink
from gateway.clock import SystemClock
from gateway.config.load import load_settings
from gateway.mail.address import Address
from gateway.mail.envelope import Envelope, Message, Recipient
from gateway.mail.ids import uuid7
from gateway.mail.protection import Requirement
from gateway.queue.accept import insert_message
from gateway.queue.claims import DUE_BATCH
from gateway.queue.records import NewMessage, NewRecipient
from gateway.store.schema import counters, recipients
from gateway.store.store import Store
from gateway.store.writer import Transaction
from gateway.testing.ca import CA
from tests.peers.gateway_process import GatewayProcess, dns_server

__all__ = ["Figures", "fill", "main", "measure"]

_ROOT: Final = Path(__file__).parents[1]
_BODY: Final = b"From: app@bulk.example\r\nTo: x@away.example\r\nSubject: notice\r\n\r\n" + b"x" * 900 + b"\r\n"
_SENDERS: Final = 50
_DOMAINS: Final = 2000
_IDLE: Final = 10.0
_FRESH: Final = 1000


@dataclass(frozen=True, slots=True)
class Figures:
    """One store. Seconds, shares of a core, octets, messages a second."""

    waiting: int
    state: str
    filled_in: float
    store: int
    ready: float
    first_250: float
    idle_cpu: float
    rss: int
    pss: int
    rss_after: int
    fresh_per_second: float
    fresh_wait_p99: float


async def fill(config: Path, number: int, *, due: bool) -> None:
    """Put so many recipients, a message each, into the store of this configuration; the gateway must not run."""
    settings = load_settings(config)
    clock = SystemClock()
    store = await asyncio.to_thread(Store.open, settings, clock)
    try:
        for begin in range(0, number, DUE_BATCH):
            batch = [
                await _message(store, clock, place, due=due) for place in range(begin, min(begin + DUE_BATCH, number))
            ]

            def job(transaction: Transaction, batch: list[NewMessage] = batch) -> None:
                for new in batch:
                    insert_message(transaction, store, new, expire=5 * 86400.0)

            await store.write(job)
        if not due:
            await store.write(_defer)
    finally:
        await store.close()


async def _message(store: Store, clock: SystemClock, place: int, *, due: bool) -> NewMessage:
    now = clock.time()
    name = uuid7(now, os.urandom(10))
    spool = store.spool(name)
    await spool.write(_BODY)
    body = await spool.finish()
    domain = "sink.example" if due else f"away{place % _DOMAINS}.example"
    to = Recipient(Address.parse(f"user{place}@{domain}"))
    envelope = Envelope(Address.parse(f"app{place % _SENDERS}@sender.example"), (to,), "bench", "192.0.2.1", "app")
    message = Message(name, now, envelope, body.size, body.digest)
    return NewMessage(message, body, (NewRecipient(to, Requirement()),))


def _defer(transaction: Transaction) -> None:
    """All of them were tried once and wait: over the next hours, the first in half an hour."""
    connection = transaction.connection
    spread = 1800.0 + recipients.c.origin % 10000
    changed = connection.execute(
        recipients.update()
        .where(recipients.c.state == "queued")
        .values(state="deferred", attempts=1, next_attempt=transaction.now + spread, last_error="Connection refused")
    ).rowcount
    for name, delta in (("recipients.queued", -changed), ("recipients.deferred", changed)):
        connection.execute(counters.update().where(counters.c.name == name).values(value=counters.c.value + delta))


def _settings(target: Sink) -> dict[str, Any]:
    connector = {
        "name": "bench",
        "accept": {"networks": ["127.0.0.0/8"]},
        "senders": ["sender.example"],
        "limits": {"connections": 100, "messages_per_minute": 10_000_000},
    }
    route = {"host": "sink.example", "port": target.port, "tls": "encrypted", "final": True}
    return {
        "workers": "auto",
        "connectors": [connector],
        "delivery": {"routes": {"sink.example": route}, "retry": {"first": "1m", "max": "4h", "expire": "5d"}},
    }


@contextmanager
def _gateway(target: Sink, ca: CA) -> Iterator[GatewayProcess]:
    directory = Path(tempfile.mkdtemp(prefix="gateway-backlog-"))
    try:
        with dns_server(f"sink.example. 300 IN A {target.address}\n") as resolver:
            made = GatewayProcess(
                directory,
                resolver=resolver,
                certificate=ca.issue("relay.example"),
                trust=ca,
                settings=_settings(target),
            )
            try:
                yield made
            finally:
                made.kill9()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _first_250(gateway: GatewayProcess, begun: float) -> float:
    """Seconds since ``begun`` until new mail was answered 250."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nothing is judged here
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP(gateway.address, gateway.port, timeout=60) as client:
        client.starttls(context=context)
        client.sendmail(
            "first@sender.example", ["first@sink.example"], "From: first@sender.example\r\nSubject: first\r\n\r\nx\r\n"
        )
        return time.monotonic() - begun


def _fresh(gateway: GatewayProcess, target: Sink) -> tuple[float, float]:
    """New messages a second from the first connection to the last arrival; the 99th percentile of the dot's wait."""
    run = uuid.uuid4().hex[:12]
    target.reset(run)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.generator", "--address", gateway.address, "--port", str(gateway.port)),
            *("--connections", "20", "--per-connection", "20", "--messages", str(_FRESH), "--size", "4096"),
            *("--run", run),
        ],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        timeout=600,
        check=True,
    )
    told = json.loads(done.stdout)
    counted = target.wait(int(told["accepted"]), 60.0)
    return counted.distinct / max(counted.last - told["begun"], 1e-9), float(told["waits_p99"])


def measure(target: Sink, ca: CA, number: int, *, due: bool) -> Figures:
    """One store of that many, filled and served."""
    with _gateway(target, ca) as gateway:
        begun = time.monotonic()
        asyncio.run(fill(gateway.config, number, due=due))
        filled = time.monotonic() - begun
        size = sum(path.stat().st_size for path in gateway.data_dir.rglob("*") if path.is_file())
        begun = time.monotonic()
        gateway.start(seconds=120)
        ready = time.monotonic() - begun
        first = _first_250(gateway, begun)
        assert gateway.process is not None
        pids = tree(gateway.process.pid)
        before = worked(pids)
        time.sleep(_IDLE)  # the span that is measured
        idle = (worked(pids) - before) / _IDLE
        memory = held(pids)
        rate, wait = _fresh(gateway, target)
        figures = Figures(
            waiting=number,
            state="due" if due else "deferred",
            filled_in=filled,
            store=size,
            ready=ready,
            first_250=first,
            idle_cpu=idle,
            rss=memory.rss,
            pss=memory.pss,
            rss_after=held(tree(gateway.process.pid)).rss,
            fresh_per_second=rate,
            fresh_wait_p99=wait,
        )
        gateway.stop()
        return figures


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], metavar="RECIPIENTS")
    parser.add_argument("--due", action="store_true", help="mail that is due at the start instead")
    parser.add_argument("--results", type=Path, default=_ROOT / "bench" / "results" / "backlog.json")
    options = parser.parse_args()
    # A table that is written to a file is not squeezed into the eighty columns of a terminal that there is none of.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    found: list[Figures] = []
    table = Table(
        *("waiting", "state", "store MB", "ready s", "first 250 s", "idle CPU %", "RSS MB", "PSS MB"),
        *("new a second", "dot p99 s"),
    )
    with tempfile.TemporaryDirectory() as directory:
        ca = CA()
        with sink(Path(directory), ca.issue("sink.example", "127.0.0.51")) as target:
            for number in [0, *options.sizes]:
                one = measure(target, ca, number, due=options.due)
                found.append(one)
                console.print(json.dumps(asdict(one)), highlight=False, soft_wrap=True)
                table.add_row(
                    f"{one.waiting:,}",
                    one.state,
                    f"{one.store / 1e6:.0f}",
                    f"{one.ready:.1f}",
                    f"{one.first_250:.1f}",
                    f"{one.idle_cpu * 100:.1f}",
                    f"{one.rss / 1e6:.0f}",
                    f"{one.pss / 1e6:.0f}",
                    f"{one.fresh_per_second:.0f}",
                    f"{one.fresh_wait_p99:.3f}",
                )
    console.print(table)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
