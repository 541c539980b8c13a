"""The doctor's look at other programs that the gateway uses."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator

from gateway.cli.doctor_checks import Finding, Status

__all__ = ["programs"]

_PATIENCE = 5.0
#: What distributions have had since 2018; older ones lack what modern keys need.
_OLDEST = (2, 2)


async def programs() -> AsyncIterator[Finding]:
    """GnuPG: there, and recent enough. Nothing in this version needs it, so it is no more than a note."""
    path = shutil.which("gpg")
    if path is None:
        yield Finding("gpg", Status.NOTE, "not installed; OpenPGP needs it", "install GnuPG (package gnupg) for it")
        return
    first = await _first_line(path)
    version = re.search(r"\b(\d+)\.(\d+)(\.\d+)?", first or "")
    if version is None:
        detail = f"{path} does not say which version it is"
        yield Finding("gpg", Status.WARNING, detail, f"look at `{path} --version`; install the package gnupg again")
    elif (int(version[1]), int(version[2])) < _OLDEST:
        detail = f"{path} is version {version[0]}; {_OLDEST[0]}.{_OLDEST[1]} or newer is needed for OpenPGP"
        yield Finding("gpg", Status.WARNING, detail, "install GnuPG of a distribution that is maintained")
    else:
        yield Finding("gpg", Status.OK, f"{path}, version {version[0]}")


async def _first_line(path: str) -> str | None:
    """The first line of ``PATH --version``; None where it does not come."""
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE):
            line = await process.stdout.readline()
            return line.decode("ascii", "replace")
    except (TimeoutError, ValueError):
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
