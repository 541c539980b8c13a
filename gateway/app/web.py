"""The web process: the faces that the settings ask for, on the sockets that the supervisor has bound.

1. the store, opened as any process that writes opens it; its clockwork: heartbeat, trust in the clock, free space
2. :func:`faces` puts the faces together; a reload makes them anew, and open connections meet them at their next request
3. a certificate of our own is looked at every second, and taken over when its files change
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.types import ASGIApp

from gateway import __version__
from gateway.app.channel import Channel
from gateway.app.gateway import refuse_unchangeable
from gateway.app.observer import Observer
from gateway.app.seat import Seat
from gateway.app.worker import Once, Sockets, Worker
from gateway.clock import Clock, SteadyClock, SystemClock
from gateway.config.model import Settings
from gateway.config.networks import Network
from gateway.errors import GatewayError, StoreAway, StoreError
from gateway.ingress.certificates import ServerCertificate
from gateway.observe.metrics import Metrics
from gateway.policy.bundle import Loaded
from gateway.portal.mailbox import Mailbox
from gateway.portal.observer import PortalObserver
from gateway.portal.pages import portal_face
from gateway.queue.timekeeping import Timekeeper
from gateway.store.keyring import Kek
from gateway.store.store import Store
from gateway.web import Face, PublicUrl, WebServer, app_of

__all__ = ["Site", "WebRooms", "faces", "run_web"]

_log = structlog.get_logger()

#: Seconds between two looks at certificate, clock and space.
_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Site:
    """What faces are made of. ``settings`` gives those of now: a reload replaces them."""

    settings: Callable[[], Settings]
    store: Store
    clock: Clock
    timekeeper: Timekeeper
    observer: PortalObserver


def faces(site: Site) -> Sequence[Face]:
    """The faces of these settings: here each new one is put together. The first is the portal's."""
    portal = site.settings().portal
    mailbox = Mailbox(site.store, site.settings, site.clock, site.observer)
    key = form_key(site.store.loop_secret, "portal")
    return [portal_face(mailbox, PublicUrl(portal.origin), key, portal.trusted_proxies)]


def form_key(secret: bytes, face: str) -> bytes:
    """The key of a face's form tokens, derived from the secret that the store keeps."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"web-forms:" + face.encode()).derive(secret)


def run_web(seat: Seat, channel: Channel, loaded: Loaded, config: Path, listening: socket.socket) -> int:
    """Be the web process until told to end; the exit status."""
    rooms = WebRooms(config, Once(loaded), listening, raised=lambda kind: channel.send({"alarm": kind}))
    return uvloop.run(Worker("web", seat, channel, rooms).run())


@dataclass(frozen=True, slots=True)
class Prepared:
    """A new configuration with all that could go wrong behind it."""

    loaded: Loaded
    certificate: ServerCertificate | None
    app: ASGIApp
    keks: Sequence[Kek] | None = None  #: where the configuration names others than before

    @property
    def digest(self) -> str:
        """Of the files that it was made from."""
        return self.loaded.digest

    @property
    def https(self) -> bool:
        """Whether browsers come by https."""
        return self.loaded.settings.portal.origin.startswith("https:")


@dataclass(slots=True)
class WebRooms:
    """See the module; what ``Worker`` runs. ``raised`` hears of what needs a person, by its kind of alarm."""

    config: Path
    load: Callable[[Path], Loaded]
    listening: socket.socket
    raised: Callable[[str], object]
    clock: Clock = field(default_factory=SystemClock)
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    _current: Prepared = field(init=False)
    _store: Store = field(init=False)
    _timekeeper: Timekeeper = field(init=False)
    _server: WebServer = field(init=False)
    _clockwork: asyncio.Task[None] | None = None
    _certificate_problem: str = ""
    _started: bool = False

    async def start(self) -> None:
        """Bring everything up. Raises :class:`GatewayError`; then nothing runs."""
        self.clock = SteadyClock(self.clock)
        loaded = self.load(self.config)
        certificate = await asyncio.to_thread(_certificate_of, loaded.settings)
        self._store = await asyncio.to_thread(Store.open, loaded.settings, self.clock, on_commit=self.metrics.committed)
        try:
            self._timekeeper = Timekeeper(self._store, self.clock)
            await self._timekeeper.step()
            self._current = Prepared(loaded, certificate, self._app(loaded))
            self._server = WebServer(
                self._current.app,
                tls=self._tls,
                trusted=self._trusted,
                https=self._current.https,
            )
            await self._server.start([self.listening])
        except BaseException:
            await self._store.close()
            raise
        self._clockwork = asyncio.create_task(self._run_clockwork(), name="web-clockwork")
        self._started = True

    async def stop(self) -> None:
        """No new connections; what is under way is finished; then the store closes."""
        self._started = False
        await self._server.stop()
        if self._clockwork is not None:
            self._clockwork.cancel()
            with suppress(asyncio.CancelledError):
                await self._clockwork
        await self._store.close()

    # -- what the process asks ----------------------------------------------------------------------------------------

    async def problems(self) -> list[str]:
        """Why pages cannot be served as they should; they do not keep mail away."""
        if not self._started:
            return ["not started, or stopping"]
        try:
            await self._store.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
        except StoreError as error:
            return [str(error)]
        return [failed] if (failed := self.store_failed) else []

    def warnings(self) -> list[str]:
        """What needs a person though pages are served."""
        return [f"portal.tls: {self._certificate_problem}"] if self._certificate_problem else []

    @property
    def store_failed(self) -> str:
        """Why the store takes nothing more; "" while it works."""
        return self._store.writer.failed if self._started else ""

    def fail_store(self, reason: str) -> None:
        """Take nothing more: another process met what makes the store of all of us doubtful."""
        self._store.writer.fail(reason)

    def alarm(self, kind: str) -> None:
        """Workers raise alarms: web is not asked to."""
        _log.error("alarm_unheard", alarm=kind)

    async def prepare(self) -> Prepared:
        """Read everything again and do all that can fail; nothing changes. Raises ``GatewayError``, ``OSError``."""
        loaded = await asyncio.to_thread(self.load, self.config)
        refuse_unchangeable(self._current.loaded.settings, loaded.settings)
        certificate = await asyncio.to_thread(_certificate_of, loaded.settings)
        keks = await asyncio.to_thread(self._store.other_keks, self._current.loaded.settings, loaded.settings)
        return Prepared(loaded, certificate, self._app(loaded), keks)

    async def adopt(self, prepared: Prepared, _sockets: Sockets | None = None) -> None:
        """Work by this from the next request on."""
        self._current = prepared
        self._store.use_keks(prepared.keks)
        self._server.replace(prepared.app, https=prepared.https)
        self._store.space.floor = prepared.loaded.settings.limits.free_space
        self._certificate_problem = ""

    # -- inside -------------------------------------------------------------------------------------------------------

    def _app(self, loaded: Loaded) -> ASGIApp:
        """The portal. What it asks of the settings while it serves is of the configuration that it was made from."""
        site = Site(lambda: loaded.settings, self._store, self.clock, self._timekeeper, Observer(self.metrics))
        try:
            (portal,) = faces(site)
            return app_of(portal, self.metrics)
        except ValueError as error:
            raise GatewayError(f"a face is not sound: {error}") from error

    def _tls(self) -> ssl.SSLContext | None:
        certificate = self._current.certificate
        return None if certificate is None else certificate.contexts.ignoring

    def _trusted(self) -> Sequence[Network]:
        return self._current.loaded.settings.portal.trusted_proxies

    async def _run_clockwork(self) -> None:
        while True:
            for step in (self._timekeeper.step, self._look_at_space, self._beat, self._look_at_certificate):
                try:
                    await step()
                except StoreAway as error:
                    _log.warning("store_away", step=step.__name__, error=str(error))
                    break  # the others would say the same
                except StoreError as error:
                    _log.error("maintenance_failed", step=step.__name__, error=str(error))
                except Exception:  # noqa: BLE001  a fault of our own must not stop the clockwork
                    _log.exception("maintenance_failed", step=step.__name__)
            await asyncio.sleep(_LOOK)

    async def _look_at_space(self) -> None:
        await asyncio.to_thread(self._store.space.look)

    async def _beat(self) -> None:
        """So that others know that we live; the ring keys are renewed by workers."""
        incarnation = self._store.incarnation
        before = self.clock.monotonic()
        if incarnation.is_beat_due(before):
            await self._store.write(lambda transaction: incarnation.beat(transaction.connection, transaction.now))
            incarnation.heartbeat_at = before

    async def _look_at_certificate(self) -> None:
        certificate = self._current.certificate
        if certificate is None:
            return
        found = certificate.reload_if_changed()
        if found is not None:
            self._certificate_problem = found.error
            if found.error:
                _log.error("certificate_unusable", use="portal", error=found.error)
                self.raised("certificate")
            else:
                _log.info("certificate_reloaded", use="portal", expires=certificate.not_after)
        self.metrics.certificate_expiry.labels("portal").set(certificate.not_after)


def _certificate_of(settings: Settings) -> ServerCertificate | None:
    tls = settings.portal.tls
    return None if tls is None else ServerCertificate(tls.certificate, tls.key)
