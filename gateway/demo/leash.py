"""``python -m gateway.demo.leash DIRECTORY VERB ...``: a verb that is stopped when the process that started it ends.

Where that process had no time to clean up (SIGKILL), ``DIRECTORY`` is removed here.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys

from gateway.cli import main

_PR_SET_PDEATHSIG = 1


def _held(directory: str) -> None:
    parent = os.getppid()
    if sys.platform == "linux":  # elsewhere it relies on being stopped
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        if os.getppid() == parent:  # else it ended before the kernel was told
            main()
    finally:
        if os.getppid() != parent:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _held(sys.argv.pop(1))
