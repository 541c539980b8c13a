"""``gateway doctor``: whether the surroundings are fit for mail, with a remedy for everything that is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import click

from gateway.cli import CliContext, common_options
from gateway.cli.access import quiet
from gateway.cli.doctor_checks import ClockReading, Finding, Status, clock_steps
from gateway.cli.words import terminal, wrapped
from gateway.config.model import Settings
from gateway.errors import ConfigError
from gateway.policy.bundle import Loaded

__all__ = ["doctor"]

#: Seconds for one check; they run side by side.
_LIMIT = 15.0


@click.command()
@click.option(
    "--domain",
    default="gmail.com",
    show_default=True,
    metavar="DOMAIN",
    help="Whose mail hosts are connected to, to see whether port 25 is open. Nothing is sent.",
)
@common_options
def doctor(context: CliContext, domain: str) -> int:
    """Check the surroundings: DNS, network, clock, certificates, disk, store.

    Changes nothing, and takes half a minute at most. What is bad stops mail or puts it at risk, and makes the exit
    status 1; a warning is worth a look. Run it as the user that the gateway runs as.
    """
    quiet()
    findings = _findings(context, domain)
    bad = sum(finding.status is Status.BAD for finding in findings)
    if context.json:
        context.print_json({"ok": not bad, "checks": [finding.as_json() for finding in findings]})
        return 1 if bad else 0
    for finding in findings:
        _print(finding)
    warnings = sum(finding.status is Status.WARNING for finding in findings)
    click.echo(f"\n{len(findings)} checks: {bad} bad, {warnings} warning{'' if warnings == 1 else 's'}")
    return 1 if bad else 0


def _print(finding: Finding) -> None:
    colour = {Status.OK: "green", Status.WARNING: "yellow", Status.BAD: "red"}[finding.status]
    mark = click.style(f"{finding.status:<8}", fg=colour)
    width = terminal().width
    first, *rest = wrapped(f"{finding.name}: {finding.detail}", width, indent=10).splitlines()
    click.echo(mark + first)
    for line in rest:
        click.echo(line)
    if finding.remedy:
        click.echo(wrapped(f"{'':8}-> {finding.remedy}", width, indent=11))


def _findings(context: CliContext, domain: str) -> list[Finding]:
    try:
        loaded = context.load()
    except ConfigError as error:
        remedy = "mend it; `gateway check` says when it is right"
        return [Finding("configuration", Status.BAD, str(fault), remedy) for fault in error.faults]
    return [_configuration(loaded), *asyncio.run(_look(loaded.settings, domain))]


def _configuration(loaded: Loaded) -> Finding:
    notes = len(loaded.notices)
    told = f", with {notes} notes: see `gateway check`" if notes else ""
    return Finding("configuration", Status.OK, f"{loaded.files[0]} is right{told}")


async def _look(settings: Settings, domain: str) -> list[Finding]:
    """Everything at the same time; the answers in a fixed order."""
    from gateway.cli import doctor_checks as here
    from gateway.cli import doctor_disk as disk
    from gateway.cli import doctor_dkim as signing
    from gateway.cli import doctor_network as network
    from gateway.cli import doctor_objects as stored
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
    checks: dict[str, Awaitable[list[Finding]]] = {
        "tls": _in_thread(lambda: list(here.tls_abilities(settings))),
        "certificate": _in_thread(lambda: list(here.certificates(settings, clock.time()))),
        "data_dir": _in_thread(lambda: list(disk.data_dir(settings))),
        "store": _in_thread(lambda: _store_and_clock(settings, before)),
        "object_storage": _in_thread(lambda: list(stored.objects(settings))),
        "connectors": _in_thread(lambda: list(here.connectors(settings))),
        "resolvers": _all(network.resolvers(around)),
        "dnssec": _all(network.dnssec(around)),
        "hostname": _all(network.hostname(around)),
        "outbound": _all(network.outbound(around, domain)),
        "dkim": _all(signing.dkim(around)),
        **{name: _all(network.smart_host(around, name, route)) for name, route in smart_hosts.items()},
        "programs": _in_thread(lambda: list(here.programs(settings))),
    }
    found = await asyncio.gather(*(_bounded(name, check) for name, check in checks.items()))
    await around.resolver.close()
    return [finding for group in found for finding in group]


def _store_and_clock(settings: Settings, before: ClockReading) -> list[Finding]:
    from gateway.cli import doctor_disk, doctor_postgres

    state = doctor_disk.store(settings) if settings.store.url.is_sqlite else doctor_postgres.store(settings)
    moments = {} if state.newest is None else {"the newest message": state.newest}
    if settings.data_dir.exists():
        moments["the last change of data_dir"] = settings.data_dir.stat().st_mtime
    after = ClockReading(time.time(), time.monotonic())
    return [*state.findings, clock_steps(before, after, moments)]


async def _all(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]


async def _bounded(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await asyncio.wait_for(check, _LIMIT)
    except TimeoutError:
        return [Finding(name, Status.WARNING, f"could not tell within {_LIMIT:g} s", "look at it by hand")]
    except Exception as error:  # noqa: BLE001 - one check that breaks must not take the others with it
        detail = f"could not tell: {type(error).__name__}: {error}"
        return [Finding(name, Status.WARNING, detail, "look at it by hand, and report this")]


async def _in_thread(job: Callable[[], Iterable[Finding]]) -> list[Finding]:
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
    return await done
