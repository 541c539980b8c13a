"""P8, P6, P3 where the system says no in the middle of the work: at outcomes, in recovery, at the door.

``test_crash_faulty_disk`` has the same for accepting. Here two workers run, and the peer holds its answer to the final
dot while the fault is put in place: what is told then meets it.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.crash import tracer
from tests.crash.ledger import send
from tests.crash.scene import Scene, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(300)]

NO_SYNC = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    if (why := tracer.missing()) is not None:
        pytest.skip(why)
    with scene(tmp_path, settings={"workers": 2}) as made:
        made.gateway.start(seconds=90)
        yield made


def arrived(stage: Scene, *tokens: str, seconds: float = 60) -> None:
    wait_for(f"{', '.join(tokens)} arrive", lambda: set(tokens) <= stage.record.tokens(), seconds=seconds)


def named(stage: Scene, event: str) -> list[dict[str, Any]]:
    return [each for each in stage.gateway.events(stage.gateway.begin) if each.get("event") == event]


def on_its_way(stage: Scene, token: str, *, large: bool = False) -> int:
    """Have a message at the peer's final dot, which is not answered; the number of the worker that has it."""
    stage.gate.touch()
    before = len(named(stage, "accepted"))
    assert send(stage, token, large=large).accepted
    (event,) = wait_for("it is accepted", lambda: named(stage, "accepted")[before:])

    def at_the_dot() -> bool:
        return [row["state"] for row in stage.gateway.queue_list()] == ["delivering"]

    wait_for("it is on its way", at_the_dot)
    return int(event["worker"])


def closed(stage: Scene) -> bool:
    problems = stage.gateway.ask("/readyz")
    return all(f"worker {number}: " in problems for number in (1, 2))


def start_again(stage: Scene) -> None:
    stage.gateway.kill9()
    stage.gateway.start(seconds=90)
    wait_for("ready", lambda: stage.gateway.probe("/readyz") == 200)


def marks(stage: Scene, token: str) -> int:
    entry = stage.gateway.recipient(f"{token}@flaky.example")
    assert entry is not None
    return sum(event["data"].get("possible_duplicate") is True for event in entry["events"])


def test_an_outcome_that_cannot_be_synced_closes_the_store_and_is_counted_as_a_possible_duplicate(stage: Scene) -> None:
    on_its_way(stage, "told")
    with tracer.attached(stage.gateway.pids(), stage.gateway.directory / "strace.log", *NO_SYNC):
        stage.gate.unlink()
        arrived(stage, "told")
        wait_for("no worker takes mail", lambda: closed(stage))
    # The disk is well again; nothing is called good for that, and nothing is tried again.
    assert {send(stage, f"after-{number}").code for number in range(4)} <= {421, 451}
    assert stage.gateway.probe("/readyz") == 503
    wait_for("the alarm", lambda: stage.gateway.metric("gateway_alarms_total", kind="store_failed"))
    assert stage.gateway.alive()
    start_again(stage)
    wait_for("it ends", lambda: stage.gateway.queue_list() == [], seconds=60)
    entry = stage.gateway.recipient("told@flaky.example")
    assert entry is not None
    assert entry["state"] == "delivered"
    assert stage.record.duplicates() <= marks(stage, "told")
    assert stage.record.tokens() == {"told"}


def test_a_recovery_that_cannot_be_synced_closes_the_store_and_loses_nothing(stage: Scene) -> None:
    owner = on_its_way(stage, "orphan")
    other = 3 - owner
    with tracer.attached([stage.gateway.worker(other)], stage.gateway.directory / "strace.log", *NO_SYNC):
        stage.gateway.kill_worker(owner)
        wait_for("no worker takes mail", lambda: closed(stage), seconds=60)
    assert {send(stage, f"after-{number}").code for number in range(4)} <= {421, 451}
    stage.gate.unlink()
    start_again(stage)
    arrived(stage, "orphan")
    wait_for("it ends", lambda: stage.gateway.queue_list() == [], seconds=60)
    assert stage.record.duplicates() <= marks(stage, "orphan")
    assert send(stage, "again").accepted
    arrived(stage, "again")


def test_an_outcome_that_finds_no_room_waits_and_is_not_forgotten(stage: Scene) -> None:
    on_its_way(stage, "told")
    (log,) = list(stage.gateway.data_dir.rglob("*-wal"))
    options = ("-P", str(log), "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC")
    with tracer.attached(stage.gateway.pids(), stage.gateway.directory / "strace.log", *options):
        stage.gate.unlink()
        arrived(stage, "told")
        wait_for("its outcome waits", lambda: named(stage, "outcome_waits"))
        assert send(stage, "during").code == 452
    wait_for("it ends", lambda: stage.gateway.queue_list() == [])
    assert [token for token, _ in stage.record.deliveries()] == ["told"], "once"
    assert marks(stage, "told") == 0
    assert send(stage, "after").accepted
    arrived(stage, "after")
    assert named(stage, "process_died") == []


@pytest.mark.parametrize("large", [False, True], ids=["small", "200 KB"])
def test_files_that_cannot_be_opened_refuse_for_now_and_it_heals(stage: Scene, *, large: bool) -> None:
    assert send(stage, "before", large=large).accepted
    arrived(stage, "before")
    pids = [stage.gateway.worker(number) for number in (1, 2)]
    options = ("-e", "trace=openat", "-e", "inject=openat:error=EMFILE")
    with tracer.attached(pids, stage.gateway.directory / "strace.log", *options):
        answers = {f"during-{number}": send(stage, f"during-{number}", large=large) for number in range(4)}
    assert all(answer.code in {250, 421, 451, 452} for answer in answers.values()), answers
    if large:  # there is no file without opening one
        assert not any(answer.accepted for answer in answers.values()), answers
    wait_for("ready", lambda: stage.gateway.probe("/readyz") == 200)
    assert send(stage, "after", large=large).accepted
    arrived(stage, "before", "after", *(token for token, answer in answers.items() if answer.accepted))
    assert named(stage, "process_died") == []


def test_a_door_without_descriptors_lets_in_who_is_next_once_there_are_some(stage: Scene) -> None:
    """No injection: the limit of both workers is lowered to what they have open, and a few more."""
    assert send(stage, "before").accepted
    arrived(stage, "before")
    pids = [stage.gateway.worker(number) for number in (1, 2)]
    limits = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids]
    try:
        for pid, (_, hard) in zip(pids, limits, strict=True):
            highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 8, hard))
        with ExitStack() as crowd:
            held = [crowd.enter_context(connected(stage)) for _ in range(60)]
            greeted = sum(_greeted(each) for each in held)
            assert greeted < 60, "the limit did not bite"
            assert stage.gateway.probe("/healthz") == 200
        # They have gone: who comes now is served, with the limit as low as it was.
        wait_for("mail is taken again", lambda: send(stage, "after").accepted, seconds=60)
        arrived(stage, "before", "after")
    finally:
        for pid, limit in zip(pids, limits, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
    assert [stage.gateway.worker(number) for number in (1, 2)] == pids
    wait_for("ready", lambda: stage.gateway.probe("/readyz") == 200)
    assert send(stage, "again", large=True).accepted
    arrived(stage, "again")
    assert stage.gateway.log_path.stat().st_size < 1_000_000, "a door that waits must not fill the log"


def connected(stage: Scene) -> socket.socket:
    return socket.create_connection((stage.gateway.address, stage.gateway.port), timeout=5)


def _greeted(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(100).startswith(b"220")
    except OSError:
        return False
