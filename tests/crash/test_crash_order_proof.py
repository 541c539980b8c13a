"""P1 and P3, the order: strace watches two workers; each sync was done before what depends on it.

For every 250: file, directory and log before the answer. For every delivery: the claim before the envelope, the outcome
before anybody hears of it, and before the body goes.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.crash import tracer
from tests.crash.ledger import LARGE, Client, message
from tests.crash.order import Accepted, faults, transactions
from tests.crash.order_out import Delivered, delivery_faults
from tests.crash.scene import scene
from tests.crash.strace_log import parse
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(300)]

INLINE = 128 * 1024
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
    with scene(tmp_path, share=0.3, settings={"workers": 2}) as stage:
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


def test_before_every_step_of_a_delivery_its_mark_was_synced(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    delivered: list[Delivered] = []
    with scene(tmp_path, share=0.4, seed=3, clear=True, settings={"workers": 2}) as stage:
        gateway = stage.gateway
        gateway.start()
        with tracer.attached(gateway.pids(), log, "-yy", "-xx", "-s", "8192", "-e", f"trace={CALLS}"):
            for number in range(12):
                one = message(f"out-{number}-x", large=number % 3 == 0)
                client = Client(gateway.address, gateway.port)  # each at the worker that the kernel deals it to
                try:
                    answer = client.send(one)
                finally:
                    client.close()
                assert answer.accepted, answer
                delivered.append(Delivered(one.token, id_in(answer.text), len(one.content)))
            tokens = {one.token for one in delivered}
            wait_for("all of it arrives", lambda: tokens <= stage.record.tokens(), seconds=90)
            wait_for("all of it has ended", lambda: gateway.queue_list() == [], seconds=60)
        gateway.stop()
    with log.open(encoding="ascii") as lines:
        calls = parse(lines)
    assert delivery_faults(calls, delivered, peer=stage.port, inline=INLINE) == []
    # The proof has teeth: without the syncs of the log each of them is at fault, for every step.
    unsynced = [call for call in calls if not (call.name in {"fsync", "fdatasync"} and call.target.endswith("-wal"))]
    found = delivery_faults(unsynced, delivered, peer=stage.port, inline=INLINE)
    for words in ("RCPT TO number 1 was sent before", "its delivery was told before"):
        assert sum(words in fault for fault in found) == len(delivered), found
    assert sum("its file was removed before" in fault for fault in found) == 4, found


def id_in(reply: str) -> str:
    """The message's id in the answer to the final dot."""
    return next(word for word in reply.replace("=", " ").split() if len(word) == 36)
