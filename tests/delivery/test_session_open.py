"""Opening a session: what the peer must show, and what each way of not showing it means."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Literal

import pytest

from gateway.config.outbound import Credentials
from gateway.config.values import Secret
from gateway.delivery.contexts import ClientCertificateError, ClientContexts, TlsProfile
from gateway.delivery.peer import require_peer_chain
from gateway.delivery.target import TlsPolicy
from gateway.mail.attempt import Stage, Verdict
from gateway.mail.protection import Assurance
from gateway.testing import (
    CA,
    Action,
    Behaviour,
    Tls,
    drip,
    drop,
    endless,
    garbage,
    reply,
    self_signed,
    stall,
)
from tests.delivery.session_world import ADDRESS, CERTIFICATE, HOST, QUICK, ROOT, doing, transaction, world

OPPORTUNISTIC = TlsPolicy(require=Assurance.NONE, starttls="try")
CLEAR = TlsPolicy(require=Assurance.NONE, starttls="never")


def test_this_python_gives_out_the_peers_chain() -> None:
    require_peer_chain()


async def test_a_good_peer_is_verified_and_evidence_is_kept() -> None:
    async with world() as w:
        session = await w.open(Assurance.VERIFIED)
        assert session.attained == Assurance.VERIFIED
        evidence = session.evidence
        assert evidence is not None
        assert (evidence.version, evidence.chain, evidence.name) == ("TLSv1.3", "ok", "ok")
        assert evidence.spki_sha256 == CERTIFICATE.spki_sha256
        assert w.peer.sessions[0].sni == HOST
        assert w.peer.sessions[0].helo == "gw.clinic.example"
        assert w.peer.sessions[0].verbs_under_tls(tls=False) == ["EHLO", "STARTTLS"]


async def test_a_name_that_the_caller_vouches_for_is_authenticated() -> None:
    async with world() as w:
        policy = TlsPolicy(require=Assurance.AUTHENTICATED, host_authenticated=True)
        assert (await w.open(policy=policy)).attained == Assurance.AUTHENTICATED


async def test_a_name_out_of_plain_dns_is_not_authenticated() -> None:
    async with world() as w:
        failed = await w.refused(Assurance.AUTHENTICATED)
        assert (failed.failure.stage, failed.failure.verdict) == (Stage.JUDGE, Verdict.DEFINITE)
        assert failed.evidence is not None
        assert failed.evidence.assurance == Assurance.VERIFIED


async def test_encrypted_asks_nothing_of_the_certificate_but_records_what_it_showed() -> None:
    async with world(certificate=self_signed("elsewhere.example")) as w:
        session = await w.open(Assurance.ENCRYPTED)
        assert session.attained == Assurance.ENCRYPTED
        assert session.evidence is not None
        assert "self" in session.evidence.chain
        assert session.evidence.name == "the certificate is for another name"


@pytest.mark.parametrize(
    ("certificate", "word"),
    [
        (self_signed(HOST), "self"),
        (CA("Stranger").issue(HOST), "issuer"),
        (ROOT.expired(HOST), "expired"),
        (ROOT.issue(HOST, eku="client"), "not for servers"),
        (ROOT.issue("other.example"), "another name"),
    ],
)
async def test_a_certificate_that_does_not_verify_is_definite(certificate: object, word: str) -> None:
    async with world(certificate=certificate) as w:
        failed = await w.refused(Assurance.VERIFIED)
        assert (failed.failure.stage, failed.failure.verdict) == (Stage.JUDGE, Verdict.DEFINITE)
        assert word in failed.failure.reason
        assert failed.evidence is not None
        assert failed.evidence.assurance == Assurance.ENCRYPTED


async def test_any_of_the_given_names_will_do() -> None:
    async with world(certificate=ROOT.issue("*.next.example")) as w:
        session = await w.open(Assurance.VERIFIED, names=("mail.next.example", "x.example"))
        assert session.attained == Assurance.VERIFIED
        assert w.peer.sessions[0].sni == "mail.next.example"


async def test_an_address_literal_is_matched_by_its_address_without_sni() -> None:
    async with world(certificate=ROOT.issue("127.0.0.2")) as w:
        assert (await w.open(Assurance.VERIFIED, host="127.0.0.2")).attained == Assurance.VERIFIED
        assert w.peer.sessions[0].sni is None


async def test_a_swapped_certificate_is_noticed_on_the_very_next_session() -> None:
    tls = Tls(swap_after=1, swap_to=self_signed(HOST))
    async with world(Behaviour(tls=tls)) as w:
        first = await w.open(Assurance.VERIFIED)
        assert first.attained == Assurance.VERIFIED
        assert (await w.failure(Assurance.VERIFIED)).verdict == Verdict.DEFINITE


async def test_starttls_that_is_stripped_after_the_first_session() -> None:
    async with world(Behaviour(tls=Tls(offered_first=1))) as w:
        await w.open(Assurance.ENCRYPTED)
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (Stage.STARTTLS, Verdict.DEFINITE)
        assert failure.reason == "STARTTLS is not offered"


@pytest.mark.parametrize("code", [454, 421, 502, 554, 250])
async def test_starttls_refused_starts_the_clock_where_tls_is_required(code: int) -> None:
    async with world(Behaviour(starttls=reply(code, "no TLS today"))) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (Stage.STARTTLS, Verdict.ASSURANCE)
        assert failure.reply is not None
        assert failure.reply.code == code


@pytest.mark.parametrize("action", [drop(), drop(reset=True), garbage(), endless()])
async def test_trouble_at_starttls_starts_the_clock(action: Action) -> None:
    async with world(Behaviour(starttls=action)) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (Stage.STARTTLS, Verdict.ASSURANCE)


@pytest.mark.parametrize("manner", ["garbage", "drop"])
async def test_a_handshake_that_is_broken_off_starts_the_clock(manner: Literal["garbage", "drop"]) -> None:
    async with world(Behaviour(tls=Tls(handshake=manner))) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (Stage.HANDSHAKE, Verdict.ASSURANCE)


async def test_a_handshake_that_never_ends_is_ended() -> None:
    timeouts = QUICK.model_copy(update={"starttls": 0.3})
    async with world(Behaviour(tls=Tls(handshake="stall")), timeouts=timeouts) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (Stage.HANDSHAKE, Verdict.ASSURANCE)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("injected", [b"250 injected\r\n", b"250-half a reply", b"421 bye\r\n", b"x"])
async def test_replies_injected_before_the_handshake_end_the_session(
    injected: bytes,
    late: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    tls = Tls(inject_late=injected) if late else Tls(inject=injected)
    async with world(Behaviour(tls=tls)) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert failure.verdict == Verdict.ASSURANCE
        if not late:  # a segment of its own may also reach the TLS engine, which takes it for a broken handshake
            assert failure.reason == "replies injected before the handshake"
        assert w.peer.sessions[0].tls is None


async def test_what_was_offered_in_clear_is_void_after_tls() -> None:
    poisoned = garbage(b"250-x\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 SIZE 10\r\n")
    async with world(Behaviour(ehlo=[poisoned, Action()])) as w:
        session = await w.open(Assurance.VERIFIED)
        assert "AUTH" not in session.extensions
        assert session.extensions.size == 157286400
        assert (await session.send(transaction())).recipients[0].delivered


async def test_a_peer_that_speaks_tls_1_1_only_is_below_the_level_for_good() -> None:
    tls = Tls(minimum=ssl.TLSVersion.TLSv1, maximum=ssl.TLSVersion.TLSv1_1)
    async with world(Behaviour(tls=tls)) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (Stage.HANDSHAKE, Verdict.DEFINITE)
        assert failure.reason.startswith("version below the level")


async def test_a_peer_without_forward_secrecy_gets_nothing() -> None:
    tls = Tls(maximum=ssl.TLSVersion.TLSv1_2, ciphers="AES256-GCM-SHA384")
    async with world(Behaviour(tls=tls), certificate=ROOT.issue(HOST, key="rsa")) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert failure.stage == Stage.HANDSHAKE


async def test_opportunistic_tls_takes_what_there_is_and_says_what_it_was_worth() -> None:
    tls = Tls(maximum=ssl.TLSVersion.TLSv1_2, ciphers="AES256-GCM-SHA384")
    async with world(Behaviour(tls=tls), certificate=ROOT.issue(HOST, key="rsa")) as w:
        session = await w.open(policy=OPPORTUNISTIC)
        assert session.attained == Assurance.NONE
        assert session.evidence is not None
        assert session.evidence.cipher == "AES256-GCM-SHA384"
        assert (await session.send(transaction())).recipients[0].delivered


async def test_tls_1_2_will_do() -> None:
    async with world(Behaviour(tls=Tls(maximum=ssl.TLSVersion.TLSv1_2))) as w:
        session = await w.open(Assurance.VERIFIED)
        assert session.evidence is not None
        assert session.evidence.version == "TLSv1.2"


async def test_pinned_keys() -> None:
    certificate = self_signed("whatever.example")
    async with world(certificate=certificate) as w:
        right = TlsPolicy(require=Assurance.AUTHENTICATED, spki=frozenset({certificate.spki_sha256}))
        assert (await w.open(policy=right)).attained == Assurance.AUTHENTICATED
    async with world() as w:
        failure = await w.failure(policy=right)
        assert (failure.stage, failure.verdict) == (Stage.JUDGE, Verdict.DEFINITE)
        assert failure.reason.startswith("pin mismatch")


async def test_opportunistic_goes_on_in_clear_where_tls_is_not_offered_or_refused() -> None:
    for behaviour in (
        Behaviour(tls=Tls(offered=False)),
        Behaviour(starttls=reply(454)),
        Behaviour(starttls=reply(502)),
    ):
        async with world(behaviour) as w:
            session = await w.open(policy=OPPORTUNISTIC)
            assert (session.attained, session.evidence) == (Assurance.NONE, None)
            assert (await session.send(transaction())).recipients[0].delivered


async def test_opportunistic_leaves_it_to_the_caller_to_come_back_in_clear() -> None:
    old = Tls(minimum=ssl.TLSVersion.TLSv1, maximum=ssl.TLSVersion.TLSv1_1)
    for tls in (Tls(handshake="drop"), Tls(handshake="garbage"), old):
        async with world(Behaviour(tls=tls)) as w:
            failure = await w.failure(policy=OPPORTUNISTIC)
            assert (failure.stage, failure.verdict) == (Stage.HANDSHAKE, Verdict.ASSURANCE)
            session = await w.open(policy=CLEAR)
            assert (await session.send(transaction())).recipients[0].delivered


def test_a_requirement_that_could_not_be_enforced_cannot_even_be_said() -> None:
    ways: tuple[Literal["try", "never"], ...] = ("try", "never")
    for starttls in ways:
        with pytest.raises(ValueError, match="needs STARTTLS"):
            TlsPolicy(require=Assurance.ENCRYPTED, starttls=starttls)


async def test_implicit_tls() -> None:
    async with world(Behaviour(tls=Tls(implicit=True))) as w:
        session = await w.open(policy=TlsPolicy(require=Assurance.VERIFIED, implicit=True))
        assert (await session.send(transaction(required=Assurance.VERIFIED))).recipients[0].delivered
        assert b"EHLO" not in w.peer.sessions[0].clear_bytes


async def test_implicit_tls_to_a_peer_that_speaks_first() -> None:
    async with world() as w:
        failure = await w.failure(policy=TlsPolicy(require=Assurance.VERIFIED, implicit=True))
        assert failure.verdict == Verdict.ASSURANCE


@pytest.mark.parametrize("action", [reply(421), reply(451), reply(554), drop(), garbage(), endless(), reply(250)])
@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.EHLO])
async def test_trouble_before_tls_is_ordinary(stage: Stage, action: Action) -> None:
    if (stage, action) == (Stage.EHLO, reply(250)):
        return  # a bare 250 to EHLO is no trouble
    async with world(doing(stage.value, action)) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert (failure.stage, failure.verdict) == (stage, Verdict.TEMPORARY)


async def test_trouble_with_ehlo_after_the_handshake_keeps_the_evidence() -> None:
    async with world(Behaviour(ehlo=[Action(), drop()])) as w:
        failed = await w.refused(Assurance.VERIFIED)
        assert (failed.failure.stage, failed.failure.verdict) == (Stage.EHLO, Verdict.TEMPORARY)
        assert failed.evidence is not None
        assert failed.evidence.assurance == Assurance.VERIFIED


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "starttls"])
async def test_a_peer_that_says_nothing_is_not_waited_for(stage: str) -> None:
    timeouts = QUICK.model_copy(update={stage: 0.2})
    async with world(doing(stage, stall()), timeouts=timeouts) as w:
        failure = await w.failure(Assurance.ENCRYPTED)
        assert failure.stage == stage
        assert "0.2 s" in failure.reason


async def test_a_reply_must_be_whole_in_time_however_many_bytes_come() -> None:
    timeouts = QUICK.model_copy(update={"greeting": 0.3})
    async with world(Behaviour(greeting=drip(0.05)), timeouts=timeouts) as w:
        assert (await w.failure(Assurance.ENCRYPTED)).stage == Stage.GREETING


async def test_replies_that_come_one_byte_at_a_time() -> None:
    slow = drip(0.0005)
    async with world(
        Behaviour(greeting=slow, ehlo=slow, starttls=slow, mail=slow, rcpt=slow, data=slow, dot=slow)
    ) as w:
        session = await w.open(Assurance.VERIFIED)
        assert (await session.send(transaction())).recipients[0].delivered


async def test_nobody_listens() -> None:
    async with world() as w:
        failure = await w.failure(address="127.0.0.2", port=9)
        assert (failure.stage, failure.verdict) == (Stage.CONNECT, Verdict.TEMPORARY)
        assert "refused" in failure.reason.lower()


async def test_the_source_address_is_ours_to_choose() -> None:
    async with world() as w:
        await w.open(source="127.0.0.7")
        assert w.peer.sessions[0].client[0] == "127.0.0.7"
        assert (await w.failure(source="192.0.2.77")).stage == Stage.CONNECT


async def test_helo_only_where_no_tls_is_required() -> None:
    behaviour = Behaviour(ehlo=reply(502), tls=Tls(offered=False))
    async with world(behaviour) as w:
        assert (await w.failure(Assurance.ENCRYPTED)).stage == Stage.EHLO
        session = await w.open(policy=OPPORTUNISTIC)
        assert session.extensions.offered == ()
        assert (await session.send(transaction())).recipients[0].delivered


PASSWORD = Credentials(username="us", password=Secret(b"hunter2"))


async def test_auth_over_tls() -> None:
    async with world(Behaviour(credentials=("us", "hunter2"), require_auth=True)) as w:
        session = await w.open(credentials=PASSWORD)
        assert w.peer.sessions[0].authenticated == "us"
        assert (await session.send(transaction())).recipients[0].delivered


async def test_a_wrong_password_makes_the_mail_wait() -> None:
    async with world(Behaviour(credentials=("us", "other"))) as w:
        failure = await w.failure(credentials=PASSWORD)
        assert (failure.stage, failure.verdict) == (Stage.AUTH, Verdict.TEMPORARY)


async def test_a_password_never_goes_over_a_connection_in_clear() -> None:
    behaviour = Behaviour(tls=Tls(offered=False), extensions=("AUTH PLAIN LOGIN",), credentials=("us", "hunter2"))
    async with world(behaviour) as w:
        failure = await w.failure(policy=OPPORTUNISTIC, credentials=PASSWORD)
        assert (failure.stage, failure.verdict) == (Stage.AUTH, Verdict.TEMPORARY)
        assert b"AUTH" not in w.peer.received


async def test_auth_login() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies = ("220 hi", "250-hi\r\n250 AUTH=LOGIN", "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 ok", "221 bye")
        for reply_line in replies:
            writer.write(reply_line.encode() + b"\r\n")
            heard.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, ADDRESS, 0, ssl=CERTIFICATE.server_context())
    async with server, world() as w:
        policy = TlsPolicy(require=Assurance.VERIFIED, implicit=True)
        session = await w.open(policy=policy, credentials=PASSWORD, port=server.sockets[0].getsockname()[1])
        await session.quit()
    assert heard[1:5] == [b"AUTH LOGIN\r\n", b"dXM=\r\n", b"aHVudGVyMg==\r\n", b"QUIT\r\n"]


async def test_a_client_certificate_is_shown_and_read_again_when_it_changes(tmp_path: Path) -> None:
    own = CA("Ours")
    paths = own.issue("gw.clinic.example", eku="client").write(tmp_path, "gw")
    files = (str(paths[0]), str(paths[1]))
    policy = TlsPolicy(require=Assurance.VERIFIED, client_certificate=files)
    async with world(Behaviour(tls=Tls(client_ca=own, client_required=True))) as w:
        await w.open(policy=policy)
        first = w.peer.sessions[0].tls
        own.issue("gw.clinic.example", eku="client").write(tmp_path, "gw")
        await w.open(policy=policy)
        second = w.peer.sessions[1].tls
        assert first is not None
        assert second is not None
        assert first.client_certificate
        assert second.client_certificate
        assert first.client_certificate != second.client_certificate


async def test_a_client_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    policy = TlsPolicy(client_certificate=(str(tmp_path / "no.crt"), str(tmp_path / "no.key")))
    async with world() as w:
        with pytest.raises(ClientCertificateError, match=r"no\.crt"):
            await w.open(policy=policy)
        assert w.peer.connections == 0


def test_contexts_are_made_once_for_each_policy() -> None:
    contexts = ClientContexts(TlsProfile("modern"))
    assert contexts.get(Assurance.ENCRYPTED) is contexts.get(Assurance.AUTHENTICATED)
    assert contexts.get(Assurance.NONE) is not contexts.get(Assurance.ENCRYPTED)
    context = contexts.get(Assurance.ENCRYPTED)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
