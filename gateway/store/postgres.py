"""PostgreSQL behind the store: engines, what durability hangs on there, and its errors in our words.

What this module promises on every connection that writes:

1. ``fsync`` is on, the server is no standby and speaks UTF-8 - else it refuses to work with it, also after the server
   was restarted with other settings.
2. ``synchronous_commit`` is at least ``on``, whatever the server's default is.
3. Every statement, every wait for a lock and every pause inside a transaction has an end. A server that is gone is
   noticed within seconds, and one that is away is not asked again at every message.
4. A commit is only called good where the server said ``COMMIT``.

A connection that failed in any way is thrown away by the writer: the server undoes what was not committed.
"""

from __future__ import annotations

import select
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError

from gateway.errors import StoreAway, StoreBusy, StoreError, StoreFull

__all__ = ["alone", "open_postgres", "settings_of", "translated_postgres", "unfit"]

#: Oldest server that the tests run against has 15; nothing here needs more than 13 has.
_OLDEST = 130000
#: Seconds for one statement, for a lock of another gateway, and for a transaction in which nothing happens.
_STATEMENT, _LOCK, _IDLE = 30, 10, 30
#: Seconds for the work that one gateway does alone while others wait at the door: migrations.
_ALONE = 300
#: Seconds until a server that does not answer is given up: when connecting, and on a connection.
_CONNECT, _SILENT = 5, 15
#: Seconds between two attempts to connect to a server that is away; doubling.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: "gateway" in ASCII: the advisory lock of whoever makes tables, keys and streams. Of one database, not of the server.
_LOCK_NUMBER = 0x67617465776179

_SETTINGS = """
    SELECT set_config('statement_timeout', %(statement)s, false),
           set_config('lock_timeout', %(lock)s, false),
           set_config('idle_in_transaction_session_timeout', %(idle)s, false),
           set_config('synchronous_commit',
               CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false)
"""
_FITNESS = """
    SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('server_encoding'),
           current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('full_page_writes'),
           current_setting('server_version')
"""

# Seconds; see PostgreSQL's documentation of libpq connection parameters.
_DEFAULTS: dict[str, Any] = {
    "application_name": "secure-email-gateway",
    "connect_timeout": _CONNECT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": _SILENT * 1000,
}


class _Pause:
    """Between two attempts to connect: a server that is away is not asked again at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._length = 0.0
        self._until = 0.0
        self._why = ""

    def require_over(self) -> None:
        """Raise :class:`StoreAway` while it lasts."""
        with self._lock:
            if time.monotonic() < self._until:
                raise StoreAway(self._why)

    def begin(self, why: str) -> None:
        """The server was away just now."""
        with self._lock:
            self._length = min(max(self._length * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._until = time.monotonic() + self._length
            self._why = why

    def end(self) -> None:
        """The server is there."""
        with self._lock:
            self._length = self._until = 0.0


def open_postgres(url: str, *, writes: bool) -> Engine:
    """An engine for a ``postgresql://`` URL. Nothing is connected yet. Raises :class:`StoreError`."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in parsed.query}
    try:
        engine = create_engine(
            parsed,
            pool_size=2,
            max_overflow=2,
            pool_timeout=_CONNECT,
            hide_parameters=True,
            # Readers see one moment, however many statements they take; writers see what others have committed.
            isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
            connect_args=defaults,
        )
    except ModuleNotFoundError as error:
        raise StoreError(
            f"PostgreSQL needs the package {error.name}: install secure-email-gateway with its extra `postgres`"
        ) from None
    _pause_between_attempts(engine)
    _prepare_connections(engine, writes=writes)
    if writes:
        _believe_no_failed_commit(engine)
    return engine


def _pause_between_attempts(engine: Engine) -> None:
    pause = _Pause()

    @event.listens_for(engine, "do_connect")
    def do_connect(dialect: Any, _record: object, arguments: list[Any], options: dict[str, Any]) -> Any:
        pause.require_over()
        try:
            connection = dialect.connect(*arguments, **options)
        except Exception as error:
            failure = translated_postgres(error)
            if failure is None:
                raise
            pause.begin(str(failure))
            raise failure from error
        pause.end()
        return connection


def _prepare_connections(engine: Engine, *, writes: bool) -> None:
    values = {"statement": f"{_STATEMENT}s", "lock": f"{_LOCK}s", "idle": f"{_IDLE}s"}

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        before = connection.autocommit
        connection.autocommit = True  # what is set inside a transaction would go with it
        try:
            connection.execute(_SETTINGS, values)
            problem = unfit(connection.execute(_FITNESS).fetchone()) if writes else ""
        except Exception as error:
            connection.close()
            raise translated_postgres(error) or error from error
        if problem:
            connection.close()
            raise StoreError(problem)
        connection.autocommit = before
        connection.read_only = not writes

    @event.listens_for(engine, "checkout")
    def on_checkout(connection: Any, _record: object, _proxy: object) -> None:
        """An idle connection that has something to read was told its end, or came to it."""
        try:
            while not connection.closed and _is_readable(connection.fileno()):
                connection.pgconn.consume_input()
        except Exception:  # noqa: BLE001  the driver has several names for it
            connection.close()
        if connection.closed:
            raise DisconnectionError


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


def _believe_no_failed_commit(engine: Engine) -> None:
    @event.listens_for(engine, "commit")
    def on_commit(connection: Connection) -> None:
        """PostgreSQL answers COMMIT of a failed transaction with success, and rolls it back."""
        driver: Any = connection.connection.driver_connection
        if driver.info.transaction_status.name not in {"INTRANS", "IDLE"}:
            raise StoreError("the transaction had failed before its commit")


def unfit(found: Any) -> str:
    """Why a server with these answers cannot keep mail, "" where it can."""
    fsync, commit, encoding, version, standby, *_ = found
    if fsync != "on":
        return "PostgreSQL runs with fsync = off: a power cut would lose what was answered 250; set fsync = on"
    if commit not in {"on", "remote_apply"}:
        return f"PostgreSQL insists on synchronous_commit = {commit}; it must be on"
    if encoding != "UTF8":
        return f"the database has the encoding {encoding}; make it anew with ENCODING 'UTF8'"
    if version < _OLDEST:
        return f"PostgreSQL {version // 10000} is too old; 13 or newer is needed"
    if standby:
        return "this PostgreSQL server is a standby: name the primary, or add target_session_attrs=read-write"
    return ""


def settings_of(connection: Connection) -> Any:
    """What :func:`unfit` judges; then ``full_page_writes`` and the version in words."""
    return connection.exec_driver_sql(_FITNESS).one()


def alone(connection: Connection) -> None:
    """One gateway at a time, on whatever host, until the transaction ends: for tables, keys and streams.

    SQLite needs nothing: its writers begin with the lock.
    """
    if connection.dialect.name == "postgresql":
        limits = f"SELECT set_config('lock_timeout', '{_ALONE}s', true), set_config('statement_timeout', '0', true)"
        connection.exec_driver_sql(limits)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})")


def translated_postgres(error: BaseException) -> StoreError | None:
    """An error of the PostgreSQL driver as one of ours; None for any other error.

    Only its first line is kept: details may hold what stands in a row.
    """
    if isinstance(error, StoreError):
        return error
    if not type(error).__module__.startswith("psycopg"):
        return None
    state = getattr(error, "sqlstate", None)
    told = getattr(getattr(error, "diag", None), "message_primary", None)
    words = f"PostgreSQL: {told or str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
    if state is None:
        # Never sent, or never answered.
        lost = type(error).__name__ in {"OperationalError", "ConnectionTimeout", "InterfaceError"}
        return StoreAway(words) if lost else StoreError(words)
    if state.startswith("08") or state in _GONE:
        return StoreAway(words)
    if state == _DISK_FULL:
        return StoreFull(words)
    if state.startswith(("40", "53", "57")) or state == "55P03":
        return StoreBusy(words)
    return StoreError(words)


_DISK_FULL = "53100"
#: The fate of a statement is not known; the server ends or begins; a standby that was a primary; who may connect, which
#: the operator mends.
_GONE = frozenset(
    {"40003", "57P01", "57P02", "57P03", "57P05", "25006", "28000", "28P01", "3D000", "53300"},
)
