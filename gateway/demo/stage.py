"""Where the demo plays: a directory that goes with it, and the gateway itself, run as anybody runs it.

The daemon is a process of its own in a session of its own, so that Ctrl-C in the terminal is ours to hear. It ends with
us, also where nobody gives us the time to end it (``leash``).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Self

from gateway.demo.neighbours import HOME, Town
from gateway.errors import GatewayError
from gateway.testing import free_port, read_until

__all__ = ["MARKERS", "POLICY", "REVIEWER", "Stage", "Verb"]

#: What Exchange Online writes into each message of this tenant, and the secret that a rule of its administrator adds.
MARKERS = MappingProxyType(
    {
        "X-MS-Exchange-CrossTenant-Id": "6f0e2b1c-1111-2222-3333-444455556666",
        "X-OriginatorOrg": "clinic.example",
        "X-Clinic-Relay": "demo-secret-4f1d8a",
    }
)
POLICY = files("gateway.demo").joinpath("policy.yaml").read_text(encoding="utf-8")
REVIEWER = "security@clinic.example"
"""Who is told of held mail."""
_NAME = "gw.clinic.example"

_CONFIG = Template(f"""\
# The gateway of `gateway demo`. It is the real one; only its neighbours are played.
hostname: {_NAME}
postmaster: postmaster@clinic.example
data_dir: data
policies: [policy.yaml]
tls: {{certificate: gateway.crt, key: gateway.key, trust: ca.pem}}
listeners:
  - {{address: "127.0.0.1:$port", tls: required}}
connectors:                          # Microsoft 365 hands us the mail of clinic.example, and of nobody else
  - name: m365
    accept:
      networks: [127.0.0.0/8]        # really: [microsoft365]
      tenant: {{id: {MARKERS["X-MS-Exchange-CrossTenant-Id"]}, domains: [clinic.example]}}
      header: {{name: X-Clinic-Relay, value: {MARKERS["X-Clinic-Relay"]}}}
    senders: [clinic.example]
    return_route: {{host: {HOME}, port: $delivery_port, tls: verified}}
dns: {{resolvers: ["$resolver"]}}    # plays the world: hospital.example, lab.example and so on
delivery:
  port: $delivery_port               # really: 25
  allow_networks: [127.0.0.0/8]
  retry: {{first: 2s}}               # really: 1m
notify: {{reviewers: [{REVIEWER}], alerts: [{REVIEWER}]}}
limits: {{free_space: 10MB}}         # it takes no mail where its disk is nearly full
local: {{domain: {_NAME}}}            # notices come from here, and what comes back of them
portal:                              # where a message lies that no other allowed method can carry
  url: "http://127.0.0.1:$web"       # really: https://secure.clinic.example
  listen: "127.0.0.1:$web"
  organisations: {{clinic.example: {{name: Example Clinic, contact: "+1 555 0100"}}}}
metrics: {{listen: "127.0.0.1:$metrics"}}
log: {{format: console}}
""")

_START = 60.0
_STOP = 15.0
_VERB = 60.0
_MAIN = "from gateway.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Verb:
    """A command line that was run: its exit status and all that it printed."""

    status: int
    output: str


class Stage:
    """The gateway among its neighbours, as an async context manager. ``directory`` goes when it ends."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.port = free_port()
        self.web = free_port()
        self.directory = Path()
        self._daemon: Process | None = None

    @property
    def config(self) -> Path:
        """The configuration file, for verbs."""
        return self.directory / "gateway.yaml"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.directory / "gateway.log"

    @property
    def pid(self) -> int:
        """The daemon's process, for signals."""
        return self._daemon.pid if self._daemon is not None else 0

    @property
    def running(self) -> bool:
        """Whether the daemon runs."""
        return self._daemon is not None and self._daemon.returncode is None

    async def __aenter__(self) -> Self:
        """Write everything, start the daemon, wait until it takes mail. Raises :class:`GatewayError`."""
        self.directory = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
        try:
            self._write()
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._end()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _write(self) -> None:
        town = self.town
        town.ca.write_root(self.directory / "ca.pem")
        town.ca.issue(_NAME, "127.0.0.1", "localhost").write(self.directory, "gateway")
        (self.directory / "policy.yaml").write_text(POLICY, encoding="utf-8")
        text = _CONFIG.substitute(
            port=self.port,
            delivery_port=town.port,
            resolver=town.dns.resolver,
            metrics=free_port(),
            web=self.web,
        )
        self.config.write_text(text, encoding="utf-8")
        self.config.chmod(0o600)  # it holds a secret, as a real one does

    async def _start(self) -> None:
        with self.log.open("wb") as log:
            self._daemon = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.demo.leash", str(self.directory), "run", "--config", str(self.config)),
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env=_environment(),
                start_new_session=True,
            )
        greeted, ended = asyncio.create_task(self._greeting()), asyncio.create_task(self._daemon.wait())
        try:
            await asyncio.wait((greeted, ended), timeout=_START, return_when=asyncio.FIRST_COMPLETED)
            if not greeted.done():
                raise GatewayError(f"the gateway did not start: {self.last_words()}")
        finally:
            for task in (greeted, ended):
                task.cancel()
            await asyncio.gather(greeted, ended, return_exceptions=True)

    def last_words(self) -> str:
        """The end of the daemon's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"

    async def _greeting(self) -> None:
        """Wait until somebody answers the door."""
        while True:
            with suppress(OSError, EOFError, TimeoutError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    await read_until(reader, b"\r\n", _START)
                    return
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    async def _end(self) -> None:
        """As an operator does: SIGTERM, it finishes what it has in hand; SIGKILL where it does not."""
        daemon = self._daemon
        if daemon is None or daemon.returncode is not None:
            return
        with suppress(ProcessLookupError):
            daemon.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP):
                await daemon.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                daemon.kill()
            await daemon.wait()

    async def verb(self, *words: str) -> Verb:
        """Run ``gateway WORDS`` with this configuration, as a process of its own. Raises :class:`GatewayError`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, *words, "--config", str(self.config)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=_environment(),
        )
        try:
            async with asyncio.timeout(_VERB):
                output, _ = await process.communicate()
        except TimeoutError:
            raise GatewayError(f"gateway {' '.join(words)} did not end within {_VERB:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Verb(process.returncode or 0, output.decode("utf-8", "replace"))


def _environment() -> dict[str, str]:
    """Ours, without what would lead a gateway elsewhere; modules come from where ours come from."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "NOTIFY_", "LISTEN_"))
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONUNBUFFERED": "1"}
