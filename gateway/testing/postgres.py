"""A PostgreSQL server of one's own, out of the programs that are installed: a directory, a socket, nothing else.

It runs as an unprivileged user (PostgreSQL refuses root), listens on a socket in its directory and on loopback, and is
as durable as a real one: its settings are those that the store asks for. What makes it fast is where it lies - in
memory, where the system has a place for that.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.testing.net import free_port

__all__ = ["PostgresServer", "postgres_programs"]

_MEMORY = Path("/dev/shm")
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
_USERS = ("postgres", "nobody")
#: Seconds for the server to come up or go down.
_PATIENCE = 60.0


def postgres_programs() -> Path | None:
    """The directory of ``initdb`` and ``postgres``; None where PostgreSQL is not installed."""
    found = [path.parent for pattern in _PLACES for path in Path("/").glob(f"{pattern[1:]}/initdb")]
    named = shutil.which("initdb")
    if named is not None:
        found.append(Path(named).resolve().parent)
    fit = [place for place in found if all((place / name).exists() for name in ("initdb", "postgres"))]
    return max(fit, key=_version) if fit else None


def _version(place: Path) -> int:
    digits = [part for part in place.parts if part.isdigit()]
    return int(digits[-1]) if digits else 0


def _unprivileged() -> tuple[int, int] | None:
    """Whom to run as where we are root: user and group; None where we are not."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    raise RuntimeError(f"PostgreSQL does not run as root, and there is none of the users {', '.join(_USERS)}")


class PostgresServer:
    """A server that lives as long as the ``with`` block; :meth:`stop`, :meth:`kill` and :meth:`start` in between.

    ``settings`` are laid over those of ``postgresql.conf``. Raises ``RuntimeError`` where it does not come up.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        programs = postgres_programs()
        if programs is None:
            raise RuntimeError("PostgreSQL is not installed: initdb and postgres were not found")
        self._programs = programs
        self._user = _unprivileged()
        place = str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-postgres-", dir=place))
        self._data = self._directory / "data"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = free_port("127.0.0.1")

    def __enter__(self) -> Self:
        try:
            if self._user is not None:
                os.chown(self._directory, *self._user)
            self._run("initdb", "-D", str(self._data), "-U", "gateway", "-A", "trust", "-E", "UTF8", "--no-sync")
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def url(self, database: str, *, tcp: bool = False) -> str:
        """How the gateway names a database here: by the socket, or over loopback."""
        if tcp:
            return f"postgresql://gateway@127.0.0.1:{self.port}/{database}"
        return f"postgresql:///{database}?user=gateway&host={self._directory}&port={self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._directory),
            "max_connections": "60",
            "shared_buffers": "32MB",
            "jit": "off",
            "autovacuum_naptime": "10s",
            **self._settings,
        }
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._guarded(), self._programs / "postgres", "-D", self._data, *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                **self._identity(),
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{self.log()[-2000:]}") from error
                time.sleep(0.02)  # between two looks; the deadline above ends it
            else:
                return

    def _guarded(self) -> list[str]:
        """The server must not outlive who started it, however that ends."""
        program = shutil.which("setpriv")
        return [program, "--pdeathsig", "QUIT"] if program else []

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        user, group = self._user
        return {"user": user, "group": group, "extra_groups": []}

    def log(self) -> str:
        """What the server has said so far."""
        return (self._directory / "log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """As an administrator does it (``fast``): connections are ended, what was committed is on the disk."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As when the machine goes: no goodbye to anybody; the next :meth:`start` recovers from the log."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the administrator; its rows. Raises ``OSError`` where the server does not answer."""
        import psycopg

        try:
            connection = psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error
        with connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def create_database(self) -> str:
        """A new empty database; its name."""
        self._databases += 1
        name = f"gateway_{self._databases}"
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        done = subprocess.run(
            [self._programs / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self._directory,
            timeout=_PATIENCE,
            check=False,
            **self._identity(),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace').strip()}")
