"""The gateway as its operators see it: a process of its own, its YAML, its log, its command line, its HTTP probes.

Nothing here looks inside: what is asked and answered is the contract of the command line and the configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.testing.ca import CA, Certificate
from gateway.testing.dns import DnsServer
from gateway.testing.net import free_port

__all__ = ["GatewayProcess", "dns_server", "wait_for"]

Json = dict[str, Any]
T = TypeVar("T")

_ENTRY: Final = (sys.executable, "-c", "from gateway.cli import main; main()")
_ROOT: Final = Path(__file__).parents[2]


def wait_for(what: str, condition: Callable[[], T | None], *, seconds: float = 30.0) -> T:
    """Ask until the answer is true, and return it; raises ``TimeoutError`` naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s (last answer: {answer!r})")
        time.sleep(0.02)  # between two looks; the deadline above ends it


@contextmanager
def dns_server(zone: str) -> Iterator[str]:
    """The shipped DNS server in a thread with a loop of its own, so that a test may block; yields its ``host:port``."""
    resolver: list[str] = []
    failure: list[BaseException] = []
    up, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with DnsServer(zone) as server:
            resolver.append(server.resolver)
            up.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that asked
            failure.append(error)
        finally:
            up.set()
            loop.close()

    thread = threading.Thread(target=run, name="dns")
    thread.start()
    up.wait(10)
    try:
        if failure:
            raise failure[0]
        yield resolver[0]
    finally:
        with contextlib.suppress(RuntimeError):  # the loop is closed where serving failed
            loop.call_soon_threadsafe(stop.set)
        thread.join(10)


class GatewayProcess:
    """One gateway over one data directory, started as often as wanted.

    ``settings`` are laid over defaults that fit tests (one level deep: a section given replaces single keys of the
    default section): a listener on ``address``, one connector ``app`` for loopback and every sender, destinations on
    loopback allowed, quick retries. ``certificate``: that listener demands STARTTLS; ``trust``: whose certificates
    count. ``policies`` maps file names to the contents of policy files.
    """

    def __init__(
        self,
        directory: Path,
        *,
        resolver: str,
        certificate: Certificate | None = None,
        trust: CA | None = None,
        settings: Mapping[str, Any] | None = None,
        policies: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.address = "127.0.0.1"
        self.port = free_port(self.address)
        self.metrics_port = free_port(self.address)
        self.data_dir = directory / "data"
        self.config = directory / "gateway.yaml"
        self.log_path = directory / "gateway.log"
        self.entry: Sequence[str] = _ENTRY
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: Json = {}
        self.starts = 0
        self.begin = 0
        """Where in the log the last start begins."""
        (directory / "policies").mkdir(parents=True, exist_ok=True)
        for name, content in (policies or {}).items():
            (directory / "policies" / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        merged = self._defaults(resolver)
        merged["policies"] = [f"policies/{name}" for name in policies or {}]
        if certificate is not None:
            chain, private_key = certificate.write(directory, "listener")
            merged["tls"] = {"certificate": str(chain), "key": str(private_key)}
            merged["listeners"][0]["tls"] = "required"
        if trust is not None:
            merged.setdefault("tls", {})["trust"] = str(trust.write_root(directory / "roots.pem"))
        for key, value in (settings or {}).items():
            old = merged.get(key)
            merged[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
        self.config.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")

    def _defaults(self, resolver: str) -> Json:
        return {
            "hostname": "gw.sender.example",
            "postmaster": "postmaster@sender.example",
            "data_dir": str(self.data_dir),
            "workers": 1,
            "listeners": [{"address": f"{self.address}:{self.port}", "tls": "none"}],
            "connectors": [
                {"name": "app", "stage": "enforce", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["*"]}
            ],
            "dns": {"resolvers": [resolver]},
            "delivery": {
                "allow_networks": ["127.0.0.0/8"],
                "retry": {"first": "1s", "max": "2s", "expire": "1d", "delay_notice": "4h"},
            },
            "metrics": {"listen": f"127.0.0.1:{self.metrics_port}"},
            "log": {"level": "info", "format": "json"},
        }

    # -- the process

    def start(self, *, prefix: Sequence[str] = (), seconds: float = 40.0) -> None:
        """Start and wait for the log event ``ready``; ``prefix`` is a command to run it under, such as strace."""
        begin = self.launch(prefix=prefix)
        self.ready = wait_for("the gateway's event `ready`", lambda: self._ready_event(begin), seconds=seconds)

    def launch(self, *, prefix: Sequence[str] = ()) -> int:
        """Start without waiting; returns where in the log this run begins."""
        if self.process is not None:
            raise RuntimeError("it is running")
        begin = self.begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.entry, "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=_ROOT,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # so that a kill reaches the supervisor and its workers at the same moment
            )
        self.starts += 1
        return begin

    def _ready_event(self, begin: int) -> Json | None:
        for event in self.events(begin):
            if event.get("event") == "ready":
                return event
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {self.process.returncode} before `ready`\n{self.log_tail()}")
        return None

    def stop(self, *, seconds: float = 30.0) -> int:
        """SIGTERM, and wait; returns the exit status. Kills it, and raises, where it does not end in time."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise RuntimeError(f"SIGTERM did not end the gateway within {seconds:g} s\n{self.log_tail()}") from None
        finally:
            self.process = None

    def kill9(self) -> None:
        """SIGKILL to all of its processes at once; nothing where it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def worker(self, number: int) -> int:
        """The pid of the worker that has this number now, or had it last."""
        ready = [
            event
            for event in self.events(self.begin)
            if event.get("event") == "worker_ready" and event["worker"] == number
        ]
        if not ready:
            raise RuntimeError(f"worker {number} has not started")
        return int(ready[-1]["pid"])

    def kill_worker(self, number: int) -> int:
        """SIGKILL to one worker alone; its pid. Raises ``ProcessLookupError`` where its successor is not ready yet."""
        pid = self.worker(number)
        if pid not in self.pids():  # it may be anybody's by now
            raise ProcessLookupError(f"worker {number} has ended already")
        os.kill(pid, signal.SIGKILL)
        return pid

    def alive(self) -> bool:
        """Is the process that was started still there?"""
        return self.process is not None and self.process.poll() is None

    def pids(self) -> list[int]:
        """The processes of the session that was started: supervisor, workers, health, a tracer where there is one."""
        leader = self._running().pid
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ProcessLookupError):
                    if os.getsid(int(entry.name)) == leader:
                        found.append(int(entry.name))
        return sorted(found)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError("it is not running")
        return self.process

    # -- the log and the probes

    def events(self, begin: int = 0) -> list[Json]:
        """The JSON lines of the log from that offset on."""
        if not self.log_path.exists():
            return []
        with self.log_path.open("rb") as log:
            log.seek(begin)
            lines = log.read().split(b"\n")[:-1]
        found = []
        for line in lines:
            if line.startswith(b"{"):
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
        return found

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the log, for a failure's message."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def ask(self, path: str) -> str:
        """What the health process answers, whatever its status; raises ``OSError`` where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample of ``/metrics``; 0 where it is not there."""
        for family in text_string_to_metric_families(self.ask("/metrics")):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return 0.0

    def recipients(self, *states: str) -> int:
        """How many recipients are in these states, by one scrape: between two they change from state to state."""
        return int(
            sum(
                sample.value
                for family in text_string_to_metric_families(self.ask("/metrics"))
                for sample in family.samples
                if sample.name == "gateway_queue_recipients" and sample.labels.get("state") in states
            )
        )

    def probe(self, path: str) -> int:
        """The status of ``/healthz``, ``/readyz`` or ``/metrics``; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    # -- the command line

    def command(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run ``gateway ARGUMENTS --config FILE`` to its end."""
        return subprocess.run(
            [*_ENTRY, *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            cwd=_ROOT,
            timeout=seconds,
            check=False,
        )

    def queue_list(self) -> list[Json]:
        """``queue list --json``: a row for each live recipient."""
        done = self.command("queue", "list", "--json")
        if done.returncode != 0:
            raise RuntimeError(f"gateway queue list: {done.returncode}: {done.stderr.strip()}")
        return list(json.loads(done.stdout)["recipients"])

    def portal_list(self) -> list[Json]:
        """``portal list --json``: a row for each recipient whose message lies in the portal."""
        done = self.command("portal", "list", "--json")
        if done.returncode != 0:
            raise RuntimeError(f"gateway portal list: {done.returncode}: {done.stderr.strip()}")
        return list(json.loads(done.stdout)["deposits"])

    def trace(self, *arguments: str) -> list[Json]:
        """``trace ... --json``: the messages asked for, such as ``trace("--to", ADDRESS)``; none where none fits."""
        done = self.command("trace", *arguments, "--json", seconds=300.0)
        if done.returncode == 1 and "no message" in done.stderr:
            return []
        if done.returncode != 0:
            raise RuntimeError(f"gateway trace {' '.join(arguments)}: {done.returncode}: {done.stderr.strip()}")
        return list(json.loads(done.stdout)["messages"])

    def recipient(self, address: str) -> Json | None:
        """What the trace tells of the one recipient with that address; ``None`` where no message has it."""
        rows = [
            row
            for message in self.trace("--to", address)
            for row in message["recipients"]
            if row["recipient"].lower() == address.lower()
        ]
        if len(rows) > 1:
            raise RuntimeError(f"{len(rows)} messages to {address}, expected at most one")
        return rows[0] if rows else None
