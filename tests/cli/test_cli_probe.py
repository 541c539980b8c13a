"""``gateway probe``: the page, its JSON, and the exit status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from gateway.testing import CA, DnsServer, SmtpPeer, free_port, self_signed
from tests.cli.conftest import run_cli, write_config

ZONE = """
good.example.     MX 10 mx1.good.example.
mx1.good.example. A 127.0.3.1
mixed.example.    MX 10 mx1.good.example.
mixed.example.    MX 20 mx2.mixed.example.
mixed.example.    MX 30 mx3.mixed.example.
mx2.mixed.example. A 127.0.3.2
mx3.mixed.example. A 127.0.3.3
null.example.     MX 0 .
"""


@dataclass
class World:
    """A configuration beside three hosts: good, self-signed, without TLS."""

    config: Path
    peers: list[SmtpPeer]

    async def run(self, *arguments: str) -> Result:
        return await asyncio.to_thread(run_cli, "probe", *arguments, "--config", str(self.config))

    async def json(self, *arguments: str, status: int = 0) -> Any:
        result = await self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    ca = CA()
    port = free_port("127.0.3.1", "127.0.3.2", "127.0.3.3")
    async with (
        DnsServer(ZONE) as dns,
        SmtpPeer("127.0.3.1", port, certificate=ca.issue("mx1.good.example", intermediate=True)) as good,
        SmtpPeer("127.0.3.2", port, certificate=self_signed("mx2.mixed.example")) as own,
        SmtpPeer("127.0.3.3", port) as bare,
    ):
        config = write_config(directory, dns.resolver, port, 0)
        settings = yaml.safe_load(config.read_text())
        settings["tls"] = {"trust": str(ca.write_root(directory / "roots.pem"))}
        config.write_text(yaml.safe_dump(settings))
        yield World(config, [good, own, bare])


async def test_the_shape_that_programs_rely_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        told = await w.json("mixed.example")
    assert {"domain", "mx_status", "dnssec", "mta_sts", "hosts", "assurance"} <= set(told)
    assert (told["domain"], told["mx_status"], told["dnssec"], told["assurance"]) == (
        "mixed.example",
        "mx",
        False,
        "none",
    )
    assert told["mta_sts"]["status"] == "not looked at"
    good, own, bare = told["hosts"]
    for host in told["hosts"]:
        assert {"host", "preference", "addresses"} <= set(host)
        for address in host["addresses"]:
            expected = {"address", "starttls", "version", "cipher", "certificate", "assurance", "error"}
            assert expected <= set(address)
    assert [host["preference"] for host in told["hosts"]] == [10, 20, 30]
    (first,) = good["addresses"]
    assert (first["address"], first["starttls"], first["version"]) == ("127.0.3.1", True, "TLSv1.3")
    assert (first["assurance"], first["error"], first["next"]["level"]) == ("verified", None, "authenticated")
    certificate = first["certificate"]
    assert (certificate["names"], certificate["issuer"]) == (["mx1.good.example"], "CN=Test Intermediate")
    assert (certificate["chain"], certificate["name"], len(certificate["sent_with"])) == ("ok", "ok", 1)
    assert own["addresses"][0]["assurance"] == "encrypted"
    (last,) = bare["addresses"]
    assert (last["starttls"], last["assurance"], last["certificate"]) == (False, "none", None)
    assert (last["error"], last["stage"], last["usable"]) == ("STARTTLS is not offered", "starttls", True)
    assert [(each["tls"], each["passes"]) for each in told["tls"]] == [
        ("encrypted", True),
        ("verified", True),
        ("authenticated", False),
    ]
    assert told["tls"][1]["sufficient"] == ["mx1.good.example [127.0.3.1]"]
    assert told["plain"]["passes"] is True


async def test_several_domains_are_a_list_and_a_bad_one_makes_the_status(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        told = await w.json("good.example", "pat@null.example", "good.example", status=1)
        assert [each["domain"] for each in told["domains"]] == ["good.example", "null.example"]
        assert told["domains"][1]["error"] == "the domain takes no mail (null MX)"
        assert told["domains"][1]["assurance"] is None
        assert len(w.peers[0].sessions) == 1


@pytest.mark.parametrize(("level", "status"), [("encrypted", 0), ("verified", 0), ("authenticated", 1)])
async def test_the_status_answers_for_the_level_that_is_asked_about(tmp_path: Path, level: str, status: int) -> None:
    async with world(tmp_path) as w:
        assert (await w.run("good.example", "--tls", level)).exit_code == status


async def test_a_page_for_people_fits_and_ends_with_the_verdict(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        result = await w.run("mixed.example")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert max(map(len, lines)) <= 100
    assert lines[0] == "mixed.example: by its MX records, not signed (DNSSEC)"
    text = " ".join(result.stdout.split())
    for words in (
        "127.0.3.1 verified",
        "127.0.3.2 encrypted",
        "127.0.3.3 none",
        "for encrypted: offer STARTTLS",
        "for verified: replace the self-signed certificate",
        "mail with tls: verified: only by mx1.good.example [127.0.3.1]",
        "MTA-STS and DANE are not looked at",
    ):
        assert words in text
    assert lines[-1] == "verdict: none (a usable host has no sound TLS); mail passes with tls: encrypted, verified"


@pytest.mark.parametrize(
    "arguments",
    [(), ("a b.example",), ("good..example",), ("good.example", "--tls", "some"), ("good.example", "--timeout", "x")],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run_cli("probe", *arguments, "--config", str(write_config(tmp_path, "127.0.0.1:9", 25, 0)))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
