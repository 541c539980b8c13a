"""``gateway queue``: what waits, and what an operator can do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gateway.cli import CliContext, common_options
from gateway.cli.access import open_queue, operator, read_store
from gateway.cli.words import ago, ahead
from gateway.config.values import parse_duration
from gateway.errors import QueueError
from gateway.queue import operate
from gateway.queue.queue import Queue
from gateway.queue.states import State
from gateway.queue.views import Filter, list_recipients, parse_id, recipient_id, select_recipients

__all__ = ["queue"]

_PAGE = 500
Verb = Callable[[Queue, str, int], Awaitable[State]]


@click.group(name="queue")
def queue() -> None:
    """Look at waiting mail, and act on it.

    IDs are message ids, or one recipient's as `queue list` shows them (MESSAGE.N).
    """


def _filters(function: Callable[..., int]) -> Callable[..., int]:
    """Options that say which recipients; the verb gets them as one checked :class:`Filter` named ``wanted``."""

    @wraps(function)
    def verb(
        *args: Any, ids: tuple[str, ...], to: str, domain: str, sender: str, states: tuple[str, ...], **kwargs: Any
    ) -> int:
        try:
            for text in ids:
                parse_id(text)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        wanted = Filter(ids, frozenset(State(state) for state in states), to, sender, domain)
        return function(*args, wanted=wanted, **kwargs)

    found: Any = verb
    for option in (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        click.option("--to", default="", metavar="ADDRESS", help="Only this recipient."),
        click.option("--domain", default="", metavar="DOMAIN", help="Only recipients at this domain."),
        click.option("--from", "sender", default="", metavar="ADDRESS", help="Only mail of this envelope sender."),
        click.option(
            "--state", "states", multiple=True, type=click.Choice([str(s) for s in State]), help="Only this state."
        ),
    ):
        found = option(found)
    checked: Callable[..., int] = found
    return checked


def _yes(function: Callable[..., int]) -> Callable[..., int]:
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)


def _all_rows(context: CliContext, wanted: Filter) -> list[Any]:
    """Every row that fits, page by page, so that no read transaction lasts."""
    rows: list[Any] = []
    after = ("", 0)
    while True:
        page = read_store(context, partial(select_recipients, wanted=wanted, after=after, limit=_PAGE))
        rows += page
        if len(page) < _PAGE:
            return rows
        after = (page[-1].message, page[-1].n)


@queue.command(name="list")
@_filters
@common_options
def list_(context: CliContext, wanted: Filter) -> int:
    """What waits, oldest first; with filters also what has ended."""
    rows = _all_rows(context, wanted)
    entries = list_recipients(rows)
    if context.json:
        context.print_json({"recipients": entries})
        return 0
    if not entries:
        click.echo("Nothing waits.")
        return 0
    now = time.time()
    table = Table(box=None, header_style="bold")
    for name in ("id", "recipient", "state", "age", "tries", "next", "last error"):
        table.add_column(name, overflow="fold", justify="right" if name in ("age", "tries", "next") else "left")
    for entry in entries:
        reason = f"held: {entry['hold_reason']}" if entry["hold_reason"] else entry["last_error"] or ""
        table.add_row(
            entry["id"],
            entry["recipient"],
            entry["state"],
            ago(now - entry["received"]),
            str(entry["attempts"]),
            ahead(entry["next_attempt"], now),
            reason,
        )
    Console(highlight=False).print(table)
    return 0


@queue.command()
@click.argument("message_id", metavar="ID")
@common_options
def show(context: CliContext, message_id: str) -> int:
    """Everything about one message: the same as `gateway trace ID`."""
    from gateway.cli.trace import show_trace

    return show_trace(context, [message_id.partition(".")[0]])


def _bulk(context: CliContext, wanted: Filter, verb: str, *, yes: bool, act: Verb) -> int:
    """Do ``act`` to every recipient that fits; says how many first, and asks."""
    if wanted.empty:
        raise click.UsageError("say which: IDs, --to, --domain, --from or --state")
    rows = _all_rows(context, wanted)
    if not rows:
        click.echo("gateway: no such recipient", err=True)
        return 1
    if len(rows) > 1 and not yes:
        click.confirm(f"{verb} {len(rows)} recipients?", abort=True)

    async def work() -> list[dict[str, Any]]:
        done = []
        async with open_queue(context) as opened:
            for row in rows:
                entry: dict[str, Any] = {"id": recipient_id(row.message, row.n), "recipient": row.address}
                try:
                    entry["state"] = str(await act(opened, row.message, row.n))
                except QueueError as error:
                    entry["error"] = str(error)
                done.append(entry)
        return done

    done = asyncio.run(work())
    failed = [entry for entry in done if "error" in entry]
    if context.json:
        context.print_json({"recipients": done})
    else:
        for entry in failed:
            click.echo(f"gateway: {entry['id']}: {entry['error']}", err=True)
        click.echo(f"{verb}: {len(done) - len(failed)} of {len(done)} recipients")
    return 1 if failed else 0


@queue.command()
@_filters
@_yes
@common_options
def retry(context: CliContext, wanted: Filter, yes: bool) -> int:
    """Try waiting mail now."""
    who = operator()
    return _bulk(
        context,
        wanted,
        "retry",
        yes=yes,
        act=lambda opened, message, n: operate.retry(opened, message, n, operator=who),
    )


@queue.command()
@_filters
@click.option("--reason", required=True, help="Why; goes into the trace.")
@click.option("--expires", default="", metavar="DURATION", help="Bounce it after this time, such as 24h.")
@_yes
@common_options
def hold(
    context: CliContext,
    wanted: Filter,
    reason: str,
    expires: str,
    yes: bool,
) -> int:
    """Keep waiting mail until it is released."""
    try:
        seconds = parse_duration(expires) if expires else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    who = operator()
    return _bulk(
        context,
        wanted,
        "hold",
        yes=yes,
        act=lambda opened, message, n: operate.hold(opened, message, n, operator=who, reason=reason, seconds=seconds),
    )


@queue.command()
@_filters
@click.option("--reason", default="", help="Why; goes into the trace.")
@_yes
@common_options
def release(
    context: CliContext,
    wanted: Filter,
    reason: str,
    yes: bool,
) -> int:
    """Approve held mail: the rules that hold it do not hold it again. Protection stays as required."""
    who = operator()
    return _bulk(
        context,
        wanted,
        "release",
        yes=yes,
        act=lambda opened, message, n: operate.release(opened, message, n, operator=who, reason=reason),
    )


@queue.command()
@_filters
@click.option("--reason", default="", help="Why; the sender is told, and it goes into the trace.")
@_yes
@common_options
def cancel(
    context: CliContext,
    wanted: Filter,
    reason: str,
    yes: bool,
) -> int:
    """Take waiting mail out for good; its sender is told."""
    who = operator()
    return _bulk(
        context,
        wanted,
        "cancel",
        yes=yes,
        act=lambda opened, message, n: operate.cancel(opened, message, n, operator=who, reason=reason),
    )
