"""``gateway explain``: what would become of a message, and why; nothing is sent."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import CliContext, common_options
from gateway.cli.access import quiet
from gateway.cli.explain_page import Explained, explained_as_json, show
from gateway.config.inbound import Connector
from gateway.config.names import matches_sender
from gateway.delivery.preview import preview
from gateway.ingress.markers import ControlError, Markers, control_headers
from gateway.ingress.seams import ControlHeaders
from gateway.mail.address import Address, AddressError
from gateway.mail.envelope import Kind
from gateway.mail.headers import HeaderError, fields, split_message
from gateway.policy import protect_of
from gateway.policy.bundle import Loaded
from gateway.policy.whole import facts_of

if TYPE_CHECKING:
    from gateway.delivery.probed import DomainProbe

__all__ = ["explain"]

_MAX_MESSAGE = 200 << 20
#: Domains that are probed in one call.
_MOST = 100


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE.eml]")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="The envelope sender; <> for none.")
@click.option(
    "--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="A recipient; may be repeated."
)
@click.option("--connector", default="", metavar="NAME", help="The connector it comes by; default: the one that fits.")
@click.option("--subject", default=None, metavar="TEXT", help="Without a FILE: the subject of an empty message.")
@click.option("--no-probe", "offline", is_flag=True, help="Do not look at the recipients' hosts.")
@click.option("--text", "show_text", is_flag=True, help="Show exactly the text that is judged, finds masked.")
@common_options
def explain(
    context: CliContext,
    file: Path | None,
    sender: str,
    recipients: tuple[str, ...],
    connector: str,
    subject: str | None,
    *,
    offline: bool,
    show_text: bool,
) -> int:
    """Show what would become of a message, recipient by recipient: rules, methods, TLS evidence, what would help.

    FILE.eml is the message, - reads it from standard input; without one it is empty but for --subject. It is judged as
    at the door: control fields act and are taken out. The recipients' hosts are probed as `gateway probe` does it;
    nothing is sent. Exit status 1 where a recipient would not get it: held, rejected, waiting or bounced.
    """
    quiet()
    loaded = context.load()
    to = tuple(_address(text) for text in dict.fromkeys(recipients))
    origin = None if sender == "<>" else _address(sender)
    if file is not None and subject is not None:
        raise click.UsageError("--subject is for a message without a FILE")
    message = _written(origin, to, subject or "") if file is None else _read(file)
    asked = _asked(loaded, message, origin, to, connector)
    probes = {} if offline else asyncio.run(_probe(loaded, to))
    found = preview(asked.policy, asked.facts, to, probes, loaded.settings)
    if context.json:
        context.print_json(explained_as_json(asked, found, with_text=show_text))
    else:
        show(asked, found, with_text=show_text)
    return 0 if all(each.outcome in {"deliver", "unknown"} for each in found) else 1


def _address(text: str) -> Address:
    try:
        return Address.parse(text.removeprefix("<").removesuffix(">"))
    except AddressError as error:
        raise click.UsageError(f"{text!r}: {error}") from None


def _written(sender: Address | None, to: tuple[Address, ...], subject: str) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"] = str(sender) if sender is not None else "postmaster@localhost"
    message["To"] = ", ".join(map(str, to))
    with suppress(ValueError):
        message["Subject"] = subject
    message.set_content("")
    return message.as_bytes()


def _read(file: Path) -> bytes:
    """The message with CRLF, whatever it was saved with."""
    if str(file) == "-":
        data = sys.stdin.buffer.read(_MAX_MESSAGE + 1)
    else:
        with file.open("rb") as handle:
            data = handle.read(_MAX_MESSAGE + 1)
    if len(data) > _MAX_MESSAGE:
        raise click.ClickException(f"{file} is larger than {_MAX_MESSAGE >> 20} MiB")
    if data.startswith(b"From "):  # a mailbox file's separator line
        data = data.partition(b"\n")[2]
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _asked(
    loaded: Loaded, message: bytes, sender: Address | None, to: tuple[Address, ...], connector: str
) -> Explained:
    settings = loaded.settings
    chosen = _connector(settings.connectors, connector, sender)
    block, rest = split_message(message)
    control = ControlHeaders()
    try:
        found = tuple(fields(block))
        control = control_headers(found)
    except HeaderError as error:
        raise click.ClickException(f"the message would be refused: 550 5.6.0 Message is malformed: {error}") from None
    except ControlError as error:
        raise click.ClickException(f"the message would be refused: 550 5.6.0 {error}") from None
    kept = Markers.of(settings.connectors).strip(found)
    accepted = b"".join(field.raw for field in kept) + rest
    facts = facts_of(
        loaded.policy,
        accepted,
        sender=sender,
        recipients=to,
        connector=None if chosen is None else chosen.name,
        declared=frozenset() if chosen is None else frozenset(Kind(name) for name in chosen.kinds),
        tags=control.tags,
        protect=protect_of(control.protect),
        time=time.time(),
    )
    return Explained(accepted, facts, chosen, loaded.policy, settings)


def _connector(known: tuple[Connector, ...], name: str, sender: Address | None) -> Connector | None:
    if name:
        for connector in known:
            if connector.name == name:
                return connector
        names = ", ".join(connector.name for connector in known) or "none"
        raise click.UsageError(f"there is no connector {name!r}; there is: {names}")
    fitting = [connector for connector in known if sender is None or matches_sender(connector.senders, sender)]
    return fitting[0] if fitting else None


async def _probe(loaded: Loaded, to: tuple[Address, ...]) -> Mapping[str, DomainProbe]:
    from gateway.clock import SystemClock
    from gateway.delivery.peer import require_peer_chain
    from gateway.delivery.probe import ProbeLimits, Prober
    from gateway.delivery.trust import Trust
    from gateway.directory import DnsResolver

    by_domain = {address.domain: address for address in to}
    if len(by_domain) > _MOST:
        raise click.UsageError(f"more than {_MOST} domains")
    require_peer_chain()
    clock = SystemClock()
    trust = await asyncio.to_thread(Trust.load, loaded.settings.tls.trust)
    resolver = DnsResolver(loaded.settings.dns, clock)
    try:
        prober = Prober.over(loaded.settings, resolver, clock, trust, ProbeLimits())
        found = await prober.probe(by_domain.values())
    finally:
        await resolver.close()
    return dict(zip(by_domain, found, strict=True))
