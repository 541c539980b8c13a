"""P1, the order: strace watches the gateway accept mail; for every 250, file, directory and log were synced before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.crash import tracer
from tests.crash.ledger import LARGE, Client, message
from tests.crash.order import Accepted, faults, transactions
from tests.crash.scene import scene
from tests.crash.strace_log import parse
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(300)]

INLINE = 16 * 1024
SMALL = 900
CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,sendto,sendmsg"
)


@pytest.fixture(autouse=True)
def _strace() -> None:
    if (why := tracer.missing()) is not None:
        pytest.skip(why)


def hand_over(address: str, port: int, tokens: list[str], *, large: bool) -> list[Accepted]:
    """All over one connection, one after the other."""
    client = Client(address, port)
    try:
        for token in tokens:
            answer = client.send(message(token, large=large))
            assert answer.accepted, answer
        size = LARGE if large else SMALL
        return [Accepted(token, client.port, position, size // 74 * 74) for position, token in enumerate(tokens)]
    finally:
        client.close()


def test_before_every_250_file_directory_and_log_were_synced(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    with scene(tmp_path, share=0.3) as stage:
        gateway = stage.gateway
        gateway.start()
        accepted: list[Accepted] = []
        with tracer.attached(gateway.pids(), log, "-yy", "-xx", "-s", "8192", "-e", f"trace={CALLS}"):
            where = (gateway.address, gateway.port)
            accepted += hand_over(*where, [f"small-{n}-x" for n in range(10)], large=False)
            accepted += hand_over(*where, [f"large-{n}-x" for n in range(5)], large=True)
            # Together: several messages may share a transaction and its sync.
            together: list[Accepted] = []
            clients = [
                threading.Thread(
                    target=lambda names: together.extend(hand_over(*where, names, large=False)),
                    args=([f"group{number}-{n}-x" for n in range(5)],),
                )
                for number in range(4)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            accepted += together
        tokens = {one.token for one in accepted}
        wait_for("all of it arrives", lambda: tokens <= stage.record.tokens(), seconds=60)
        gateway.stop()
    assert len(accepted) == 10 + 5 + 20
    with log.open(encoding="ascii") as lines:
        calls = parse(lines)
    assert transactions(calls), "the log holds no commit: the proof would be empty"
    assert faults(calls, accepted, data_dir=str(gateway.data_dir), inline=INLINE) == []
