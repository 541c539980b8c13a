"""The doctor's look at the portal as a reader meets it: its name, its address, its certificate."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from gateway.cli.doctor_certificates import ends_soon, is_loopback
from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_names import Outgoing
from gateway.cli.doctor_network import ANYWHERE, PATIENCE, Surroundings
from gateway.directory import DnsError, find_addresses
from gateway.directory.destinations import DestinationGuard

__all__ = ["address_finding", "portal"]

_HTTPS = 443


async def portal(around: Surroundings, outgoing: Outgoing) -> AsyncIterator[Finding]:
    """Nothing where no ``portal.url`` is set."""
    settings = around.settings.portal
    if settings.url is None:
        return
    parts = urlsplit(settings.url)
    host, port = parts.hostname, parts.port or _HTTPS
    if parts.scheme != "https" or not host:
        # The configuration takes this for loopback hosts alone: a try on one's own machine.
        detail = f"{settings.url} is no https address: readers on this machine alone"
        yield Finding("portal url", Status.NOTE, detail, "set portal.url to https://NAME for readers elsewhere")
        return
    if settings.tls is None and not is_loopback(settings.listen.host) and not settings.trusted_proxies:
        detail = f"listens on {settings.listen} in clear text, for anybody"
        remedy = "set portal.tls, or listen on loopback behind a proxy with TLS, or name that proxy in trusted_proxies"
        yield Finding("portal listen", Status.WARNING, detail, remedy)
    try:
        found = await find_addresses(around.resolver, host, ANYWHERE)
    except DnsError as error:
        yield Finding("portal address", Status.WARNING, f"could not tell: {error.reason}", "mend DNS first")
        return
    if not found.addresses:
        remedy = f"publish A (and AAAA) for {host}, or correct portal.url"
        yield Finding("portal address", Status.BAD, f"{host} has no address: links in notices lead nowhere", remedy)
        return
    yield address_finding(host, found.addresses, outgoing)
    yield await _session(around, host, port, found.addresses[0])


def address_finding(host: str, addresses: tuple[str, ...], outgoing: Outgoing) -> Finding:
    """Whether readers outside reach the portal, and whether it stands where mail leaves from."""
    told = f"{host} is {', '.join(addresses)}"
    if all(DestinationGuard().refusal(address) for address in addresses):
        remedy = f"publish an address of {host} that readers outside can reach"
        return Finding("portal address", Status.WARNING, f"{told}: nobody outside reaches that", remedy)
    if outgoing.addresses and not set(addresses) & set(outgoing.addresses):
        detail = f"{told}, not an address that mail leaves from"
        remedy = "right where a proxy or a load balancer stands in front; else correct the record"
        return Finding("portal address", Status.NOTE, detail, remedy)
    return Finding("portal address", Status.OK, told)


async def _session(around: Surroundings, host: str, port: int, address: str) -> Finding:
    """A TLS handshake, as a browser would make one; nothing is asked for."""
    trust = around.settings.tls.trust
    where = f"{host}:{port} [{address}]"
    writer: asyncio.StreamWriter | None = None
    try:
        context = ssl.create_default_context(cafile=None if trust == "system" else str(trust))
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
        certificate = writer.get_extra_info("peercert")
    except ssl.SSLCertVerificationError as error:
        remedy = f"give it a certificate of a public CA for {host}, with its intermediates"
        return Finding("portal tls", Status.BAD, f"{where}: {error.verify_message}: browsers warn readers off", remedy)
    except ssl.SSLError as error:
        detail = f"{where} does not speak TLS that we take: {error.reason or error}"
        return Finding("portal tls", Status.BAD, detail, "look at the proxy in front, or set portal.tls")
    except (TimeoutError, OSError) as error:
        why = f"no answer within {PATIENCE:g} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
        remedy = "start the gateway, or look at proxy and firewall; from inside a NAT it may look worse than it is"
        return Finding("portal tls", Status.WARNING, f"{where}: {why}", remedy)
    finally:
        if writer is not None:
            writer.transport.abort()  # to part politely could take as long again
    begin, end = (dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[key]), dt.UTC) for key in _DATES)
    now = dt.datetime.fromtimestamp(around.clock.time(), dt.UTC)
    if ends_soon(begin, end, now):
        detail = f"{where}: its certificate ends on {end:%Y-%m-%d}"
        return Finding("portal tls", Status.WARNING, detail, "renew it, and see why it does not renew itself")
    return Finding("portal tls", Status.OK, f"{where} answers with a good certificate, until {end:%Y-%m-%d}")


_DATES = ("notBefore", "notAfter")
