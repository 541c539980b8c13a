"""Passwords are verified here: in threads, a few at a time, at the same cost whether or not a user exists.

What strangers can make us do is bounded three times: how many verifications run and wait in this process, how many
failures a minute each client network may have, and - by the session - how many each connection may have.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import Type, verify_secret

from gateway.clock import Clock
from gateway.config.shares import WHOLE, Share
from gateway.config.users import UserTable
from gateway.ingress.connectors import IpAddress
from gateway.ingress.limits import client_network
from gateway.ingress.refusals import Reason, refusal
from gateway.ingress.sasl import Credentials

__all__ = ["Failures", "Passwords"]

#: Verifications at a time: each takes 19 MiB by our own hashes, up to 128 MiB by those that are allowed.
AT_ONCE = 2
#: How many may wait for their turn; one takes some 20 ms.
WAITING = 32
#: Client networks whose failures are remembered.
NETWORKS = 10_000


class Passwords:
    """Verifies passwords against tables of users. Used on one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._asked = 0

    async def prove(self, tables: Sequence[UserTable], credentials: Credentials) -> frozenset[str]:
        """The hashes of this user, in any of the tables, that the password is right for.

        Raises :class:`gateway.errors.Refusal` (454) where too many ask at once.
        """
        if self._asked >= AT_ONCE + WAITING:
            raise refusal(454, "4.7.0", "Too many log in at once, try again later", Reason.AUTH_LIMIT, detail="process")
        self._asked += 1
        try:
            proved = set()
            for table in tables:
                known = table.hashes.get(credentials.name)
                # For a user who does not exist, the answer takes as long as for one who does.
                right = await self._verify(known or table.costliest, credentials.password)
                if right and known is not None:
                    proved.add(known)
            return frozenset(proved)
        finally:
            self._asked -= 1

    async def _verify(self, wanted: str, password: bytes) -> bool:
        await self._turn.acquire()
        # A thread cannot be cancelled: its turn ends when it does, whoever still waits for it.
        work = asyncio.ensure_future(asyncio.to_thread(_matches, wanted, password))
        work.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(work)


def _matches(wanted: str, password: bytes) -> bool:
    try:
        return verify_secret(wanted.encode("ascii"), password, Type.ID)
    except (Argon2Error, InvalidHashError):
        return False


@dataclass(slots=True)
class _Allowance:
    left: float
    filled: float


class Failures:
    """The failures that each client network has left in this minute."""

    def __init__(self, clock: Clock, share: Share = WHOLE) -> None:
        self._clock = clock
        self._share = share
        self._networks: OrderedDict[str, _Allowance] = OrderedDict()

    def take(self, address: IpAddress, per_minute: int) -> None:
        """Count a try as failed, before it is looked at. Raises :class:`gateway.errors.Refusal` (454)."""
        capacity = self._share.of(per_minute)
        network, now = client_network(address), self._clock.monotonic()
        allowance = self._networks.setdefault(network, _Allowance(capacity, now))
        self._networks.move_to_end(network)
        allowance.left = min(capacity, allowance.left + (now - allowance.filled) * capacity / 60)
        allowance.filled = now
        if allowance.left < 1:
            text = "Too many failed log-ins from your network, try again later"
            raise refusal(454, "4.7.0", text, Reason.AUTH_LIMIT, detail=f"network {network}")
        allowance.left -= 1
        if len(self._networks) > NETWORKS:
            self._networks.popitem(last=False)

    def give_back(self, address: IpAddress) -> None:
        """It was no failure after all."""
        allowance = self._networks.get(client_network(address))
        if allowance is not None:
            allowance.left += 1
