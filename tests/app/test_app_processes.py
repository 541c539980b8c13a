"""``gateway run`` over real processes: start, death, reload and end of workers, supervisor and health process."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.testing.net import free_port
from tests.crash.ledger import Client, Load, message
from tests.crash.scene import Scene, scene
from tests.peers.gateway_process import GatewayProcess, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes"), pytest.mark.timeout(240)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """Two workers, not started."""
    with scene(tmp_path, settings={"workers": 2}) as made:
        yield made


def named(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    return [each for each in gateway.events() if each.get("event") == event]


def problems(gateway: GatewayProcess) -> list[str]:
    return list(json.loads(gateway.ask("/readyz"))["problems"])


def replaced(gateway: GatewayProcess, number: int, pid: int) -> None:
    wait_for("another one sits there", lambda: gateway.worker(number) != pid, seconds=60)


def flows(load: Load, before: int) -> None:
    wait_for("mail flows", lambda: load.count() > before + 10, seconds=60)


def gone(pid: int) -> bool:
    """Whether the process is no more; one that waits to be reaped is none."""
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return True


def hello(address: str, port: int) -> str:
    with smtplib.SMTP(address, port, timeout=30) as client:
        return client.ehlo()[1].decode()


def refused(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def change(gateway: GatewayProcess, **sections: Any) -> None:
    settings = yaml.safe_load(gateway.config.read_text(encoding="utf-8"))
    settings.update(sections)
    gateway.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def hang_up(gateway: GatewayProcess) -> None:
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)


# -- start and end ----------------------------------------------------------------------------------------------------


def test_it_is_ready_once_and_ends_whole(stage: Scene) -> None:
    stage.gateway.start()
    assert stage.gateway.ready["workers"] == 2
    assert stage.gateway.ready["listeners"] == [f"{stage.gateway.address}:{stage.gateway.port}"]
    assert stage.gateway.ready["metrics"] == f"127.0.0.1:{stage.gateway.metrics_port}"
    pids = stage.gateway.pids()
    assert len(pids) == 4  # supervisor, health, two workers
    assert {event["worker"] for event in named(stage.gateway, "worker_ready")} == {1, 2}
    assert json.loads(stage.gateway.ask("/readyz")) == {"ready": True, "problems": [], "warnings": []}
    assert stage.gateway.metric("gateway_ready") == 1
    assert stage.gateway.stop() == 0
    assert all(gone(pid) for pid in pids)
    assert len(named(stage.gateway, "ready")) == 1
    assert stage.gateway.events()[-1]["event"] == "stopped"
    assert {event["worker"] for event in named(stage.gateway, "worker_stopped")} == {1, 2}


def test_workers_share_the_port_that_the_system_chose(stage: Scene) -> None:
    change(stage.gateway, listeners=[{"address": "127.0.0.1:0", "tls": "none"}])
    stage.gateway.start()
    (address,) = stage.gateway.ready["listeners"]
    host, _, port = address.rpartition(":")
    assert port != "0"
    serving: set[int] = set()

    def both() -> bool:
        with closing(socket.create_connection((host, int(port)))) as connection:
            connection.recv(1000)
            serving.update(pid for pid in workers if peer_of(connection, pid))
        return serving == set(workers)

    workers = [stage.gateway.worker(1), stage.gateway.worker(2)]
    wait_for("connections at both workers", both)


def peer_of(connection: socket.socket, pid: int) -> bool:
    """Whether this process has the other end: its sockets' inodes against the kernel's table of connections."""
    port = connection.getsockname()[1]
    inode = ""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port:
            inode = fields[9]
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(entry.readlink()))
    return f"socket:[{inode}]" in links


def test_a_second_gateway_does_not_share_the_port_unnoticed(stage: Scene, tmp_path: Path) -> None:
    stage.gateway.start()
    second = GatewayProcess(tmp_path / "second", resolver="127.0.0.1:9", settings={"workers": 2})
    change(second, listeners=[{"address": f"{stage.gateway.address}:{stage.gateway.port}", "tls": "none"}])
    with pytest.raises(RuntimeError, match="Address already in use"):
        second.start()
    second.kill9()


def test_a_supervisor_that_is_killed_takes_all_with_it(stage: Scene) -> None:
    stage.gateway.start()
    pids = stage.gateway.pids()
    assert stage.gateway.process is not None
    stage.gateway.process.kill()
    stage.gateway.process.wait()
    wait_for("no process is left", lambda: all(gone(pid) for pid in pids), seconds=5)
    wait_for("nobody listens", lambda: refused(stage.gateway.address, stage.gateway.port), seconds=5)


# -- death ------------------------------------------------------------------------------------------------------------


def test_what_a_killed_worker_had_claimed_others_deliver_and_nothing_is_lost(stage: Scene) -> None:
    stage.gateway.start()
    load = Load(stage.gateway.address, stage.gateway.port, clients=4, large_share=0.1, pace=0.01, seed=7)
    load.start()
    try:
        for number in (1, 2, 1):
            before = load.count()
            flows(load, before)
            received = stage.gateway.metric("gateway_messages_received_total", connector="app", result="accepted")
            pid = stage.gateway.kill_worker(number)
            replaced(stage.gateway, number, pid)
            now = stage.gateway.metric("gateway_messages_received_total", connector="app", result="accepted")
            assert now >= received, "a counter went down"
    finally:
        load.stop()
    taken = load.accepted
    wait_for("all that was answered 250 arrives", lambda: set(taken) <= stage.record.tokens(), seconds=90)
    assert [t for t, digest in stage.record.deliveries() if taken.get(t, digest) != digest] == []
    assert stage.gateway.metric("gateway_alarms_total", kind="worker_died") == 3
    died = named(stage.gateway, "process_died")
    assert [event["status"] for event in died] == ["killed by SIGKILL"] * 3
    wait_for("ready again", lambda: problems(stage.gateway) == [])
    assert stage.gateway.stop() == 0


def test_the_claims_of_a_dead_worker_are_taken_over_within_two_seconds(tmp_path: Path) -> None:
    # A peer that never answers keeps every claim on its connection.
    with socket.socket() as stall, scene(tmp_path, settings={"workers": 2}) as stage:
        stall.bind(("127.0.0.1", 0))
        stall.listen(100)
        port = stall.getsockname()[1]
        change(
            stage.gateway,
            delivery={"routes": {"flaky.example": {"host": "127.0.0.1", "port": port, "final": True}}},
        )
        stage.gateway.start()
        with closing(Client(stage.gateway.address, stage.gateway.port)) as client:
            assert client.send(message("claimed", large=False)).accepted
        wait_for(
            "it is claimed",
            lambda: [row["state"] for row in stage.gateway.queue_list()] == ["delivering"],
        )
        stage.gateway.kill_worker(1)
        stage.gateway.kill_worker(2)  # one of them had it
        (found,) = wait_for("its claim is taken over", lambda: named(stage.gateway, "claims_recovered"))
        last = named(stage.gateway, "process_died")[-1]
        assert seconds_between(last, found) < 2
        assert found["recipients"] == 1


def seconds_between(before: dict[str, Any], after: dict[str, Any]) -> float:
    moments = [datetime.fromisoformat(event["timestamp"]) for event in (before, after)]
    return (moments[1] - moments[0]).total_seconds()


def test_a_worker_that_dies_at_once_again_and_again_is_started_less_and_less_often(stage: Scene) -> None:
    stage.gateway.start()
    for _ in range(3):
        replaced(stage.gateway, 2, stage.gateway.kill_worker(2))
    assert [event["again_in"] for event in named(stage.gateway, "process_died")] == [0.0, 1.0, 2.0]


def test_a_worker_that_stands_still_is_not_ready_and_health_answers_all_the_same(stage: Scene) -> None:
    stage.gateway.start()
    pid = stage.gateway.worker(2)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert stage.gateway.probe("/healthz") == 200
        found = wait_for("it is noticed", lambda: problems(stage.gateway), seconds=20)
        assert found[0].startswith("worker 2: its event loop has not answered for ")
        assert stage.gateway.metric("gateway_build_info", version=stage.gateway.ready["version"]) == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("ready again", lambda: problems(stage.gateway) == [])


def test_a_worker_that_hangs_is_killed_and_replaced(stage: Scene) -> None:
    stage.gateway.entry = (
        sys.executable,
        "-c",
        "from gateway.app import supervisor; supervisor.HANG = 3.0; from gateway.cli import main; main()",
    )
    stage.gateway.start()
    pid = stage.gateway.worker(1)
    os.kill(pid, signal.SIGSTOP)
    replaced(stage.gateway, 1, pid)
    assert [event["pid"] for event in named(stage.gateway, "worker_hangs")] == [pid]


def test_the_health_process_comes_again(stage: Scene) -> None:
    stage.gateway.start()
    workers = {stage.gateway.worker(1), stage.gateway.worker(2)}
    assert stage.gateway.process is not None
    (health,) = set(stage.gateway.pids()) - workers - {stage.gateway.process.pid}
    received = stage.gateway.metric("gateway_store_commit_seconds_count")
    os.kill(health, signal.SIGKILL)
    wait_for("it answers again", lambda: stage.gateway.probe("/readyz") == 200)
    assert stage.gateway.metric("gateway_store_commit_seconds_count") >= received
    assert stage.gateway.metric("gateway_alarms_total", kind="worker_died") == 0


def test_a_worker_told_to_end_drains_and_is_replaced_without_an_alarm(stage: Scene) -> None:
    stage.gateway.start()
    pid = stage.gateway.worker(1)
    os.kill(pid, signal.SIGTERM)
    replaced(stage.gateway, 1, pid)
    assert [event["pid"] for event in named(stage.gateway, "process_ended")] == [pid]
    assert stage.gateway.metric("gateway_alarms_total", kind="worker_died") == 0


# -- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_reaches_every_worker_and_a_new_listener_opens(stage: Scene) -> None:
    stage.gateway.start()
    port = free_port(stage.gateway.address)
    old, new = ({"address": f"{stage.gateway.address}:{each}", "tls": "none"} for each in (stage.gateway.port, port))
    change(stage.gateway, listeners=[old, new])
    hang_up(stage.gateway)
    wait_for("the reload", lambda: named(stage.gateway, "reloaded"))
    for each in (stage.gateway.port, port):
        assert "gw.sender.example" in hello(stage.gateway.address, each)
    change(stage.gateway, listeners=[new])
    hang_up(stage.gateway)
    wait_for("the second reload", lambda: len(named(stage.gateway, "reloaded")) == 2)

    wait_for("the old address is closed", lambda: refused(stage.gateway.address, stage.gateway.port))
    # A worker that starts later has what is in force, not what is in the file by then.
    stage.gateway.config.write_text("nonsense: true\n", encoding="utf-8")
    pid = stage.gateway.kill_worker(1)
    replaced(stage.gateway, 1, pid)
    assert "gw.sender.example" in hello(stage.gateway.address, port)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"nonsense": True}, "unknown key 'nonsense'"),
        ({"workers": 3}, "workers cannot change while the gateway runs"),
        ({"listeners": [{"address": "192.0.2.1:25", "tls": "none"}]}, "cannot listen on 192.0.2.1:25"),
    ],
    ids=["unknown key", "workers", "address"],
)
def test_a_reload_that_fails_changes_nothing_anywhere(stage: Scene, changed: dict[str, Any], fault: str) -> None:
    stage.gateway.start()
    change(stage.gateway, **changed)
    hang_up(stage.gateway)
    (failed,) = wait_for("the reload", lambda: named(stage.gateway, "reload_failed"))
    assert fault in failed["faults"][0]
    assert problems(stage.gateway) == []
    assert stage.gateway.metric("gateway_alarms_total", kind="reload_failed") == 1
    assert "gw.sender.example" in hello(stage.gateway.address, stage.gateway.port)


# -- the service manager ----------------------------------------------------------------------------------------------

#: Does what systemd does: binds, hands the socket over as descriptor 3, becomes the program.
ACTIVATE = """
import os, socket, sys
host, port = sys.argv[1].rsplit(":", 1)
listener = socket.create_server((host, int(port)))
stranger = socket.create_server((host, 0))
held = [os.dup(each.fileno()) for each in (listener, stranger)]
for number, handle in enumerate(held, 3):
    os.dup2(handle, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="smtp:other")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_a_socket_of_the_service_manager_is_used_where_its_address_is_a_listeners(stage: Scene) -> None:
    address = f"{stage.gateway.address}:{stage.gateway.port}"
    stage.gateway.start(prefix=(sys.executable, "-c", ACTIVATE, address))
    assert stage.gateway.ready["listeners"] == [address]
    for _ in range(4):
        with closing(Client(stage.gateway.address, stage.gateway.port)) as client:
            assert client.send(message("activated", large=False)).accepted
    (unused,) = named(stage.gateway, "socket_unused")
    assert unused["name"] == "other"
    assert stage.gateway.stop() == 0


def test_the_service_manager_hears_of_every_step(stage: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(os.path.relpath(tmp_path / "n", Path.cwd()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        stage.gateway.start()

        def next_word() -> str:
            while True:
                word = manager.recv(1000).decode().partition("\n")[0]
                if word != "WATCHDOG=1":
                    return word

        assert next_word() == "READY=1"
        assert manager.recv(1000) == b"WATCHDOG=1"
        hang_up(stage.gateway)
        assert [next_word(), next_word()] == ["RELOADING=1", "READY=1"]
        assert stage.gateway.stop() == 0
        assert next_word() == "STOPPING=1"


def test_metrics_of_all_workers_are_one(stage: Scene) -> None:
    stage.gateway.start()
    for number in range(12):
        with closing(Client(stage.gateway.address, stage.gateway.port)) as client:
            assert client.send(message(f"m{number}", large=False)).accepted
    assert stage.gateway.metric("gateway_messages_received_total", connector="app", result="accepted") == 12
    wait_for(
        "all arrive",
        lambda: stage.gateway.metric("gateway_recipients_total", method="tls", outcome="delivered") == 12,
        seconds=60,
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{stage.gateway.metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert text.count("# TYPE gateway_queue_recipients gauge") == 1
    assert 'gateway_queue_recipients{state="queued"} 0.0' in text
