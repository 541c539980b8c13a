"""The systemd unit as it is shipped, run by systemd: what it forbids is forbidden, and mail passes all the same."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging import machine as machines
from tests.packaging.machine import Machine
from tests.packaging.prefix import Prefix
from tests.packaging.world import World, world
from tests.peers import swaks

# The first one that needs the installation waits until it is made.
pytestmark = [pytest.mark.peer, pytest.mark.root, pytest.mark.timeout(400)]

SHARE = "/opt/gateway/share/secure-email-gateway"
USER = 4321
POLICY = """
version: 1
rules:
  - name: identifiers-go-to-hosts-that-prove-their-name
    when: {content: {detects: us_ssn}}
    require: {tls: verified}
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A machine on which the steps of docs/install.md have been taken."""

    machine: Machine
    world: World

    def send(self, text: str = "Hello.", *, size: int = 0) -> swaks.Sent:
        """A message from an application, by swaks, to port 25."""
        padding = ("x" * 70 + "\r\n") * (size // 72)
        message = f"From: dr@clinic.example\r\nTo: pat@peer.example\r\nSubject: s\r\n\r\n{text}\r\n{padding}"
        directory = self.machine.path("/run")
        (directory / "swaks.eml").write_bytes(message.encode() + b".")
        done = self.machine.run(
            *("swaks", "--server", "127.0.0.1", "--port", "25", "--helo", "app.clinic.example", "--tls"),
            *("--from", "dr@clinic.example", "--to", "pat@peer.example"),
            *("--data", "@/run/swaks.eml", "--no-data-fixup", "--timeout", "20"),
        )
        return swaks.Sent(done.returncode, done.stdout + done.stderr)

    def arrives(self, before: int) -> None:
        self.machine.poll("the message arrives", lambda: len(self.world.peer.messages) > before)

    def passes(self, text: str = "Hello.", *, size: int = 0) -> None:
        before = len(self.world.peer.messages)
        sent = self.send(text, size=size)
        assert sent.status == 0, sent.transcript + self.machine.tail()
        self.arrives(before)
        assert self.world.peer.messages[-1].tls_version

    def main_pid(self) -> int:
        """As seen from inside."""
        return int(self.machine.show("gateway.service", "MainPID"))

    def outside(self, inside: int) -> int:
        """The same process, as seen from outside."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    found = re.search(r"^NSpid:\s+\d+\s+(\d+)$", (entry / "status").read_text(), flags=re.MULTILINE)
                    same = (entry / "ns/pid").readlink() == Path(f"/proc/{self.machine.pid}/ns/pid").readlink()
                except (OSError, ProcessLookupError):
                    continue
                if found and same and int(found.group(1)) == inside:
                    return int(entry.name)
        raise ProcessLookupError(inside)

    def status(self, name: str) -> str:
        """A field of /proc/PID/status of the supervisor."""
        text = Path(f"/proc/{self.outside(self.main_pid())}/status").read_text()
        (value,) = re.findall(rf"^{name}:\s+(.*)$", text, flags=re.MULTILINE)
        return str(value)

    def events(self) -> list[dict[str, Any]]:
        """Its log."""
        lines = self.machine.path("/var/log/gateway.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def has_said(self, event: str) -> bool:
        return event in {each["event"] for each in self.events()}

    def write_drop_in(self, name: str, text: str) -> None:
        self.machine.write(f"/etc/systemd/system/gateway.service.d/{name}.conf", text)
        self.machine.ctl("daemon-reload")


@pytest.fixture(scope="module")
def installed(prefix: Prefix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The steps of docs/install.md: user, directories, unit, certificate, key, configuration."""
    why = machines.missing() or swaks.missing()
    if why is not None:
        pytest.skip(why)
    with Machine(tmp_path_factory.mktemp("machine"), prefix) as machine, world(machine.pid) as around:
        machine.run("groupadd", "--system", "--gid", str(USER), "gateway")
        made = machine.run("useradd", "--system", "--uid", str(USER), "--gid", "gateway", "gateway")
        assert made.returncode == 0, made.stderr
        certificate = around.ca.issue("gw.clinic.example")
        machine.path("/etc/gateway").mkdir(mode=0o750, exist_ok=True)
        os.chown(machine.path("/etc/gateway"), 0, USER)
        chain, key = certificate.write(tmp_path_factory.mktemp("tls"), "tls")
        settings = {
            "hostname": "gw.clinic.example",
            "postmaster": "postmaster@clinic.example",
            "store": {"keys": ["credential:kek"]},
            "tls": {
                "certificate": "/etc/gateway/tls.crt",
                "key": "credential:tls.key",
                "trust": "/etc/gateway/roots.pem",
            },
            "listeners": [{"address": "0.0.0.0:25", "tls": "required"}],
            "connectors": [
                {"name": "app", "stage": "enforce", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["*"]}
            ],
            "dns": {"resolvers": [around.resolver]},
            "delivery": {"port": around.peer.port, "allow_networks": ["127.0.0.0/8"], "retry": {"first": "1s"}},
            "policies": ["policy.yaml"],
        }
        machine.write("/etc/gateway/gateway.yaml", yaml.safe_dump(settings), 0o640, owner=(0, USER))
        machine.write("/etc/gateway/policy.yaml", POLICY, 0o640, owner=(0, USER))
        machine.write("/etc/gateway/tls.crt", Path(chain).read_bytes())
        machine.write(
            "/etc/gateway/roots.pem", around.ca.write_root(tmp_path_factory.mktemp("root") / "r").read_bytes()
        )
        machine.write("/etc/credstore/gateway.kek", secrets.token_hex(32), 0o600)
        machine.write("/etc/credstore/gateway.tls.key", Path(key).read_bytes(), 0o600)
        for name in ("gateway.service", "gateway.socket", "gateway-backup.service", "gateway-backup.timer"):
            machine.write(f"/etc/systemd/system/{name}", machine.path(f"{SHARE}/systemd/{name}").read_bytes())
        found = Installed(machine, around)
        # There is no journal here; nothing else is changed.
        found.write_drop_in("log", "[Service]\nStandardOutput=append:/var/log/gateway.log\nStandardError=inherit\n")
        yield found


@pytest.fixture(autouse=True)
def stopped(installed: Installed) -> Iterator[None]:
    """Whatever a test leaves running ends with it."""
    yield
    installed.machine.ctl("stop", "gateway.socket", "gateway.service")


def test_the_unit_runs_without_rights_takes_mail_reloads_and_drains(installed: Installed) -> None:
    machine = installed.machine
    machine.ctl("start", "gateway.service")  # returns when the gateway has said READY
    assert machine.show("gateway.service", "StatusText") == "taking mail"
    installed.passes()
    installed.passes("SSN 536-22-8726", size=600_000)  # read by a process with limits of its own
    has_no_rights(installed)
    sees_what_it_needs(installed)
    a_verb_uses_its_key(installed)
    is_backed_up(installed)
    reloads(installed)
    machine.ctl("stop", "gateway.service")
    assert machine.show("gateway.service", "Result") == "success"
    assert installed.events()[-1]["event"] == "stopped"


def has_no_rights(installed: Installed) -> None:
    assert set(installed.status("Uid").split()) == {str(USER)}
    assert installed.status("NoNewPrivs") == "1"
    assert installed.status("Seccomp") == "2"
    assert int(installed.status("CapEff"), 16) == int(installed.status("CapBnd"), 16) == 1 << 10  # CAP_NET_BIND_SERVICE


def sees_what_it_needs(installed: Installed) -> None:
    main = installed.outside(installed.main_pid())

    def touch(path: str) -> subprocess.CompletedProcess[str]:
        """Even root could not, with these mounts."""
        return subprocess.run(
            ["nsenter", "--target", str(main), "--mount", "touch", path], capture_output=True, text=True, check=False
        )

    assert touch("/var/lib/gateway/x").returncode == 0
    for path in ("/etc/x", "/etc/gateway/gateway.yaml", "/opt/gateway/x", "/var/log/x", "/var/lib/x"):
        assert "Read-only file system" in touch(path).stderr, path
    root = Path("/proc") / str(main) / "root"  # as the unit sees it
    assert list((root / "home").iterdir()) == []
    data = {each.name for each in (root / "var" / "lib" / "gateway").iterdir()}
    assert data >= {"queue.db", "run"}
    assert "kek.key" not in data  # it came as a credential


def a_verb_uses_its_key(installed: Installed) -> None:
    """As docs/install.md says: a verb that writes needs the key, and the service's user may read its credentials."""

    def accept_the_clock(**environment: str) -> str:
        verb = ("/opt/gateway/bin/gateway", "queue", "clock", "accept")
        user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        return installed.machine.run(*user, *verb, env=environment).stderr

    assert "CREDENTIALS_DIRECTORY is not set" in accept_the_clock()
    assert "not in doubt" in accept_the_clock(CREDENTIALS_DIRECTORY="/run/credentials/gateway.service")


def is_backed_up(installed: Installed) -> None:
    """While it runs, by a service with fewer rights still; what is older than two days goes."""
    machine = installed.machine
    for directory in (machine.path("/var/backups/gateway"), machine.path("/var/backups/gateway/old")):
        directory.mkdir(parents=True)
        os.chown(directory, USER, USER)
    os.utime(machine.path("/var/backups/gateway/old"), (0, 0))
    machine.ctl("start", "gateway-backup.service")
    (made,) = machine.path("/var/backups/gateway").iterdir()
    assert {each.name for each in made.iterdir()} >= {"manifest.json", "queue.db"}
    assert made.stat().st_mode & 0o777 == 0o700


def reloads(installed: Installed) -> None:
    settings = installed.machine.path("/etc/gateway/gateway.yaml")
    before, main = settings.read_text(), installed.main_pid()
    for text, event in ((before + "limits: {header_size: 2KB}\n", "reloaded"), ("hostname: [\n", "reload_failed")):
        settings.write_text(text)
        installed.machine.ctl("reload", "gateway.service")
        installed.machine.poll(event, partial(installed.has_said, event))
    settings.write_text(before)
    installed.passes()
    assert installed.main_pid() == main


def test_one_that_hangs_is_replaced_and_has_lost_nothing(installed: Installed) -> None:
    installed.write_drop_in("quick", "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")
    installed.machine.ctl("start", "gateway.service")
    try:
        installed.passes()
        before = installed.main_pid()
        os.kill(installed.outside(before), signal.SIGSTOP)
        installed.machine.poll("another one", lambda: installed.main_pid() not in {0, before}, seconds=60)
        installed.machine.poll(
            "it is up", lambda: installed.machine.show("gateway.service", "ActiveState") == "active", seconds=60
        )
        installed.passes()
        assert installed.machine.show("gateway.service", "NRestarts") == "1"
    finally:
        installed.machine.ctl("stop", "gateway.service")
        installed.machine.path("/etc/systemd/system/gateway.service.d/quick.conf").unlink()
        installed.machine.ctl("daemon-reload")


def test_with_the_socket_unit_connections_wait_and_no_capability_is_left(installed: Installed) -> None:
    installed.write_drop_in(
        "socket", installed.machine.path(f"{SHARE}/systemd/gateway.service.d/socket.conf").read_text()
    )
    try:
        installed.machine.ctl("start", "gateway.socket")
        assert installed.machine.show("gateway.service", "ActiveState") == "inactive"
        installed.passes()  # the connection starts it
        assert int(installed.status("CapEff"), 16) == int(installed.status("CapBnd"), 16) == 0
        (*_, ready) = [event for event in installed.events() if event["event"] == "ready"]
        assert ready["listeners"] == ["0.0.0.0:25"]
        assert "socket_unused" not in {event["event"] for event in installed.events()}
    finally:
        installed.machine.ctl("stop", "gateway.socket", "gateway.service")
        installed.machine.path("/etc/systemd/system/gateway.service.d/socket.conf").unlink()
        installed.machine.ctl("daemon-reload")
