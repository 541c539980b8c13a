"""``gateway networks``: the addresses of the clouds, as shipped and as refreshed from their SPF records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click
from dns.rdtypes.ANY.TXT import TXT

from gateway.cli import CliContext, common_options
from gateway.clock import SystemClock
from gateway.config.model import CLOUD_NETWORKS, Dns
from gateway.directory.resolver import DnsError, DnsResolver
from gateway.ingress.networks import NetworkList, NetworksError, load_networks, refreshed, save
from gateway.ingress.seams import LookupFailed
from gateway.ingress.spf import spf_networks

__all__ = ["networks"]


@click.group(name="networks", no_args_is_help=False)
def networks() -> None:
    """Show or refresh the shipped lists of cloud networks."""


@networks.command(name="list")
@common_options
def show(context: CliContext) -> int:
    """Show the lists in use, and where each comes from."""
    found, faults = load_networks(context.load().settings.data_dir)
    for fault in faults:
        click.echo(f"gateway: {fault}", err=True)
    if context.json:
        context.print_json({"networks": [_as_json(each) for each in found.lists.values()], "faults": list(faults)})
    else:
        for each in found.lists.values():
            click.echo(f"{each.name}: {len(each.networks)} networks, {each.source}")
            for network in each.networks:
                click.echo(f"  {network}")
            for network in each.forwarding:
                click.echo(f"  {network} (only with foreign_from: forward)")
    return 1 if faults else 0


@networks.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(CLOUD_NETWORKS)))
@common_options
def refresh(context: CliContext, names: tuple[str, ...]) -> int:
    """Ask DNS for the lists, all or those NAMED, and keep them in the data directory.

    A list that shrinks to nothing or grows tenfold is not taken. The daemon uses new lists after a reload (SIGHUP).
    """
    settings = context.load().settings
    found, _ = load_networks(settings.data_dir)
    wanted = [found.lists[name] for name in sorted(names or CLOUD_NETWORKS)]
    results = asyncio.run(_refresh_all(settings.dns, settings.data_dir, wanted))
    if context.json:
        context.print_json({"networks": results})
    for result in results:
        if result["error"]:
            click.echo(f"gateway: {result['error']}", err=True)
        elif not context.json:
            click.echo(f"{result['name']}: {result['after']} networks (was {result['before']})")
            for change in (*_listed("+", result["added"]), *_listed("-", result["removed"])):
                click.echo(change)
    return 1 if any(result["error"] for result in results) else 0


async def _refresh_all(dns: Dns, data_dir: Path, wanted: Sequence[NetworkList]) -> list[dict[str, object]]:
    resolver = DnsResolver(dns, SystemClock())

    async def lookup(name: str) -> Sequence[bytes]:
        try:
            answer = await resolver.query(name, "TXT")
        except DnsError as error:
            raise LookupFailed(str(error)) from error
        return [b"".join(record.strings) for record in answer.records if isinstance(record, TXT)]

    try:
        results = []
        for old in wanted:
            try:
                fresh = refreshed(old, await spf_networks(old.records, lookup))
                save(data_dir, fresh)
            except NetworksError as error:
                results.append(_result(old, old, str(error)))
            else:
                results.append(_result(old, fresh))
        return results
    finally:
        await resolver.close()


def _result(old: NetworkList, fresh: NetworkList, error: str = "") -> dict[str, object]:
    before, after = set(map(str, old.networks)), set(map(str, fresh.networks))
    return {
        "name": old.name,
        "before": len(before),
        "after": len(after),
        "added": sorted(after - before),
        "removed": sorted(before - after),
        "error": error,
    }


def _listed(sign: str, values: object) -> list[str]:
    return [f"  {sign} {value}" for value in values] if isinstance(values, list) else []


def _as_json(each: NetworkList) -> dict[str, object]:
    return {
        "name": each.name,
        "source": each.source,
        "records": list(each.records),
        "networks": [str(network) for network in each.networks],
        "forwarding": [str(network) for network in each.forwarding],
    }
