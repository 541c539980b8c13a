"""A Postfix of our own: configuration, queue and mailboxes in a new directory, on addresses of 127.0.0.0/8 only.

It knows nothing of the machine's own instance and leaves it alone: every directory is given explicitly, ``-c`` names
the configuration, and the end is a SIGTERM to the very process that was started. Root is needed, because Postfix's
master gives up root by itself for each service.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.testing.ca import Certificate

__all__ = ["Listener", "Postfix", "missing", "mx", "relay"]

_SEARCH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_MAILBOX_OWNER: Final = "nobody"
_SERVICES: Final = """\
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
tlsproxy  unix  - - n - 0 tlsproxy
postlog   unix-dgram n - n - 1 postlogd
"""


def missing() -> str | None:
    """Why no Postfix can be started here; ``None``: one can."""
    if os.geteuid() != 0:
        return "Postfix's master starts as root only"
    if shutil.which("postfix", path=_SEARCH) is None:
        return "Postfix is not installed"
    return None


@dataclass(frozen=True, slots=True)
class Listener:
    """An address to listen on. With a certificate STARTTLS is offered (``encrypt``: demanded), else it is not."""

    address: str
    port: int
    certificate: Certificate | None = None
    encrypt: bool = False


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running instance: :func:`mx` and :func:`relay` make one."""

    directory: Path
    listeners: tuple[Listener, ...]
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def log(self) -> str:
        """The whole mail log so far."""
        path = self.directory / "maillog"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def mailbox(self) -> list[bytes]:
        """The messages delivered so far, as they stand in the Maildir: line ends are LF."""
        new = self.directory / "mail" / "box" / "new"
        return [path.read_bytes() for path in sorted(new.iterdir())] if new.exists() else []

    def queued(self) -> int:
        """How many messages its own queue holds."""
        queue = self.directory / "queue"
        return sum(len(files) for name in ("incoming", "active", "deferred") for _, _, files in os.walk(queue / name))

    def pids(self) -> list[int]:
        """The master and all its services, for measuring."""
        return [self.process.pid, *_children(self.process.pid)]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    found: list[int] = []
    try:
        for task in tasks.iterdir():
            direct = [int(child) for child in (task / "children").read_text().split()]
            found += direct
            for child in direct:
                found += _children(child)
    except OSError:
        return found  # it ended meanwhile
    return found


@contextmanager
def mx(
    listeners: Sequence[Listener], domains: Sequence[str], settings: Mapping[str, str] | None = None
) -> Iterator[Postfix]:
    """A recipient's MX: takes mail for ``domains`` on every listener, and keeps all of it in one Maildir."""
    owner = pwd.getpwnam(_MAILBOX_OWNER)
    chosen = {
        "virtual_mailbox_domains": " ".join(domains),
        "virtual_mailbox_base": "${config_directory}/mail",
        "virtual_mailbox_maps": "static:box/",
        "virtual_minimum_uid": "1",
        "virtual_uid_maps": f"static:{owner.pw_uid}",
        "virtual_gid_maps": f"static:{owner.pw_gid}",
        "virtual_mailbox_limit": "0",
        "smtpd_relay_restrictions": "reject_unauth_destination",
    }
    with _running(listeners, chosen | dict(settings or {})) as instance:
        yield instance


@contextmanager
def relay(
    listeners: Sequence[Listener], next_hop: str, *, reuse: bool, settings: Mapping[str, str] | None = None
) -> Iterator[Postfix]:
    """A relay for everything from loopback to ``next_hop`` (``[ADDRESS]:PORT``), which must speak TLS.

    As installed, or (``reuse``) with TLS connections used again for more mail (Postfix's TLS_README).
    """
    chosen = {
        "relayhost": next_hop,
        "smtp_tls_security_level": "encrypt",
        "smtp_tls_connection_reuse": "yes" if reuse else "no",
        "smtpd_relay_restrictions": "permit_mynetworks reject",
    }
    with _running(listeners, chosen | dict(settings or {})) as instance:
        yield instance


@contextmanager
def _running(listeners: Sequence[Listener], settings: Mapping[str, str]) -> Iterator[Postfix]:
    # Not below pytest's own directory: that one is closed to the account that Postfix's services run as.
    directory = Path(tempfile.mkdtemp(prefix="postfix-"))
    try:
        directory.chmod(0o755)
        _write_configuration(directory, listeners, settings)
        # `postfix check` makes the queue's directories; `start-fg` would leave a shell between us and the master.
        _postfix(directory, "check")
        master = Path(_parameter(directory, "daemon_directory")) / "master"
        with (directory / "output").open("ab") as output:
            process = subprocess.Popen(
                [master, "-c", directory, "-s"],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={"PATH": _SEARCH},
                cwd=directory,
            )
        try:
            instance = Postfix(directory, tuple(listeners), process)
            for listener in listeners:
                _await_banner(instance, listener)
            yield instance
        finally:
            _stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _program(name: str) -> str:
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found


def _postfix(directory: Path, verb: str) -> None:
    with (directory / "output").open("ab") as output:
        subprocess.run(
            [_program("postfix"), "-c", str(directory), verb],
            stdout=output,
            stderr=output,
            env={"PATH": _SEARCH},
            check=True,
        )


def _parameter(directory: Path, name: str) -> str:
    return subprocess.run(
        [_program("postconf"), "-c", str(directory), "-h", name], capture_output=True, text=True, check=True
    ).stdout.strip()


def _write_configuration(directory: Path, listeners: Sequence[Listener], settings: Mapping[str, str]) -> None:
    (directory / "queue").mkdir()
    data = directory / "data"
    data.mkdir()
    account = pwd.getpwnam("postfix")
    os.chown(data, account.pw_uid, account.pw_gid)
    mail = directory / "mail"
    mail.mkdir()
    owner = pwd.getpwnam(_MAILBOX_OWNER)
    os.chown(mail, owner.pw_uid, owner.pw_gid)
    main = {
        "compatibility_level": "3.6",
        "queue_directory": str(directory / "queue"),
        "data_directory": str(data),
        "maillog_file": str(directory / "maillog"),
        "maillog_file_prefixes": str(directory),
        "myhostname": "postfix.test",
        "mydestination": "",
        "mynetworks": "127.0.0.0/8",
        "inet_protocols": "ipv4",
        "inet_interfaces": "all",  # only what master.cf names is listened on
        "alias_maps": "",
        "alias_database": "",
        "local_recipient_maps": "",
        "local_transport": "error:no local mail here",
        "smtp_host_lookup": "native",
        "local_header_rewrite_clients": "",  # loopback clients are strangers here: no header is added to their mail
        "smtpd_tls_loglevel": "1",
        "message_size_limit": "0",
        "mailbox_size_limit": "0",
        "biff": "no",
    } | dict(settings)
    (directory / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
    lines = []
    for number, listener in enumerate(listeners):
        options = [f"-o syslog_name=listener{number}"]
        if listener.certificate is None:
            options.append("-o smtpd_tls_security_level=none")
        else:
            chain = directory / f"tls{number}.pem"
            chain.write_bytes(listener.certificate.key_pem + listener.certificate.chain_pem)
            chain.chmod(0o600)
            options.append(f"-o smtpd_tls_security_level={'encrypt' if listener.encrypt else 'may'}")
            options.append(f"-o smtpd_tls_chain_files={chain}")
        lines.append(f"{listener.address}:{listener.port} inet n - n - - smtpd\n  {' '.join(options)}\n")
    (directory / "master.cf").write_text("".join(lines) + _SERVICES)


def _await_banner(instance: Postfix, listener: Listener) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection((listener.address, listener.port), timeout=5) as probe:
                if probe.recv(4) == b"220 ":
                    return
        except OSError:
            pass
        if instance.process.poll() is not None or time.monotonic() > deadline:
            output = (instance.directory / "output").read_text(errors="replace")
            raise RuntimeError(f"Postfix does not answer on {listener.address}:{listener.port}\n{output}{instance.log}")
        time.sleep(0.05)  # between two looks; the deadline above ends it


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the master that we started, then what is left of its services."""
    services = _children(process.pid)
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in services:
        # A service ends by itself once its master is gone. Its id is only signalled while it is Postfix's still.
        deadline = time.monotonic() + 5
        while _is_postfix(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        if _is_postfix(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_postfix(pid: int) -> bool:
    try:
        return "postfix" in Path(f"/proc/{pid}/exe").readlink().parts
    except OSError:
        return False
