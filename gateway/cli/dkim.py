"""``gateway dkim``: keys to sign mail with - made, and shown as the DNS records that belong to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from gateway.cli import CliContext, common_options
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.mail.dkim.keys import SigningKey

__all__ = ["bind_form", "dkim", "strings"]

#: RFC 1035 section 3.3: a TXT record is made of strings of at most 255 octets.
_STRING = 255


@click.group(name="dkim", no_args_is_help=False)
def dkim() -> None:
    """Keys to sign mail with: make one, show the DNS records."""


@dkim.command()
@click.option("--domain", required=True, metavar="DOMAIN", help="The domain of From that the key signs for.")
@click.option("--selector", required=True, metavar="SELECTOR", help="Its name in DNS, such as s1 or 2026-01.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["rsa", "ed25519"]),
    default="rsa",
    show_default=True,
    help="rsa has 2048 bits; ed25519 goes beside it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the private key goes; default: dkim/DOMAIN.SELECTOR.pem beside the configuration file.",
)
@common_options
def generate(context: CliContext, domain: str, selector: str, kind: Literal["rsa", "ed25519"], out: Path | None) -> int:
    """Make a key in a new file, and print the DNS record to publish and the setting to add.

    Nothing is signed with it before the setting is there and the gateway has reloaded. An existing file is never
    touched.
    """
    from gateway.config.values import parse_domain
    from gateway.mail.dkim.keys import SigningKey
    from gateway.mail.dkim.records import is_selector

    try:
        domain = parse_domain(domain)
    except ValueError as error:
        raise click.UsageError(f"--domain: {error}") from None
    if not is_selector(selector):
        raise click.UsageError("--selector: letters, digits, hyphens and dots, such as s1 or 2026-01")
    home = context.config_path.absolute().parent
    path = home / "dkim" / f"{domain}.{selector}.pem" if out is None else out.absolute()
    if out is None:
        path.parent.mkdir(mode=0o755, exist_ok=True)
    key = SigningKey.generate(kind)
    _write_new(path, key.pem)
    setting = f"file:{path.relative_to(home) if path.is_relative_to(home) else path}"
    if context.json:
        context.print_json({**_as_json(domain, selector, key), "file": str(path), "key": setting})
        return 0
    click.echo(f"The private key is in {path} ({key.words}). Only the user that the gateway runs as may read it:")
    click.echo(f"  chown gateway: {path}\n")
    _print_record(domain, selector, key)
    click.echo("\nWhen `gateway doctor` finds the record, add the key to gateway.yaml and reload:")
    click.echo(f'  dkim:\n    {domain}:\n      - {{selector: {_quoted(selector)}, key: "{setting}"}}')
    return 0


@dkim.command()
@click.option("--domain", metavar="DOMAIN", help="Only keys of this domain.")
@common_options
def show(context: CliContext, domain: str | None) -> int:
    """Print the DNS record of each key that the configuration names."""
    keys = context.load().settings.dkim
    chosen = [(name, each) for name, found in keys.items() for each in found if domain in (None, name)]
    if context.json:
        context.print_json({"keys": [_as_json(name, each.selector, each.key) for name, each in chosen]})
        return 0
    if not chosen:
        of_domain = f" for {domain}" if domain else ""
        raise GatewayError(f"the configuration names no key{of_domain} under `dkim`")
    for number, (name, each) in enumerate(chosen):
        if number:
            click.echo("")
        _print_record(name, each.selector, each.key)
    return 0


def strings(text: str) -> list[str]:
    """A text as the strings of a TXT record."""
    return [text[start : start + _STRING] for start in range(0, len(text), _STRING)]


def bind_form(name: str, text: str) -> str:
    """A TXT record as it stands in a zone file (RFC 1035 section 5.1)."""
    parts = "\n    ".join(f'"{part}"' for part in strings(text))
    return f"{name}. 3600 IN TXT (\n    {parts} )"


def _print_record(domain: str, selector: str, key: SigningKey) -> None:
    from gateway.mail.dkim.records import record_name

    name = record_name(selector, domain)
    click.echo(f"TXT record {name}, as most providers want it:\n\n{key.record}\n")
    click.echo(f"The same for a zone file:\n\n{bind_form(name, key.record)}")


def _as_json(domain: str, selector: str, key: SigningKey) -> dict[str, object]:
    from gateway.mail.dkim.records import record_name

    return {
        "domain": domain,
        "selector": selector,
        "algorithm": key.algorithm,
        "record_name": record_name(selector, domain),
        "record": key.record,
        "strings": strings(key.record),
    }


def _quoted(selector: str) -> str:
    """As YAML: a selector of digits alone would be a number, and ``no`` is false."""
    import yaml

    return selector if yaml.safe_load(selector) == selector else f'"{selector}"'


def _write_new(path: Path, data: bytes) -> None:
    """Write and sync a file of mode 0400 that was not there. Raises ``OSError``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
