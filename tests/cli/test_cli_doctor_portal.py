"""What ``gateway doctor`` makes of the portal's name, address and certificate."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.cli.doctor_names import Outgoing
from gateway.cli.doctor_portal import address_finding
from gateway.testing import CA, Certificate, free_port
from tests.cli.conftest import Cli
from tests.cli.test_cli_doctor import ask, change, world

HOST = "secure.clinic.example"
ZONE = f"{HOST}. A 127.0.0.5\n"


@contextmanager
def served(certificate: Certificate | None, port: int) -> Iterator[None]:
    """A server at the portal's address that takes connections; in clear text without a certificate."""
    stop = threading.Event()
    context = None if certificate is None else certificate.server_context()

    def serve(listener: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):  # nobody came, or went away in the handshake
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5.0)
                    if context is None:
                        connection.sendall(b"this is no TLS\r\n")
                    else:
                        context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.5", port)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)


def configured(cli: Cli, resolver: str, url: str, **portal: Any) -> None:
    change(cli, dns={"resolvers": [resolver]}, portal={"url": url, **portal})


def test_without_an_url_there_is_nothing_to_say(cli: Cli) -> None:
    with world(ZONE) as resolver:
        change(cli, dns={"resolvers": [resolver]})
        assert not any(name.startswith("portal") for name in ask(cli))


def soon(ca: CA) -> Certificate:
    return ca.issue(HOST, not_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=20))


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (lambda ca: ca.issue(HOST), "ok", "answers with a good certificate"),
        (lambda ca: ca.issue("other.example"), "bad", "Hostname mismatch"),
        (lambda ca: ca.expired(HOST), "bad", "certificate has expired"),
        (lambda _: CA().issue(HOST), "bad", "browsers warn readers off"),
        (soon, "warning", "its certificate ends on"),
        (lambda _: None, "bad", "does not speak TLS"),
    ],
)
def test_the_certificate_that_readers_see(
    cli: Cli, make: Callable[[CA], Certificate | None], status: str, words: str
) -> None:
    ca, port = CA(), free_port("127.0.0.5")
    with world(ZONE) as resolver, served(make(ca), port):
        configured(cli, resolver, f"https://{HOST}:{port}")
        change(cli, tls={"trust": str(ca.write_root(cli.config.parent / "roots.pem"))})
        found = ask(cli)["portal tls"]
    assert (found["status"], words in found["detail"]) == (status, True), found


def test_a_portal_that_does_not_run_yet_is_a_warning(cli: Cli) -> None:
    with world(ZONE) as resolver:
        configured(cli, resolver, f"https://{HOST}:{free_port('127.0.0.5')}")
        found = ask(cli)
    assert found["portal tls"]["status"] == "warning"
    assert (found["portal address"]["status"], "nobody outside" in found["portal address"]["detail"]) == (
        "warning",
        True,
    )


def test_a_portal_for_this_machine_alone_is_a_note(cli: Cli) -> None:
    with world(ZONE) as resolver:
        configured(cli, resolver, "http://127.0.0.1:8080")
        assert ask(cli)["portal url"]["status"] == "note"


def test_a_portal_that_nobody_finds(cli: Cli) -> None:
    with world("") as resolver:
        configured(cli, resolver, f"https://{HOST}")
        assert ask(cli)["portal address"]["status"] == "bad"
    with world(ZONE, (f"{HOST}.", "servfail")) as resolver:
        configured(cli, resolver, f"https://{HOST}")
        assert ask(cli)["portal address"]["detail"].startswith("could not tell")


@pytest.mark.parametrize(
    ("addresses", "outgoing", "status"),
    [
        (("8.8.4.4",), ("8.8.4.4",), "ok"),
        (("8.8.4.4",), (), "ok"),
        (("8.8.4.4",), ("8.8.8.8",), "note"),
        (("10.0.0.1",), ("8.8.4.4",), "warning"),
    ],
)
def test_where_the_portal_stands(addresses: tuple[str, ...], outgoing: tuple[str, ...], status: str) -> None:
    assert address_finding(HOST, addresses, Outgoing(outgoing)).status == status


def test_clear_text_for_anybody_is_told(cli: Cli) -> None:
    with world(ZONE) as resolver:
        url = f"https://{HOST}:{free_port('127.0.0.5')}"
        configured(cli, resolver, url, listen="0.0.0.0:8080")
        assert ask(cli)["portal listen"]["status"] == "warning"
        for safe in ({"listen": "127.0.0.1:8080"}, {"listen": "0.0.0.0:8080", "trusted_proxies": ["10.0.0.0/8"]}):
            configured(cli, resolver, url, **safe)
            assert "portal listen" not in ask(cli)


def test_the_portals_certificate_must_name_its_host(cli: Cli) -> None:
    ca = CA()
    roots = ca.write_root(cli.config.parent / "roots.pem")
    url = f"https://{HOST}:{free_port('127.0.0.5')}"
    with world(ZONE) as resolver:
        for name, status in ((HOST, "ok"), ("gw.clinic.example", "warning")):
            certificate, key = ca.issue(name).write(cli.config.parent, "portal")
            configured(cli, resolver, url, tls={"certificate": str(certificate), "key": str(key)})
            change(cli, tls={"trust": str(roots)})
            found = ask(cli)["certificate portal"]
            assert (found["status"], HOST in found["detail"]) == (status, True)
