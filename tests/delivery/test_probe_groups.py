"""The group of a key exchange, read off real handshakes and off nonsense."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.groups import GroupWatch, group_in
from gateway.testing import CA

ROOT = CA()


def shake_hands(watch: GroupWatch, version: ssl.TLSVersion, curve: str) -> ssl.SSLObject:
    """A handshake in memory, with the server's taste."""
    server_context = ROOT.issue("mx.example").server_context(maximum=version)
    server_context.set_ecdh_curve(curve)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    watch.watch(client_context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("curve", ["secp384r1", "X25519"])
def test_the_group_of_a_real_handshake(version: ssl.TLSVersion, curve: str) -> None:
    watch = GroupWatch()
    client = shake_hands(watch, version, curve)
    assert client.version() == version.name.replace("_", ".")
    assert watch.group(client).lower() == curve.lower()


def test_a_session_that_was_not_watched_has_no_known_group() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    unconnected = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert GroupWatch().group(unconnected) == ""


def server_hello(extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x13\x01" + b"\x00" + len(extensions).to_bytes(2) + extensions
    return b"\x02" + len(body).to_bytes(3) + body


def test_groups_that_nobody_has_named_yet_are_numbers() -> None:
    assert group_in(server_hello(b"\x00\x2b\x00\x02\x03\x04" + b"\x00\x33\x00\x05\x7f\x01\x00\x01\x00")) == "0x7f01"
    assert group_in(server_hello(b"\x00\x33\x00\x05\x11\xec\x00\x01\x00")) == "X25519MLKEM768"


@given(st.binary(max_size=200))
def test_nonsense_has_no_group_and_breaks_nothing(data: bytes) -> None:
    for message in (data, server_hello(data), b"\x0c" + len(data).to_bytes(3) + data):
        assert isinstance(group_in(message), str)
    assert group_in(data[:3]) == ""
