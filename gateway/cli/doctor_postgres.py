"""The doctor's look at a PostgreSQL database: whether it answers, keeps what it is told, and fits this gateway."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_disk import StoreState, key_finding, looked_at, version_finding
from gateway.config.model import Settings
from gateway.errors import StoreError
from gateway.store.database import open_engine, translated
from gateway.store.postgres import settings_of, unfit

__all__ = ["store"]


def store(settings: Settings) -> StoreState:
    """Server, version and keys, looked at without making or changing anything."""
    try:
        engine = open_engine(settings.store.database, settings.data_dir, writes=False)
        try:
            with engine.connect() as connection:
                return _look(settings, connection)
        finally:
            engine.dispose()
    except (StoreError, DBAPIError) as error:
        remedy = f"look at the server of {settings.store.url}, the way to it, its pg_hba.conf and the password"
        return StoreState((Finding("store", Status.BAD, str(translated(error)), remedy),))


def _look(settings: Settings, connection: Connection) -> StoreState:
    findings = [*_server(settings, connection), version_finding(connection)]
    if findings[-1].status is Status.BAD or "no tables" in findings[-1].detail:
        return StoreState(tuple(findings))
    findings.append(key_finding(settings, connection))
    return looked_at(findings, connection)


def _server(settings: Settings, connection: Connection) -> Iterator[Finding]:
    found = settings_of(connection)
    problem = unfit(found)
    if problem:
        yield Finding("postgresql", Status.BAD, problem, "see docs/postgresql.md")
    elif found[5] != "on":
        remedy = "set full_page_writes = on, unless the file system itself never tears a page (ZFS)"
        yield Finding("postgresql", Status.WARNING, "full_page_writes is off: a power cut may damage pages", remedy)
    else:
        yield Finding("postgresql", Status.OK, f"PostgreSQL {found[6]}, synchronous_commit = {found[1]}")
    encrypted = connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()
    remote = connection.exec_driver_sql("SELECT inet_server_addr() IS DISTINCT FROM inet_client_addr()").scalar()
    verified = settings.store.url.options.get("sslmode") in {"verify-ca", "verify-full"}
    remedy = "add ?sslmode=verify-full&sslrootcert=PATH to store.url"
    if remote and not encrypted:
        yield Finding("postgresql_tls", Status.WARNING, "the connection to the server is in clear", remedy)
    elif remote and not verified:
        yield Finding("postgresql_tls", Status.WARNING, "the server's certificate is not verified", remedy)
    detail = "not known: the server does not tell how much room it has; watch its disk there"
    yield Finding("postgresql_space", Status.OK, detail)
