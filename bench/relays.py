"""What stands between generator and sink: nothing, Postfix as installed, Postfix with connection reuse, the gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.processes import tree
from gateway.testing.ca import CA, Certificate
from gateway.testing.net import free_port
from tests.peers import postfix
from tests.peers.gateway_process import GatewayProcess, dns_server

__all__ = ["Relay", "Sink", "direct", "gateway_relay", "postfix_relay", "sink"]

SINK: Final = "127.0.0.51"
RELAY: Final = "127.0.0.52"
_ROOT: Final = Path(__file__).parents[1]
_PLAIN: Final = {"version": 1, "protection": {"methods": ["plain"]}}


@dataclass(frozen=True, slots=True)
class Relay:
    """Where the generator connects, with TLS or without, and which processes do the work (none: there is no relay)."""

    name: str
    address: str
    port: int
    pids: Callable[[], list[int]]
    tls: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """What the sink holds since its last reset: see ``Tally`` in :mod:`bench.sink`."""

    messages: int
    distinct: int
    duplicates: int
    strays: int
    octets: int
    sessions: int
    last: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Sink:
    """The sink's process."""

    address: str
    port: int
    process: subprocess.Popen[str]

    def reset(self, run: str) -> None:
        """Counters to zero; from now on only messages of that run count."""
        self._say(f"reset {run}")

    def count(self) -> Counted:
        """The counters now."""
        self._say("count")
        assert self.process.stdout is not None
        return Counted(**json.loads(self.process.stdout.readline()))

    def wait(self, messages: int, seconds: float) -> Counted:
        """The counters once that many different messages are in, or after ``seconds`` without any progress."""
        counted = self.count()
        deadline = time.monotonic() + seconds
        while counted.distinct < messages and time.monotonic() < deadline:
            time.sleep(0.02)  # between two looks: rates are taken from the sink's own clock, not from here
            now = self.count()
            if now.messages > counted.messages:
                deadline = time.monotonic() + seconds
            counted = now
        return counted

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


@contextmanager
def sink(directory: Path, certificate: Certificate) -> Iterator[Sink]:
    """A running sink."""
    port = free_port(SINK)
    chain, key = certificate.write(directory, "sink")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench.sink", "--address", SINK, "--port", str(port)),
            *("--certificate", str(chain), "--key", str(key)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "listening\n":
            raise RuntimeError("the sink does not listen")
        yield Sink(SINK, port, process)
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def direct(target: Sink, *, tls: bool = True) -> Relay:
    """Nothing between: what generator and sink can do at most."""
    return Relay("direct", target.address, target.port, list, tls)


@contextmanager
def postfix_relay(target: Sink, certificate: Certificate, *, reuse: bool, tls: bool = True) -> Iterator[Relay]:
    """Postfix as installed, with TLS demanded in and out, or none; ``reuse``: TLS connections are used again."""
    listener = postfix.Listener(RELAY, free_port(RELAY), certificate if tls else None, encrypt=tls)
    settings = {} if tls else {"smtp_tls_security_level": "none"}
    next_hop = f"[{target.address}]:{target.port}"
    with postfix.relay([listener], next_hop, reuse=reuse, settings=settings) as instance:
        name = "postfix-reuse" if reuse else "postfix"
        yield Relay(name, listener.address, listener.port, lambda: tree(instance.process.pid), tls)


@contextmanager
def gateway_relay(
    target: Sink, certificate: Certificate, trust: CA, *, tls: bool = True, sample: str = ""
) -> Iterator[Relay]:
    """The gateway as shipped: sealed store, policy, evidence; TLS demanded in, ``encrypted`` out.

    Without TLS: a listener with ``tls: none``, and a policy that allows the method ``plain``; the rest the same.
    ``sample``: with this shipped policy, such as ``healthcare.yaml``, which looks into every message.
    """
    name = sample.partition(".")[0] or "gateway"
    policies: dict[str, Any] | None = None if tls else {"plain.yaml": _PLAIN}
    if sample:
        policies = {sample: yaml.safe_load((Path(__file__).parents[1] / "policies" / sample).read_text("utf-8"))}
    directory = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    route = {"host": "sink.example", "port": target.port, "tls": "encrypted" if tls else "none", "final": tls}
    connector = {
        "name": "bench",
        "accept": {"networks": ["127.0.0.0/8"]},
        "senders": ["sender.example"],
        "limits": {"message_size": "200MB", "connections": 4000, "messages_per_minute": 10_000_000},
    }
    try:
        with dns_server(f"sink.example. 300 IN A {target.address}\n") as resolver:
            gateway = GatewayProcess(
                directory,
                resolver=resolver,
                certificate=certificate if tls else None,
                trust=trust,
                settings={
                    "workers": "auto",
                    "connectors": [connector],
                    "limits": {"connections": 4000},
                    "delivery": {"routes": {"sink.example": route}, "retry": {"first": "1m"}},
                },
                policies=policies,
            )
            try:
                gateway.start()
                assert gateway.process is not None
                root = gateway.process.pid
                yield Relay(name, gateway.address, gateway.port, lambda: tree(root), tls)
                gateway.stop()
            finally:
                gateway.kill9()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
