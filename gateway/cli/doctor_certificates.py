"""The doctor's look at certificates of our own: files, keys, names, chains and ages."""

from __future__ import annotations

import datetime as dt
import ipaddress
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.cli.doctor_checks import Finding, Status
from gateway.config.certificates import judge_pair
from gateway.config.inbound import ListenerTls
from gateway.config.model import Settings
from gateway.delivery.judge import judge
from gateway.delivery.names import alternative_names
from gateway.delivery.trust import Trust, TrustError

__all__ = ["certificates", "ends_soon", "is_loopback"]

_DAY = 86400.0
#: From here on the end of a certificate is worth a warning - or from a quarter of its life on, where that is shorter:
#: what renews itself does so with a third to go.
_SOON = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Certificate and key, and who looks at them: ``host`` is what it must name, "" for one that we show to a host."""

    name: str
    certificate: Path
    key: Path
    host: str = ""
    whom: str = "smart hosts"


def certificates(settings: Settings, now: float) -> Iterator[Finding]:
    """The listeners' and the portal's certificate, and those that we show to hosts. ``now``: epoch seconds."""
    with_tls = [listener for listener in settings.listeners if listener.tls is not ListenerTls.NONE]
    tls = settings.tls
    if tls.certificate is not None and tls.key is not None:
        yield _look(_Pair("certificate", tls.certificate, tls.key, settings.hostname), settings, now)
    elif any(not is_loopback(listener.host) for listener in settings.listeners if listener not in with_tls):
        yield Finding("certificate", Status.WARNING, "no listener offers TLS", _CLEAR)
    elif settings.listeners:
        yield Finding("certificate", Status.OK, "not needed: every listener is on loopback, in clear text")
    for pair in _other_pairs(settings):
        yield _look(pair, settings, now)


_CLEAR = (
    "get a certificate for `hostname`, name it in tls.certificate and tls.key, and set tls: required on the listener; "
    "clear text is for wires that you trust"
)


def is_loopback(host: str) -> bool:
    """Whether a listener there is seen by this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _other_pairs(settings: Settings) -> Iterator[_Pair]:
    portal = settings.portal
    if portal.tls is not None:
        host = (urlsplit(portal.url).hostname if portal.url else None) or ""
        yield _Pair("certificate portal", portal.tls.certificate, portal.tls.key, host, "browsers")
    routes = {
        **{f"return_route {c.name}": c.return_route for c in settings.connectors if c.return_route is not None},
        **{f"route {name}": route for name, route in settings.delivery.routes.items()},
    }
    for place, route in routes.items():
        if route.client_certificate is not None:
            shown = route.client_certificate
            yield _Pair(f"certificate {place}", shown.certificate, shown.key)


def ends_soon(begin: dt.datetime, end: dt.datetime, now: dt.datetime) -> bool:
    """Whether a certificate should have been renewed by now."""
    return end - now < min(_SOON, (end - begin) / 4)


def _look(pair: _Pair, settings: Settings, now: float) -> Finding:
    """Dates, key and - where others check them - name and chain of one certificate."""
    name, path = pair.name, pair.certificate
    faults = [problem.message for problem in judge_pair(path, pair.key, now) if not problem.note]
    if faults:
        return Finding(name, Status.BAD, "; ".join(faults), "put certificate and key of one pair there, in PEM form")
    chain = x509.load_pem_x509_certificates(path.read_bytes())
    leaf, moment = chain[0], dt.datetime.fromtimestamp(now, dt.UTC)
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end < moment:
        return Finding(name, Status.BAD, f"{path} expired on {end:%Y-%m-%d}", _RENEW)
    if begin > moment:
        remedy = "look at the clock, or use the certificate from then on"
        return Finding(name, Status.BAD, f"{path} is valid only from {begin:%Y-%m-%d %H:%M} UTC", remedy)
    if pair.host:
        encoded = [each.public_bytes(Encoding.DER) for each in chain]
        verdict = judge(encoded, _trust(settings), (pair.host,), now)
        if verdict.name != "ok":
            remedy = f"get a certificate that names {pair.host}: {pair.whom} that check names refuse this one"
            named = ", ".join(alternative_names(leaf)[0][:4]) or "no host"
            return Finding(name, Status.WARNING, f"{path} names {named}, not {pair.host}", remedy)
    days = (end - moment).total_seconds() / _DAY
    if ends_soon(begin, end, moment):
        return Finding(name, Status.WARNING, f"{path} ends in {days:.0f} days, on {end:%Y-%m-%d}", _RENEW)
    if pair.host and verdict.chain != "ok":
        remedy = f"{pair.whom} that check certificates refuse this one; put the intermediates behind it in the file"
        return Finding(name, Status.WARNING, f"{path}: {verdict.chain}", remedy)
    if stat.S_IMODE(pair.key.stat().st_mode) & 0o007:
        detail = f"everybody on this machine can read its key, {pair.key}"
        return Finding(name, Status.WARNING, detail, f"chmod o= {pair.key}; get a new certificate if anybody did")
    told = f"names {pair.host}, " if pair.host else ""
    return Finding(name, Status.OK, f"{told}ends in {days:.0f} days, its key fits")


_RENEW = "renew it; the gateway takes the new files over by itself, without a restart"


def _trust(settings: Settings) -> Trust:
    """The roots that others would judge by, as far as we can know: the ones that we judge by."""
    try:
        return Trust.load(settings.tls.trust)
    except TrustError:
        return Trust((), "none")
