"""A disk that can lose its power: ext4 in a file, mounted for one gateway, copied as it stands at any moment.

The gateway runs in a mount namespace of its own, with the file system as its data directory: when its last process is
gone, so are mount and loop device, whatever became of the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["Disk", "why_not", "without_power"]

_MOUNT: Final = 'image=$1 place=$2; shift 2; mount -o loop "$image" "$place" && chmod 700 "$place" && exec "$@"'
_PROGRAMS: Final = ("unshare", "mount", "losetup", "mkfs.ext4", "e2fsck")
_PATIENCE: Final = 30.0


def why_not(directory: Path) -> str | None:
    """Why there can be no such disk here; ``None``: there can. Makes, mounts and checks a small one to find out."""
    if os.geteuid() != 0:
        return "a disk that loses its power needs root"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"a disk that loses its power needs {', '.join(missing)}"
    disk = Disk.make(directory / "trial.img", 4)
    place = directory / "trial"
    place.mkdir()
    done = subprocess.run([*disk.mounted_at(place), "true"], capture_output=True, text=True, check=False)
    disk.image.unlink()
    place.rmdir()
    return None if done.returncode == 0 else f"no ext4 can be mounted here: {done.stderr.strip()}"


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, image: Path) -> None:
        self.image = image

    @classmethod
    def make(cls, image: Path, megabytes: int) -> Disk:
        """An empty one; the file is sparse."""
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, stdin=subprocess.DEVNULL)
        return cls(image)

    def mounted_at(self, place: Path) -> tuple[str, ...]:
        """A command to put before another one: that one, and what it starts, sees the file system at ``place``."""
        return ("unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(self.image), str(place))

    def copied_to(self, image: Path) -> Disk:
        """What would be on the disk now, had the power gone: taken while nothing was written to it.

        Whoever writes to it should stand still meanwhile. Raises ``TimeoutError`` where it finds no such moment.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            before = self._written()
            subprocess.run(["cp", "--sparse=always", str(self.image), str(image)], check=True)
            if before == self._written():
                return Disk(image)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.image} is written to all the time")

    def check(self, *options: str) -> str:
        """Run ``e2fsck`` on it; what it said. Raises where anything is left uncorrected, or could not be read."""
        done = subprocess.run(["e2fsck", *options, str(self.image)], capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            raise RuntimeError(f"e2fsck {' '.join(options)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _written(self) -> tuple[str, ...]:
        """Counters of the loop device that change with every write and flush that begins or ends."""
        listed = subprocess.run(
            ["losetup", "--noheadings", "--output", "NAME", "--associated", str(self.image)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        found: list[str] = []
        for device in listed:
            # Fields: 5-8 writes, 9 in flight, 16-17 flushes (Documentation/block/stat.rst).
            fields = Path("/sys/block", Path(device).name, "stat").read_text(encoding="ascii").split()
            found += [*fields[4:7], *fields[15:16]]
            if int(fields[8]):
                found.append(f"in flight at {time.monotonic()}")
        return tuple(found)


@contextmanager
def without_power(pids: Sequence[int]) -> Iterator[None]:
    """These processes stand still for the block, wherever they are, and go on behind it."""
    stopped = []
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
