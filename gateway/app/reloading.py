"""A reload in every process, or in none: the supervisor reads and binds, all prepare, then all take over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from gateway.app.channel import Channel, Message
from gateway.app.children import Child
from gateway.app.gateway import refuse_unchangeable
from gateway.app.sockets import Listening
from gateway.delivery.trust import Trust
from gateway.errors import GatewayError
from gateway.policy.bundle import Loaded, load_all

__all__ = ["Family", "reload_all"]

#: Seconds that all processes together get to prepare a reload.
_PREPARE: Final = 20.0


class Family(Protocol):
    """The processes that read the configuration, as the supervisor knows them."""

    def sitting(self) -> list[Child]:
        """All that should run."""

    def up(self) -> Iterator[tuple[Child, Channel]]:
        """Those that are ready."""

    def wait_for(self, condition: Callable[[], bool], deadline: float, late: Callable[[], str]) -> None:
        """Let things happen until it holds. Raises :class:`GatewayError` naming who is ``late``."""


def reload_all(family: Family, config: Path, running: Loaded, listening: Listening, number: int) -> Loaded:
    """The new configuration, taken over by all. ``number`` tells this reload from others.

    Raises :class:`GatewayError` or ``OSError``, and nothing has changed.
    """
    opened: list[str] = []
    try:
        loaded = load_all(config)
        Trust.load(loaded.settings.tls.trust)
        refuse_unchangeable(running.settings, loaded.settings)
        opened = listening.open_missing(loaded.settings.listeners)
        _let_prepare(family, loaded, listening, opened, number)
    except BaseException:
        listening.drop(opened)
        _say_to_all(family, {"do": "forget"})
        raise
    _say_to_all(family, {"do": "adopt"})
    listening.adopt(loaded.settings.listeners)
    return loaded


def _let_prepare(family: Family, loaded: Loaded, listening: Listening, opened: Sequence[str], number: int) -> None:
    """Let all prepare. Raises :class:`GatewayError` where one cannot, or does not answer."""
    deadline = time.monotonic() + _PREPARE

    def late() -> str:
        return ", ".join(child.name for child in family.sitting() if child.pid and child.answer[0] != number)

    # One that is starting does so with the old configuration: wait until it can be told of the new one.
    family.wait_for(lambda: all(child.ready for child in family.sitting() if child.pid), deadline, late)
    for child, channel in family.up():
        own = listening.of(child.seat.number) if child.takes_mail and child.seat is not None else {}
        sockets = [(key, each) for key in opened for each in own.get(key, [])]
        message: Message = {
            "do": "prepare",
            "reload": number,
            "digest": loaded.digest,
            "keys": [key for key, _ in sockets],
        }
        channel.send(message, [each for _, each in sockets])
    family.wait_for(lambda: all(child.answer[0] == number for child, _ in family.up()), deadline, late)
    faults = dict.fromkeys(fault for child, _ in family.up() for fault in child.answer[1])
    if faults:
        raise GatewayError("; ".join(faults))


def _say_to_all(family: Family, message: Message) -> None:
    for _, channel in family.up():
        channel.send(message)
