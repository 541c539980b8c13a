"""An installation at ``/opt/gateway`` that only those see who look through it: the machine's own ``/opt`` stays.

The environment is made by the steps of the Dockerfile's first stage; the unit and the image run it at the same place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.dockerfile import Stage

__all__ = ["Prefix", "context", "missing", "replay", "system_python"]

#: In a mount namespace of its own: $0 at /opt/gateway, over whatever is in /opt. Then the command.
_ENTER = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/up/gateway /mnt/work
mount -t overlay overlay -o lowerdir=/opt,upperdir=/mnt/up,workdir=/mnt/work /opt
mount --bind "$0" /opt/gateway
umount -l /mnt
exec "$@"
"""


def missing() -> str | None:
    """Why nothing can be installed this way here; ``None``: it can."""
    if os.geteuid() != 0:
        return "not root: the release was not installed at /opt/gateway, nor run from there"
    absent = [each for each in ("unshare", "mount", "setpriv") if shutil.which(each) is None]
    if absent:
        return f"{', '.join(absent)} not installed: the release was not installed, nor run"
    if system_python() is None:
        return "no Python outside of home directories has venv: the release was not installed, nor run"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "no mount namespaces here: the release was not installed, nor run"


def system_python() -> Path | None:
    """A Python that a service may run: under ProtectHome= those of home directories are not there."""
    for candidate in (Path("/usr/bin/python3"), Path("/usr/local/bin/python3"), Path(sys.base_prefix) / "bin/python3"):
        if candidate.resolve().is_relative_to("/root") or candidate.resolve().is_relative_to("/home"):
            continue
        program = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
        if not candidate.exists():
            continue
        if subprocess.run([candidate, "-c", program], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The directory that is seen as ``/opt/gateway``."""

    directory: Path

    def command(self, *words: str | Path) -> list[str]:
        """``words``, as a command that sees the installation."""
        return ["unshare", "--mount", "sh", "-c", _ENTER, str(self.directory), *map(str, words)]

    def run(
        self, *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, seconds: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run to its end."""
        return subprocess.run(
            self.command(*words), cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds, check=False
        )


def context(stage: Stage, root: Path, target: Path) -> Path:
    """What COPY brings into the build stage; nothing else is there."""
    for each in stage.of("COPY"):
        *sources, destination = each.words.split()
        for source in sources:
            origin = root / source
            place = target / destination if destination != "./" else target / source
            if origin.is_dir():
                shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(origin, place)
    return target


def replay(stage: Stage, source: Path, prefix: Prefix, python: Path) -> None:
    """The RUN steps of the build stage, in ``source``, where ``/wheels`` lies beside. Raises ``RuntimeError``."""
    wheels = source.parent / "wheels"
    programs = source.parent / "programs"
    programs.mkdir()
    # Scripts, no links: the environment would lead to the link.
    for name, program in (("python", str(python)), ("pip", f"{sys.executable} -m pip")):
        (programs / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (programs / name).chmod(0o755)
    steps: Sequence[str] = [each.words.replace("/wheels", str(wheels)) for each in stage.of("RUN")]
    for step in steps:
        done = prefix.run("sh", "-c", step, cwd=source, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"})
        if done.returncode != 0:
            raise RuntimeError(f"{step}\n{done.stdout}{done.stderr}")
