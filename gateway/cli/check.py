"""``gateway check``: whether the configuration is right, and what its owner should know."""

from __future__ import annotations

import click

from gateway.cli import CliContext, common_options
from gateway.errors import ConfigError, Fault

__all__ = ["check"]


@click.command
@common_options
def check(context: CliContext) -> int:
    """Validate the configuration and every policy file.

    Every fault of every file is told at once, as FILE:LINE:COL: message. Notes say what has no effect in this version,
    which rules allow what the defaults do not, and which connectors do not enforce yet.
    """
    try:
        loaded = context.load()
    except ConfigError as error:
        if context.json:
            context.print_json({"ok": False, "faults": [_as_json(fault) for fault in error.faults], "notes": []})
            return 1
        raise
    if context.json:
        context.print_json({"ok": True, "faults": [], "notes": [_as_json(notice) for notice in loaded.notices]})
        return 0
    for notice in loaded.notices:
        click.echo(str(notice))
    files = len(loaded.files) - 1
    click.echo(
        f"ok: {context.config_path}, {files} policy file{'' if files == 1 else 's'}, policy {loaded.policy.digest[:12]}"
    )
    return 0


def _as_json(fault: Fault) -> dict[str, str | int]:
    return {"file": fault.file, "line": fault.line, "column": fault.column, "message": fault.message}
