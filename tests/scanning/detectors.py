"""Detectors that misbehave; they travel to the scanning process by name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.policy.detect import Match


@dataclass(frozen=True)
class Sleepy:
    """Takes its time."""

    name: str = "sleepy"
    seconds: float = 60.0

    def find(self, text: str) -> list[Match]:
        time.sleep(self.seconds)
        return [Match(0, min(len(text), 1))]

    def find_in_message(self, texts: Sequence[str]) -> list[list[Match]]:
        return [self.find(text) for text in texts]

    def canonical(self) -> Any:
        return self.name


@dataclass(frozen=True)
class Deadly(Sleepy):
    """Ends the process that runs it."""

    name: str = "deadly"

    def find(self, text: str) -> list[Match]:
        os._exit(3)


@dataclass(frozen=True)
class Greedy(Sleepy):
    """Wants more memory than there is."""

    name: str = "greedy"

    def find(self, text: str) -> list[Match]:
        held = bytearray(4 << 30)
        return [Match(0, len(held))]


@dataclass(frozen=True)
class Curious(Sleepy):
    """Looks around: it finds as many things as there are in the environment that are none of its business."""

    name: str = "curious"

    def find(self, text: str) -> list[Match]:
        secrets = [name for name in os.environ if name not in {"PATH", "LC_CTYPE"}]
        return [Match(place, place + 1) for place in range(len(secrets))]
