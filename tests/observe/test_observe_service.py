"""What systemd is told, over a real datagram socket (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.observe.service import ServiceNotifier


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with (
        tempfile.TemporaryDirectory() as directory,  # short: a socket's path has 108 bytes
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        listener.bind(str(Path(directory) / "notify"))
        listener.settimeout(5)
        yield listener


def fields(listener: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in listener.recv(4096).decode().splitlines())


def test_the_life_of_a_service(manager: socket.socket) -> None:
    service = ServiceNotifier(manager.getsockname())
    service.ready("taking mail")
    assert fields(manager) == {"READY": "1", "STATUS": "taking mail", "MAINPID": str(os.getpid())}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.reloading()
    told = fields(manager)
    assert told["RELOADING"] == "1"
    # Type=notify-reload needs the moment, so that systemd knows which READY ends this reload.
    assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.watchdog()
    assert fields(manager) == {"WATCHDOG": "1"}
    service.stopping()
    assert fields(manager) == {"STOPPING": "1"}


def test_the_address_comes_from_the_environment(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    ServiceNotifier().watchdog()
    assert fields(manager) == {"WATCHDOG": "1"}


def test_an_abstract_address() -> None:
    name = f"gateway-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        ServiceNotifier(f"@{name}").watchdog()
        assert fields(listener) == {"WATCHDOG": "1"}


def test_where_nobody_listens_mail_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    ServiceNotifier().ready("taking mail")
    ServiceNotifier("/nonexistent/notify").ready("taking mail")


@pytest.mark.parametrize(
    ("allowed", "interval"), [("30000000", 15.0), ("2000000", 1.0), ("", None), ("soon", None), ("-5", None)]
)
def test_signs_of_life_come_twice_as_often_as_needed(
    monkeypatch: pytest.MonkeyPatch, allowed: str, interval: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", allowed)
    assert ServiceNotifier().watchdog_interval == interval
