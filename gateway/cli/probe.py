"""``gateway probe``: what mail to a domain would meet, by the eyes of a delivery; nothing is sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from gateway.cli import CliContext, common_options
from gateway.cli.access import quiet
from gateway.config.values import parse_duration
from gateway.mail.address import Address, AddressError
from gateway.mail.protection import Assurance, Method

if TYPE_CHECKING:
    from gateway.config.model import Settings
    from gateway.delivery.probed import DomainProbe

__all__ = ["probe"]

#: Domains in one call: each may have twenty hosts.
_MOST = 100


@click.command()
@click.argument("domains", nargs=-1, required=True, metavar="DOMAIN...")
@click.option(
    "--tls",
    "level",
    type=click.Choice(["encrypted", "verified", "authenticated"]),
    default=None,
    help="Exit with 1 where mail that needs this level would not get through.",
)
@click.option("--timeout", default="60s", show_default=True, metavar="DURATION", help="For everything together.")
@common_options
def probe(context: CliContext, domains: tuple[str, ...], level: str | None, timeout: str) -> int:
    """Look at every mail host of a domain: addresses, TLS, certificate, and the assurance that mail would get.

    DOMAIN may be an address, too; only what stands behind its @ matters. Each host's address gets one connection with
    EHLO, STARTTLS, EHLO, QUIT, opened and judged by the code that delivers. The way is that of a delivery: routes,
    pins and refused destinations of the configuration count. A probe shows how things stand now; each delivery is
    judged again by itself.

    Exits with 1 where no host of a domain can be used.
    """
    quiet()
    destinations = [_destination(text) for text in dict.fromkeys(domains)]
    if len(destinations) > _MOST:
        raise click.UsageError(f"more than {_MOST} domains")
    try:
        seconds = parse_duration(timeout)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if seconds <= 0:
        raise click.UsageError("--timeout must be longer than nothing")
    settings = context.load().settings
    found = asyncio.run(_look(settings, destinations, seconds))
    _show(context, found)
    wanted = None if level is None else Assurance.parse(level)
    return 0 if all(_is_good(each, wanted) for each in found) else 1


def _destination(text: str) -> Address:
    try:
        return Address.parse(text if "@" in text else f"postmaster@{text.removesuffix('.')}")
    except AddressError as error:
        raise click.UsageError(f"{text!r}: {error}") from None


async def _look(settings: Settings, destinations: list[Address], seconds: float) -> list[DomainProbe]:
    from gateway.clock import SystemClock
    from gateway.delivery.peer import require_peer_chain
    from gateway.delivery.probe import ProbeLimits, Prober
    from gateway.delivery.trust import Trust
    from gateway.directory import DnsResolver

    require_peer_chain()
    clock = SystemClock()
    trust = await asyncio.to_thread(Trust.load, settings.tls.trust)
    resolver = DnsResolver(settings.dns, clock)
    try:
        return await Prober.over(settings, resolver, clock, trust, ProbeLimits(seconds=seconds)).probe(destinations)
    finally:
        await resolver.close()


def _is_good(found: DomainProbe, level: Assurance | None) -> bool:
    from gateway.delivery.outlook import obstacle, worst_assurance

    if worst_assurance(found) is None:
        return False
    return level is None or obstacle(found, Method.TLS, level) is None


def _show(context: CliContext, found: list[DomainProbe]) -> None:
    from gateway.delivery.probe_report import as_json

    if context.json:
        told = [as_json(each) for each in found]
        context.print_json(told[0] if len(told) == 1 else {"domains": told})
        return
    from gateway.cli.probe_page import page

    notes = dict.fromkeys(["MTA-STS and DANE are not looked at: this version does not know them"])
    for number, each in enumerate(found, 1):
        notes |= dict.fromkeys(each.notes)
        page(each, notes if number == len(found) else ())
        if number < len(found):
            click.echo()
