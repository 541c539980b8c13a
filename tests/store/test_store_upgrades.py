"""A store of every released version, filled as its gateway left it, is upgraded and its mail delivered.

The rows are written in plain SQL, with the JSON of then: what this code writes today must not help.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Engine, text

from gateway.app import Gateway
from gateway.errors import StoreError
from gateway.store.counting import counted
from gateway.store.database import open_engine
from gateway.store.keyring import Kek
from gateway.store.migrate import current_version, expected_version, require_current, upgrade
from gateway.store.schema import metadata
from gateway.testing import CA, DnsServer, SmtpPeer, free_port, poll
from tests.both_databases import database_of
from tests.store.store_world import KEY

RELEASED = ("0001", "0002", "0003", "0004")
ZONE = "good.example. MX 10 mx1.good.example.\nmx1.good.example. A 127.0.0.2\n"
REQUIREMENT = (
    '{"methods":["tls","smime","pgp","pdf","portal"],"tls":"verified","disposition":"deliver","reason":"",'
    '"hold_rules":[],"hold_expires":null,"rules":[{"name":"checked","effect":"require tls verified"}],'
    '"policy":"4d8703ec283640b5219c26948098abe9410383bbf70c28dfe0d7303f0709f53f",'
    '"prefer":["tls","plain","smime","pgp","pdf","portal"],"fallback_after":900.0}'
)
ENVELOPE = (
    '{"helo":"app.clinic.example","tls":null,"ret":"","envid":"","body":"","smtputf8":false,"requiretls":false,'
    '"protocol":"ESMTP","eight_bit":false,"total":1}'
)
BODY = b"From: dr@clinic.example\r\nSubject: kept\r\nMessage-ID: <%d@clinic.example>\r\n\r\nwords of then\r\n"
#: One recipient in each state that can be waiting; the last was on a connection when its gateway ended.
STATES = ("queued", "deferred", "held", "delivering")


def wrapped(key: bytes, secret: bytes, purpose: str) -> bytes:
    """A key in its wrapping, as the first version wrote it."""
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=purpose.encode()).derive(key)
    nonce = os.urandom(12)
    return nonce + AESGCM(derived).encrypt(nonce, secret, purpose.encode())


def sealed(key: bytes, message: str, body: bytes) -> bytes:
    """A small body as the first version sealed it: its mark, one chunk, the flag of the last one in the nonce."""
    return b"SEGWBDY1" + AESGCM(key).encrypt(bytes(11) + b"\1", body, b"SEGWBDY1" + message.encode())


def message_id(number: int) -> str:
    return f"0192f0c1-2345-7abc-8def-{number:012d}"


def fill(engine: Engine, revision: str) -> None:
    """What a gateway of that version left behind when it was stopped in the middle of a delivery."""
    now = time.time()
    kek, ring, loop_secret = bytes.fromhex(KEY), os.urandom(32), os.urandom(32)
    with engine.connect() as connection, connection.begin():

        def run(statement: str, **values: Any) -> None:
            connection.execute(text(statement), values)

        run(
            "INSERT INTO ring_keys (id, created, kek, wrapped) VALUES (1, :now, :kek, :wrapped)",
            now=now,
            kek=Kek(kek).id,
            wrapped=wrapped(kek, ring, "ring-key/1"),
        )
        run(
            "INSERT INTO meta (key, value) VALUES ('loop-secret', :value)",
            value=(1).to_bytes(4, "big") + wrapped(ring, loop_secret, "loop-secret"),
        )
        run(
            "INSERT INTO incarnations (id, host, boot, pid, started, heartbeat, ended) "
            "VALUES (:id, 'gone', 'b', 1, :t, :t, :t)",
            id="9" * 36,
            t=now - 7200,
        )
        for number, state in enumerate(STATES):
            message, key, body = message_id(number), os.urandom(32), BODY % number
            run(
                "INSERT INTO messages (id, received, connector, client, sender, size, digest, kind, observed, system, "
                "parent, envelope, live, ring_key, data_key) VALUES (:id, :now, 'app', '127.0.0.1', "
                "'dr@clinic.example', :size, :digest, 'ordinary', :no, :no, NULL, :envelope, 1, 1, :key)",
                id=message,
                now=now - 600,
                size=len(body),
                digest=hashlib.sha256(body).hexdigest(),
                no=False,
                envelope=ENVELOPE,
                key=wrapped(ring, key, f"data-key/{message}"),
            )
            run(
                "INSERT INTO bodies (message, inline, blob) VALUES (:id, :inline, NULL)",
                id=message,
                inline=sealed(key, message, body),
            )
            run(
                "INSERT INTO recipients (message, n, address, key, domain, origin, notify, orcpt, state, since, "
                "attempts, next_attempt, expires, claimed_by, losses, unsure_since, delay_notified, requirement, "
                "decision, method, last_error, hold_reason, hold_until, approvals) VALUES (:id, 1, :to, :to, "
                "'good.example', 7, '', '', :state, :now, 0, :next, :expires, :claimed, 0, NULL, :no, :requirement, "
                "NULL, NULL, NULL, :reason, :until, '[]')",
                id=message,
                to=f"{state}@good.example",
                state=state,
                now=now - 600,
                next=now - 1,
                expires=now + 400_000,
                claimed="9" * 36 if state == "delivering" else None,
                no=False,
                requirement=REQUIREMENT,
                reason="review" if state == "held" else None,
                until=now + 86400 if state == "held" else None,
            )
            columns, values = ("name, value", ":n, 1") if revision == "0001" else ("name, writer, value", ":n, '', 1")
            run(f"INSERT INTO counters ({columns}) VALUES ({values})", n=f"recipients.{state}")


def write_config(directory: Path, resolver: str, port: int, roots: Path) -> Path:
    config = directory / "gateway.yaml"
    (directory / "policy.yaml").write_text("version: 1\n")
    settings = {
        "hostname": "gw.clinic.example",
        "postmaster": "postmaster@clinic.example",
        "data_dir": "data",
        "store": {"url": database_of(directory).reveal()},
        "listeners": [{"address": f"127.0.0.1:{free_port()}", "tls": "none"}],
        "connectors": [{"name": "app", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["*"]}],
        "dns": {"resolvers": [resolver]},
        "delivery": {"port": port, "allow_networks": ["127.0.0.0/8"], "retry": {"first": "1s"}},
        "tls": {"trust": str(roots)},
        "limits": {"free_space": "1MB"},
        "policies": ["policy.yaml"],
        "metrics": {"listen": None},
    }
    config.write_text(yaml.safe_dump(settings))
    return config


def test_every_released_version_is_tried() -> None:
    versions = Path(__file__).parents[2] / "gateway/store/migrations/versions"
    assert tuple(sorted(path.name[:4] for path in versions.glob("[0-9]*.py"))) == RELEASED


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "data").mkdir()
    engine = open_engine(database_of(tmp_path).reveal(), tmp_path / "data", writes=True)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("revision", RELEASED)
async def test_mail_of_an_earlier_version_is_delivered_by_this_one(
    tmp_path: Path, engine: Engine, revision: str
) -> None:
    (tmp_path / "data/kek.key").write_text(KEY)
    upgrade(engine, revision)
    fill(engine, revision)
    if revision != expected_version():
        with pytest.raises(StoreError, match="gateway store migrate"):
            require_current(engine)
    upgrade(engine)
    assert current_version(engine) == expected_version()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert counted(connection) == {f"recipients.{state}": 1 for state in STATES}
    ca, port = CA(), free_port("127.0.0.2")
    async with (
        DnsServer(ZONE) as resolver,
        SmtpPeer("127.0.0.2", port, certificate=ca.issue("mx1.good.example")) as peer,
    ):
        daemon = Gateway(write_config(tmp_path, resolver.resolver, port, ca.write_root(tmp_path / "roots.pem")))
        await daemon.start()
        try:
            await poll(lambda: len(peer.messages) == 3, 60, what="the three deliveries")
        finally:
            await daemon.stop()
        assert {message.recipients[0].address for message in peer.messages} == {
            f"{state}@good.example" for state in STATES if state != "held"
        }
        assert all(b"words of then" in message.raw for message in peer.messages)
    with engine.connect() as connection:
        states = {row.address: row.state for row in connection.execute(text("SELECT address, state FROM recipients"))}
    assert states.pop("held@good.example") == "held"
    assert set(states.values()) == {"delivered"}
