"""``gateway doctor``: one finding for each fault of the surroundings, its remedy, and nothing changed."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.doctor import bounded
from gateway.cli.doctor_certificates import ends_soon
from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_clock import ClockReading, clock_steps, clock_sync, kernel_clock_error
from gateway.cli.doctor_disk import file_system_of, inode_finding, sync_finding
from gateway.store.database import open_engine
from gateway.store.timekeeping import load, save
from gateway.testing import CA, Behaviour, Certificate, DnsServer, Flag, SmtpPeer, free_port, stall
from tests.cli.conftest import Cli, run_cli

Files = dict[str, tuple[int, bytes]]


def change(cli: Cli, **sections: Any) -> None:
    """Lay sections over the configuration."""
    settings = yaml.safe_load(cli.config.read_text())
    cli.config.write_text(yaml.safe_dump({**settings, **sections}))


def ask(cli: Cli, *arguments: str, **environment: str) -> dict[str, dict[str, str]]:
    """The findings by name; the exit status must fit them."""
    result = cli.run("doctor", "--json", *arguments, **environment)
    told = json.loads(result.stdout)
    assert set(told) == {"ok", "checks"}
    for check in told["checks"]:
        assert set(check) == {"name", "status", "detail", "remedy"}
        assert check["status"] in {"ok", "note", "warning", "bad"}
        assert bool(check["remedy"]) or check["status"] == "ok", check
    assert told["ok"] is not any(check["status"] == "bad" for check in told["checks"])
    assert result.exit_code == (0 if told["ok"] else 1)
    return {check["name"]: check for check in told["checks"]}


@contextmanager
def world(zone: str = "", *flags: tuple[str, Flag], peer: SmtpPeer | None = None) -> Iterator[str]:
    """A DNS server, and a peer, in a thread of their own; yields the resolver's ``host:port``."""
    up, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    resolver: list[str] = []

    async def serve() -> None:
        async with DnsServer(zone) as server:
            for name, flag in flags:
                server.flag(name, flag)
            if peer is not None:
                await peer.__aenter__()
            resolver.append(server.resolver)
            up.set()
            await stop.wait()
            if peer is not None:
                await peer.__aexit__(None, None, None)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert up.wait(10)
    try:
        yield resolver[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def quiet_dns() -> Iterator[str]:
    with world("gw.clinic.example. A 8.8.4.4\n4.4.8.8.in-addr.arpa. PTR gw.clinic.example.\n") as resolver:
        yield resolver


# -- as a whole -------------------------------------------------------------------------------------------------------


def test_a_faulty_configuration_is_all_there_is_to_say(cli: Cli) -> None:
    cli.config.write_text("hostnam: x\npostmaster: ops@clinic.example\n")
    told = cli.json("doctor", status=1)
    assert told["ok"] is False
    assert {check["name"] for check in told["checks"]} == {"configuration"}
    assert any("did you mean 'hostname'?" in check["detail"] for check in told["checks"])


def test_nothing_is_changed(cli: Cli, quiet_dns: str, snapshot: Callable[[Path], Files]) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    before = snapshot(cli.config.parent)
    findings = ask(cli)
    assert snapshot(cli.config.parent) == before
    assert {findings[name]["status"] for name in ("store", "keys", "data_dir", "fsync", "clock")} == {"ok"}


def test_nothing_is_made_before_the_first_start(fresh: Cli, quiet_dns: str) -> None:
    change(fresh, dns={"resolvers": [quiet_dns]})
    findings = ask(fresh)
    assert not fresh.data_dir.exists()
    assert (findings["store"]["status"], findings["data_dir"]["status"]) == ("ok", "ok")


def test_a_check_that_hangs_or_breaks_keeps_what_it_found() -> None:
    async def check(error: Exception | None) -> AsyncIterator[Finding]:
        yield Finding("store", Status.OK, "there")
        if error is not None:
            raise error
        await asyncio.Event().wait()

    hung = asyncio.run(bounded("one", check(None), seconds=0.05))
    broken = asyncio.run(bounded("one", check(ValueError("oh")), seconds=5.0))
    for found, words in ((hung, "not all could be told"), (broken, "could not tell: ValueError: oh")):
        assert [(each.name, each.status) for each in found] == [("store", "ok"), ("check one", "warning")]
        assert words in found[1].detail


def test_lines_for_people(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    lines = cli.run("doctor").stdout.splitlines()
    assert lines[0].startswith("ok      configuration: ")
    (warned,) = [index for index, line in enumerate(lines) if line.startswith("note    return_route app:")]
    assert lines[warned + 1].startswith("        -> set return_route")
    assert lines[-1].endswith(" ok")
    assert " 0 bad, " in lines[-1]


# -- DNS --------------------------------------------------------------------------------------------------------------


def test_a_resolver_that_is_silent_is_bad_and_does_not_take_long(cli: Cli) -> None:
    with world("", ("gw.clinic.example.", "timeout")) as silent:
        change(cli, dns={"resolvers": [silent]})
        begun = time.monotonic()
        findings = ask(cli)
        assert time.monotonic() - begun < 14
    assert findings[f"resolver {silent}"]["status"] == "bad"
    assert "did not answer" in findings[f"resolver {silent}"]["detail"]
    assert findings["hostname"]["detail"].startswith("could not tell")


def test_one_of_two_resolvers_is_dead(cli: Cli, quiet_dns: str) -> None:
    dead = f"127.0.0.1:{free_port()}"
    change(cli, dns={"resolvers": [quiet_dns, dead]})
    findings = ask(cli)
    assert findings[f"resolver {quiet_dns}"]["status"] == "ok"
    assert findings[f"resolver {dead}"]["status"] == "warning"


def test_dnssec_is_seen_missed_and_not_guessed(cli: Cli) -> None:
    signed = "org. SOA a.org. b.org. 1 2 3 4 5\n"
    with world(signed, ("org.", "secure")) as resolver:
        change(cli, dns={"resolvers": [resolver]})
        assert ask(cli)[f"dnssec {resolver}"]["status"] == "ok"
    with world(signed) as resolver:
        change(cli, dns={"resolvers": [resolver]})
        found = ask(cli)[f"dnssec {resolver}"]
        assert (found["status"], "does not validate" in found["detail"]) == ("warning", True)
        change(cli, dns={"resolvers": [resolver], "trust_ad": False})
        assert "no resolver is trusted" in ask(cli)["dnssec"]["detail"]
    with world("") as resolver:
        change(cli, dns={"resolvers": [resolver]})
        assert ask(cli)[f"dnssec {resolver}"]["detail"].startswith("could not tell")


@pytest.mark.parametrize(
    ("zone", "name", "status", "words"),
    [
        ("", "hostname", "warning", "has no address"),
        ("gw.clinic.example. A 10.1.2.3\n", "hostname", "warning", "not an address that others can reach"),
        ("gw.clinic.example. A 8.8.4.4\n", "reverse_dns 8.8.4.4", "warning", "has no PTR record"),
        (
            "gw.clinic.example. A 8.8.4.4\n4.4.8.8.in-addr.arpa. PTR host5.isp.example.\n",
            "reverse_dns 8.8.4.4",
            "warning",
            "host5.isp.example does not lead back to it",
        ),
        (
            "gw.clinic.example. A 8.8.4.4\nmail.isp.example. A 8.8.4.4\n4.4.8.8.in-addr.arpa. PTR mail.isp.example.\n",
            "reverse_dns 8.8.4.4",
            "note",
            "mail.isp.example, which leads back to it, but is not gw.clinic.example",
        ),
        (
            "gw.clinic.example. A 8.8.4.4\n4.4.8.8.in-addr.arpa. PTR gw.clinic.example.\n",
            "reverse_dns 8.8.4.4",
            "ok",
            "gw.clinic.example, which leads back to it",
        ),
    ],
)
def test_our_name_and_the_names_of_its_address(cli: Cli, zone: str, name: str, status: str, words: str) -> None:
    with world(zone) as resolver:
        change(cli, dns={"resolvers": [resolver]})
        found = ask(cli)[name]
    assert found["status"] == status
    assert words in found["detail"]


def test_the_address_that_mail_leaves_from_is_given_where_nat_hides_it(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    found = ask(cli, "--address", "8.8.4.4")
    assert found["hostname"]["status"] == "ok"
    found = ask(cli, "--address", "8.8.8.8")
    assert found["hostname"]["detail"] == "mail leaves from 8.8.8.8, gw.clinic.example is 8.8.4.4"
    assert (found["hostname"]["status"], found["reverse_dns 8.8.8.8"]["detail"]) == ("warning", "has no PTR record")
    for wrong in ("--address", "somewhere"), ("--domain", "no..domain"):
        assert cli.run("doctor", *wrong).exit_code == 2


def test_behind_a_smart_host_our_own_name_is_seen_by_nobody(cli: Cli) -> None:
    with world("") as resolver:
        change(cli, dns={"resolvers": [resolver]}, delivery={"routes": {"*": "127.0.0.2:26"}})
        found = ask(cli)
    assert (found["hostname"]["status"], "127.0.0.2" in found["hostname"]["detail"]) == ("ok", True)


def test_a_source_address_must_be_one_of_this_machine(cli: Cli, quiet_dns: str) -> None:
    addresses = ["127.0.0.2", "198.51.100.77"]
    change(cli, dns={"resolvers": [quiet_dns]}, delivery={"source_addresses": addresses})
    found = ask(cli)
    assert [found[f"source_address {address}"]["status"] for address in addresses] == ["ok", "bad"]


def test_an_untrusted_resolver_beside_a_trusted_one_is_told(cli: Cli, quiet_dns: str) -> None:
    elsewhere = f"0.0.0.0:{free_port()}"  # not loopback by name, and nobody there
    change(cli, dns={"resolvers": [quiet_dns, elsewhere]})
    assert ask(cli)[f"dnssec {elsewhere}"]["status"] == "note"


# -- the ways out -----------------------------------------------------------------------------------------------------


def test_port_25_is_open_closed_or_not_known(cli: Cli) -> None:
    port = free_port("127.0.0.2")
    zone = "big.example. MX 10 mx.big.example.\nmx.big.example. A 127.0.0.2\n"
    delivery = {"port": port, "allow_networks": ["127.0.0.0/8"]}
    with world(zone, peer=SmtpPeer("127.0.0.2", port)) as resolver:
        change(cli, dns={"resolvers": [resolver]}, delivery=delivery)
        assert ask(cli, "--domain", "big.example")[f"port {port}"]["detail"] == "mx.big.example [127.0.0.2] greets"
        assert ask(cli, "--domain", "other.example")[f"port {port}"]["detail"].startswith("could not tell")
    with world(zone) as resolver:
        change(cli, dns={"resolvers": [resolver]}, delivery=delivery)
        assert ask(cli, "--domain", "big.example")[f"port {port}"]["status"] == "bad"
        change(cli, delivery={**delivery, "routes": {"*": "127.0.0.2:26"}})
        assert ask(cli, "--domain", "big.example")[f"port {port}"]["status"] == "ok"


def test_port_25_is_tried_at_mail_hosts_of_our_own_domains(cli: Cli) -> None:
    port = free_port("127.0.0.2")
    zone = "clinic.example. MX 10 mx.mailbox.example.\nmx.mailbox.example. A 127.0.0.2\n"
    delivery = {"port": port, "allow_networks": ["127.0.0.0/8"]}
    with world(zone, peer=SmtpPeer("127.0.0.2", port)) as resolver:
        change(cli, dns={"resolvers": [resolver]}, delivery=delivery)
        assert ask(cli)[f"port {port}"]["detail"] == "mx.mailbox.example [127.0.0.2] greets"
        # That we reach ourselves says nothing.
        found = ask(cli, "--address", "127.0.0.2")[f"port {port}"]
        assert (found["status"], found["detail"].startswith("not tried")) == ("note", True)
    with world("clinic.example. MX 10 gw.clinic.example.\ngw.clinic.example. A 127.0.0.2\n") as resolver:
        change(cli, dns={"resolvers": [resolver]}, delivery=delivery)
        assert ask(cli)[f"port {port}"]["status"] == "note"
    with world(zone, ("clinic.example.", "servfail")) as resolver:
        change(cli, dns={"resolvers": [resolver]}, delivery=delivery)
        assert ask(cli)[f"port {port}"]["detail"].startswith("could not tell")


def with_return_route(cli: Cli, resolver: str, port: int, **route: Any) -> None:
    connectors = yaml.safe_load(cli.config.read_text())["connectors"]
    connectors[0]["return_route"] = {"host": "back.clinic.example", "port": port, **route}
    change(cli, dns={"resolvers": [resolver]}, connectors=connectors)


@pytest.mark.parametrize(
    ("make", "tls", "status", "words"),
    [
        (lambda ca: ca.issue("back.clinic.example"), "verified", "ok", "TLSv1.3, authenticated"),
        (lambda ca: ca.issue("other.example"), "verified", "bad", "(asked for: tls verified)"),
        (lambda ca: ca.issue("other.example"), "encrypted", "ok", "TLSv1.3, encrypted"),
        (lambda _: None, "encrypted", "bad", "STARTTLS is not offered"),
        (lambda _: None, "none", "warning", "in clear text"),
    ],
)
def test_the_way_back_is_opened_and_judged(
    cli: Cli, make: Callable[[CA], Certificate | None], tls: str, status: str, words: str
) -> None:
    ca, port = CA(), free_port("127.0.0.2")
    peer = SmtpPeer("127.0.0.2", port, certificate=make(ca))
    with world("back.clinic.example. A 127.0.0.2\n", peer=peer) as resolver:
        with_return_route(cli, resolver, port, tls=tls)
        change(cli, tls={"trust": str(ca.write_root(cli.config.parent / "roots.pem"))})
        found = ask(cli)["return_route app"]
        assert found["status"] == status
        assert words in found["detail"]
        assert not peer.messages


def test_the_way_back_leads_nowhere(cli: Cli) -> None:
    with world("") as resolver:
        with_return_route(cli, resolver, 25)
        assert ask(cli)["return_route app"]["detail"] == "back.clinic.example has no address"


def test_a_way_back_that_never_greets_is_given_up(cli: Cli) -> None:
    port = free_port("127.0.0.2")
    peer = SmtpPeer("127.0.0.2", port, behaviour=Behaviour(greeting=stall()))
    with world("back.clinic.example. A 127.0.0.2\n", peer=peer) as resolver:
        with_return_route(cli, resolver, port)
        begun = time.monotonic()
        assert ask(cli)["return_route app"]["status"] == "bad"
        assert time.monotonic() - begun < 14


# -- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (lambda ca: ca.issue("gw.clinic.example"), "ok", "names gw.clinic.example"),
        (lambda ca: ca.issue("old.clinic.example"), "warning", "names old.clinic.example, not gw.clinic.example"),
        (lambda ca: ca.expired("gw.clinic.example"), "bad", "expired on 2021-01-01"),
        (
            lambda ca: ca.issue("gw.clinic.example", not_before=dt.datetime.now(dt.UTC) + dt.timedelta(days=1)),
            "bad",
            "is valid only from",
        ),
        (
            lambda ca: ca.issue("gw.clinic.example", not_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=20)),
            "warning",
            "ends in 20 days",
        ),
        (lambda _: CA().issue("gw.clinic.example"), "warning", "gw.crt: "),
    ],
)
def test_the_listeners_certificate(
    cli: Cli, quiet_dns: str, make: Callable[[CA], Certificate], status: str, words: str
) -> None:
    ca = CA()
    certificate, key = make(ca).write(cli.config.parent, "gw")
    roots = ca.write_root(cli.config.parent / "roots.pem")
    change(
        cli,
        dns={"resolvers": [quiet_dns]},
        tls={"certificate": str(certificate), "key": str(key), "trust": str(roots)},
        listeners=[{"address": "127.0.0.1:0", "tls": "required"}],
    )
    found = ask(cli)["certificate"]
    assert found["status"] == status
    assert words in found["detail"]


def test_a_key_that_everybody_can_read(cli: Cli, quiet_dns: str) -> None:
    ca = CA()
    certificate, key = ca.issue("gw.clinic.example").write(cli.config.parent, "gw")
    roots = ca.write_root(cli.config.parent / "roots.pem")
    tls = {"certificate": str(certificate), "key": str(key), "trust": str(roots)}
    change(cli, dns={"resolvers": [quiet_dns]}, tls=tls)
    key.chmod(0o644)
    assert ask(cli)["certificate"]["remedy"].startswith("chmod o= ")
    key.chmod(0o640)
    assert ask(cli)["certificate"]["status"] == "ok"


def test_a_short_lived_certificate_has_a_month_to_go_for_all_its_life() -> None:
    begin, day = dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(days=1)
    assert not ends_soon(begin, begin + 47 * day, begin + 30 * day)
    assert ends_soon(begin, begin + 47 * day, begin + 36 * day)
    assert not ends_soon(begin, begin + 398 * day, begin + 360 * day)
    assert ends_soon(begin, begin + 398 * day, begin + 370 * day)


def test_a_key_of_another_certificate(cli: Cli) -> None:
    ca = CA()
    certificate, _ = ca.issue("gw.clinic.example").write(cli.config.parent, "gw")
    _, key = ca.issue("gw.clinic.example").write(cli.config.parent, "other")
    change(cli, tls={"certificate": str(certificate), "key": str(key)})
    (check,) = ask(cli).values()
    assert (check["name"], check["status"]) == ("configuration", "bad")
    assert "does not belong to" in check["detail"]


def test_clear_text_to_the_world_is_told(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]}, listeners=[{"address": "0.0.0.0:0", "tls": "none"}])
    assert ask(cli)["certificate"]["status"] == "warning"


# -- connectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "status"), [("observe", "warning"), ("soft", "warning"), ("enforce", "ok")])
def test_a_connector_that_is_not_in_force_is_told(cli: Cli, quiet_dns: str, stage: str, status: str) -> None:
    connectors = yaml.safe_load(cli.config.read_text())["connectors"]
    connectors[0]["stage"] = stage
    change(cli, dns={"resolvers": [quiet_dns]}, connectors=connectors)
    found = ask(cli)
    assert found["connector app"]["status"] == status
    assert found["return_route app"]["detail"] == "none: bounces go by MX"


# -- disk and store ---------------------------------------------------------------------------------------------------


def test_below_the_floor_is_bad(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]}, limits={"free_space": "900TB"})
    found = ask(cli)["free_space"]
    assert (found["status"], "the floor is" in found["detail"]) == ("bad", True)


def test_room_for_files_and_the_time_of_a_sync_are_told(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    found = ask(cli)
    assert found["inodes"]["status"] == "ok"
    assert re.search(r"synced, in [\d.]+ ms", found["fsync"]["detail"])


@pytest.mark.parametrize(("seconds", "status"), [(0.0004, Status.OK), (0.02, Status.OK), (0.08, Status.WARNING)])
def test_a_slow_disk_is_told(seconds: float, status: Status) -> None:
    assert sync_finding(seconds).status is status


@pytest.mark.parametrize(
    ("total", "left", "status"),
    [(1_000_000, 900_000, Status.OK), (1_000_000, 500, Status.WARNING), (0, 0, Status.OK)],
)
def test_a_file_system_without_room_for_files_is_told(total: int, left: int, status: Status) -> None:
    assert inode_finding(Path("/data"), total, left).status is status


def test_others_can_read_the_data(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    cli.data_dir.chmod(0o755)
    (cli.data_dir / "kek.key").chmod(0o644)
    findings = ask(cli)
    assert "mode 0755" in findings["data_dir"]["detail"]
    assert "mode 0644" in findings["keys"]["detail"]


def test_the_key_is_gone(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    (cli.data_dir / "kek.key").unlink()
    found = ask(cli)["keys"]
    assert (found["status"], "is missing" in found["detail"]) == ("bad", True)
    assert not (cli.data_dir / "kek.key").exists()


def test_the_key_is_another(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    path = cli.data_dir / "kek.key"
    path.chmod(0o600)
    path.write_text("00" * 32)
    found = ask(cli)["keys"]
    assert (found["status"], "store.keys does not give" in found["detail"]) == ("bad", True)


@pytest.mark.parametrize(("version", "words"), [("0000", "gateway store migrate"), ("9999", "newer gateway")])
def test_a_store_of_another_version(cli: Cli, quiet_dns: str, version: str, words: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    connection = sqlite3.connect(cli.data_dir / "queue.db")
    connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()
    found = ask(cli)["store"]
    assert (found["status"], words in found["remedy"]) == ("bad", True)


def test_a_store_that_is_no_database(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    (cli.data_dir / "queue.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    assert ask(cli)["store"]["status"] == "bad"


def test_a_store_in_use_is_read_without_a_trace(cli: Cli, quiet_dns: str, snapshot: Callable[[Path], Files]) -> None:
    """With its log and shared memory there, as beside a running daemon or after a kill."""
    change(cli, dns={"resolvers": [quiet_dns]})
    connection = sqlite3.connect(cli.data_dir / "queue.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE messages SET size = size + 1")
    killed = cli.data_dir.with_name("killed")
    shutil.copytree(cli.data_dir, killed)
    before = snapshot(cli.data_dir)
    assert set(before) >= {"queue.db-wal", "queue.db-shm"}
    assert ask(cli)["store"]["status"] == "ok"
    after = snapshot(cli.data_dir)
    connection.close()
    assert {name: data for name, data in after.items() if "-shm" not in name} == {
        name: data for name, data in before.items() if "-shm" not in name
    }
    (killed / "queue.db-shm").unlink()
    change(cli, data_dir=str(killed))
    before = snapshot(killed)
    found = ask(cli)["store"]
    assert (found["status"], found["detail"].startswith("could not tell")) == ("warning", True)
    assert snapshot(killed) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_not_ours(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    cli.data_dir.chmod(0o500)
    assert ask(cli)["data_dir"]["status"] == "bad"


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:5 / /srv rw - nfs4 server:/srv rw\n"
        f"24 22 0:6 / {tmp_path} rw - xfs /dev/sdb rw\n"
        f"25 22 0:7 / {tmp_path}/with\\040space rw - tmpfs tmpfs rw\n"
        "garbage\n"
    )
    (tmp_path / "with space").mkdir()
    assert file_system_of(tmp_path / "data", mounts) == "xfs"
    assert file_system_of(tmp_path / "with space" / "data", mounts) == "tmpfs"
    assert file_system_of(Path("/srv/gateway"), mounts) == "nfs4"
    assert file_system_of(Path("/elsewhere"), mounts) == "ext4"
    assert file_system_of(Path("/"), tmp_path / "missing") is None


# -- the clock --------------------------------------------------------------------------------------------------------

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("wall", "newest", "status"),
    [
        (NOW + 2, {}, Status.OK),
        (NOW + 62, {}, Status.WARNING),
        (NOW - 3600, {}, Status.WARNING),
        (NOW + 2, {"the newest message": NOW - 5}, Status.OK),
        (NOW + 2, {"the newest message": NOW + 600}, Status.BAD),
        (60.0, {}, Status.BAD),
    ],
)
def test_the_clock(wall: float, newest: dict[str, float], status: Status) -> None:
    assert clock_steps(ClockReading(NOW, 100.0), ClockReading(wall, 102.0), newest).status is status


def test_the_gateways_own_doubt_is_told(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    engine = open_engine("sqlite", cli.data_dir, writes=True)
    for doubt, status in (("jump", "warning"), ("", "ok")):
        with engine.begin() as connection:
            record = load(connection)
            assert record is not None
            save(connection, replace(record, doubt=doubt))
        found = ask(cli)["clock"]
        assert (found["status"], "queue clock show" in found["remedy"]) == (status, bool(doubt))
    engine.dispose()


def test_mail_from_the_future_is_seen(cli: Cli, quiet_dns: str) -> None:
    change(cli, dns={"resolvers": [quiet_dns]})
    connection = sqlite3.connect(cli.data_dir / "queue.db")
    connection.execute("UPDATE messages SET received = received + 90000")
    connection.commit()
    connection.close()
    found = ask(cli)["clock"]
    assert (found["status"], "the newest message lies" in found["detail"]) == ("bad", True)


@pytest.mark.parametrize(
    ("error", "status"),
    [(0.02, Status.OK), (0.0, Status.OK), (3.0, Status.NOTE), (16.0, Status.WARNING), (None, Status.NOTE)],
)
def test_whether_anything_keeps_the_clock_right(error: float | None, status: Status) -> None:
    assert clock_sync(error).status is status


def test_the_kernel_tells_how_wrong_its_clock_may_be() -> None:
    error = kernel_clock_error()
    assert error is None or 0 <= error < 1e6


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("echo 'gpg (GnuPG) 2.4.5'; echo more", "ok", "version 2.4.5"),
        ("echo 'gpg (GnuPG) 2.0.22'", "warning", "2.0.22; 2.2 or newer"),
        ("exit 1", "warning", "does not say which version"),
        ("exec sleep 30", "warning", "does not say which version"),
        (None, "note", "not installed"),
    ],
)
def test_gnupg(fresh: Cli, quiet_dns: str, tmp_path: Path, script: str | None, status: str, words: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if script is not None:
        (programs / "gpg").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        (programs / "gpg").chmod(0o755)
    change(fresh, dns={"resolvers": [quiet_dns]})
    found = ask(fresh, PATH=str(programs))["gpg"]
    assert (found["status"], words in found["detail"]) == (status, True)


def test_help_says_what_it_is() -> None:
    text = run_cli("doctor", "--help").stdout
    assert "Changes nothing" in text
