"""The sender's side: Microsoft 365 as it hands a message to its smart host, over TLS, with its markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

import aiosmtplib

from gateway.demo.stage import MARKERS, Stage
from gateway.errors import GatewayError

__all__ = ["SENDER", "hand_over", "written"]

SENDER = "dr@clinic.example"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def written(to: Sequence[str], subject: str, body: str) -> bytes:
    """A message as Exchange Online would hand it over."""
    message = EmailMessage(policy=SMTP)
    message["From"] = f"Dr. Demo <{SENDER}>"
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="clinic.example")
    for name, value in MARKERS.items():
        message[name] = value
    message.set_content(body)
    return message.as_bytes()


async def hand_over(stage: Stage, to: Sequence[str], message: bytes) -> str:
    """Send it; the id that the gateway's 250 gave. Raises :class:`GatewayError` where it is not taken."""
    client = aiosmtplib.SMTP(
        hostname="127.0.0.1",
        port=stage.port,
        start_tls=True,
        tls_context=stage.town.ca.client_context(),
        local_hostname="outbound.protection.example",
        timeout=30,
    )
    try:
        async with client:
            refused, answer = await client.sendmail(SENDER, list(to), message)
    except aiosmtplib.SMTPException as error:
        raise GatewayError(f"the gateway did not take the message: {error}") from None
    found = _ID.search(answer)
    if refused or found is None:
        raise GatewayError(f"the gateway did not take the message: {refused or answer}")
    return found.group()
