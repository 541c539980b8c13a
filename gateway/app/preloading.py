"""What every process needs and something imports late: there before the fork, so that all share its pages."""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib import import_module
from typing import Final

from gateway.policy.detect import prepare

__all__ = ["preload"]

#: Imported late, by us or by libraries.
_LATE: Final = (
    "alembic.runtime.migration",
    "alembic.script",
    "dns._asyncio_backend",
    "dns.asyncresolver",
    "dns.rdtypes.ANY.CNAME",
    "dns.rdtypes.ANY.MX",
    "dns.rdtypes.ANY.SOA",
    "dns.rdtypes.IN.A",
    "dns.rdtypes.IN.AAAA",
    "encodings.idna",
    "h11",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.auto",
)
#: The same, where there is a portal.
_LATE_FOR_WEB: Final = ("babel.messages.pofile", "email.mime.text", "gateway.app.web")


def preload(*, web: bool, detectors: bool) -> None:
    """Import it. ``web``: there will be a web process; ``detectors``: policy looks at content."""
    for name in (*_LATE, *(_LATE_FOR_WEB if web else ())):
        with suppress(ImportError):
            import_module(name)
    if detectors:
        prepare()
    gc.collect()
    gc.freeze()  # what is there now lives on; a collection in a child would only copy its pages
