"""How the fake peer speaks TLS, and each way it fails to: seen by aiosmtplib and by a raw client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import aiosmtplib
import pytest

from gateway.testing import CA, Behaviour, Certificate, SmtpPeer, Tls, garbage, poll, read_until, reply, self_signed

Talk = Callable[..., Any]
MAIL = b"Subject: hi\r\n\r\nsecret body\r\n"


def client(peer: SmtpPeer, ca: CA, **changed: Any) -> aiosmtplib.SMTP:
    options: dict[str, Any] = {"start_tls": True, "tls_context": ca.client_context(), "timeout": 5} | changed
    return aiosmtplib.SMTP(hostname=peer.address, port=peer.port, **options)


async def handshake(talk: Any, context: ssl.SSLContext, name: str = "mx.peer.example") -> ssl.SSLObject:
    """The client's part of a handshake after STARTTLS, over the raw dialogue."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            talk.send(outgoing.read())
            data = await asyncio.wait_for(talk.reader.read(65536), 5)
            if not data:
                raise ConnectionResetError from None
            incoming.write(data)
        else:
            talk.send(outgoing.read())
            return tls


async def test_mail_over_starttls_is_recorded_apart_from_what_came_in_clear(ca: CA, certificate: Certificate) -> None:
    async with SmtpPeer(certificate=certificate) as peer:
        async with client(peer, ca) as smtp:
            await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)
        (message,) = await peer.wait_messages(1)
        (session,) = await peer.wait_sessions(1)
    assert message.raw == MAIL
    assert message.tls_version == session.tls_version == "TLSv1.3"
    assert session.verbs_under_tls(tls=False) == ["EHLO", "STARTTLS"]
    assert session.verbs_under_tls(tls=True) == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
    assert session.clear_bytes.endswith(b"STARTTLS\r\n")
    assert b"secret body" in session.tls_bytes
    assert b"secret" not in session.clear_bytes + session.handshake_bytes
    assert session.handshake_bytes.startswith(b"\x16\x03")
    assert (session.ended, peer.faults) == ("quit", [])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_name_version_and_cipher_are_recorded(
    dialogue: Talk, ca: CA, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    tls = Tls(minimum=version, maximum=version, implicit=True)
    async with SmtpPeer(certificate=certificate, behaviour=Behaviour(tls=tls)) as peer:
        reader, writer = await asyncio.open_connection(
            peer.address, peer.port, ssl=ca.client_context(), server_hostname="mx.peer.example"
        )
        assert (await read_until(reader, b"\r\n")).startswith(b"220 ")
        (session,) = peer.sessions
        assert session.tls is not None
        cipher = writer.get_extra_info("cipher")
        assert (session.sni, session.tls.cipher, session.tls.version) == ("mx.peer.example", cipher[0], cipher[1])
        assert session.tls_version == version.name.replace("_", ".")
        writer.close()
        await writer.wait_closed()


async def test_starttls_is_stripped_after_the_first_sessions(ca: CA, certificate: Certificate) -> None:
    behaviour = Behaviour(tls=Tls(offered_first=2))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer:
        offers = []
        for _ in range(3):
            async with client(peer, ca, start_tls=False) as smtp:
                await smtp.ehlo()
                offers.append(smtp.supports_extension("starttls"))
                if not offers[-1]:
                    assert (await smtp.execute_command(b"STARTTLS")).code == 502
        assert offers == [True, True, False]


@pytest.mark.parametrize("code", [454, 501, 554])
async def test_starttls_may_be_refused_and_the_session_goes_on_in_clear(
    dialogue: Talk, certificate: Certificate, code: int
) -> None:
    behaviour = Behaviour(starttls=reply(code, "no TLS now"))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted()
        assert await talk.say("STARTTLS") == code
        assert await talk.say("MAIL FROM:<a@a.example>") == 250
        assert peer.sessions[0].tls is None


@pytest.mark.parametrize("manner", ["garbage", "drop"])
async def test_a_handshake_that_breaks(ca: CA, certificate: Certificate, manner: Any) -> None:
    behaviour = Behaviour(tls=Tls(handshake=(manner, "complete")))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer:
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError, ConnectionError)):
            await client(peer, ca).connect()
        (session,) = await peer.wait_sessions(1)
        assert session.tls is None
        assert session.handshake_error == f"scripted: {manner}"
        assert session.handshake_bytes.startswith(b"\x16\x03")
        async with client(peer, ca) as smtp:  # the next session gets the next entry
            await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)


async def test_a_handshake_that_stalls_records_what_comes(dialogue: Talk, certificate: Certificate) -> None:
    behaviour = Behaviour(tls=Tls(handshake="stall"))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted()
        assert await talk.say("STARTTLS") == 220
        talk.send(b"MAIL FROM:<in-clear@a.example>\r\n")
        await poll(lambda: b"in-clear" in peer.sessions[0].handshake_bytes)
        assert b"in-clear" in peer.received
        assert peer.sessions[0].verbs == ["EHLO", "STARTTLS"]


async def test_a_client_that_goes_on_in_clear_after_a_broken_handshake_is_seen(
    dialogue: Talk, certificate: Certificate
) -> None:
    async with SmtpPeer(certificate=certificate) as peer:
        async with dialogue(peer) as talk:
            await talk.greeted()
            assert await talk.say("STARTTLS") == 220
            talk.send(b"MAIL FROM:<in-clear@a.example>\r\nRCPT TO:<b@b.example>\r\n")
            await poll(lambda: b"in-clear" in peer.sessions[0].handshake_bytes)
        (session,) = await peer.wait_sessions(1)
        assert session.handshake_error
        assert peer.messages == []


async def test_clear_text_pipelined_behind_starttls_is_never_obeyed(
    dialogue: Talk, ca: CA, certificate: Certificate
) -> None:
    async with SmtpPeer(certificate=certificate) as peer:
        async with dialogue(peer) as talk:
            await talk.greeted()
            talk.send(b"STARTTLS\r\nMAIL FROM:<evil@a.example>\r\n")
            assert (await talk.reply())[0] == 220
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(talk, ca.client_context())
        (session,) = await peer.wait_sessions(1)
        assert "MAIL" not in session.verbs
        assert "clear text was sent between STARTTLS and the handshake" in session.faults


async def test_the_certificate_is_swapped(ca: CA, certificate: Certificate) -> None:
    other = self_signed("127.0.0.1")
    behaviour = Behaviour(tls=Tls(swap_after=1, swap_to=other))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer:
        async with client(peer, ca) as smtp:
            await smtp.noop()
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError)):
            await client(peer, ca).connect()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        smtp = client(peer, ca, tls_context=context)
        await smtp.connect()
        assert smtp.get_transport_info("ssl_object").getpeercert(binary_form=True) == other.der
        await smtp.quit()
        assert peer.messages == []


async def test_a_peer_that_speaks_tls_1_1_only_really_does(ca: CA) -> None:
    old = Behaviour(tls=Tls(maximum=ssl.TLSVersion(0x0302)))
    async with SmtpPeer(certificate=ca.issue("127.0.0.1", key="rsa"), behaviour=old) as peer:
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError)):
            await client(peer, ca).connect()
        (session,) = await peer.wait_sessions(1)
        assert "unsupported protocol" in (session.handshake_error or "").lower()
        lenient = ca.client_context()
        lenient.set_ciphers("DEFAULT@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            lenient.minimum_version = ssl.TLSVersion.TLSv1
        async with client(peer, ca, tls_context=lenient) as smtp:
            await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)
        assert peer.messages[0].tls_version == "TLSv1.1"


async def test_a_cipher_outside_every_list_can_be_served(ca: CA, certificate: Certificate) -> None:
    tls = Tls(maximum=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-SHA")
    async with SmtpPeer(certificate=certificate, behaviour=Behaviour(tls=tls)) as peer:
        weak = ca.client_context()
        weak.set_ciphers("ALL")
        async with client(peer, ca, tls_context=weak) as smtp:
            await smtp.noop()
        facts = peer.sessions[0].tls
        assert facts is not None
        assert facts.cipher == "ECDHE-ECDSA-AES128-SHA"


async def test_replies_are_injected_in_the_segment_of_the_220(dialogue: Talk, ca: CA, certificate: Certificate) -> None:
    behaviour = Behaviour(tls=Tls(inject=b"250-mx.evil\r\n250 AUTH PLAIN\r\n"))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"STARTTLS\r\n")
        first = await talk.reader.read(65536)
        assert first == b"220 2.0.0 Ready to start TLS\r\n250-mx.evil\r\n250 AUTH PLAIN\r\n"
        # A client that swallows them gets a whole session: it is up to the client to refuse.
        assert (await handshake(talk, ca.client_context())).version() == "TLSv1.3"
        await poll(lambda: peer.sessions[0].tls_version == "TLSv1.3")


async def test_replies_are_injected_in_a_segment_of_their_own(dialogue: Talk, certificate: Certificate) -> None:
    behaviour = Behaviour(tls=Tls(inject_late=b"250 evil\r\n"))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"STARTTLS\r\n")
        assert await talk.reader.read(65536) == b"220 2.0.0 Ready to start TLS\r\n"
        assert await talk.reader.read(65536) == b"250 evil\r\n"


async def test_replies_may_come_before_the_220(dialogue: Talk, certificate: Certificate) -> None:
    behaviour = Behaviour(starttls=garbage(b"220 go\r\n220 go again\r\n"))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer, dialogue(peer) as talk:
        await talk.greeted()
        talk.send(b"STARTTLS\r\n")
        assert await talk.reader.read(65536) == b"220 go\r\n220 go again\r\n"
        assert peer.sessions[0].commands[-1].reply == 220


async def test_client_certificates_are_asked_for_and_recorded(ca: CA, certificate: Certificate) -> None:
    clients = CA("Clients")
    mine = clients.issue("gw.a.example", eku="client")
    behaviour = Behaviour(tls=Tls(client_ca=clients))
    async with SmtpPeer(certificate=certificate, behaviour=behaviour) as peer:
        for context, seen in [(ca.client_context(mine), mine.der), (ca.client_context(), None)]:
            async with client(peer, ca, tls_context=context) as smtp:
                await smtp.noop()
            facts = peer.sessions[-1].tls
            assert facts is not None
            assert facts.client_certificate == seen
        peer.behaviour = Behaviour(tls=Tls(client_ca=clients, client_required=True, maximum=ssl.TLSVersion.TLSv1_2))
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError, ConnectionError)):
            await client(peer, ca).connect()


async def test_mail_in_clear_is_refused_where_tls_is_required(ca: CA, certificate: Certificate) -> None:
    async with SmtpPeer(certificate=certificate, behaviour=Behaviour(require_tls=True)) as peer:
        with pytest.raises(aiosmtplib.SMTPResponseException) as refusal:
            await aiosmtplib.send(
                MAIL,
                sender="a@a.example",
                recipients=["b@b.example"],
                hostname=peer.address,
                port=peer.port,
                start_tls=False,
            )
        assert refusal.value.code == 530
        async with client(peer, ca) as smtp:
            await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)


async def test_starttls_twice_or_with_a_parameter_or_mail_before_ehlo_is_refused(
    dialogue: Talk, ca: CA, certificate: Certificate
) -> None:
    async with SmtpPeer(certificate=certificate) as peer:
        async with dialogue(peer) as talk:
            await talk.greeted()
            assert await talk.say("STARTTLS now") == 501
        async with client(peer, ca) as smtp:
            assert (await smtp.execute_command(b"MAIL", b"FROM:<a@a.example>")).code == 503
            await smtp.ehlo()
            assert not smtp.supports_extension("starttls")
            assert (await smtp.execute_command(b"STARTTLS")).code == 503


async def test_large_mail_passes_through_tls(ca: CA, certificate: Certificate) -> None:
    body = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 100_000
    async with SmtpPeer(certificate=certificate, keep_bodies=False) as peer:
        async with client(peer, ca) as smtp:
            await smtp.sendmail("a@a.example", ["b@b.example"], body)
        (message,) = peer.messages
        assert message.size == len(body)
        assert len(peer.sessions[0].tls_bytes) < 1000


async def test_a_fault_of_the_scenario_is_raised_and_not_taken_for_one_of_the_client(dialogue: Talk) -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        async with SmtpPeer(behaviour=Behaviour(tls=Tls(implicit=True))) as peer, dialogue(peer) as talk:
            await talk.ended()


async def test_starttls_is_not_offered_without_a_certificate_nor_where_it_is_switched_off(
    ca: CA, certificate: Certificate
) -> None:
    for shown, tls in [(None, Tls()), (certificate, Tls(offered=False))]:
        async with SmtpPeer(certificate=shown, behaviour=Behaviour(tls=tls)) as peer:
            async with client(peer, ca, start_tls=False) as smtp:
                await smtp.ehlo()
                assert not smtp.supports_extension("starttls")
                assert (await smtp.execute_command(b"STARTTLS")).code == 502
                await smtp.sendmail("a@a.example", ["b@b.example"], MAIL)
            assert peer.messages[0].tls is None
