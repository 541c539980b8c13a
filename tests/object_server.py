"""An S3-compatible server of the tests' own: moto's, on loopback, in a thread."""

from __future__ import annotations

import logging
import urllib.request
from types import TracebackType
from typing import Self

from moto.server import ThreadedMotoServer

__all__ = ["ObjectServer"]


class ObjectServer:
    """Serves as long as the ``with`` block lasts; any credentials will do."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._buckets = 0
        self.port = 0

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def create_bucket(self) -> str:
        """A new empty bucket; its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        return name
