"""``gateway portal``: what lies in the portal, and what an operator can do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from gateway.cli import CliContext, common_options
from gateway.cli.access import open_queue, operator, reading
from gateway.cli.words import ago, ahead, printable, terminal
from gateway.config.values import parse_duration
from gateway.errors import GatewayError, QueueError
from gateway.mail.address import Address, AddressError
from gateway.portal import operate
from gateway.portal.deposits import PAGE, UNDO, Deposit, page
from gateway.portal.letters import Mail, Stamp, build_code, build_notice, face_of
from gateway.portal.names import Names
from gateway.queue.queue import Queue
from gateway.queue.views import parse_id
from gateway.store.database import Reader

__all__ = ["portal"]

Verb = Callable[[Queue, str, int], Awaitable[Deposit]]


@click.group(name="portal", no_args_is_help=False)
def portal() -> None:
    """Look at what lies in the portal; recall, restore or extend it.

    IDs are message ids, or one recipient's as `portal list` shows them (MESSAGE.N).
    """


def _ids(texts: tuple[str, ...]) -> list[tuple[str, int | None]]:
    try:
        return [parse_id(text) for text in texts]
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _pages(reader: Reader, **wanted: Any) -> Iterator[Deposit]:
    """What fits, page by page, so that no read transaction lasts."""
    after = ("", 0)
    while True:
        found = reader.run_blocking(partial(page, after=after, **wanted))
        yield from found
        if len(found) < PAGE:
            return
        after = (found[-1].message, found[-1].n)


def _key(text: str) -> str:
    try:
        return Address.parse(text).key if text else ""
    except AddressError as error:
        raise click.UsageError(f"{text!r}: {error}") from None


@portal.command(name="list")
@click.option("--to", default="", metavar="ADDRESS", help="Only this recipient.")
@click.option("--from", "sender", default="", metavar="ADDRESS", help="Only mail of this envelope sender.")
@click.option("--unread", is_flag=True, help="Only what nobody has read yet.")
@click.option("--gone", is_flag=True, help="Also what has ended: its content is not kept any more.")
@common_options
def list_(context: CliContext, to: str, sender: str, unread: bool, gone: bool) -> int:
    """What lies in the portal: for whom, whether they know and have read it, until when."""
    with reading(context) as reader:
        found = [
            deposit
            for deposit in _pages(reader, to=_key(to), sender=sender, gone=gone)
            if not (unread and deposit.opened is not None)
        ]
    if context.json:
        context.print_json({"deposits": [deposit.as_json() for deposit in found]})
        return 0
    if not found:
        click.echo("Nothing lies in the portal that fits." if to or sender or unread else "Nothing lies in the portal.")
        return 0
    now = time.time()
    table = Table("recipient", "from", "state", "deposited", "read", "until", "id", box=None, header_style="bold")
    for deposit in found:
        table.add_row(
            printable(deposit.address),
            printable(deposit.sender or "<>"),
            _state(deposit),
            ago(now - deposit.made),
            "no" if deposit.opened is None else ago(now - deposit.opened),
            ahead(deposit.expires, now) if deposit.ends is not None else "gone",
            deposit.id,
        )
    terminal().print(table)
    return 0


def _state(deposit: Deposit) -> str:
    if deposit.recalled is not None and str(deposit.state) != "recalled":
        return f"{deposit.state}, recalled"
    return str(deposit.state)


@portal.command()
@click.argument("id_", metavar="ID")
@common_options
def show(context: CliContext, id_: str) -> int:
    """One message in the portal, for each recipient: how it was announced, what opens it, who has read it."""
    with reading(context) as reader:
        found = list(_pages(reader, ids=_ids((id_,))))
    if not found:
        raise QueueError(f"{id_} never lay in the portal; `gateway trace {id_}` tells what became of it")
    if context.json:
        context.print_json({"deposits": [deposit.as_json() for deposit in found]})
        return 0
    for deposit in found:
        click.echo("\n".join(_told(deposit)))
    return 0


def _told(deposit: Deposit) -> list[str]:
    """A deposit in words."""
    attained = "" if deposit.notice_tls is None else f" (TLS: {deposit.notice_tls})"
    lines = [
        f"{deposit.id}",
        f"  recipient  {printable(deposit.address)}",
        f"  from       {printable(deposit.sender or '<>')}",
        f"  state      {_state(deposit)}",
        f"  deposited  {_moment(deposit.made)}",
        "  notice     " + ("not accepted yet" if deposit.noticed is None else f"{_moment(deposit.noticed)}{attained}"),
        f"  opened by  a code by mail, where that goes {_way(deposit)}"
        + ("; else with the four words that the sender was mailed" if deposit.phrase is not None else ""),
        "  read       " + ("never" if deposit.opened is None else f"first on {_moment(deposit.opened)}"),
    ]
    if deposit.recalled is not None:
        undo = "" if deposit.ends is None else f"; `gateway portal restore` works until {_moment(deposit.ends)}"
        lines.append(f"  recalled   {_moment(deposit.recalled)}{undo}")
    content = f"until {_moment(deposit.expires)}" if deposit.ends is not None else "gone: key and content are deleted"
    lines.append(f"  content    {content}")
    return lines


def _way(deposit: Deposit) -> str:
    return "any way" if str(deposit.needs) == "none" else f"by TLS that is {deposit.needs} or better"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _acting(function: Callable[..., int]) -> Callable[..., int]:
    """The arguments of verbs that change something."""
    found: Any = function
    for option in (
        click.argument("ids", nargs=-1, required=True, metavar="ID..."),
        click.option("--reason", default="", help="Why; goes into the trace."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--operator", "given", default="", metavar="NAME", help="Who acts, beside the user of this system."
        ),
    ):
        found = option(found)
    checked: Callable[..., int] = found
    return checked


@portal.command()
@_acting
@common_options
def recall(context: CliContext, ids: tuple[str, ...], reason: str, yes: bool, given: str) -> int:
    """Take messages back: nobody sees them from now on, and five minutes later they are deleted."""
    who = operator(given)

    def said(deposit: Deposit) -> str:
        read = "nobody had read it" if deposit.opened is None else f"it was read first on {_moment(deposit.opened)}"
        return f"{deposit.id} recalled: {read}"

    def act(queue: Queue, message: str, n: int) -> Awaitable[Deposit]:
        return operate.recall(queue, message, n, operator=who, reason=reason)

    return _bulk(context, ids, "recall", act, said, yes=yes)


@portal.command()
@_acting
@common_options
def restore(context: CliContext, ids: tuple[str, ...], reason: str, yes: bool, given: str) -> int:
    """Give recalled messages back to their recipients, within five minutes."""
    who = operator(given)

    def act(queue: Queue, message: str, n: int) -> Awaitable[Deposit]:
        return operate.restore(queue, message, n, operator=who, reason=reason)

    return _bulk(context, ids, "restore", act, lambda deposit: f"{deposit.id} can be read again", yes=yes)


@portal.command()
@click.option("--by", "longer", required=True, metavar="DURATION", help="How long from now, such as 14d.")
@_acting
@common_options
def extend(context: CliContext, ids: tuple[str, ...], longer: str, reason: str, yes: bool, given: str) -> int:
    """Let messages be read for longer, counted from now."""
    try:
        until = time.time() + parse_duration(longer)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    who = operator(given)

    def act(queue: Queue, message: str, n: int) -> Awaitable[Deposit]:
        return operate.extend(queue, message, n, until, operator=who, reason=reason)

    return _bulk(
        context, ids, "extend", act, lambda deposit: f"{deposit.id} can be read until {_moment(until)}", yes=yes
    )


@portal.command(name="resend-notice")
@_acting
@common_options
def resend(context: CliContext, ids: tuple[str, ...], reason: str, yes: bool, given: str) -> int:
    """Mail the notice again to recipients who cannot find it."""
    who = operator(given)

    def act(queue: Queue, message: str, n: int) -> Awaitable[Deposit]:
        return operate.resend(queue, message, n, operator=who, reason=reason)

    return _bulk(
        context, ids, "resend-notice", act, lambda deposit: f"{deposit.id}: the notice goes to {deposit.address} again",
        yes=yes,
    )  # fmt: skip


def _bulk(
    context: CliContext, ids: tuple[str, ...], verb: str, act: Verb, said: Callable[[Deposit], str], *, yes: bool
) -> int:
    with reading(context) as reader:
        found = list(_pages(reader, ids=_ids(ids)))
    if not found:
        raise QueueError("none of these lies in the portal")
    if not yes and not click.confirm(f"{verb}: {len(found)} recipients. Go on?"):
        return 1
    told, failed = asyncio.run(_each(context, found, act, said))
    if context.json:
        context.print_json({"done": [deposit.id for deposit, _ in told], "failed": failed})
    else:
        for _, words in told:
            click.echo(words)
        for why in failed.values():
            click.echo(f"gateway: {why}", err=True)
        if verb == "recall" and told:
            click.echo(f"Taken back by mistake? `gateway portal restore` works for {UNDO / 60:.0f} minutes.")
    return 1 if failed else 0


async def _each(
    context: CliContext, found: list[Deposit], act: Verb, said: Callable[[Deposit], str]
) -> tuple[list[tuple[Deposit, str]], dict[str, str]]:
    told: list[tuple[Deposit, str]] = []
    failed: dict[str, str] = {}
    async with open_queue(context) as queue:
        for deposit in found:
            try:
                done = await act(queue, deposit.message, deposit.n)
            except QueueError as error:
                failed[deposit.id] = str(error)
            else:
                told.append((done, said(done)))
    return told, failed


@portal.command()
@click.option("--from", "sender", default="", metavar="ADDRESS", help="A sender; default: postmaster.")
@click.option("--to", default="pat@recipient.example", metavar="ADDRESS", help="A recipient.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=None, metavar="DIR", help="Write files there."
)
@common_options
def preview(context: CliContext, sender: str, to: str, out: Path | None) -> int:
    """Show the mails that recipients get - notice, reminder, code - as these settings make them. Sends nothing."""
    settings = context.load().settings
    if settings.portal.url is None:
        raise GatewayError("portal.url is not set: there is no portal, and nothing is mailed about it")
    try:
        author = Address.parse(sender) if sender else settings.postmaster
        recipient = Address.parse(to)
    except AddressError as error:
        raise click.UsageError(f"--from or --to: {error}") from None
    face, names = face_of(settings, author.domain), Names(b"\0" * 32)
    now = time.time()
    example = "00000000-0000-7000-8000-000000000000"
    stamp = Stamp(example, settings.hostname, now)
    until = now + settings.portal.expires
    mails = {
        name: build_notice(face, names, example, 1, recipient, str(author), until, stamp, reminder=name == "reminder")
        for name in ("notice", "reminder")
    }
    mails["code"] = build_code(face, recipient, "246810", "K7-Q2", 10, stamp)
    if context.json:
        context.print_json(
            {name: {"subject": mail.subject, "text": mail.text, "html": mail.html} for name, mail in mails.items()}
        )
    elif out is not None:
        _write(out, mails)
    else:
        for name, mail in mails.items():
            click.echo(f"--- {name} ---\nSubject: {mail.subject}\n\n{mail.text}")
    return 0


def _write(out: Path, mails: dict[str, Mail]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, mail in mails.items():
        for suffix, content in ((".eml", mail.data), (".html", mail.html.encode()), (".txt", mail.text.encode())):
            path = out / f"{name}{suffix}"
            path.write_bytes(content)
            click.echo(str(path))
