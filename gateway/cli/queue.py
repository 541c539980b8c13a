"""``gateway queue``: what waits, and what an operator can do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from itertools import groupby
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from gateway.cli import CliContext, common_options
from gateway.cli.access import open_queue, operator, pages, reading
from gateway.cli.words import ago, ahead, printable, terminal
from gateway.config.values import parse_duration
from gateway.delivery import redecide as redeciding
from gateway.delivery.redecide import Operator, Redecided
from gateway.errors import QueueError
from gateway.queue import operate
from gateway.queue.queue import Queue
from gateway.queue.states import State
from gateway.queue.views import Filter, list_recipients, parse_id, recipient_id
from gateway.scanning import Scanners
from gateway.store import timekeeping
from gateway.store.incarnation import boot_id

__all__ = ["queue"]

#: The kinds of doubt (``gateway.store.timekeeping``), for people.
_DOUBTS = {
    "jump": "it was set by more than an hour while the gateway ran",
    "start": "the gateway started more than a week from its last event",
    "reboot": "it had been set before the machine was restarted",
}

Result = State | Redecided | QueueError
#: What is done to recipients of one message: what came of each.
Verb = Callable[[Queue, str, Sequence[int]], Awaitable[Mapping[int, Result]]]


@click.group(name="queue", no_args_is_help=False)
def queue() -> None:
    """Look at waiting mail, and act on it.

    IDs are message ids, or one recipient's as `queue list` shows them (MESSAGE.N).
    """


def _filters(function: Callable[..., int]) -> Callable[..., int]:
    """Options that say which recipients; the verb gets them as one checked :class:`Filter` named ``wanted``."""

    @wraps(function)
    def verb(
        *args: Any,
        ids: tuple[str, ...],
        to: str,
        domain: str,
        sender: str,
        states: tuple[str, ...],
        held_for: str,
        **kwargs: Any,
    ) -> int:
        try:
            for text in ids:
                parse_id(text)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        wanted = Filter(ids, frozenset(State(state) for state in states), to, sender, domain, held_for=held_for)
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
        click.option("--held-for", default="", metavar="REASON", help="Only what is held for this reason, as listed."),
    ):
        found = option(found)
    checked: Callable[..., int] = found
    return checked


def _acting(function: Callable[..., int]) -> Callable[..., int]:
    """Options of verbs that change something; the verb gets ``yes`` and ``who`` acts, for the audit trail."""

    @wraps(function)
    def verb(*args: Any, given: str, **kwargs: Any) -> int:
        return function(*args, who=operator(given), **kwargs)

    found: Any = verb
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--operator", "given", default="", metavar="NAME", help="Who acts, beside the user of this system."
        ),
    ):
        found = option(found)
    checked: Callable[..., int] = found
    return checked


def _each(act: Callable[[Queue, str, int], Awaitable[State]]) -> Verb:
    """One recipient after the other."""

    async def verb(opened: Queue, message: str, ns: Sequence[int]) -> dict[int, Result]:
        done: dict[int, Result] = {}
        for n in ns:
            try:
                done[n] = await act(opened, message, n)
            except QueueError as error:
                done[n] = error
        return done

    return verb


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


async def _nothing() -> None:
    """What most verbs do when all is done."""


def _bulk(
    context: CliContext,
    wanted: Filter,
    verb: str,
    *,
    yes: bool,
    act: Verb,
    end: Callable[[], Awaitable[None]] = _nothing,
) -> int:
    """Do ``act`` to every recipient that fits; says how many first, and asks. ``end`` comes last, whatever happens."""
    if wanted.empty:
        raise click.UsageError("say which: IDs, --to, --domain, --from, --state or --held-for")
    with reading(context) as reader:
        rows = [row for page in pages(reader, wanted) for row in page]
    if not rows:
        click.echo("gateway: no such recipient", err=True)
        return 1
    if len(rows) > 1 and not yes:
        # On standard error, so that --json stays one document.
        click.confirm(f"{verb} {len(rows)} recipients{_for_example(rows)}?", abort=True, err=True)

    done = asyncio.run(_act(context, rows, act, end))
    failed = [entry for entry in done if "error" in entry]
    if context.json:
        context.print_json({"recipients": done})
    else:
        for entry in failed:
            click.echo(f"gateway: {entry['id']}: {entry['error']}", err=True)
        for entry in done:
            if entry.get("changed"):
                click.echo(f"{entry['id']}  {printable(entry['recipient'])}  {entry['state']}: {_changes(entry)}")
        click.echo(f"{verb}: {len(done) - len(failed)} of {len(done)} recipients")
    return 1 if failed else 0


async def _act(
    context: CliContext, rows: list[Any], act: Verb, end: Callable[[], Awaitable[None]]
) -> list[dict[str, Any]]:
    """Message by message; what came of each recipient."""
    done = []
    try:
        async with open_queue(context) as opened:
            for message, group in groupby(rows, key=lambda row: row.message):
                members = {row.n: row for row in group}
                try:
                    results = await act(opened, message, list(members))
                except QueueError as error:
                    results = dict.fromkeys(members, error)
                done += [_entry(row, results[n]) for n, row in members.items()]
    finally:
        await end()
    return done


def _entry(row: Any, result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": recipient_id(row.message, row.n), "recipient": row.address}
    if isinstance(result, QueueError):
        return {**entry, "error": str(result)}
    if isinstance(result, State):
        return {**entry, "state": str(result)}
    before, after = result.before.as_evidence(), result.after.as_evidence()
    return {**entry, "state": str(result.state), "changed": result.changed, "before": before, "after": after}


def _changes(entry: dict[str, Any]) -> str:
    """What is required differently from now on."""
    before, after = entry["before"], entry["after"]
    said = []
    for name in ("methods", "tls", "disposition", "reason"):
        if before.get(name) != after.get(name):
            old, new = (_shown(each.get(name)) for each in (before, after))
            said.append(f"{name} {old} -> {new}")
    return printable("; ".join(said) or "other rules match, what is required stays")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value or "none")


def _for_example(rows: list[Any]) -> str:
    """A few of the addresses, so that one sees what a filter caught."""
    shown = list(dict.fromkeys(row.address for row in rows))[:3]
    return f" ({', '.join(map(printable, shown))}{', ...' if len(rows) > len(shown) else ''})"


@queue.command()
@_filters
@_acting
@common_options
def retry(context: CliContext, wanted: Filter, who: str, yes: bool) -> int:
    """Try waiting mail now."""
    act = _each(lambda opened, message, n: operate.retry(opened, message, n, operator=who))
    return _bulk(context, wanted, "retry", yes=yes, act=act)


@queue.command()
@_filters
@click.option("--reason", required=True, help="Why; the sender and the reviewers are told, and it goes into the trace.")
@click.option("--expires", default="", metavar="DURATION", help="Bounce it after this time, such as 24h.")
@_acting
@common_options
def hold(context: CliContext, wanted: Filter, reason: str, expires: str, who: str, yes: bool) -> int:
    """Keep waiting mail until it is released."""
    try:
        seconds = parse_duration(expires) if expires else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def act(opened: Queue, message: str, ns: Sequence[int]) -> Mapping[int, Result]:
        return await operate.hold_all(opened, message, ns, operator=who, reason=reason, seconds=seconds)

    return _bulk(context, wanted, "hold", yes=yes, act=act)


@queue.command()
@_filters
@click.option("--reason", default="", help="Why; goes into the trace.")
@_acting
@common_options
def release(context: CliContext, wanted: Filter, reason: str, who: str, yes: bool) -> int:
    """Approve held mail: the rules that hold it do not hold it again. Protection stays as required."""
    act = _each(lambda opened, message, n: operate.release(opened, message, n, operator=who, reason=reason))
    return _bulk(context, wanted, "release", yes=yes, act=act)


@queue.command()
@_filters
@click.option("--reason", default="", help="Why; the sender is told, and it goes into the trace.")
@_acting
@common_options
def cancel(context: CliContext, wanted: Filter, reason: str, who: str, yes: bool) -> int:
    """Take waiting mail out for good; its sender is told."""
    act = _each(lambda opened, message, n: operate.cancel(opened, message, n, operator=who, reason=reason))
    return _bulk(context, wanted, "cancel", yes=yes, act=act)


@queue.command()
@_filters
@click.option(
    "--allow-weaker",
    is_flag=True,
    help="Let the policy of now take the place of what was required before, also where it asks for less.",
)
@click.option("--reason", default="", help="Why; goes into the trace. Needed with --allow-weaker.")
@_acting
@common_options
def redecide(context: CliContext, wanted: Filter, allow_weaker: bool, reason: str, who: str, yes: bool) -> int:
    """Decide waiting mail anew, by the policy of now.

    It can only come out stricter: methods that either policy forbids stay forbidden, and what a new rule holds or
    rejects is held or rejected at once. Only --allow-weaker loosens: then what was required before is forgotten, also
    what the sender asked for by header or tag.
    """
    if allow_weaker and not reason.strip():
        raise click.UsageError("--allow-weaker needs --reason: it stands in the audit trail")
    by = Operator(who, reason, allow_weaker)
    policy, scanners = context.load().policy, Scanners()

    async def act(opened: Queue, message: str, ns: Sequence[int]) -> Mapping[int, Result]:
        return await redeciding.redecide(opened, policy, scanners, message, ns, by)

    verb = "redecide --allow-weaker" if allow_weaker else "redecide"
    return _bulk(context, wanted, verb, yes=yes, act=act, end=scanners.close)
