"""``gateway trace``: the life of a message, per recipient, and why it went as it did."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from gateway.cli import CliContext, common_options
from gateway.cli.access import read_store
from gateway.cli.words import moment
from gateway.config.values import parse_duration
from gateway.queue.states import State
from gateway.queue.views import Filter, parse_id, select_recipients, trace_messages

__all__ = ["show_trace", "trace"]

_MOST = 50


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--to", default="", metavar="ADDRESS", help="Messages to this recipient.")
@click.option("--from", "sender", default="", metavar="ADDRESS", help="Messages of this envelope sender.")
@click.option("--since", default="", metavar="DURATION", help="Only those received within this time, such as 4h.")
@common_options
def trace(context: CliContext, ids: tuple[str, ...], to: str, sender: str, since: str) -> int:
    """Show the life of messages: decisions, attempts with their TLS evidence, replies, events."""
    if not ids and not to and not sender and not since:
        raise click.UsageError("say which: message IDs, --to, --from or --since")
    if ids:
        try:
            return show_trace(context, [parse_id(text)[0] for text in ids])
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    try:
        begin = time.time() - parse_duration(since) if since else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    wanted = Filter(states=frozenset(State), to=to, sender=sender, since=begin)
    rows = read_store(context, lambda connection: select_recipients(connection, wanted, limit=_MOST * 4))
    found = list(dict.fromkeys(row.message for row in rows))[-_MOST:]
    return show_trace(context, found)


def show_trace(context: CliContext, ids: list[str]) -> int:
    """Print these messages; 1 where one of them is not known."""
    messages = read_store(context, lambda connection: trace_messages(connection, ids))
    if context.json:
        context.print_json({"messages": messages})
    else:
        console = Console(highlight=False, soft_wrap=True)
        for message in messages:
            _print_message(console, message)
    missing = set(ids) - {message["id"] for message in messages}
    for message_id in sorted(missing):
        click.echo(f"gateway: there is no message {message_id}", err=True)
    if not ids:
        click.echo("gateway: no message fits", err=True)
    return 1 if missing or not ids else 0


def _print_message(console: Console, message: dict[str, Any]) -> None:
    console.print(f"[bold]{message['id']}[/bold]  {moment(message['received'])} UTC  {message['size']} bytes")
    tls = message["tls"]
    secured = f"{tls['version']} {tls['cipher']}" if tls else "in clear"
    console.print(f"  from {escape(message['sender'])} by connector {escape(message['connector'])} ({secured})")
    if message["parent"]:
        console.print(f"  a notice of ours about {message['parent']}")
    for notice in message["notices"]:
        console.print(f"  the sender was told: {notice}")
    for recipient in message["recipients"]:
        _print_recipient(console, recipient)
    console.print()


def _print_recipient(console: Console, recipient: dict[str, Any]) -> None:
    method = f" by {recipient['method']}" if recipient["method"] else ""
    console.print(f"\n  [bold]{escape(recipient['recipient'])}[/bold]: {recipient['state']}{method}")
    decision = recipient["decision"]
    required = decision["requirement"]
    console.print(f"    required: {', '.join(required['methods']) or 'nothing is left'}; tls {required['tls']}")
    for rule in decision["rules"]:
        console.print(f"    rule {escape(rule['name'])}: {escape(rule['effect'])}")
    for passed in decision["passed_over"]:
        console.print(f"    not {passed['method']}: {escape(passed['reason'])}")
    if recipient["hold_reason"] and recipient["state"] == "held":
        console.print(f"    held: {escape(recipient['hold_reason'])}")
    for event in recipient["events"]:
        _print_event(console, event)


def _print_event(console: Console, event: dict[str, Any]) -> None:
    data = event["data"]
    head = f"    {moment(event['time'])}  {event['kind']:<11}"
    if event["kind"] == "attempt":
        where = f"{data['host']} [{data['address']}]" if data["address"] else data["host"]
        console.print(f"{head} {escape(where)}: {escape(data['outcome'])}")
        if data["reply"]:
            reply = data["reply"]
            words = " ".join(str(part) for part in (reply["code"], reply["enhanced"], reply["text"]) if part)
            console.print(f"{'':36}reply {escape(words)}")
        if data["tls"]:
            tls = data["tls"]
            console.print(
                f"{'':36}{tls['version']} {tls['cipher']}, {tls['assurance']}; "
                f"chain: {escape(tls['chain'])}; name: {escape(tls['name'])}"
            )
        return
    shown = {key: value for key, value in data.items() if key not in ("event", "requirement", "passed_over", "state")}
    words = "  ".join(f"{key}={value}" for key, value in shown.items())
    console.print(f"{head} {escape(words)}")
