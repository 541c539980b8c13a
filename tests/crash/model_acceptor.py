"""The accept path in forty lines, done right: what the sample log of the order proof was recorded from.

To record it again (the data directory of the sample is /srv/sample/data)::

    strace -f -yy -xx -s 1024 -e trace=openat,write,pwrite64,fsync,fdatasync,rename,mkdir,unlink,sendto \\
        -o LOG python -m tests.crash.model_acceptor /srv/sample/data

The page size is small so that the log stays small; what the interpreter itself reads was taken out, and the
-shm lines. Two messages on one connection: 300 bytes in the row, 20 KB in a file.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import threading
from pathlib import Path

_DIRECTORY = os.O_DIRECTORY | os.O_RDONLY


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, _DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep_file(directory: Path, name: str, body: bytes) -> None:
    if not directory.is_dir():
        directory.mkdir()
        sync_directory(directory.parent)
    temporary = directory / f"{name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    for start in range(0, len(body), 8192):
        os.write(descriptor, body[start : start + 8192])
    os.fsync(descriptor)
    os.close(descriptor)
    temporary.rename(directory / name)
    sync_directory(directory)


def commit(database: sqlite3.Connection, token: str, body: bytes | None) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO recipients VALUES (?, ?)", (f"{token}@peer.example", body))
    database.execute("COMMIT")


def main(data: Path) -> None:
    data.mkdir(parents=True)
    database = sqlite3.connect(data / "gateway.db", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA page_size=512")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE recipients (address TEXT, body BLOB)")
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
    for token, size in (("token-small", 300), ("token-large", 20_000)):
        connection.sendall(b"354 go ahead\r\n")
        body = os.urandom(size)
        if size > 16_384:
            keep_file(data / "blobs", f"{token}.sealed", body)
        writer = threading.Thread(target=commit, args=(database, token, body if size <= 16_384 else None))
        writer.start()
        writer.join()
        connection.sendall(b"250 2.0.0 kept\r\n")
    client.close()
    connection.close()
    database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
