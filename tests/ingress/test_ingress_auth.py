"""SMTP AUTH: over TLS only, for connectors that ask for it, one answer for all that is wrong, bounded work."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import smtplib
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.users import UserTable, normal_name, normal_password
from gateway.errors import Refusal
from gateway.ingress.passwords import AT_ONCE, NETWORKS, WAITING, Failures, Passwords
from gateway.ingress.sasl import Credentials, SaslError, decode, plain
from gateway.testing import FakeClock, poll
from tests.ingress.ingress_harness import CA_ROOT, HEADER, Running, Talker, connector, running, settings_of

BODY = HEADER + b"\r\nhello\r\n"
QUICK = PasswordHasher(1, 7168, 1)  # the cheapest that a file may hold
HASHES = {name: QUICK.hash(password) for name, password in (("printer", "paper jam"), ("caf\u00e9", "gr\u00fc\u00dfe"))}


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def users(folder: Path, **changed: str) -> Path:
    path = folder / "users.yaml"
    path.write_text("".join(f'"{name}": "{each}"\n' for name, each in {**HASHES, **changed}.items()), encoding="utf-8")
    return path


def with_users(folder: Path, tls: str = "offered", **changes: Any) -> Any:
    accept = {"auth": str(users(folder))}
    base: dict[str, Any] = {
        "listeners": [{"address": "127.0.0.1:0", "tls": tls}],
        "connectors": [connector(accept=accept)],
    }
    return settings_of(folder, **{**base, **changes})


async def under_tls(run: Running) -> Talker:
    client = await run.client()
    await client.hello()
    await client.expect("STARTTLS", 220)
    await client.shake_hands()
    assert "AUTH PLAIN LOGIN" in (await client.hello()).splitlines()
    return client


# -- pure ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60) | st.builds(lambda *p: b"\0".join(p), *[st.binary(max_size=8)] * 3))
def test_plain_is_read_or_refused(message: bytes) -> None:
    try:
        found = plain(message)
    except SaslError:
        return
    actor, name, password = message.split(b"\0")
    assert found == (
        Credentials(normal_name(name.decode()), normal_password(password.decode())) if actor in (b"", name) else None
    )
    assert password.decode() not in repr(found) or len(password) < 12


def test_base64_is_strict() -> None:
    assert decode(b"AGEAYg==") == b"\0a\0b"
    for wrong in (b"AGEAYg", b"AGE AYg==", b"AGE\xffYg==", b"===="):
        with pytest.raises(SaslError):
            decode(wrong)


@pytest.mark.parametrize("part", [b"", b"x" * 256, b"a\0b", b"\xff"])
def test_names_and_passwords_have_limits(part: bytes) -> None:
    for name, password in ((part, b"p"), (b"n", part)):
        with pytest.raises(SaslError):
            Credentials.of(name, password)


async def test_failures_of_a_network_come_back_with_time_and_are_not_remembered_for_ever() -> None:
    clock = FakeClock()
    failures = Failures(clock)
    address = ipaddress.ip_address("192.0.2.1")
    for _ in range(5):
        failures.take(address, 5)
    with pytest.raises(Refusal, match="Too many failed log-ins"):
        failures.take(ipaddress.ip_address("192.0.2.200"), 5)
    failures.take(ipaddress.ip_address("192.0.3.1"), 5)
    failures.give_back(address)
    failures.take(address, 5)
    await clock.advance(13)
    failures.take(address, 5)
    for number in range(NETWORKS + 5):
        failures.take(ipaddress.ip_address(0x0A000000 + number * 256), 5)
    assert len(failures._networks) == NETWORKS


async def test_only_so_many_verify_or_wait_at_once(tmp_path: Path) -> None:
    table = UserTable.read(users(tmp_path))
    passwords = Passwords()
    tries = [
        asyncio.create_task(passwords.prove([table], Credentials("nobody", b"x"))) for _ in range(AT_ONCE + WAITING + 3)
    ]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in results[-3:]] == [Refusal] * 3
    assert set(results[:-3]) == {frozenset()}
    assert await passwords.prove([table], Credentials("printer", b"paper jam")) == {HASHES["printer"]}


async def test_a_client_that_does_not_wait_takes_no_turn_away(tmp_path: Path) -> None:
    table = UserTable.read(users(tmp_path))
    passwords = Passwords()
    for _ in range(3):
        tries = [asyncio.create_task(passwords.prove([table], Credentials("nobody", b"x"))) for _ in range(10)]
        await asyncio.sleep(0)
        for each in tries:
            each.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
    assert await asyncio.wait_for(passwords.prove([table], Credentials("printer", b"paper jam")), 10)
    await poll(lambda: passwords._turn._value == AT_ONCE)
    assert passwords._asked == 0


# -- on the wire -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["offered", "required", "implicit"])
@pytest.mark.parametrize("how", ["plain", "plain later", "login", "login with name", "acts for itself"])
async def test_who_logs_in_may_send(tmp_path: Path, tls: str, how: str) -> None:
    async with running(with_users(tmp_path, tls)) as run:
        if tls == "implicit":
            client = await run.client(tls=True)
            assert "AUTH PLAIN LOGIN" in await client.hello()
        else:
            client = await under_tls(run)
        await client.expect("MAIL FROM:<ann@clinic.example>", 530)
        name, password = "printer", "paper jam"
        whole = b64(f"\0{name}\0{password}")
        match how:
            case "plain":
                await client.expect(f"auth plain {whole}", 235)
            case "plain later":
                client.send(b"AUTH PLAIN\r\n")
                assert await client.reply() == (334, "")
                await client.expect(whole, 235)
            case "acts for itself":
                await client.expect(f"AUTH PLAIN {b64(f'{name}{chr(0)}{name}{chr(0)}{password}')}", 235)
            case "login" | "login with name":
                client.send(b"AUTH LOGIN" + (f" {b64(name)}".encode() if "with" in how else b"") + b"\r\n")
                if how == "login":
                    assert await client.reply() == (334, b64("Username:"))
                    client.send(b64(name).encode() + b"\r\n")
                assert await client.reply() == (334, b64("Password:"))
                await client.expect(b64(password), 235)
        await client.expect(f"AUTH PLAIN {whole}", 503)
        await client.expect("MAIL FROM:<ann@clinic.example> AUTH=ann+40clinic.example", 250)
        await client.expect("RCPT TO:<bob@b.example>", 250)
        assert (await client.data(BODY))[0] == 250
        submission = run.intake.accepted[0].submission
        assert submission.user == "printer"
        assert submission.message.envelope.protocol == "ESMTPSA"
        assert run.events("accepted")[0]["user"] == "printer"
        assert "paper jam" not in str(run.log.entries)
        await client.hello()  # a new EHLO does not log out
        await client.envelope()
        await client.close()


async def test_without_tls_nothing_is_offered_and_nothing_is_taken(tmp_path: Path) -> None:
    async with running(with_users(tmp_path)) as run:
        client = await run.client()
        assert "AUTH" not in await client.hello()
        assert "5.7.11" in await client.expect("AUTH PLAIN AHByaW50ZXIAcGFwZXIgamFt", 538)
        await client.close()


async def test_where_no_connector_asks_for_it_it_is_not_offered(tmp_path: Path) -> None:
    others = [connector(), connector(name="far", accept={"networks": ["10.0.0.0/8"], "auth": str(users(tmp_path))})]
    async with running(with_users(tmp_path, connectors=others)) as run:
        client = await run.client()
        await client.hello()
        await client.expect("STARTTLS", 220)
        await client.shake_hands()
        assert "AUTH" not in await client.hello()
        await client.expect("AUTH PLAIN", 502)
        await client.envelope()
        await client.close()


async def test_every_wrong_log_in_has_one_answer_and_the_third_is_the_last(tmp_path: Path) -> None:
    async with running(with_users(tmp_path)) as run:
        wrong = [("", "printer", "wrong"), ("", "nobody", "paper jam"), ("boss", "printer", "paper jam")]
        for order in (wrong, wrong[::-1]):
            client = await under_tls(run)
            for parts in order[:2]:
                answer = await client.say("AUTH PLAIN " + b64("\0".join(parts)))
                assert answer == (535, "5.7.8 Name or password is wrong")
            assert (await client.say("AUTH PLAIN " + b64("\0".join(order[2]))))[0] == 421
            assert await client.at_end()
            await client.close()
        assert set(run.metrics.reasons) == {"auth"}
        details = [event["detail"] for event in run.events("refused")]
        assert set(details) == {"wrong password of printer", "unknown user", "asks to act for another"}
        assert "nobody" not in str(run.log.entries)
        assert not run.intake.accepted


@pytest.mark.parametrize(
    ("lines", "code", "enhanced"),
    [
        (["AUTH"], 501, "5.5.4"),
        (["AUTH CRAM-MD5"], 504, "5.5.4"),
        (["AUTH PLAIN !!!"], 501, "5.5.2"),
        (["AUTH PLAIN ="], 501, "5.5.2"),
        (["AUTH PLAIN " + b64("no parts")], 501, "5.5.2"),
        (["AUTH PLAIN", "*"], 501, "5.7.0"),
        (["AUTH LOGIN", "*"], 501, "5.7.0"),
        (["AUTH LOGIN", b64("printer"), "*"], 501, "5.7.0"),
        (["AUTH LOGIN", b64("printer"), ""], 501, "5.5.2"),
        (["AUTH PLAIN", "x" * 3000], 500, "5.5.6"),
        (["AUTH PLAIN " + "x" * 3000], 500, "5.5.2"),
        (["AUTH PLAIN", "AG\0E="], 501, "5.5.2"),
        (["AUTH LOGIN", b64(b"\xff"), b64("x")], 501, "5.5.2"),
    ],
)
async def test_an_exchange_that_is_malformed_or_cancelled(
    tmp_path: Path, lines: list[str], code: int, enhanced: str
) -> None:
    async with running(with_users(tmp_path)) as run:
        client = await under_tls(run)
        for line in lines[:-1]:
            client.send(line.encode() + b"\r\n")
            assert (await client.reply())[0] == 334
        found, text = await client.say(lines[-1])
        assert (found, text[:5]) == (code, enhanced)
        await client.expect("NOOP", 250)
        await client.close()


async def test_out_of_order(tmp_path: Path) -> None:
    accept = {"networks": ["127.0.0.0/8"]}
    both = [connector(accept=accept), connector(name="b", accept={**accept, "auth": str(users(tmp_path))})]
    async with running(with_users(tmp_path, connectors=both)) as run:
        client = await run.client()
        await client.hello()
        await client.expect("STARTTLS", 220)
        await client.shake_hands()
        await client.expect("AUTH PLAIN", 503)
        await client.hello()
        await client.envelope()
        await client.expect("AUTH PLAIN", 503)
        assert (await client.data(BODY))[0] == 250
        await client.close()


async def test_a_network_with_many_failures_has_to_wait_whoever_it_is(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running(with_users(tmp_path, limits={"auth_failures_per_minute": 3}), clock=clock) as run:
        right, wrong = (f"AUTH PLAIN {b64(f'{chr(0)}printer{chr(0)}{word}')}" for word in ("paper jam", "wrong"))
        good = await under_tls(run)
        for _ in range(5):  # what succeeds costs nothing
            client = await under_tls(run)
            await client.expect(right, 235)
            await client.close()
        for _ in range(3):
            client = await under_tls(run)
            await client.expect(wrong, 535)
            await client.close()
        assert "4.7.0" in await good.expect(right, 454)
        assert run.metrics.reasons[-1] == "auth_limit"
        await clock.advance(21)
        await good.expect(right, 235)
        await good.close()


async def test_each_connector_knows_its_own_users_only(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    connectors = [
        connector(name="a", accept={"auth": str(users(tmp_path))}, senders=["a.example"]),
        connector(name="b", accept={"auth": str(users(other, printer=QUICK.hash("another")))}, senders=["b.example"]),
    ]
    async with running(with_users(tmp_path, connectors=connectors)) as run:
        for password, taken, refused in (("paper jam", "a", "b"), ("another", "b", "a")):
            client = await under_tls(run)
            await client.expect(f"AUTH PLAIN {b64(f'{chr(0)}printer{chr(0)}{password}')}", 235)
            await client.expect(f"MAIL FROM:<x@{refused}.example>", 550)
            await client.expect(f"MAIL FROM:<x@{taken}.example>", 250)
            await client.close()


async def test_a_reload_that_changes_the_password_or_takes_the_user_away_holds_for_open_sessions(
    tmp_path: Path,
) -> None:
    async with running(with_users(tmp_path)) as run:
        client = await under_tls(run)
        await client.expect(f"AUTH PLAIN {b64(f'{chr(0)}printer{chr(0)}paper jam')}", 235)
        await client.envelope()
        await client.expect("RSET", 250)
        path = users(tmp_path, printer=QUICK.hash("another"))
        settings = settings_of(tmp_path, connectors=[connector(accept={"auth": str(path)})])
        await run.server.reload(settings)
        await client.expect("MAIL FROM:<ann@clinic.example>", 550)
        await client.close()


async def test_an_observing_connector_lets_who_has_logged_in_through(tmp_path: Path) -> None:
    observing = connector(stage="observe", accept={"auth": str(users(tmp_path))}, senders=["other.example"])
    async with running(with_users(tmp_path, connectors=[observing])) as run:
        client = await under_tls(run)
        await client.envelope()
        assert (await client.data(BODY))[0] == 451  # nobody: a door for everyone is not observed but closed
        await client.expect(f"AUTH PLAIN {b64(f'{chr(0)}printer{chr(0)}paper jam')}", 235)
        await client.envelope()
        assert (await client.data(BODY))[0] == 250
        assert run.intake.accepted[0].submission.violations
        await client.close()


async def test_the_standard_librarys_client(tmp_path: Path) -> None:
    def send(port: int) -> None:
        with smtplib.SMTP("localhost", port, local_hostname="client.example") as smtp:
            smtp._host = "gw.clinic.example"  # type: ignore[attr-defined] # the name that its starttls checks
            smtp.starttls(context=CA_ROOT.client_context())
            smtp.login("printer", "paper jam")
            smtp.sendmail("ann@clinic.example", ["bob@b.example"], BODY)

    async with running(with_users(tmp_path)) as run:
        await asyncio.to_thread(send, run.port)
        assert run.intake.accepted[0].submission.user == "printer"


async def test_names_and_passwords_beyond_ascii(tmp_path: Path) -> None:
    async with running(with_users(tmp_path)) as run:
        client = await under_tls(run)
        await client.expect("AUTH PLAIN " + b64("\0cafe\u0301\0gru\u0308\u00dfe"), 235)
        await client.close()
