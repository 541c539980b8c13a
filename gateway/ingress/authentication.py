"""AUTH on one connection (RFC 4954): PLAIN and LOGIN, under TLS, for connectors that ask for it.

1. whether it can be asked for at all: offered here, under TLS, not yet done
2. name and password, in the command or by challenges
3. the limits, then the passwords of every connector that this client may use; one answer for all that is wrong
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config.users import UserTable
from gateway.errors import Refusal
from gateway.ingress.connection import Connection, Disconnect
from gateway.ingress.connectors import IpAddress
from gateway.ingress.reader import Line, LineFault
from gateway.ingress.refusals import Reason, refusal
from gateway.ingress.sasl import Credentials, Login, SaslError, decode, plain
from gateway.ingress.terms import Services, Terms

__all__ = ["AUTH_LINE", "MECHANISMS", "Authentication"]

MECHANISMS = ("PLAIN", "LOGIN")
#: The longest line: three parts of 255 octets in base64, and room.
AUTH_LINE = 2048
#: Failures in one connection before it is closed.
TRIES = 3


class Authentication:
    """What one connection has to do with AUTH. ``login`` is None until it has succeeded."""

    def __init__(self, connection: Connection, services: Services) -> None:
        self._connection = connection
        self._services = services
        self._failed = 0

    async def run(self, argument: str | None, tables: Sequence[UserTable], terms: Terms, client: IpAddress) -> Login:
        """Carry an AUTH command through. Raises :class:`gateway.errors.Refusal` and ``Disconnect``."""
        word, _, initial = (argument or "").partition(" ")
        mechanism = word.upper()
        if not mechanism:
            raise refusal(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]", Reason.SYNTAX)
        if mechanism not in MECHANISMS:
            raise refusal(504, "5.5.4", "This mechanism is not offered here", Reason.SYNTAX)
        try:
            credentials = await self._credentials(mechanism, initial)
        except SaslError as error:
            raise refusal(501, "5.5.2", f"Cannot read the response: {error}", Reason.SYNTAX) from None
        self._services.failures.take(client, terms.limits.auth_failures_per_minute)
        if credentials is None:
            raise self._failure("asks to act for another")
        try:
            hashes = await self._services.passwords.prove(tables, credentials)
        except Refusal:
            self._services.failures.give_back(client)
            raise
        if not hashes:
            known = any(credentials.name in table.hashes for table in tables)
            # What a stranger gives for a name may be a password in the wrong place: only names of ours are logged.
            raise self._failure(f"wrong password of {credentials.name}" if known else "unknown user")
        self._services.failures.give_back(client)
        return Login(credentials.name, hashes)

    def _failure(self, detail: str) -> Refusal | Disconnect:
        self._failed += 1
        if self._failed >= TRIES:
            return Disconnect(refusal(421, "4.7.0", "Too many failed log-ins, closing connection", Reason.AUTH, detail))
        return refusal(535, "5.7.8", "Name or password is wrong", Reason.AUTH, detail=detail)

    async def _credentials(self, mechanism: str, initial: str) -> Credentials | None:
        if mechanism == "PLAIN":
            return plain(await self._response(initial, ""))
        name = await self._response(initial, "VXNlcm5hbWU6")  # "Username:"
        return Credentials.of(name, await self._response("", "UGFzc3dvcmQ6"))  # "Password:"

    async def _response(self, initial: str, challenge: str) -> bytes:
        """The initial response, where one was given, or the answer to a challenge."""
        if initial:
            return b"" if initial == "=" else decode(initial.encode("utf-8"))
        line = await self._connection.ask(f"334 {challenge}", AUTH_LINE)
        if line.data == b"*" and line.fault is None:
            raise refusal(501, "5.7.0", "Log-in cancelled", Reason.SYNTAX)
        return decode(_whole(line))


def _whole(line: Line) -> bytes:
    if line.fault is LineFault.TOO_LONG:
        raise refusal(500, "5.5.6", "This line is too long", Reason.SYNTAX)  # RFC 4954 section 6
    if line.fault is not None:
        raise refusal(501, "5.5.2", f"Cannot read the response: {line.fault} in it", Reason.SYNTAX)
    return line.data
