"""STARTTLS, implicit TLS, client certificates that are judged after the handshake, certificates that change."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from gateway.ingress.certificates import CertificateError, ServerCertificate
from gateway.testing import CA, Certificate, poll, self_signed
from gateway.testing.ca import limit_versions
from tests.ingress.ingress_harness import CA_ROOT, CERTIFICATE, HEADER, Talker, connector, running, settings_of

BODY = HEADER + b"\r\nhello\r\n"
CLIENT = "gw-client.clinic.example"


def listener(tls: str, client_certificates: str = "ignore") -> list[dict[str, str]]:
    return [{"address": "127.0.0.1:0", "tls": tls, "client_certificates": client_certificates}]


async def starttls(client: Talker, context: ssl.SSLContext | None = None) -> None:
    await client.hello()
    await client.expect("STARTTLS", 220)
    await client.shake_hands(context)


# -- STARTTLS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asking", ["ignore", "request"])
async def test_tls_is_required_then_done_then_over_with(tmp_path: Path, asking: str) -> None:
    async with running(settings_of(tmp_path, listeners=listener("required", asking))) as run:
        client = await run.client()
        assert "STARTTLS" in await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example>", 530)
        await client.expect("VRFY x", 530)
        await client.expect("STARTTLS", 220)
        await client.shake_hands()
        await client.expect("MAIL FROM:<ann@clinic.example>", 503)  # what was said in clear is void
        assert "STARTTLS" not in await client.hello()
        await client.expect("STARTTLS", 503)
        await client.envelope()
        assert (await client.data(BODY + b"z" * 500_000 + b"\r\n"))[0] == 250
        tls = run.intake.accepted[0].submission.message.envelope.tls
        assert tls is not None
        assert tls.version == "TLSv1.3"
        assert tls.cipher.startswith("TLS_")
        assert run.intake.accepted[0].submission.message.envelope.protocol == "ESMTPS"
        await client.expect("QUIT", 221)
        assert await client.at_end()
        await client.close()


async def test_a_transaction_from_before_the_handshake_is_forgotten(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.envelope()
        await client.expect("STARTTLS", 220)
        await client.shake_hands()
        await client.expect("RCPT TO:<x@b.example>", 503)
        await client.expect("DATA", 503)
        await client.close()


@pytest.mark.parametrize("injected", [b"NOOP\r\n", b"EHLO evil\r\nMAIL FROM:<ann@clinic.example>\r\n", b"\x16\x03"])
async def test_bytes_behind_starttls_end_the_connection(tmp_path: Path, injected: bytes) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        client.send(b"STARTTLS\r\n" + injected)
        assert await client.at_end()  # not even a 220
        await poll(lambda: run.metrics.reasons == ["starttls_injection"])
        assert run.events("refused")[0]["reason"] == "starttls_injection"
        await client.close()


async def test_bytes_in_clear_after_the_220_never_become_commands(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        client = await run.client()
        await client.hello()
        await client.expect("STARTTLS", 220)
        client.send(b"EHLO evil\r\nMAIL FROM:<ann@clinic.example>\r\n")
        with pytest.raises((ConnectionError, EOFError, ssl.SSLError)):
            await client.shake_hands()
        await poll(lambda: run.metrics.reasons == ["handshake"])
        await client.close()


@pytest.mark.parametrize("asking", ["ignore", "request"])
async def test_old_versions_do_not_get_in(tmp_path: Path, asking: str) -> None:
    async with running(settings_of(tmp_path, listeners=listener("offered", asking))) as run:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1):
            context = CA_ROOT.client_context()
            limit_versions(context, version, version)
            client = await run.client()
            if version is ssl.TLSVersion.TLSv1_2:
                await starttls(client, context)
                await client.hello()
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await starttls(client, context)
            await client.close()


async def test_starttls_is_not_there_where_it_is_not_offered(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, listeners=listener("none"))) as run:
        client = await run.client()
        assert "STARTTLS" not in await client.hello()
        await client.expect("STARTTLS", 502)
        await client.close()


# -- implicit TLS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asking", ["ignore", "request"])
async def test_implicit_tls_is_tls_from_the_first_byte(tmp_path: Path, asking: str) -> None:
    async with running(settings_of(tmp_path, listeners=listener("implicit", asking))) as run:
        for _ in range(20):  # a ClientHello that arrives at once must not be read as commands
            client = await run.client(tls=True)
            assert "STARTTLS" not in await client.hello()
            await client.expect("STARTTLS", 503)
            await client.envelope()
            assert (await client.data(BODY))[0] == 250
            await client.close()
        assert all(each.submission.message.envelope.tls for each in run.intake.accepted)
        assert not run.metrics.reasons.count("handshake")


async def test_clear_text_on_an_implicit_port_is_cut_off(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path, listeners=listener("implicit"))) as run:
        client = await run.client(greet=False)
        client.send(b"EHLO client.example\r\n")
        with pytest.raises((EOFError, ConnectionError, AssertionError)):
            await client.reply()
        await poll(lambda: run.metrics.reasons == ["handshake"])
        await client.close()


# -- client certificates -------------------------------------------------------------------------------------------

OTHER = CA("Another Root")
SELF_SIGNED = self_signed(CLIENT, eku=None)
CERTIFICATES: dict[str, Certificate | None] = {
    "none": None,
    "right": CA_ROOT.issue(CLIENT, eku="client"),
    "server only": CA_ROOT.issue(CLIENT, eku="server"),
    "through an intermediate": CA_ROOT.issue(CLIENT, eku="server", intermediate=True),
    "self-signed": SELF_SIGNED,
    "another root": OTHER.issue(CLIENT, eku="client"),
    "another name": CA_ROOT.issue("other.clinic.example", eku="client"),
    "wildcard": CA_ROOT.issue("*.clinic.example", eku="client"),
    "expired": CA_ROOT.expired(CLIENT),
    "not yet": CA_ROOT.issue(CLIENT, not_before=dt.datetime(2048, 1, 1, tzinfo=dt.UTC)),
    "rsa": CA_ROOT.issue(CLIENT, key="rsa"),
}
RIGHT = {"right", "server only", "through an intermediate", "rsa"}


@pytest.mark.parametrize("tls", ["required", "implicit"])
@pytest.mark.parametrize("kind", list(CERTIFICATES))
async def test_every_client_gets_through_the_handshake_and_only_the_right_one_in(
    tmp_path: Path, kind: str, tls: str
) -> None:
    connectors = [connector(accept={"networks": ["127.0.0.0/8"], "client_certificate": CLIENT})]
    settings = settings_of(tmp_path, listeners=listener(tls, "request"), connectors=connectors)
    async with running(settings) as run:
        client = await run.client(greet=False)
        context = CA_ROOT.client_context(CERTIFICATES[kind])
        if tls == "implicit":
            await client.shake_hands(context)
            await client.reply()
        else:
            await client.reply()
            await starttls(client, context)
        await client.hello()
        code, text = await client.say("MAIL FROM:<ann@clinic.example>")
        assert code == (250 if kind in RIGHT else 550), text
        if code == 250:
            await client.expect("RCPT TO:<bob@b.example>", 250)
            assert (await client.data(BODY))[0] == 250
            tls_facts = run.intake.accepted[0].submission.message.envelope.tls
            assert tls_facts is not None
            assert CLIENT in tls_facts.client_subject
        await client.close()


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_pinned_key_needs_no_chain(tmp_path: Path, maximum: ssl.TLSVersion) -> None:
    accept = {"networks": ["127.0.0.0/8"], "client_certificate": f"spki:{SELF_SIGNED.spki_sha256}"}
    settings = settings_of(tmp_path, listeners=listener("required", "request"), connectors=[connector(accept=accept)])
    async with running(settings) as run:
        for certificate, code in ((SELF_SIGNED, 250), (CERTIFICATES["right"], 550), (None, 550)):
            context = CA_ROOT.client_context(certificate)
            context.maximum_version = maximum
            client = await run.client()
            await starttls(client, context)
            await client.hello()
            assert (await client.say("MAIL FROM:<ann@clinic.example>"))[0] == code
            await client.close()


async def test_a_listener_that_ignores_certificates_gives_no_factor(tmp_path: Path) -> None:
    connectors = [connector(accept={"networks": ["127.0.0.0/8"], "client_certificate": CLIENT})]
    async with running(settings_of(tmp_path, listeners=listener("required"), connectors=connectors)) as run:
        client = await run.client()
        await starttls(client, CA_ROOT.client_context(CERTIFICATES["right"]))
        await client.hello()
        await client.expect("MAIL FROM:<ann@clinic.example>", 550)
        await client.close()


def _on_uvloop(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()


def test_the_same_under_uvloop(tmp_path: Path) -> None:
    async def scenario() -> None:
        for tls in ("required", "implicit"):
            for asking in ("ignore", "request"):
                settings = settings_of(tmp_path, listeners=listener(tls, asking))
                async with running(settings) as run:
                    for _ in range(2):
                        code, out = await _smtplib(run.port, starttls=tls == "required")
                        assert code == 0, out
                        assert b"221 2.0.0 Bye" in out

    _on_uvloop(scenario)


async def _smtplib(port: int, *, starttls: bool) -> tuple[int, bytes]:
    """A real client of another maker in a process of its own: says EHLO and QUIT under TLS."""
    script = (
        "import smtplib, ssl, sys\n"
        "context = ssl._create_unverified_context()\n"
        f"client = smtplib.SMTP('127.0.0.1', {port}) if {starttls} else "
        f"smtplib.SMTP_SSL('127.0.0.1', {port}, context=context)\n"
        f"{starttls} and client.starttls(context=context)\n"
        "client.ehlo()\n"
        "code, text = client.quit()\n"
        "print(code, text.decode())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 10)
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, out


# -- our own certificate -------------------------------------------------------------------------------------------


def test_a_certificate_that_changes_is_loaded_and_a_bad_one_is_not(tmp_path: Path) -> None:
    paths = CERTIFICATE.write(tmp_path, "own")
    certificate = ServerCertificate(*paths)
    first = certificate.contexts
    assert certificate.reload_if_changed() is None
    paths[0].write_bytes(b"-----BEGIN NONSENSE-----")
    reload = certificate.reload_if_changed()
    assert reload is not None
    assert str(paths[0]) in reload.error
    assert certificate.reload_if_changed() is None, "reported once"
    assert certificate.contexts is first
    paths[0].unlink()
    assert "No such file" in getattr(certificate.reload_if_changed(), "error", "")
    other = CA_ROOT.issue("gw.clinic.example", not_after=dt.datetime(2040, 1, 1, tzinfo=dt.UTC))
    paths[0].write_bytes(other.chain_pem)  # its key is not there yet
    assert getattr(certificate.reload_if_changed(), "error", "")
    assert certificate.contexts is first
    paths[1].write_bytes(other.key_pem)
    assert getattr(certificate.reload_if_changed(), "error", "x") == ""
    assert certificate.contexts is not first
    assert certificate.not_after == dt.datetime(2040, 1, 1, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize("broken", ["certificate", "key"])
def test_a_first_certificate_that_cannot_be_used_is_an_error(tmp_path: Path, broken: str) -> None:
    certificate, key = CERTIFICATE.write(tmp_path, "own")
    (certificate if broken == "certificate" else key).write_bytes(b"not it")
    with pytest.raises(CertificateError):
        ServerCertificate(certificate, key)


async def test_new_connections_show_the_new_certificate(tmp_path: Path) -> None:
    async with running(settings_of(tmp_path)) as run:
        fresh = CA_ROOT.issue("gw.clinic.example")
        fresh.write(tmp_path, "gw")
        reload = run.server.reload_certificate()
        assert reload is not None
        assert not reload.error
        client = await run.client()
        await starttls(client)
        shown: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
        assert shown.getpeercert(binary_form=True) == fresh.der
        await client.close()


async def test_handshakes_of_implicit_tls_are_counted_too(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, listeners=listener("implicit"), limits={"connections": 2})
    async with running(settings) as run:
        silent = [await run.client(greet=False) for _ in range(2)]  # connected, and never say hello
        await poll(lambda: run.server._shaking == 2)
        refused = await run.client(greet=False)
        assert await refused.at_end()
        await silent.pop().close()
        await poll(lambda: run.server._shaking == 1)
        client = await run.client(tls=True)
        await client.hello()
        for each in (client, refused, *silent):
            await each.close()
        await poll(lambda: run.server._shaking == 0)
