"""``gateway run``: the daemon, in the foreground."""

from __future__ import annotations

import sys

import click

from gateway.cli import CliContext, common_options

__all__ = ["run"]


@click.command()
@common_options
def run(context: CliContext) -> int:
    """Run the gateway in the foreground.

    SIGTERM drains and stops, SIGHUP reloads configuration, policies and certificates. Once everything listens, the
    log has one event `ready` with the bound addresses.
    """
    from gateway.app.supervisor import Supervisor

    if sys.flags.optimize:
        click.echo("gateway: python -O takes assertions out that guard mail: run without it", err=True)
        return 2
    return Supervisor(context.config_path, context.load()).run()
