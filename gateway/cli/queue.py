"""``gateway queue``: what waits, and what an operator can do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from gateway.cli import CliContext, common_options
from gateway.cli.access import open_queue, operator, pages, reading
from gateway.cli.words import ago, ahead, printable, terminal
from gateway.config.values import parse_duration
from gateway.errors import QueueError
from gateway.queue import operate
from gateway.queue.queue import Queue
from gateway.queue.states import State
from gateway.queue.views import Filter, list_recipients, parse_id, recipient_id
from gateway.store import timekeeping
from gateway.store.incarnation import boot_id

__all__ = ["queue"]

#: The kinds of doubt (``gateway.store.timekeeping``), for people.
_DOUBTS = {
    "jump": "it was set by more than an hour while the gateway ran",
    "start": "the gateway started more than a week from its last event",
    "reboot": "it had been set before the machine was restarted",
}

Verb = Callable[[Queue, str, int], Awaitable[State]]


@click.group(name="queue", no_args_is_help=False)
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
            "--state",
            "states",
            multiple=True,
            type=click.Choice([str(state) for state in State]),
            metavar="STATE",
            help="Only this state, such as held; more than once for several.",
        ),
    ):
        found = option(found)
    checked: Callable[..., int] = found
    return checked


def _yes(function: Callable[..., int]) -> Callable[..., int]:
    return click.option("--yes", is_flag=True, help="Do not ask.")(function)


@queue.group()
def clock() -> None:
    """Whether the gateway believes this machine's clock. While it does not, nothing expires."""


@clock.command(name="show")
@common_options
def clock_show(context: CliContext) -> int:
    """Say whether the clock is in doubt, and why; then the exit status is 1."""
    with reading(context) as reader:
        record = reader.run_blocking(timekeeping.load)
    doubt = "" if record is None else timekeeping.judged(record, boot_id(), time.time(), time.monotonic()).doubt
    if context.json:
        context.print_json({"doubt": doubt or None, "since": None if record is None or not doubt else record.since})
    else:
        click.echo(f"The clock is in doubt: {_DOUBTS[doubt]}." if doubt else "The clock is believed.")
    return 1 if doubt else 0


@clock.command(name="accept")
@click.option("--reason", default="", help="Why; goes into the audit log.")
@common_options
def clock_accept(context: CliContext, reason: str) -> int:
    """Say that this machine's clock is right as it is: what is over by it expires."""

    async def work() -> None:
        async with open_queue(context) as opened:
            await opened.timekeeper.accept(operator=operator(), reason=reason)

    asyncio.run(work())
    if context.json:
        context.print_json({"doubt": None})
    else:
        click.echo("The clock is believed from now on.")
    return 0


@queue.command(name="list")
@_filters
@common_options
def list_(context: CliContext, wanted: Filter) -> int:
    """What waits, oldest first; with filters also what has ended."""
    with reading(context) as reader:
        entries = [entry for page in pages(reader, wanted) for entry in list_recipients(page)]
    if context.json:
        context.print_json({"recipients": entries})
        return 0
    if not entries:
        click.echo("Nothing waits." if wanted.empty else "Nothing fits.")
        return 0
    _print_table(entries)
    return 0


def _print_table(entries: list[dict[str, Any]]) -> None:
    now = time.time()
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("id", no_wrap=True)
    for name in ("recipient", "state"):
        table.add_column(name, overflow="fold")
    for name in ("age", "tries", "next"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for entry in entries:
        cells = (
            entry["id"],
            entry["recipient"],
            entry["state"],
            ago(now - entry["received"]),
            str(entry["attempts"]),
            _next(entry, now),
            _why(entry, now),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    terminal().print(table)
    click.echo(
        f"\n{len(entries)} recipient{'' if len(entries) == 1 else 's'}; `gateway trace ID` tells the whole story"
    )


def _next(entry: dict[str, Any], now: float) -> str:
    return "being tried" if entry["state"] == State.DELIVERING else ahead(entry["next_attempt"], now)


def _why(entry: dict[str, Any], now: float) -> str:
    if entry["state"] != State.HELD:
        # The first of several reasons; the trace has them all.
        return str(entry["last_error"] or "").partition(" (tls: ")[0]
    until = entry["hold_until"]
    return f"{entry['hold_reason']}{f' (bounces {ahead(until, now)})' if until is not None else ''}"


@queue.command()
@click.argument("message_id", metavar="ID")
@common_options
def show(context: CliContext, message_id: str) -> int:
    """Everything about one message: the same as `gateway trace ID`."""
    from gateway.cli.trace import show_trace

    try:
        message, _ = parse_id(message_id)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return show_trace(context, [message])


def _bulk(context: CliContext, wanted: Filter, verb: str, *, yes: bool, act: Verb) -> int:
    """Do ``act`` to every recipient that fits; says how many first, and asks."""
    if wanted.empty:
        raise click.UsageError("say which: IDs, --to, --domain, --from or --state")
    with reading(context) as reader:
        rows = [row for page in pages(reader, wanted) for row in page]
    if not rows:
        click.echo("gateway: no such recipient", err=True)
        return 1
    if len(rows) > 1 and not yes:
        # On standard error, so that --json stays one document.
        click.confirm(f"{verb} {len(rows)} recipients{_for_example(rows)}?", abort=True, err=True)

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


def _for_example(rows: list[Any]) -> str:
    """A few of the addresses, so that one sees what a filter caught."""
    shown = list(dict.fromkeys(row.address for row in rows))[:3]
    return f" ({', '.join(map(printable, shown))}{', ...' if len(rows) > len(shown) else ''})"


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
