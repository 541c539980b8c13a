"""A store as a short real run of the gateway leaves it: delivered, deferred, bounced, held, with a notice.

The run is made once; each test works on a copy of it, with no daemon beside it.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import smtplib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from click.testing import CliRunner, Result

from gateway.app import Gateway
from gateway.cli import gateway
from gateway.observe.log import set_up
from gateway.testing import CA, Behaviour, ByAddress, DnsServer, SmtpPeer, free_port, poll, reply

ZONE = """
good.example.    MX 10 mx1.good.example.
mx1.good.example. A 127.0.0.2
bare.example.    MX 10 mx1.bare.example.
mx1.bare.example. A 127.0.0.3
clinic.example.  MX 10 mx1.good.example.
"""
POLICY = """
version: 1
rules:
  - {name: review-large, when: {subject: {contains: review}}, hold: {for: review, expires: 24h}}
  - {name: checked, when: {recipient_domain: good.example}, require: {tls: verified}}
"""


@dataclass(frozen=True, slots=True)
class Cli:
    """The command line over one configuration."""

    config: Path
    ids: dict[str, str]

    @property
    def data_dir(self) -> Path:
        return self.config.parent / "data"

    def run(self, *arguments: str, answer: str = "", **environment: str) -> Result:
        """``gateway ARGUMENTS --config FILE``, in this process but through the real entry."""
        return run_cli(*arguments, "--config", str(self.config), answer=answer, **environment)

    def json(self, *arguments: str, status: int = 0) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    def states(self) -> dict[str, str]:
        """State by recipient, of mail that is not of our own."""
        with sqlite3.connect(self.data_dir / "queue.db") as connection:
            rows = connection.execute(
                "SELECT address, state FROM recipients JOIN messages ON id = message WHERE NOT system"
            ).fetchall()
        connection.close()
        return dict(rows)


def run_cli(*arguments: str, answer: str = "", **environment: str) -> Result:
    settings = {"GATEWAY_DEBUG": "", "SUDO_USER": "", "USER": "ops", "LOGNAME": "ops", **environment}
    return CliRunner(env=settings).invoke(gateway, list(arguments), input=answer)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The directory of a gateway that ran and stopped, and the id of each message by its subject."""
    directory = tmp_path_factory.mktemp("finished")
    set_up(level="warning", output="json", addresses=False, stream=io.StringIO())
    try:
        return directory, asyncio.run(_run(directory))
    finally:
        structlog.reset_defaults()


async def _run(directory: Path) -> dict[str, str]:
    ca = CA()
    port, listen = free_port("127.0.0.2", "127.0.0.3"), free_port()
    later = Behaviour(rcpt=ByAddress({"later@good.example": reply(451, "4.2.0 not now")}))
    async with (
        DnsServer(ZONE) as resolver,
        SmtpPeer("127.0.0.2", port, certificate=ca.issue("mx1.good.example"), behaviour=later),
        SmtpPeer("127.0.0.3", port),
    ):
        config = write_config(directory, resolver.resolver, port, listen)
        settings = yaml.safe_load(config.read_text())
        settings["tls"] = {"trust": str(ca.write_root(directory / "roots.pem"))}
        config.write_text(yaml.safe_dump(settings))
        daemon = Gateway(config)
        await daemon.start()
        try:
            ids = {
                subject: await asyncio.to_thread(send, listen, subject, recipients)
                for subject, recipients in {
                    "first": ["pat@good.example", "joe@bare.example"],
                    "second": ["later@good.example"],
                    "for review 1": ["held1@good.example"],
                    "for review 2": ["held2@good.example"],
                }.items()
            }
            cli = Cli(config, ids)
            await poll(lambda: {"delivered", "bounced", "deferred"} <= set(cli.states().values()), what="the outcomes")
            await poll(lambda: _notices(cli) == ["delivered", "delivered"], what="the notices")
        finally:
            await daemon.stop()
    return ids


def _notices(cli: Cli) -> list[str]:
    connection = sqlite3.connect(cli.data_dir / "queue.db")
    rows = connection.execute("SELECT state FROM recipients JOIN messages ON id = message WHERE system").fetchall()
    connection.close()
    return [state for (state,) in rows]


def write_config(directory: Path, resolver: str, port: int, listen: int) -> Path:
    config = directory / "gateway.yaml"
    (directory / "policy.yaml").write_text(POLICY)
    config.write_text(
        yaml.safe_dump(
            {
                "hostname": "gw.clinic.example",
                "postmaster": "postmaster@clinic.example",
                "data_dir": "data",
                "listeners": [{"address": f"127.0.0.1:{listen}", "tls": "none"}],
                "connectors": [{"name": "app", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["*"]}],
                "dns": {"resolvers": [resolver]},
                "delivery": {"port": port, "allow_networks": ["127.0.0.0/8"], "retry": {"first": "1h"}},
                "limits": {"free_space": "1MB"},
                "policies": ["policy.yaml"],
                "metrics": {"listen": None},
            }
        )
    )
    return config


def send(port: int, subject: str, recipients: Sequence[str]) -> str:
    """Hand a message over; the id that the gateway gave it."""
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.ehlo("app.clinic.example")
        client.mail("dr@clinic.example")
        for recipient in recipients:
            client.rcpt(recipient)
        text = f"From: dr@clinic.example\r\nTo: undisclosed:;\r\nSubject: {subject}\r\n\r\nsecret words\r\n"
        code, answer = client.data(text)
    assert code == 250, answer
    return answer.decode().rpartition(" ")[2]


@pytest.fixture
def cli(finished_run: tuple[Path, dict[str, str]], tmp_path: Path) -> Cli:
    """A copy of the finished run for this test alone."""
    source, ids = finished_run
    directory = tmp_path / "gateway"
    shutil.copytree(source, directory)
    return Cli(directory / "gateway.yaml", ids)


@pytest.fixture
def fresh(tmp_path: Path) -> Cli:
    """A configuration whose gateway never ran."""
    return Cli(write_config(tmp_path, "127.0.0.1:9", 25, 0), {})


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """A function that takes every file under a directory down: mode and content."""

    def take(directory: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(directory.rglob("*"))
        }

    return take
