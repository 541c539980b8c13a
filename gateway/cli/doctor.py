"""``gateway doctor``: whether the surroundings are fit for mail, with a remedy for everything that is not."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable

import click

from gateway.cli import CliContext, common_options
from gateway.cli.access import quiet
from gateway.cli.doctor_checks import Finding, Status
from gateway.cli.doctor_clock import ClockReading, clock_steps, clock_sync, kernel_clock_error
from gateway.cli.words import terminal, wrapped
from gateway.config.model import Settings
from gateway.config.names import parse_domain
from gateway.errors import ConfigError
from gateway.policy.bundle import Loaded

__all__ = ["bounded", "doctor"]

#: Seconds for one check; they run side by side.
_LIMIT = 15.0


@click.command()
@click.option(
    "--domain",
    default=None,
    metavar="DOMAIN",
    help="Whose mail hosts are connected to, to see whether port 25 is open; default: those of your own domains. "
    "Nothing is sent.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS",
    help="A public address that mail leaves from, where NAT hides it; may be given more than once.",
)
@common_options
def doctor(context: CliContext, domain: str | None, addresses: tuple[str, ...]) -> int:
    """Check the surroundings: DNS, network, clock, certificates, disk, store.

    Changes nothing, and takes half a minute at most. It asks the configured resolvers, and connects to hosts that the
    configuration names and to mail hosts of your own domains; nothing is sent. What is bad stops mail or puts it at
    risk, and makes the exit status 1; a warning costs something, or will; a note is worth knowing. Run it as the user
    that the gateway runs as.
    """
    quiet()
    findings = _findings(context, _domain(domain), tuple(map(_address, addresses)))
    bad = sum(finding.status is Status.BAD for finding in findings)
    if context.json:
        context.print_json({"ok": not bad, "checks": [finding.as_json() for finding in findings]})
        return 1 if bad else 0
    for finding in findings:
        _print(finding)
    click.echo(f"\n{len(findings)} checks: {_count(findings)}")
    return 1 if bad else 0


def _domain(text: str | None) -> str | None:
    try:
        return None if text is None else parse_domain(text)
    except ValueError as error:
        raise click.UsageError(f"--domain: {error}") from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise click.UsageError(f"--address: {text!r} is no IP address") from None


def _count(findings: list[Finding]) -> str:
    """How many came out how: ``0 bad, 1 warning, 2 notes, 12 ok``."""
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    warnings, notes = counts[Status.WARNING], counts[Status.NOTE]
    told = [f"{counts[Status.BAD]} bad", f"{warnings} warning{'' if warnings == 1 else 's'}"]
    return ", ".join([*told, f"{notes} note{'' if notes == 1 else 's'}", f"{counts[Status.OK]} ok"])


def _print(finding: Finding) -> None:
    colour = {Status.OK: "green", Status.NOTE: "cyan", Status.WARNING: "yellow", Status.BAD: "red"}[finding.status]
    mark = click.style(f"{finding.status:<8}", fg=colour)
    width = terminal().width
    first, *rest = wrapped(f"{finding.name}: {finding.detail}", width, indent=10).splitlines()
    click.echo(mark + first)
    for line in rest:
        click.echo(line)
    if finding.remedy:
        click.echo(wrapped(f"{'':8}-> {finding.remedy}", width, indent=11))


def _findings(context: CliContext, domain: str | None, addresses: tuple[str, ...]) -> list[Finding]:
    try:
        loaded = context.load()
    except ConfigError as error:
        remedy = "mend it; `gateway check` says when it is right"
        return [Finding("configuration", Status.BAD, str(fault), remedy) for fault in error.faults]
    return [_configuration(loaded), *asyncio.run(_look(loaded.settings, domain, addresses))]


def _configuration(loaded: Loaded) -> Finding:
    notes = len(loaded.notices)
    told = f", with {notes} notes: see `gateway check`" if notes else ""
    return Finding("configuration", Status.OK, f"{loaded.files[0]} is right{told}")


async def _look(settings: Settings, domain: str | None, addresses: tuple[str, ...]) -> list[Finding]:
    """Everything at the same time; the answers in a fixed order."""
    from gateway.cli import doctor_certificates as certificates
    from gateway.cli import doctor_checks as here
    from gateway.cli import doctor_disk as disk
    from gateway.cli import doctor_dkim as signing
    from gateway.cli import doctor_domains as published
    from gateway.cli import doctor_names as names
    from gateway.cli import doctor_network as network
    from gateway.cli import doctor_objects as stored
    from gateway.cli.doctor_portal import portal
    from gateway.cli.doctor_programs import programs
    from gateway.clock import SystemClock
    from gateway.directory import DnsResolver

    clock = SystemClock()
    bounded_dns = settings.dns.model_copy(update={"timeout": min(settings.dns.timeout, network.PATIENCE)})
    around = network.Surroundings(settings, DnsResolver(bounded_dns, clock), clock)
    before = ClockReading(time.time(), time.monotonic())
    smart_hosts = {
        **{f"return_route {c.name}": c.return_route for c in settings.connectors if c.return_route is not None},
        **{f"route {name}": route for name, route in settings.delivery.routes.items()},
    }
    outgoing = await names.find_outgoing(around, addresses)
    own_domains = published.mail_domains(settings)
    checks: dict[str, AsyncIterator[Finding]] = {
        "tls": _in_thread(lambda: here.tls_abilities(settings)),
        "certificates": _in_thread(lambda: certificates.certificates(settings, clock.time())),
        "data_dir": _in_thread(lambda: disk.data_dir(settings)),
        "store": _in_thread(lambda: _store_and_clock(settings, before)),
        "object_storage": _in_thread(lambda: stored.objects(settings)),
        "connectors": _in_thread(lambda: here.connectors(settings)),
        "resolvers": network.resolvers(around),
        "dnssec": network.dnssec(around),
        "source_addresses": names.source_addresses(around),
        "hostname": names.hostname(around, outgoing),
        "outbound": network.outbound(around, own_domains, asked=domain, ours=outgoing.addresses),
        "domains": published.domains(around, outgoing),
        "dkim": signing.dkim(around),
        **{name: network.smart_host(around, name, route) for name, route in smart_hosts.items()},
        "portal": portal(around, outgoing),
        "programs": programs(),
    }
    found = await asyncio.gather(*(bounded(name, check) for name, check in checks.items()))
    await around.resolver.close()
    return [finding for group in found for finding in group]


def _store_and_clock(settings: Settings, before: ClockReading) -> list[Finding]:
    from gateway.cli import doctor_disk, doctor_postgres

    state = doctor_disk.store(settings) if settings.store.url.is_sqlite else doctor_postgres.store(settings)
    moments = {} if state.newest is None else {"the newest message": state.newest}
    if settings.data_dir.exists():
        moments["the last change of data_dir"] = settings.data_dir.stat().st_mtime
    after = ClockReading(time.time(), time.monotonic())
    return [
        *state.findings,
        clock_steps(before, after, moments, doubted=state.doubted),
        clock_sync(kernel_clock_error()),
    ]


async def bounded(name: str, check: AsyncIterator[Finding], seconds: float = _LIMIT) -> list[Finding]:
    """What a check found in its time; what it found before it broke or hung is kept."""
    found = []
    try:
        async with asyncio.timeout(seconds):
            async for finding in check:
                found.append(finding)  # noqa: PERF401 - what came before a timeout must not be lost
    except TimeoutError:
        detail = f"not all could be told within {seconds:g} s"
        found.append(Finding(f"check {name}", Status.WARNING, detail, "look at it by hand"))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not take the others with it
        detail = f"could not tell: {type(error).__name__}: {error}"
        found.append(Finding(f"check {name}", Status.WARNING, detail, "look at it by hand, and report this"))
    return found


async def _in_thread(job: Callable[[], Iterable[Finding]]) -> AsyncIterator[Finding]:
    """``job`` on a thread that nobody waits for: a dead network disk must not keep the doctor from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Finding]] = loop.create_future()

    def settle(result: list[Finding] | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result or [])

    def work() -> None:
        result: list[Finding] | None = None
        failure: Exception | None = None
        try:
            result = list(job())
        except Exception as error:  # noqa: BLE001 - carried over to the loop
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="doctor", daemon=True).start()
    for finding in await done:
        yield finding
