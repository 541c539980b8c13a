"""The command line: ``gateway VERB``. One module a verb, imported only when it is asked for, so that help is fast.

To add a verb: write ``gateway/cli/VERB.py`` with a click command of that name under :func:`common_options`, and give it
a line in :data:`VERBS`.

Exit status: 0 fine; 1 the thing asked about is bad; 2 wrong usage. A verb returns its status (``None`` is 0). What goes
wrong is one line on standard error, never a traceback; ``GATEWAY_DEBUG=1`` shows it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import click

from gateway import __version__
from gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gateway.policy.bundle import Loaded

__all__ = ["DEFAULT_CONFIG", "VERBS", "CliContext", "common_options", "gateway", "main"]

DEFAULT_CONFIG = "/etc/gateway/gateway.yaml"

VERBS = MappingProxyType(
    {
        "run": ("gateway.cli.run:run", "The daemon, in the foreground."),
        "check": ("gateway.cli.check:check", "Validate the configuration and every policy file."),
        "demo": ("gateway.cli.demo:demo", "A guided tour: the real daemon among recipients' hosts of every kind."),
        "explain": ("gateway.cli.explain:explain", "What would become of a message, per recipient, and why."),
        "policy": ("gateway.cli.policy:policy", "Run the policy's own tests; print its JSON Schema."),
        "queue": ("gateway.cli.queue:queue", "Look at waiting mail, retry, hold, release or cancel it."),
        "probe": ("gateway.cli.probe:probe", "What mail to a domain would meet: hosts, TLS, certificates, assurance."),
        "portal": ("gateway.cli.portal:portal", "What lies in the portal: list, recall, restore, extend."),
        "trace": ("gateway.cli.trace:trace", "The life of a message, per recipient."),
        "store": ("gateway.cli.store:store", "Look after the store."),
        "doctor": ("gateway.cli.doctor:doctor", "Check the surroundings: DNS, network, clock, certificates, disk."),
        "dkim": ("gateway.cli.dkim:dkim", "Keys to sign mail with: make one, show the DNS records."),
        "auth": ("gateway.cli.auth:auth", "Users of SMTP AUTH: make the line of one."),
        "networks": ("gateway.cli.networks:networks", "Show or refresh the shipped lists of cloud networks."),
    }
)
"""Each verb: where it lives, and what it does."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class CliContext:
    """What every verb is told: which configuration, and whether a program reads the output."""

    config_path: Path
    json: bool

    def load(self) -> Loaded:
        """Configuration and policies; raises :class:`gateway.errors.ConfigError` with all their faults."""
        from gateway.policy.bundle import load_all

        return load_all(self.config_path)

    def print_json(self, value: object) -> None:
        """``value`` as one JSON document on standard output."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _config_path(given: Path | None) -> Path:
    return given or Path(os.environ.get("GATEWAY_CONFIG") or DEFAULT_CONFIG)


def common_options(function: Callable[Concatenate[CliContext, _P], _R]) -> Callable[_P, _R]:
    """Give a verb ``--config FILE`` and ``--json``; it gets a :class:`CliContext` as its first argument."""

    @click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Configuration file; default: $GATEWAY_CONFIG, else {DEFAULT_CONFIG}.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Output for programs.")
    @wraps(function)
    def verb(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        config = kwargs.pop("config", None)
        as_json = bool(kwargs.pop("as_json", False))
        path = _config_path(config if isinstance(config, Path) else None)
        return function(CliContext(path, as_json), *args, **kwargs)

    return verb


class _Verbs(click.Group):
    """A group that knows its verbs by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """The verbs that this version has."""
        return [name for name in VERBS if importlib.util.find_spec(VERBS[name][0].partition(":")[0]) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, or ``None`` where this version does not have it."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, VERBS[name][1]) for name in self.list_commands(ctx)])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a verb; ends the process with its status. Whatever goes wrong is one line each on standard error."""
        options = {"windows_expand_args": windows_expand_args, **extra}
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **options)
        try:
            status: object = super().main(args, prog_name, complete_var, standalone_mode=False, **options)
            sys.stdout.flush()
        except Exception as error:  # noqa: BLE001 - the last resort of a command line: one line, never a traceback
            _leave(error)
        sys.exit(status if isinstance(status, int) else 0)


def _leave(error: Exception) -> NoReturn:
    """End the process with what an error means for whoever typed the command."""
    if os.environ.get("GATEWAY_DEBUG") == "1":
        raise error
    match error:
        case click.UsageError():
            where = f" (try: {error.ctx.command_path} --help)" if error.ctx is not None else ""
            _say(f"gateway: {error.format_message()}{where}")
            sys.exit(2)
        case click.ClickException():
            _say(f"gateway: {error.format_message()}")
        case click.Abort():
            _say("gateway: aborted")
        case ConfigError():
            for fault in error.faults:
                _say(str(fault))
        case BrokenPipeError():
            # The reader has seen enough (`gateway trace ... | head`). Nothing more may be written, at exit neither.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            _say(f"gateway: {named}{error.strerror or error}")
        case GatewayError():
            _say(f"gateway: {error}")
        case _:
            _say(f"gateway: internal error: {type(error).__name__}: {error} (GATEWAY_DEBUG=1 shows where)")
    sys.exit(1)


def _say(line: str) -> None:
    click.echo(" ".join(line.splitlines()), err=True)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(__version__, prog_name="gateway")
def gateway() -> None:
    """A secure email gateway: relays mail, protects it per recipient as policy asks, and shows why."""


def main() -> None:
    """Entry point of the ``gateway`` program."""
    if not __debug__:
        # The guard before MAIL FROM is an assertion.
        _say("gateway: refuses to run under python -O: its last line of defence is made of assertions")
        sys.exit(2)
    gateway.main(prog_name="gateway")
