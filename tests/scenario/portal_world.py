"""A gateway with a portal, in a world of real sockets, and a recipient who reads there."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

from gateway.portal.deposits import Deposit, by_id
from gateway.portal.mailbox import Mailbox
from gateway.portal.sessions import Session
from gateway.testing import Message, poll
from tests.scenario.world import HOME, MX, World

__all__ = ["BROWSER", "HERE", "LOCAL", "PORTAL", "Reader", "mails", "portal_settings", "state_of"]

URL = "https://secure.clinic.example"
LOCAL = "bounces.clinic.example"
PORTAL = {"methods": ["portal"], "tls": "encrypted"}
BROWSER, HERE = "browser-one", "127.0.0.0/24"


def portal_settings(**portal: Any) -> dict[str, Any]:
    """Settings of a gateway with a portal and a domain of its own."""
    return {
        "portal": {"url": URL, "organisations": {"clinic.example": {"name": "Example Clinic"}}, **portal},
        "local": {"domain": LOCAL},
    }


async def mails(world: World, host: str = MX, *, count: int = 1, about: str = "") -> list[EmailMessage]:
    """What this host has got, with ``about`` in its subject."""

    def there() -> list[Message]:
        return [found for found in world.peers[host].messages if about.encode() in found.raw]

    await poll(lambda: len(there()) >= count, 30.0, what=f"{count} mails at {host} about {about!r}")
    return [parsed(found) for found in there()]


def parsed(message: Message) -> EmailMessage:
    """As a mail program reads it."""
    found = email.message_from_bytes(message.raw, policy=email.policy.SMTP)
    assert isinstance(found, EmailMessage)
    return found


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    """The part in text, or in HTML."""
    part = mail.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def state_of(world: World, recipient: Mapping[str, Any]) -> str:
    """The state that a trace shows."""
    del world
    return str(recipient["state"])


class Reader:
    """A recipient with one browser."""

    def __init__(self, world: World, browser: str = BROWSER, host: str = MX) -> None:
        self.world = world
        self.browser = browser
        self.host = host
        self.cookie: str | None = None
        gateway = world.gateway
        self.mailbox = Mailbox(gateway._store, gateway._settings, gateway.clock)

    async def deposit(self, message: str, n: int = 1) -> Deposit:
        """The deposit, as it is."""
        found = await self.world.gateway._store.read(lambda connection: by_id(connection, message, n))
        assert found is not None
        return found

    async def landing(self) -> Deposit | None:
        """Follow the link of the newest notice."""
        notice = (await mails(self.world, self.host, about="secure message"))[-1]
        link = re.search(r"https://secure\.clinic\.example/m/(\w+)", text_of(notice))
        assert link is not None
        return await self.mailbox.landing(link[1])

    async def code(self, deposit: Deposit) -> str:
        """Ask for a code and take it from the mail with the reference that the page shows."""
        asked = await self.mailbox.ask_code(deposit, self.browser, HERE)
        assert not asked.limited
        mail = (await mails(self.world, self.host, about=asked.reference))[-1]
        found = re.search(r"^  ([0-9]{6})$", text_of(mail), re.MULTILINE)
        assert found is not None
        return found[1]

    async def sign_in(self, deposit: Deposit) -> Session:
        """Ask for a code, and enter it."""
        code = await self.code(deposit)
        await poll(self._code_is_judged, 10.0, what="the outcome of the code's mail is written")
        signed = await self.mailbox.enter_code(code, self.browser, HERE, self.cookie)
        assert not isinstance(signed, bool)
        self.cookie = signed.cookie
        return await self.session()

    async def _code_is_judged(self) -> bool:
        return await self.world.gateway._store.read(
            lambda connection: (
                connection.exec_driver_sql("SELECT count(*) FROM portal_codes WHERE assurance IS NULL").scalar_one()
                == 0
            )
        )

    async def session(self) -> Session:
        """Who is signed in."""
        found = await self.mailbox.session(self.cookie)
        assert found is not None
        return found


async def phrase(world: World) -> str:
    """The access phrase, as the sender got it."""
    return words_of((await mails(world, HOME, about="access phrase"))[-1])


def words_of(mail: EmailMessage) -> str:
    """The four words in the letter to a sender."""
    found = re.search(r"^  ([a-z]+ [a-z]+ [a-z]+ [a-z]+)$", text_of(mail), re.MULTILINE)
    assert found is not None
    return found[1]
