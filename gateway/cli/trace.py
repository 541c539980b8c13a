"""``gateway trace``: the life of a message, per recipient, and why it went as it did."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from itertools import groupby
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from gateway.cli import CliContext, common_options
from gateway.cli.access import pages, reading
from gateway.cli.portal_words import portal_words
from gateway.cli.words import ahead, moment, printable, terminal, wrapped
from gateway.config.values import parse_duration
from gateway.queue.states import LIVE, State
from gateway.queue.views import Filter, parse_id, trace_messages
from gateway.store.database import Reader

__all__ = ["show_trace", "trace"]

#: Messages that people are shown unless they ask for more.
_MOST = 50
#: Where the words of an event begin: behind its time and kind.
_INDENT = 38


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--to", default="", metavar="ADDRESS", help="Messages to this recipient.")
@click.option("--from", "sender", default="", metavar="ADDRESS", help="Messages of this envelope sender.")
@click.option("--since", default="", metavar="DURATION", help="Only those received within this time, such as 4h.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help=f"Only the newest N; default: {_MOST}, with --json all.",
)
@common_options
def trace(
    context: CliContext,
    ids: tuple[str, ...],
    to: str,
    sender: str,
    since: str,
    limit: int | None,
) -> int:
    """Show the life of messages: decisions, attempts with their TLS evidence, replies, events.

    ID is a message's, as the client got it with its 250, or a recipient's as `queue list` shows it.
    """
    if not ids and not to and not sender and not since:
        raise click.UsageError("say which: message IDs, --to, --from or --since")
    if ids and (to or sender or since):
        raise click.UsageError("give IDs, or --to, --from and --since: not both")
    try:
        if ids:
            return show_trace(context, list(dict.fromkeys(parse_id(text)[0] for text in ids)))
        begin = time.time() - parse_duration(since) if since else None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    wanted = Filter(states=frozenset(State), to=to, sender=sender, since=begin)
    return _show_found(context, wanted, limit)


def _show_found(context: CliContext, wanted: Filter, limit: int | None) -> int:
    most = limit if limit is not None or context.json else _MOST
    newest: deque[str] = deque(maxlen=most)
    count = 0
    with reading(context) as reader:
        for page in pages(reader, wanted):
            for message in (row.message for row in page):
                if not newest or newest[-1] != message:
                    newest.append(message)
                    count += 1
        messages = _load(reader, list(newest))
    _print(context, messages)
    if not count:
        click.echo("gateway: no message fits", err=True)
    elif count > len(newest):
        click.echo(f"gateway: the newest {len(newest)} of {count} messages; --limit shows more", err=True)
    return 0 if count else 1


def show_trace(context: CliContext, ids: list[str]) -> int:
    """Print these messages; 1 where one of them is not known."""
    with reading(context) as reader:
        messages = _load(reader, ids)
    _print(context, messages)
    missing = set(ids) - {message["id"] for message in messages}
    for message_id in sorted(missing):
        click.echo(f"gateway: there is no message {message_id}", err=True)
    return 1 if missing else 0


def _load(reader: Reader, ids: list[str]) -> list[dict[str, Any]]:
    """Each message in a read transaction of its own."""
    return [
        found for message_id in ids for found in reader.run_blocking(partial(trace_messages, message_ids=[message_id]))
    ]


def _print(context: CliContext, messages: list[dict[str, Any]]) -> None:
    if context.json:
        context.print_json({"messages": messages})
        return
    paper = _Paper(terminal())
    for message in messages:
        _print_message(paper, message)


class _Paper:
    """Lines on a terminal, broken where it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, *, indent: int = 0, bold: int = 0) -> None:
        """One line; what does not fit goes on below, at ``indent``. The first ``bold`` characters stand out."""
        rendered = Text(wrapped(printable(text), self._console.width, indent=indent))
        rendered.stylize("bold", 0, bold)
        self._console.print(rendered, soft_wrap=True)


def _print_message(paper: _Paper, message: dict[str, Any]) -> None:
    size = message["size"]
    paper.line(f"{message['id']}  {moment(message['received'])} UTC  {size} bytes", bold=len(message["id"]))
    if message["parent"]:
        paper.line(f"  a notice of ours about {message['parent']}")
    else:
        tls = message["tls"]
        secured = f"{tls['version']} {tls['cipher']}" if tls else "in clear"
        kind = "" if message["kind"] == "ordinary" else f", {message['kind']}"
        came = f"by connector {message['connector']} from {message['client']} ({secured})"
        paper.line(f"  from {message['sender']}{kind}, {came}")
    for event in message["events"]:
        if violations := event["data"].get("would_refuse"):
            paper.line(f"  stage observe: in force it would be refused: {'; '.join(violations)}", indent=4)
    for notice in message["notices"]:
        paper.line(f"  told of by {notice}")
    for recipient in message["recipients"]:
        _print_recipient(paper, recipient)
    paper.line("")


def _print_recipient(paper: _Paper, recipient: dict[str, Any]) -> None:
    paper.line("")
    address, state = recipient["recipient"], recipient["state"]
    how = f" by {recipient['method']}" if recipient["method"] and state == "delivered" else ""
    due = recipient["next_attempt"] if state in ("queued", "deferred") else None
    when = f", next try {ahead(due, time.time())}" if due is not None and recipient["attempts"] else ""
    held = f": {recipient['hold_reason']}" if state == "held" and recipient["hold_reason"] else ""
    paper.line(f"  {address}: {state}{how}{held}{when}", indent=4, bold=2 + len(address))
    decision = recipient["decision"]
    required = decision["requirement"]
    paper.line(f"    allowed: {', '.join(required['methods']) or 'nothing'}; tls {required['tls']} or better")
    for rule in decision["rules"]:
        paper.line(f"    rule {rule['name']}: {rule['effect']}", indent=6)
    for reason, group in groupby(decision["passed_over"], key=lambda passed: passed["reason"]):
        paper.line(f"    not {', '.join(passed['method'] for passed in group)}: {reason}", indent=6)
    for action in decision["actions"]:
        if action["done"] is not None:  # what is only planned stands with its rule
            done = "changed" if action["done"] else "not changed"
            what = "dkim" if action["action"] == "dkim" else f"{done}: {action['action']}"
            paper.line(f"    {what} {action['detail']}".rstrip(), indent=6)
    number = 0
    for event, follows in zip(recipient["events"], [*recipient["events"][1:], None], strict=True):
        if event["kind"] == "claimed":
            number = event["data"]["attempt"]
            if follows is not None and follows["kind"] == "attempt":
                continue
        if event["kind"] == "attempt":
            _print_attempt(paper, event, number)
        else:
            _print_event(paper, event)


def _event_line(paper: _Paper, event: dict[str, Any], words: str) -> None:
    paper.line(f"    {moment(event['time'])}  {event['kind']:<11}{f'  {words}' if words else ''}", indent=_INDENT)


def _print_attempt(paper: _Paper, event: dict[str, Any], number: int) -> None:
    data = event["data"]
    host = data["host"] or (data["stage"] or "").upper()
    where = f"{host} [{data['address']}]" if data["address"] and data["address"] != host else host
    _event_line(paper, event, f"{number}: {where}: {data['outcome']}")
    if data["reply"]:
        reply = data["reply"]
        words = " ".join(str(part) for part in (reply["code"], reply["enhanced"], reply["text"]) if part)
        paper.line(f"{'':{_INDENT}}reply {words}", indent=_INDENT + 2)
    if data["tls"]:
        tls = data["tls"]
        told = f"{tls['version']} {tls['cipher']}, {tls['assurance']}; chain: {tls['chain']}; name: {tls['name']}"
        paper.line(f"{'':{_INDENT}}{told}", indent=_INDENT + 2)
    if data.get("unknown"):
        paper.line(
            f"{'':{_INDENT}}the connection was lost after the final dot: it may arrive twice", indent=_INDENT + 2
        )


#: What a person learns from the other lines already.
_KNOWN = frozenset(
    {"event", "requirement", "passed_over", "state", "methods", "tls", "method", "losses", "owner"}
    | {"content", "before", "after", "allow_weaker", "made"}
)


def _print_event(paper: _Paper, event: dict[str, Any]) -> None:
    data = event["data"]
    kind = event["kind"]
    if kind == "decided":
        requirement = data["requirement"]
        words = f"{data['state']}, by policy {requirement['policy'][:12]}" if requirement["policy"] else data["state"]
        if data.get("error"):
            words += f": {data['error']}"
    elif kind == "redecided":
        words = _redecided(data)
    elif kind == "claimed":
        words = f"try {data['attempt']} begins"
    else:
        words = portal_words(kind, data) or "; ".join(_facts(kind, data))
    _event_line(paper, event, words)


def _redecided(data: dict[str, Any]) -> str:
    """What an operator's new decision changed; the JSON has all of it."""
    before, after = data["before"], data["after"]
    said = [
        f"{name} {_plain(before.get(name))} -> {_plain(after.get(name))}"
        for name in ("methods", "tls", "disposition")
        if before.get(name) != after.get(name)
    ]
    how = "by the policy of now alone" if data["allow_weaker"] else "never weaker than before"
    parts = [
        f"{how}: {'; '.join(said) or 'nothing else is required'}",
        f"by {data['operator']}",
        data.get("reason", ""),
    ]
    return "; ".join(part for part in parts if part)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _facts(kind: str, data: dict[str, Any]) -> list[str]:
    """What happened, in words; fields that are not known here as ``name=value``."""
    found = []
    if data.get("event") in ("release", "retry", "lost", "unclaim", "hold_expire", "brought_back"):
        found.append(
            {
                "release": "released",
                "retry": "to be tried at once",
                "lost": "the worker that had it ended",
                "unclaim": "given back untouched, the gateway was stopping",
                "hold_expire": "nobody released it in time",
                "brought_back": f"it came back from the backup of {moment(data.get('made', 0.0))}",
            }[data["event"]]
        )
    for name, value in data.items():
        if name in _KNOWN or not value:
            continue
        if name == "error":
            # The reasons of each method stand above, with the decision.
            found.insert(0, str(value).partition(" (tls: ")[0])
        elif name == "next_attempt":
            if State(kind) in LIVE:
                found.append(f"next try at {moment(value)}")
        elif name == "operator":
            found.append(f"by {value}")
        elif name == "possible_duplicate":
            found.append("it may arrive twice")
        elif name == "approves":
            found.append(f"approves {', '.join(value)}")
        elif name == "reason":
            found.append(str(value))
        elif name == "policy":
            found.append(f"decided anew by policy {value[:12]}")
        else:
            found.append(f"{name}={value}")
    return found
