"""Telling systemd where we stand: READY, RELOADING, STOPPING, WATCHDOG (sd_notify(3)). Silent where nobody listens."""

from __future__ import annotations

import os
import socket
import time

__all__ = ["ServiceNotifier"]


class ServiceNotifier:
    """Sends datagrams to ``$NOTIFY_SOCKET``."""

    def __init__(self, address: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def ready(self, status: str) -> None:
        """Everything listens."""
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload began; ``ready`` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The drain began."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between signs of life, half of what systemd allows; None where it does not watch."""
        allowed = os.environ.get("WATCHDOG_USEC")
        return int(allowed) / 2_000_000 if allowed and allowed.isdigit() else None

    def _send(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto(text.encode(), self._address)
            except OSError:
                return  # nobody is there any more; mail goes on
