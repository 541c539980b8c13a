"""Programs that others wrote talk to the fake peer: swaks delivers, OpenSSL judges the certificate."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from gateway.testing import CA, Behaviour, Certificate, SmtpPeer, Tls

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peer


async def run(program: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output; skips where the program is missing."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode or 0, output.decode("utf-8", "replace")


@pytest.mark.parametrize("pipeline", [False, True])
async def test_swaks_delivers_over_starttls(certificate: Certificate, pipeline: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    async with SmtpPeer(certificate=certificate) as peer:
        options = ["--pipeline"] if pipeline else []
        status, output = await run(
            "swaks", "--server", peer.host_port, "--tls", "--from", "a@a.example", "--to", "b@b.example,c@c.example",
            "--header", "Subject: by swaks", "--body", ".dot\n..two", *options,
        )  # fmt: skip
        assert status == 0, output
        (message,) = await peer.wait_messages(1)
        assert message.tls_version in {"TLSv1.2", "TLSv1.3"}
        assert message.addresses == ["b@b.example", "c@c.example"]
        assert b"Subject: by swaks\r\n" in message.raw
        assert b"\r\n.dot\r\n..two\r\n" in message.raw
        assert peer.faults == []


@pytest.mark.parametrize(("name", "believed"), [("mx.peer.example", True), ("mx.other.example", False)])
async def test_openssl_judges_the_certificate_and_its_chain(tmp_path: Path, name: str, believed: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    ca = CA()
    root = str(ca.write_root(tmp_path / "root.pem"))
    async with SmtpPeer(certificate=ca.issue("mx.peer.example", intermediate=True)) as peer:
        status, output = await run(
            "openssl", "s_client", "-starttls", "smtp", "-connect", peer.host_port, "-servername", name,
            "-CAfile", root, "-no-CApath", "-verify_hostname", name, "-verify_return_error",
        )  # fmt: skip
        assert (status == 0) is believed, output
        (session,) = await peer.wait_sessions(1)
        if believed:
            assert "Verification: OK" in output
            assert session.sni == name
        else:
            assert "hostname mismatch" in output.lower()
            # In TLS 1.3 a server is done before the client has judged; in 1.2 it is told.
            assert session.verbs == ["EHLO", "STARTTLS"]


async def test_openssl_finds_that_tls_1_1_is_all_there_is(certificate: Certificate, ca: CA, tmp_path: Path) -> None:
    old = Behaviour(tls=Tls(maximum=ssl.TLSVersion(0x0302)))
    async with SmtpPeer(certificate=certificate, behaviour=old) as peer:
        common = ["s_client", "-starttls", "smtp", "-connect", peer.host_port]
        status, output = await run("openssl", *common)
        assert status != 0, output
        status, output = await run("openssl", *common, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        assert status == 0, output
        assert peer.sessions[-1].tls_version == "TLSv1.1"
