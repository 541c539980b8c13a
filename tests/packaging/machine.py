"""A machine of its own within this one: systemd as process 1, a network with nothing but loopback, a disk that forgets.

It sees the files of the machine it runs on, and writes beside them: an overlay in memory. So a unit runs as it is
shipped, with everything that it forbids enforced by the systemd that will do so in earnest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

from tests.packaging.prefix import Prefix

__all__ = ["Machine", "cgroup_root", "missing"]

T = TypeVar("T")
_SYSTEMD: Final = Path("/lib/systemd/systemd")

#: $1: an empty directory, $2: what is seen at /opt/gateway. Ends as systemd, process 1 of everything below.
_BOOT: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p opt/gateway old
mount --bind "$2" opt/gateway
mount -o remount,ro,bind opt/gateway
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --rbind /dev dev
printf '[Unit]\\nDefaultDependencies=no\\n' > etc/systemd/system/empty.target
# Nothing of what this machine would start starts in there.
rm -rf etc/systemd/system/*.wants lib/systemd/system/*.wants etc/credstore etc/credstore.encrypted
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=rehearsal PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
  --unit=empty.target --log-target=console --log-level=warning --show-status=no
"""


def cgroup_root() -> Path | None:
    """Where the tree of cgroups (version 2) is seen; None: nowhere."""
    for line in Path("/proc/mounts").read_text(encoding="ascii", errors="replace").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def missing() -> str | None:
    """Why no such machine can be had here; ``None``: it can."""
    if os.geteuid() != 0:
        return "not root: the systemd unit was not run"
    if not _SYSTEMD.exists() or shutil.which("systemctl") is None:
        return "systemd is not installed: the systemd unit was not run"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "unshare or nsenter (util-linux) is not installed: the systemd unit was not run"
    root = cgroup_root()
    if root is None or not os.access(root, os.W_OK):
        return "no cgroups of version 2 that may be written: the systemd unit was not run"
    return None


class Machine:
    """A context manager; while it is open, systemd runs. ``directory`` is empty, and is gone afterwards."""

    def __init__(self, directory: Path, prefix: Prefix) -> None:
        self._directory = directory
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "systemd.log"
        self.pid = 0
        """Of its systemd, as seen from outside."""

    def __enter__(self) -> Self:
        root = cgroup_root()
        assert root is not None
        self._group = root / f"rehearsal-{os.getpid()}"
        self._group.mkdir(exist_ok=True)
        inside = self._directory / "inside"
        inside.mkdir()
        # First into a group of its own, which then is the root of what it sees: systemd takes the tree it finds.
        begin = (
            f'echo $$ > "{self._group}/cgroup.procs" && exec unshare --mount --pid --uts --ipc --net --cgroup --fork '
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", begin + '--kill-child sh -c "$0" sh "$1" "$2"', _BOOT, inside, self._prefix.directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.pid = self.poll("systemd as process 1", self._booted)
            self.poll("systemd answers", lambda: self.ctl("is-system-running", check=False).strip() in _UP)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _booted(self) -> int | None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"systemd did not start\n{self._log.read_text(errors='replace')}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return None
        name = Path(f"/proc/{children[0]}/comm").read_text().strip()
        return int(children[0]) if name == "systemd" else None

    def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                if self.pid:
                    os.kill(self.pid, 9)  # process 1: with it all others
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
        for group in sorted(self._group.rglob("*/"), key=lambda each: -len(each.parts)):
            with contextlib.suppress(OSError):
                group.rmdir()
        self.poll("its cgroups are gone", lambda: _removed(self._group))

    # -- from outside -------------------------------------------------------------------------------------------------

    def poll(self, what: str, condition: Callable[[], T | None], *, seconds: float = 30.0) -> T:
        """Ask until the answer is true, and return it; raises ``TimeoutError`` naming ``what``."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:g} s\n{self.tail()}")
            time.sleep(0.05)  # between two looks; the deadline above ends it
        return answer

    def path(self, name: str) -> Path:
        """A file of the machine, by its absolute name there."""
        return Path(f"/proc/{self.pid}/root{name}")

    def write(self, name: str, text: str | bytes, mode: int = 0o644, *, owner: tuple[int, int] = (0, 0)) -> None:
        """Make a file, and the directories above it."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        os.chown(path, *owner)

    def run(
        self, *words: str, seconds: float = 60.0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it, to its end."""
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--wd=/", *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def ctl(self, *words: str, check: bool = True) -> str:
        """``systemctl``; raises ``RuntimeError`` with the log where it fails."""
        done = self.run("systemctl", *words, seconds=180.0)
        if check and done.returncode != 0:
            status = self.run("systemctl", "status", "--no-pager", "--full", words[-1]).stdout
            raise RuntimeError(f"systemctl {' '.join(words)}: {done.stdout}{done.stderr}\n{status}\n{self.tail()}")
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.ctl("show", "--value", "--property", name, unit).strip()

    def tail(self) -> str:
        """The last lines of all logs, for a failure's message."""
        texts = [self._log.read_text(errors="replace")]
        with contextlib.suppress(OSError):
            texts += [each.read_text(errors="replace") for each in self.path("/var/log").glob("gateway*.log")]
        return "\n".join(line for text in texts for line in text.splitlines()[-30:])


_UP: Final = {"running", "degraded", "starting", "maintenance"}


def _removed(group: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        for each in sorted(group.rglob("*/"), key=lambda each: -len(each.parts)):
            with contextlib.suppress(OSError):
                each.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
    return not group.exists()
