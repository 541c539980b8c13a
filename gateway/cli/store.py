"""``gateway store``: looking after the store."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import CliContext, common_options
from gateway.cli.access import operator, quiet
from gateway.cli.words import ago, moment
from gateway.clock import SystemClock
from gateway.config.values import parse_size
from gateway.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from gateway.config.model import Settings
    from gateway.queue.restored import Back
    from gateway.store.keyring import Rotation
    from gateway.store.manifest import Manifest

__all__ = ["store"]

#: Seconds after which the last backup is no comfort any more when tables are about to change.
_RECENT = 86400.0


@click.group(name="store", no_args_is_help=False)
def store() -> None:
    """Look after the store: back it up, restore it, change its key, bring its tables to this version."""


def _acting(function: Callable[..., int]) -> Callable[..., int]:
    """``--operator``; the verb gets ``who`` acts, for the audit trail."""

    @wraps(function)
    def verb(*args: Any, given: str, **kwargs: Any) -> int:
        return function(*args, who=operator(given), **kwargs)

    option = click.option(
        "--operator", "given", default="", metavar="NAME", help="Who acts, beside the user of this system."
    )
    checked: Callable[..., int] = option(verb)
    return checked


# -- migrate ----------------------------------------------------------------------------------------------------------


@store.command()
@common_options
def migrate(context: CliContext) -> int:
    """Bring the store's tables to the version that this gateway needs. Stop the gateway and back up first.

    It is one transaction: whatever ends it in the middle leaves the tables as they were.
    """
    from gateway.store import bootstrap
    from gateway.store.database import open_engine
    from gateway.store.incarnation import is_in_use
    from gateway.store.migrate import current_version, expected_version, require_known, upgrade

    settings = context.load().settings
    bootstrap.prepare_data_dir(settings.data_dir)
    with bootstrap.store_lock(settings.data_dir):
        engine = open_engine(settings.store.database, settings.data_dir, writes=True)
        try:
            before = current_version(engine)
            after = expected_version()
            require_known(before)
            if before != after:
                if is_in_use(settings.data_dir / "run"):
                    raise StoreError("a gateway works with this store: stop it first")
                if before is not None:
                    _ask_for_backup(settings, engine)
                upgrade(engine)
        finally:
            engine.dispose()
    if context.json:
        context.print_json({"before": before, "after": after})
    elif before == after:
        click.echo(f"The store is at version {after} already.")
    else:
        click.echo(f"The store went from version {before or 'none'} to {after}.")
    return 0


def _ask_for_backup(settings: Settings, engine: Engine) -> None:
    """There is no way back but a backup: say so where none is known. A person is asked, a program is told."""
    if not settings.store.url.is_sqlite:
        return
    from gateway.store.backup import last_backup

    known = last_backup(engine)
    if known is not None and time.time() - known.made < _RECENT:
        return
    last = "none is known" if known is None else f"the last one is of {moment(known.made)} UTC"
    click.echo(
        f"gateway: the only way back is a backup, and {last}: make one with `gateway store backup DIR` "
        "(this version can do it)",
        err=True,
    )
    if sys.stdin.isatty():
        click.confirm("change the tables all the same?", abort=True, err=True)


# -- backup -----------------------------------------------------------------------------------------------------------


@store.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--with-keys", is_flag=True, help="Put the key-encryption keys in, too. Who reads it then reads the mail."
)
@click.option("--rate", default="", metavar="SIZE", help="Copy at most so much a second, such as 20MB.")
@_acting
@common_options
def backup(context: CliContext, directory: Path, with_keys: bool, rate: str, who: str) -> int:
    """Make DIR: a consistent copy of database and bodies, while the gateway runs.

    DIR appears when it is whole. The keys that open it are not in it: keep those apart.
    """
    from gateway.store.backup import Plan, make_backup

    try:
        bytes_a_second = parse_size(rate) if rate else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if bytes_a_second is not None and bytes_a_second < 1:
        raise click.UsageError("--rate must let something through")
    quiet()
    settings = context.load().settings
    plan = Plan(Path.cwd() / directory, who, with_keys, bytes_a_second)
    begun = time.monotonic()
    manifest = asyncio.run(make_backup(settings, plan, SystemClock()))
    if context.json:
        context.print_json({"directory": str(plan.directory), "manifest": manifest.as_json()})
    else:
        _tell_backup(settings, plan.directory, manifest, time.monotonic() - begun)
    for message in manifest.missing:
        click.echo(f"gateway: the body of {message} is gone from the store: `gateway trace {message}`", err=True)
    return 1 if manifest.missing else 0


def _tell_backup(settings: Settings, directory: Path, manifest: Manifest, seconds: float) -> None:
    waiting = sum(count for name, count in manifest.counts.items() if name != "messages")
    octets = manifest.database["size"] + manifest.bodies["bytes"]
    click.echo(
        f"{directory} holds the store as of {moment(manifest.made)} UTC: {manifest.counts['messages']} messages, "
        f"{waiting} recipients waiting, {manifest.bodies['count']} body files, {octets / 1e6:.1f} MB in {ago(seconds)}."
    )
    if manifest.has_keys:
        click.echo("The keys lie in it: who reads it reads the mail.")
        return
    names = ", ".join(str(source) for source in settings.store.keys)
    click.echo(
        f"It opens only with the key-encryption key {manifest.keks[0]} ({names}; data_dir is {settings.data_dir}): "
        "keep a copy of that apart from the backups."
    )


# -- restore ----------------------------------------------------------------------------------------------------------


@store.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@click.option(
    "--resume",
    is_flag=True,
    help="Do not hold what waits: for a backup that was made after the gateway had stopped for good.",
)
@_acting
@common_options
def restore(context: CliContext, directory: Path, resume: bool, who: str) -> int:
    """Restore the backup DIR into an empty data_dir. What waits is held until you release it.

    Everything that was waiting at the moment of the backup may have been delivered since: `gateway queue list
    --held-for restored` shows it, `gateway queue release --held-for restored` sends it.
    """
    from gateway.store.backup import require_embedded

    quiet()
    settings = context.load().settings
    require_embedded(settings)
    manifest, back = asyncio.run(_restore(settings, directory, who, resume=resume))
    if context.json:
        done = {"recipients": back.recipients, "held": back.held, "manifest": manifest.as_json()}
        context.print_json({"data_dir": str(settings.data_dir), **done})
        return 0
    click.echo(
        f"{settings.data_dir} holds the store as of {moment(manifest.made)} UTC: "
        f"{manifest.counts['messages']} messages, {back.recipients} recipients waiting."
    )
    if back.held:
        click.echo(
            f"{back.held} of them are held as restored, for they may have got their mail since. Look at them with\n"
            "  gateway queue list --held-for restored\n"
            "and send them, some or all, with\n"
            "  gateway queue release --held-for restored --reason ..."
        )
    elif back.recipients:
        click.echo("They go on by themselves, marked as possible duplicates.")
    return 0


async def _restore(settings: Settings, directory: Path, who: str, *, resume: bool) -> tuple[Manifest, Back]:
    from gateway.queue.restored import bring_back
    from gateway.store.restore import restoring

    with restoring(settings, directory, SystemClock()) as opened:
        return opened.manifest, await bring_back(opened, operator=who, resume=resume)


# -- rotate-key -------------------------------------------------------------------------------------------------------


@store.command(name="rotate-key")
@_acting
@common_options
def rotate_key(context: CliContext, who: str) -> int:
    """Let the first of store.keys wrap everything. The old keys stay in store.keys until this is done.

    The gateway may run; reload it first, so that it knows the new key.
    """
    from gateway.cli.access import require_store

    quiet()
    settings = context.load().settings
    require_store(settings)
    done, idle = asyncio.run(_rotate(settings, who))
    if context.json:
        found = {"to": done.to, "from": list(done.before), "ring_keys": list(done.ring_keys)}
        context.print_json({**found, "removable": idle})
        return 0
    if done.ring_keys:
        click.echo(f"{len(done.ring_keys)} ring keys are wrapped by {settings.store.keys[0]} ({done.to}) now.")
    else:
        click.echo(f"Everything is wrapped by {settings.store.keys[0]} ({done.to}) already.")
    for name in idle:
        click.echo(
            f"{name} opens nothing in the store any more: take it out of store.keys and reload. "
            "Keep it as long as there are backups from before: they open with it alone."
        )
    return 0


async def _rotate(settings: Settings, who: str) -> tuple[Rotation, list[str]]:
    """What was done, and which of the configured keys no row needs any more."""
    from gateway.store.store import Store

    opened = await asyncio.to_thread(Store.open, settings, SystemClock())
    try:
        done = await opened.rotate_key(who)
        keks = await asyncio.to_thread(opened.read_keks, settings)
    finally:
        await opened.close()
    sources = zip(settings.store.keys, keks, strict=True)
    return done, [str(source) for source, kek in sources if kek.id != done.to]
