"""strace attached to a running gateway: to write down what it does, or to kill it, or to let its calls fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.peers.gateway_process import wait_for

__all__ = ["attached", "missing"]


def missing() -> str | None:
    """Why nothing can be traced here; ``None``: it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii").strip()
    except OSError:
        return None
    if scope != "0" and os.geteuid() != 0:
        return "the kernel lets only root attach to a process (ptrace_scope)"
    return None


@contextmanager
def attached(pids: Sequence[int], log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """strace on all threads of these processes, from the moment this returns; detaches at the end of the block.

    ``options`` such as ``-e inject=fsync:error=EIO``. Counters of injections (``when=N``) begin at zero here, one for
    each thread and system call.
    """
    messages = log.with_suffix(".stderr")
    command = ["strace", "-f", "-o", str(log), *options]
    for pid in pids:
        command += ["-p", str(pid)]
    with messages.open("wb") as stderr:
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)

    def all_attached() -> bool:
        text = messages.read_text(errors="replace")
        if tracer.poll() == 0:
            return True  # an injected kill has already ended all that it traced
        if tracer.poll() is not None:
            raise RuntimeError(f"strace ended with {tracer.returncode}: {text}")
        return all(f"Process {pid} attached" in text for pid in pids)

    try:
        wait_for("strace attached", all_attached)
        yield tracer
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
            try:
                tracer.wait(10)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait()
