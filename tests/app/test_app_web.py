"""The web process of a real gateway: start, death, reload, certificate, drain, health, socket activation."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.testing.ca import CA
from gateway.testing.net import free_port
from tests.app.test_app_processes import ACTIVATE
from tests.peers.gateway_process import GatewayProcess, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes"), pytest.mark.timeout(180)]


class Running:
    """A gateway with a portal; not started."""

    def __init__(self, directory: Path, **portal: Any) -> None:
        self.port = free_port("127.0.0.1")
        given = {"listen": f"127.0.0.1:{self.port}", "url": f"http://127.0.0.1:{self.port}", **portal}
        self.gateway = GatewayProcess(directory, resolver="127.0.0.1:9", settings={"portal": given})

    def pid(self) -> int:
        found = [event for event in self.gateway.events(self.gateway.begin) if event.get("event") == "web_ready"]
        return int(found[-1]["pid"])

    def get(
        self, path: str = "/", *, context: ssl.SSLContext | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        scheme, host = ("https", "secure.clinic.example") if context else ("http", "127.0.0.1")
        opener = urllib.request.build_opener(*([urllib.request.HTTPSHandler(context=context)] if context else []))
        asked = urllib.request.Request(
            f"{scheme}://127.0.0.1:{self.port}{path}", headers={"Host": host, **(headers or {})}
        )
        try:
            with opener.open(asked, timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self) -> int:
        with suppress(OSError):
            return self.get()[0]
        return 0

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.gateway.ask("/readyz"))
        return answer

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.gateway.events(self.gateway.begin) if each.get("event") == event]

    def change(self, **portal: Any) -> None:
        settings = yaml.safe_load(self.gateway.config.read_text(encoding="utf-8"))
        settings["portal"].update(portal)
        self.gateway.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        assert self.gateway.process is not None
        self.gateway.process.send_signal(number)


@contextmanager
def running(directory: Path, **portal: Any) -> Iterator[Running]:
    made = Running(directory, **portal)
    try:
        made.gateway.start()
        yield made
    finally:
        made.gateway.kill9()


def test_it_serves_is_counted_and_ends_with_the_rest(tmp_path: Path) -> None:
    with running(tmp_path) as web:
        assert web.gateway.ready["portal"] == f"127.0.0.1:{web.port}"
        status, text = web.get()
        assert status == 200
        assert "<h1>Read a secure message</h1>" in text
        assert web.get("/nowhere/token")[0] == 404
        assert web.gateway.metric("gateway_web_requests_total", face="portal", route="front", status="200") == 1
        assert web.gateway.metric("gateway_web_request_seconds_count", face="portal", route="none") == 1
        assert web.health() == {"ready": True, "problems": [], "warnings": []}
        lines = wait_for("both are told", lambda: (found := web.named("web_request"))[1:] and found)
        assert [(line["route"], line["status"]) for line in lines] == [("front", 200), ("none", 404)]
        assert "/m/token" not in web.gateway.log_path.read_text(encoding="utf-8")
        pid = web.pid()
        assert web.gateway.stop() == 0
        assert len(web.named("web_stopped")) == 1
        assert not Path(f"/proc/{pid}").exists()


def test_without_a_portal_there_is_no_web_process(tmp_path: Path) -> None:
    with running(tmp_path, url=None) as web:
        assert web.gateway.ready["portal"] == ""
        assert len(web.gateway.pids()) == 3  # supervisor, worker, health
        assert web.status() == 0


def test_one_that_is_killed_comes_again_and_mail_is_taken_meanwhile(tmp_path: Path) -> None:
    with running(tmp_path) as web:
        assert web.status() == 200
        counted = {"face": "portal", "route": "front", "status": "200"}
        assert web.gateway.metric("gateway_web_requests_total", **counted) == 1
        pid = web.pid()
        os.kill(pid, signal.SIGKILL)
        wait_for("another one serves", lambda: web.pid() != pid and web.status() == 200)
        assert [event["process"] for event in web.named("process_died")] == ["web"]
        assert web.gateway.metric("gateway_alarms_total", kind="web_died") == 1
        assert web.gateway.metric("gateway_web_requests_total", **counted) >= 2
        # Killed again and again it is away for seconds: ready names it, and mail goes on.
        killed_again(web)
        killed_again(web)
        with socket.create_connection((web.gateway.address, web.gateway.port), timeout=5) as connection:
            assert connection.recv(100).startswith(b"220 ")


def killed_again(web: Running) -> None:
    pid = web.pid()
    os.kill(pid, signal.SIGKILL)
    wait_for("it died", lambda: web.health()["warnings"] or web.pid() != pid)
    found = web.health()
    if found["warnings"]:
        assert found["warnings"] == ["web: it has died, and is started again"]
        assert found["ready"] is True
    wait_for("it is back", lambda: web.pid() != pid and not web.health()["warnings"])


def test_one_that_stands_still_is_named_by_readyz(tmp_path: Path) -> None:
    with running(tmp_path) as web:
        os.kill(web.pid(), signal.SIGSTOP)
        (warning,) = wait_for("it is noticed", lambda: web.health()["warnings"])
        assert warning.startswith("web: its event loop has not answered for ")
        os.kill(web.pid(), signal.SIGCONT)
        wait_for("it is over", lambda: not web.health()["warnings"])


def test_a_reload_is_taken_over_by_web_too_or_by_nobody(tmp_path: Path) -> None:
    with running(tmp_path) as web:
        pid = web.pid()
        forwarded = {"X-Forwarded-For": "198.51.100.7"}
        web.get(headers=forwarded)
        web.change(trusted_proxies=["127.0.0.1/32"])
        web.signal(signal.SIGHUP)
        wait_for("it is reloaded", lambda: web.named("reloaded"))
        web.get(headers=forwarded)
        told = wait_for("both are told", lambda: (lines := web.named("web_request"))[1:] and lines)
        assert [line["network"] for line in told] == ["127.0.0.0/24", "198.51.100.0/24"]
        web.change(trusted_proxies=["0.0.0.0/0"])
        web.signal(signal.SIGHUP)
        (failed,) = wait_for("it is refused", lambda: web.named("reload_failed"))
        assert "trusts everyone" in failed["faults"][0]
        web.change(trusted_proxies=[], url=None)
        web.signal(signal.SIGHUP)
        wait_for("it is refused again", lambda: len(web.named("reload_failed")) == 2)
        assert "restart it" in web.named("reload_failed")[1]["faults"][0]
        assert web.pid() == pid
        assert web.status() == 200


def test_a_renewed_certificate_is_taken_over_and_a_bad_one_is_not(tmp_path: Path) -> None:
    ca = CA()
    certificate, key = ca.issue("secure.clinic.example", "127.0.0.1").write(tmp_path, "web")
    context = ca.client_context()
    context.check_hostname = False
    given = {"url": "https://secure.clinic.example", "tls": {"certificate": str(certificate), "key": str(key)}}
    with running(tmp_path, **given) as web:

        def shown() -> bytes | None:
            with (
                socket.create_connection(("127.0.0.1", web.port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="secure.clinic.example") as connection,
            ):
                return connection.getpeercert(binary_form=True)

        first = shown()
        assert web.get(context=context)[0] == 200
        renewed = ca.issue("secure.clinic.example")
        renewed.write(tmp_path, "web")
        wait_for("the new one is shown", lambda: shown() != first)
        assert shown() == renewed.der
        certificate.write_text("nonsense", encoding="ascii")
        wait_for("it is told", lambda: any("portal.tls" in each for each in web.health()["warnings"]))
        assert shown() == renewed.der
        wait_for("it rings", lambda: web.gateway.metric("gateway_alarms_total", kind="certificate") == 1)
        expiry = web.gateway.metric("gateway_certificate_expiry_timestamp_seconds", use="portal")
        assert expiry == pytest.approx(renewed.leaf.not_valid_after_utc.timestamp())


def test_a_request_under_way_is_answered_at_the_end(tmp_path: Path) -> None:
    with running(tmp_path) as web, socket.create_connection(("127.0.0.1", web.port), timeout=10) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\n")  # a head that is not whole yet
        time.sleep(0.2)  # so that it is read before the signal
        begun = time.monotonic()
        assert web.gateway.stop() == 0
        assert time.monotonic() - begun < 15
        with suppress(ConnectionError):
            assert connection.recv(100) == b""
        assert web.status() == 0


def test_a_socket_of_the_service_manager_is_used_where_its_address_is_the_portals(tmp_path: Path) -> None:
    made = Running(tmp_path)
    try:
        made.gateway.start(prefix=(sys.executable, "-c", ACTIVATE, f"127.0.0.1:{made.port}"))
        assert made.status() == 200
        assert [event["name"] for event in made.named("socket_unused")] == ["other"]
        assert made.gateway.stop() == 0
    finally:
        made.gateway.kill9()


def test_a_portal_whose_certificate_cannot_be_used_does_not_start(tmp_path: Path) -> None:
    tls = {"certificate": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")}
    made = Running(tmp_path, url="https://secure.clinic.example", tls=tls)
    with pytest.raises(RuntimeError, match=r"cannot read .*none\.pem"):
        made.gateway.start()
    made.gateway.kill9()


def test_an_address_that_is_taken_is_told_at_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = Running(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(RuntimeError, match=r"portal\.listen 127\.0\.0\.1:\d+: Address already in use"):
            made.gateway.start()
        made.gateway.kill9()
