"""What the crash tests share: a peer that keeps a record, a gateway that delivers to it, and the seeds and budgets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.testing.ca import CA
from gateway.testing.net import free_port
from tests.peers.gateway_process import GatewayProcess, dns_server

__all__ = ["DOMAIN", "OTHER", "Record", "Scene", "budget", "scene"]

DOMAIN: Final = "flaky.example"
OTHER: Final = "strict.example"
_PEER: Final = "127.0.0.41"
_CLEAR: Final = {"version": 1, "protection": {"methods": ["plain"]}}
_ROOT: Final = Path(__file__).parents[2]


def budget(name: str, default: float) -> float:
    """A number from the environment (``GATEWAY_CRASH_...``), for longer runs or another seed."""
    return float(os.environ.get(f"GATEWAY_CRASH_{name}", default))


@dataclass(frozen=True, slots=True)
class Record:
    """What the peer has written down."""

    path: Path

    def deliveries(self) -> list[tuple[str, str]]:
        """Token and digest of every delivery, in order; a line that is being written is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="ascii").split("\n")[:-1]
        return [(token, digest) for token, _, digest in (line.partition(" ") for line in lines)]

    def tokens(self) -> set[str]:
        """The tokens that arrived at least once."""
        return {token for token, _ in self.deliveries()}

    def duplicates(self) -> int:
        """How many deliveries were one too many."""
        return sum(count - 1 for count in Counter(token for token, _ in self.deliveries()).values())


@dataclass(frozen=True, slots=True)
class Scene:
    """The gateway (not started yet), and the peer: its record, its port, and the ``gate``.

    While there is a file of that name, the peer answers no final dot.
    """

    gateway: GatewayProcess
    record: Record
    port: int
    gate: Path


@contextmanager
def scene(
    directory: Path,
    *,
    share: float = 0.0,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    clear: bool = False,
    policy: Mapping[str, Any] | None = None,
) -> Iterator[Scene]:
    """A peer that puts off a ``share`` of the transactions, and a gateway over an empty store.

    The peer serves :data:`DOMAIN` and :data:`OTHER`.
    ``clear``: without TLS between the two, so that a trace shows what is said. ``policy``: the policy file.
    """
    directory = directory.resolve()
    directory.mkdir(exist_ok=True)
    ca = CA()
    chain, key = ca.issue("mx.flaky.example").write(directory, "peer")
    port = free_port(_PEER)
    record, gate = Record(directory / "record"), directory / "gate"
    zone = f"mx.{DOMAIN}. 300 IN A {_PEER}\n"
    zone += "".join(f"{domain}. 300 IN MX 10 mx.{DOMAIN}.\n" for domain in (DOMAIN, OTHER))
    peer = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.crash.flaky_peer", "--address", _PEER, "--port", str(port)),
            *(() if clear else ("--certificate", str(chain), "--key", str(key))),
            *("--record", str(record.path), "--gate", str(gate), "--share", str(share), "--seed", str(seed)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
    )
    assert peer.stdout is not None
    try:
        assert peer.stdout.readline() == b"listening\n"
        with dns_server(zone) as resolver:
            delivery = {
                "port": port,
                "allow_networks": ["127.0.0.0/8"],
                "retry": {"first": "1s", "max": "2s", "expire": "1d", "delay_notice": "4h"},
            }
            connector = {
                "name": "app",
                "accept": {"networks": ["127.0.0.0/8"]},
                "senders": ["sender.example"],
                "limits": {"messages_per_minute": 1_000_000},
            }
            given = dict(settings or {})
            gateway = GatewayProcess(
                directory,
                resolver=resolver,
                settings={"delivery": delivery, "connectors": [connector], **given},
                policies={"policy.yaml": policy or _CLEAR} if policy or clear else None,
            )
            try:
                yield Scene(gateway, record, port, gate)
            finally:
                gateway.kill9()
    finally:
        peer.terminate()
        peer.wait(10)
        peer.stdout.close()
