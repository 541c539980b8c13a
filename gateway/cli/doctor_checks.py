"""What ``gateway doctor`` finds, and the checks that need neither disk nor network.

A check gives one :class:`Finding` for each thing that it looked at. It never changes anything.
"""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.config.certificates import judge_pair
from gateway.config.inbound import ListenerTls, Stage
from gateway.config.model import Settings
from gateway.delivery.judge import judge
from gateway.delivery.names import alternative_names
from gateway.delivery.peer import PeerChainUnavailable, require_peer_chain
from gateway.delivery.trust import Trust, TrustError

__all__ = ["Finding", "Status", "certificates", "clock_steps", "connectors", "programs", "tls_abilities"]

_DAY = 86400.0
#: Days before its end from which a certificate is worth a warning.
_SOON = 30
#: Wall clock and monotonic clock may drift apart by this many seconds while the doctor works.
_DRIFT = 1.0
#: A wall clock before this moment (2025-01-01) was never set.
_LONG_AGO = 1735689600.0


class Status(StrEnum):
    """How a finding came out. ``bad`` alone makes the exit status 1."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``remedy``: what to do about it, "" where there is nothing to do."""

    name: str
    status: Status
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """``{"name", "status", "detail", "remedy"}``."""
        return {"name": self.name, "status": str(self.status), "detail": self.detail, "remedy": self.remedy}


# -- what this Python and this system can do --------------------------------------------------------------------------


def tls_abilities(settings: Settings) -> Iterator[Finding]:
    """Whether peers' certificates can be seen, and judged."""
    try:
        require_peer_chain()
    except PeerChainUnavailable as error:
        yield Finding("peer_chain", Status.BAD, str(error), "run the gateway with CPython 3.11 or newer")
    else:
        yield Finding("peer_chain", Status.OK, "this Python gives out the certificates that a peer sent")
    try:
        trust = Trust.load(settings.tls.trust)
    except TrustError as error:
        yield Finding("trust_roots", Status.BAD, str(error), "set tls.trust to `system` or to a PEM file with roots")
        return
    if len(trust):
        yield Finding("trust_roots", Status.OK, f"{len(trust)} roots ({trust.source})")
    else:
        remedy = "install the system's roots (package ca-certificates), or name a PEM file in tls.trust"
        yield Finding("trust_roots", Status.BAD, "there are no trusted roots: nothing can be `verified`", remedy)


def programs(_settings: Settings) -> Iterator[Finding]:
    """Other programs that the gateway uses."""
    found = shutil.which("gpg")
    detail = f"{found}" if found else "not installed; nothing in this version needs it"
    yield Finding("gpg", Status.OK, detail)


# -- the clock --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Wall and monotonic clock, read at the same moment; seconds."""

    wall: float
    monotonic: float


def clock_steps(before: ClockReading, after: ClockReading, newest: dict[str, float]) -> Finding:
    """Whether the wall clock is plausible.

    ``newest``: moments that must have passed, by what they are the moment of (epoch seconds).
    """
    remedy = "let chrony or systemd-timesyncd set the clock; retries, certificates and signatures depend on it"
    if after.wall < _LONG_AGO:
        return Finding("clock", Status.BAD, "the clock was never set", remedy)
    step = (after.wall - before.wall) - (after.monotonic - before.monotonic)
    if abs(step) > _DRIFT:
        return Finding("clock", Status.WARNING, f"the clock was set by {step:+.1f} s just now", remedy)
    ahead = {what: moment - after.wall for what, moment in newest.items() if moment - after.wall > _DRIFT}
    if ahead:
        what, seconds = max(ahead.items(), key=lambda item: item[1])
        return Finding("clock", Status.BAD, f"{what} lies {seconds:.0f} s in the future: the clock went back", remedy)
    return Finding("clock", Status.OK, "goes forward, and nothing in data_dir comes from the future")


# -- certificates of our own ------------------------------------------------------------------------------------------


def certificates(settings: Settings, now: float) -> Iterator[Finding]:
    """The listeners' certificate, and those that we show to smart hosts. ``now`` in seconds since the epoch."""
    with_tls = [listener for listener in settings.listeners if listener.tls is not ListenerTls.NONE]
    tls = settings.tls
    if tls.certificate is not None and tls.key is not None:
        yield _certificate("certificate", tls.certificate, tls.key, now, settings)
    elif any(not _is_loopback(listener.host) for listener in settings.listeners if listener not in with_tls):
        yield Finding("certificate", Status.WARNING, "no listener offers TLS", _CLEAR)
    elif settings.listeners:
        yield Finding("certificate", Status.OK, "not needed: every listener is on loopback, in clear text")
    for place, shown in _shown_certificates(settings):
        yield _certificate(f"certificate {place}", shown[0], shown[1], now, None)


_CLEAR = (
    "get a certificate for `hostname`, name it in tls.certificate and tls.key, and set tls: required on the listener; "
    "clear text is for wires that you trust"
)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown_certificates(settings: Settings) -> Iterator[tuple[str, tuple[Path, Path]]]:
    for connector in settings.connectors:
        route = connector.return_route
        if route is not None and route.client_certificate is not None:
            shown = route.client_certificate
            yield f"return_route {connector.name}", (shown.certificate, shown.key)
    for domain, route in settings.delivery.routes.items():
        if route.client_certificate is not None:
            yield f"route {domain}", (route.client_certificate.certificate, route.client_certificate.key)


def _certificate(name: str, path: Path, key: Path, now: float, listener: Settings | None) -> Finding:
    """Dates, key and - for a listener - name and chain of one certificate."""
    faults = [problem.message for problem in judge_pair(path, key, now) if not problem.note]
    if faults:
        return Finding(name, Status.BAD, "; ".join(faults), "put certificate and key of one pair there, in PEM form")
    chain = x509.load_pem_x509_certificates(path.read_bytes())
    leaf = chain[0]
    end = leaf.not_valid_after_utc
    days = (end.timestamp() - now) / _DAY
    if days < 0:
        return Finding(name, Status.BAD, f"{path} expired on {end:%Y-%m-%d}", _RENEW)
    if leaf.not_valid_before_utc.timestamp() > now:
        begin = leaf.not_valid_before_utc
        remedy = "look at the clock, or use the certificate from then on"
        return Finding(name, Status.BAD, f"{path} is valid only from {begin:%Y-%m-%d %H:%M} UTC", remedy)
    encoded = [each.public_bytes(Encoding.DER) for each in chain]
    verdict = judge(encoded, _trust(listener), () if listener is None else (listener.hostname,), now)
    if listener is not None and verdict.name != "ok":
        remedy = f"get a certificate that names {listener.hostname}: smart hosts that check names refuse this one"
        named = ", ".join(alternative_names(leaf)[0][:4]) or "no host"
        return Finding(name, Status.WARNING, f"{path} names {named}, not {listener.hostname}", remedy)
    if days < _SOON:
        return Finding(name, Status.WARNING, f"{path} ends in {days:.0f} days, on {end:%Y-%m-%d}", _RENEW)
    if listener is not None and verdict.chain != "ok":
        remedy = "smart hosts that check certificates refuse this one; put the intermediates behind it in the file"
        return Finding(name, Status.WARNING, f"{path}: {verdict.chain}", remedy)
    told = f"names {listener.hostname}, " if listener is not None else ""
    return Finding(name, Status.OK, f"{told}ends in {days:.0f} days, its key fits")


_RENEW = "renew it; the gateway takes the new files over by itself, without a restart"


def _trust(settings: Settings | None) -> Trust:
    """The roots that a peer of ours would judge by, as far as we can know: the ones that we judge by."""
    if settings is None:
        return Trust((), "none")
    try:
        return Trust.load(settings.tls.trust)
    except TrustError:
        return Trust((), "none")


# -- connectors -------------------------------------------------------------------------------------------------------


def connectors(settings: Settings) -> Iterator[Finding]:
    """Who may hand us mail: stages, lock factors, ways back."""
    if not settings.listeners:
        yield Finding("listeners", Status.WARNING, "there are none: no mail comes in", "add one under `listeners`")
    if not settings.connectors:
        remedy = "add one under `connectors` for the system that hands us its mail"
        yield Finding("connectors", Status.WARNING, "there are none: every client is refused", remedy)
    for connector in settings.connectors:
        name = f"connector {connector.name}"
        factors = ", ".join(sorted(connector.lock_factors))
        if connector.is_cloud and not connector.lock_factors:
            # The configuration does not load with such a connector; this says so if that ever changes.
            remedy = "add one of tenant, header, dkim, client_certificate"
            yield Finding(name, Status.BAD, "every tenant of that cloud could relay through it", remedy)
        elif connector.stage is Stage.OBSERVE:
            remedy = "look at `would_refuse` in the trace for some days, then set stage: soft"
            yield Finding(name, Status.WARNING, "stage observe: its mail leaves without protection", remedy)
        elif connector.stage is Stage.SOFT:
            remedy = "set stage: enforce once no alarm `soft_refusal` came for some days"
            yield Finding(name, Status.WARNING, "stage soft: what does not fit is refused for now (451)", remedy)
        else:
            yield Finding(name, Status.OK, f"in force; {f'locked by {factors}' if factors else 'by network alone'}")
        if connector.return_route is None:
            remedy = "set return_route where these senders are not reached by the MX of their domain"
            yield Finding(f"return_route {connector.name}", Status.WARNING, "none: bounces go by MX", remedy)
