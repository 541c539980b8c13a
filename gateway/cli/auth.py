"""``gateway auth``: users of SMTP AUTH."""

from __future__ import annotations

import sys

import click

from gateway.cli import CliContext, common_options

__all__ = ["auth"]


@click.group(name="auth", no_args_is_help=False)
def auth() -> None:
    """Users of SMTP AUTH: make the line of one."""


@auth.command(name="hash")
@click.argument("user")
@common_options
def make(context: CliContext, user: str) -> int:
    """Print the line of a USER for the file that a connector's `accept.auth` names.

    The password is asked for; where there is no terminal it is the first line of standard input.
    """
    import yaml

    from gateway.config.users import is_user_name, make_hash

    if not is_user_name(user):
        raise click.UsageError("a user's name is at most 255 bytes of printable characters, no blank at either end")
    password = _password()
    if not password or len(password.encode("utf-8", "surrogatepass")) > 255 or not password.isprintable():
        raise click.UsageError("a password is 1 to 255 bytes of printable characters")
    line = make_hash(password)
    if context.json:
        context.print_json({"user": user, "hash": line})
    else:
        name = yaml.safe_dump(user, allow_unicode=True, default_style='"', width=10_000).strip()
        click.echo(f'{name}: "{line}"')
    return 0


def _password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
