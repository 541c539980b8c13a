"""Where the large bodies of a store lie: every gateway on one database must mean the same place.

A gateway that looked for a body in files of its own, while another one has written it into others, would take it for
lost. So the place stands in the database, and who means another one does not start - unless no large body is there and
nobody else is at work.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from gateway.errors import StoreError
from gateway.store.bootstrap import make_directory
from gateway.store.incarnation import LEASE
from gateway.store.schema import bodies, incarnations, meta

__all__ = ["id_of_store", "place_of_files", "require_same_place", "settle"]

_ROW = "bodies-place"
_ID_ROW = "store-id"
_NAME = "ID"


def place_of_files(root: Path) -> str:
    """What tells this directory of bodies from others: an id in it, made once, durable before anybody hears of it.

    Raises ``OSError``.
    """
    path = root / _NAME
    make_directory(root)
    fresh = root / f".{_NAME}.{uuid.uuid4()}"
    if not path.exists():
        with fresh.open("x") as file:
            file.write(f"{uuid.uuid4()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass  # another process was faster
        finally:
            fresh.unlink()
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    return f"file:{path.read_text().strip()}"


def id_of_store(connection: Connection) -> str:
    """The id of this store, made with it: what stands in a bucket below another one's is not ours."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == _ID_ROW)).scalar()
    if found is not None:
        return bytes(found).decode()
    made = str(uuid.uuid4())
    connection.execute(insert(meta).values(key=_ID_ROW, value=made.encode()))
    return made


def require_same_place(connection: Connection, place: str, now: float) -> None:
    """Agree about ``place`` with whoever else uses this database. Raises :class:`StoreError`."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == _ROW)).scalar()
    if found is None:
        connection.execute(insert(meta).values(key=_ROW, value=place.encode()))
        return
    known = bytes(found).decode()
    if known == place:
        return
    kept = connection.execute(select(bodies.c.message).where(bodies.c.blob.is_not(None)).limit(1)).first()
    at_work = connection.execute(
        select(incarnations.c.id)
        .where(incarnations.c.ended.is_(None), incarnations.c.heartbeat > now - 2 * LEASE)
        .limit(1)
    ).first()
    if kept is not None or at_work is not None:
        raise StoreError(
            f"large bodies of this store lie in {known}, and store.blobs means {place} here: "
            "gateways on one database need one place for them, such as s3://BUCKET/PREFIX"
        )
    connection.execute(update(meta).where(meta.c.key == _ROW).values(value=place.encode()))


def settle(connection: Connection, place: str) -> None:
    """Large bodies lie there from now on: whoever moved them says so."""
    if not connection.execute(update(meta).where(meta.c.key == _ROW).values(value=place.encode())).rowcount:
        connection.execute(insert(meta).values(key=_ROW, value=place.encode()))
