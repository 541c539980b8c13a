"""swaks hands mail to the running gateway, the gateway to Postfix: what leaves, over what, and what does not leave."""

from __future__ import annotations

import email
import email.policy
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.testing.ca import CA, self_signed
from gateway.testing.net import free_port
from tests.peers import postfix, swaks
from tests.peers.gateway_process import GatewayProcess, Json, dns_server, wait_for
from tests.peers.postfix import Listener, Postfix

pytestmark = [pytest.mark.peer, pytest.mark.root, pytest.mark.xdist_group("peers"), pytest.mark.timeout(180)]

SENDER = "dr@sender.example"
GOOD, CLEAR, SELF_SIGNED, OWN = "127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.24"
HOSTS = {
    "good.example": GOOD,
    "strict-good.example": GOOD,
    "clear.example": CLEAR,
    "self-signed.example": SELF_SIGNED,
    "strict-self-signed.example": SELF_SIGNED,
}
STRICT = ["strict-good.example", "strict-self-signed.example"]
FINAL = frozenset({"delivered", "bounced", "rejected", "dropped", "expired", "cancelled"})


@dataclass(frozen=True)
class Scene:
    gateway: GatewayProcess
    postfix: Postfix
    directory: Path

    def send(self, message: bytes, *recipients: str) -> None:
        sent = swaks.send(
            self.gateway.address,
            self.gateway.port,
            message,
            self.directory,
            sender=SENDER,
            recipients=list(recipients),
            tls=True,
        )
        assert sent.status == 0, sent.transcript

    def end(self, recipient: str) -> Json:
        """The trace of the recipient once it has ended, one way or the other."""

        def ended() -> Json | None:
            row = self.gateway.recipient(recipient)
            return row if row is not None and row["state"] in FINAL else None

        return wait_for(f"the end of the mail to {recipient}", ended, seconds=60)

    def mailbox(self, recipient: str) -> list[bytes]:
        mark = f"\nDelivered-To: {recipient}\n".encode()
        return [message for message in self.postfix.mailbox() if mark in message]

    def delivered(self, recipient: str) -> bytes:
        (message,) = wait_for(f"mail to {recipient} in the mailbox", lambda: self.mailbox(recipient))
        return message


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    why = postfix.missing() or swaks.missing()
    if why is not None:
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("peers")
    ca = CA()
    port = free_port(GOOD, CLEAR, SELF_SIGNED, OWN)
    zone = "".join(
        f"{domain}. 300 IN MX 10 mx.{domain}.\nmx.{domain}. 300 IN A {address}\n" for domain, address in HOSTS.items()
    )
    certificate = ca.issue("mx.good.example", "mx.strict-good.example")
    listeners = [
        Listener(GOOD, port, certificate),
        Listener(CLEAR, port),
        Listener(SELF_SIGNED, port, self_signed("mx.self-signed.example", "mx.strict-self-signed.example")),
        Listener(OWN, port, ca.issue("in.sender.example", OWN), encrypt=True),
    ]
    rule = {
        "name": "strict-domains",
        "when": {"recipient_domain": STRICT},
        "require": {"methods": ["tls"], "tls": "verified"},
    }
    with postfix.mx(listeners, [*HOSTS, "sender.example"]) as instance, dns_server(zone) as resolver:
        gateway = GatewayProcess(
            directory,
            resolver=resolver,
            certificate=ca.issue("gw.sender.example", "127.0.0.1"),
            settings={
                "delivery": {"port": port},
                "connectors": [
                    {
                        "name": "app",
                        "stage": "enforce",
                        "accept": {"networks": ["127.0.0.0/8"]},
                        "senders": ["sender.example"],
                        "return_route": {"host": OWN, "port": port, "tls": "verified"},
                    }
                ],
            },
            policies={"test.yaml": {"version": 1, "rules": [rule]}},
            trust=ca,
        )
        try:
            gateway.start()
            yield Scene(gateway, instance, directory)
            status = gateway.stop()
        finally:
            gateway.kill9()
    assert status == 0, gateway.log_tail()


def recipient(domain: str) -> str:
    return f"pat-{uuid.uuid4().hex[:12]}@{domain}"


def mail(body: bytes = b"Nothing to worry about.\r\n", subject: bytes = b"Results") -> bytes:
    return (
        b"From: Dr <dr@sender.example>\r\nTo: pat@recipient.example\r\n"
        b"Subject: " + subject + b"\r\nDate: Mon, 2 Feb 2026 10:00:00 +0000\r\n"
        b"Message-ID: <" + uuid.uuid4().hex.encode() + b"@sender.example>\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + body
    )


BODIES = {
    "plain": b"Nothing to worry about.\r\n",
    "dots at the start of lines": b".\r\n..\r\n.hidden\r\n\r\n...\r\n",
    "white space at the ends of lines": b"one \r\n\ttwo\t\r\n \r\n\r\n\r\n",
    "eight bits": "Größe: 20 µg, 体温 38 °C\r\n".encode(),
    "two hundred kilobytes": b"".join(b"%06d %s\r\n" % (n, b"x" * 60) for n in range(2900)),
    "no line end at the end of a long line": b"y" * 990 + b"\r\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_mail_arrives_over_tls_byte_for_byte_below_our_received(scene: Scene, body: bytes) -> None:
    to = recipient("good.example")
    message = mail(body)
    scene.send(message, to)
    row = scene.end(to)
    arrived = scene.delivered(to)

    original = message.replace(b"\r\n", b"\n")  # the Maildir's line ends
    assert arrived.endswith(original)
    above = email.message_from_bytes(arrived[: -len(original)] + b"\n", policy=email.policy.compat32)
    assert not above.defects
    assert above.get_payload() == ""
    theirs, ours = above.get_all("Received", [])
    assert "by postfix.test" in theirs
    assert "with ESMTPS" in theirs
    assert "by gw.sender.example" in ours

    assert (row["state"], row["method"]) == ("delivered", "tls")
    last = row["attempts"][-1]
    assert (last["host"], last["reply"]["code"]) == ("mx.good.example", 250)
    assert last["tls"]["version"] in {"TLSv1.2", "TLSv1.3"}
    assert last["tls"]["assurance"] in {"encrypted", "verified"}


def test_nothing_leaves_to_a_domain_without_tls_and_the_trace_says_why(scene: Scene) -> None:
    to = recipient("clear.example")
    subject, body = f"subject-{uuid.uuid4().hex}".encode(), f"body-{uuid.uuid4().hex}\r\n".encode()
    scene.send(mail(body, subject), to)
    row = scene.end(to)

    assert row["state"] == "bounced"
    (passed_over,) = [one for one in row["decision"]["passed_over"] if one["method"] == "tls"]
    assert "starttls" in passed_over["reason"].lower()
    assert scene.mailbox(to) == []
    # Postfix counts the commands of each session at its end: not even a sender was named.
    ends = [line for line in scene.postfix.log.splitlines() if "listener1/smtpd" in line and " disconnect " in line]
    assert not [line for line in ends if " mail=" in line or " rcpt=" in line or " data=" in line]

    notice = wait_for("the sender is told", lambda: [dsn for dsn in scene.mailbox(SENDER) if to.encode() in dsn])[-1]
    report = email.message_from_bytes(notice, policy=email.policy.default)
    assert report.get_content_type() == "multipart/report"
    assert b"5.7.10" in notice
    assert subject not in notice
    assert body.strip() not in notice


def test_a_certificate_that_nobody_vouches_for_is_enough_for_encrypted(scene: Scene) -> None:
    to = recipient("self-signed.example")
    message = mail()
    scene.send(message, to)
    row = scene.end(to)
    assert row["state"] == "delivered"
    assert row["attempts"][-1]["tls"]["assurance"] == "encrypted"
    assert scene.delivered(to).endswith(message.replace(b"\r\n", b"\n"))


def test_a_certificate_that_nobody_vouches_for_is_not_enough_for_verified(scene: Scene) -> None:
    to = recipient("strict-self-signed.example")
    scene.send(mail(), to)
    row = scene.end(to)
    assert row["state"] == "bounced"
    assert [one["method"] for one in row["decision"]["passed_over"]].count("tls") == 1
    assert {rule["name"] for rule in row["decision"]["rules"]} >= {"strict-domains"}
    # The evidence of the session that fell short is kept.
    assert row["attempts"][-1]["tls"]["assurance"] == "encrypted"
    assert scene.mailbox(to) == []


def test_a_certificate_with_chain_and_name_is_enough_for_verified(scene: Scene) -> None:
    to = recipient("strict-good.example")
    message = mail()
    scene.send(message, to)
    row = scene.end(to)
    assert row["state"] == "delivered"
    assert row["attempts"][-1]["tls"]["assurance"] == "verified"
    assert scene.delivered(to).endswith(message.replace(b"\r\n", b"\n"))


def test_recipients_of_one_message_each_meet_their_own_fate(scene: Scene) -> None:
    ends = {
        recipient("good.example"): "delivered",
        recipient("clear.example"): "bounced",
        recipient("strict-self-signed.example"): "bounced",
        recipient("strict-good.example"): "delivered",
    }
    message = mail()
    scene.send(message, *ends)
    assert {to: scene.end(to)["state"] for to in ends} == ends
    for to, state in ends.items():
        if state == "delivered":
            arrived = scene.delivered(to)
            assert arrived.endswith(message.replace(b"\r\n", b"\n"))
            # No rendering shows another envelope recipient.
            assert not [other for other in ends if other != to and other.encode() in arrived]


def test_the_gateway_does_not_take_mail_in_the_clear_where_its_listener_demands_tls(scene: Scene) -> None:
    to = recipient("good.example")
    sent = swaks.send(
        scene.gateway.address, scene.gateway.port, mail(), scene.directory, sender=SENDER, recipients=[to], tls=False
    )
    assert sent.status != 0
    assert "530 5.7.0" in sent.transcript
    assert scene.gateway.recipient(to) is None
