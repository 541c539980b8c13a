"""``gateway check``: whether the configuration is right, and what its owner should know."""

from __future__ import annotations

import time
from dataclasses import replace

import click

from gateway.cli import CliContext, common_options
from gateway.errors import ConfigError, Fault
from gateway.protect.rehearsal import rehearse

__all__ = ["check"]


@click.command
@common_options
def check(context: CliContext) -> int:
    """Validate the configuration and every policy file, and run the policy's own tests.

    Every fault of every file is told at once, as FILE:LINE:COL: message. Notes say what has no effect in this version,
    which rules allow what the defaults do not, every exception with its owner and end, and which connectors do not
    enforce yet.
    """
    try:
        loaded = context.load()
    except ConfigError as error:
        if context.json:
            context.print_json({"ok": False, "faults": [_as_json(fault) for fault in error.faults], "notes": []})
            return 1
        raise
    now = time.time()
    kinds = {connector.name: connector.kinds for connector in loaded.settings.connectors}
    results = [rehearse(loaded.policy, case, now, kinds) for case in loaded.cases]
    failures = [
        replace(result.case.place, message=f"policy test {result.case.name!r}: {text}")
        for result in results
        for text in result.differences
    ]
    if context.json:
        faults, notes = ([_as_json(each) for each in found] for found in (failures, loaded.notices))
        context.print_json({"ok": not failures, "faults": faults, "notes": notes, "tests": len(results)})
        return 1 if failures else 0
    for notice in loaded.notices:
        click.echo(str(notice))
    if failures:
        raise ConfigError(failures)
    files = len(loaded.files) - 1
    tests = f", {len(results)} policy test{'' if len(results) == 1 else 's'} passed" if results else ""
    click.echo(
        f"ok: {context.config_path}, {files} policy file{'' if files == 1 else 's'}, "
        f"policy {loaded.policy.digest[:12]}{tests}"
    )
    return 0


def _as_json(fault: Fault) -> dict[str, str | int]:
    return {"file": fault.file, "line": fault.line, "column": fault.column, "message": fault.message}
