"""Policy tests as values: a message as somebody writes it down, and what policy must make of it (policy.md, ``tests``).

They are read with the policy and run by ``gateway policy test`` and ``gateway check``.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Fault
from gateway.mail.address import Address
from gateway.mail.protection import Assurance, Disposition, Method

__all__ = ["Able", "Case", "Expected"]


@dataclass(frozen=True, slots=True)
class Able:
    """What the recipient can take: TLS up to this assurance (``NONE``: no TLS), S/MIME, OpenPGP, a PDF with a password.

    The portal needs nothing of them.
    """

    tls: Assurance = Assurance.AUTHENTICATED
    smime: bool = False
    pgp: bool = False
    pdf: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come out; ``None`` where the test does not say. ``rules`` must have matched, ``no_rules`` must not.

    ``methods``: those that are allowed, exactly. ``actions``: kinds of action that are done, such as ``strip_tag``.
    """

    method: Method | None = None
    disposition: Disposition | None = None
    tls: Assurance | None = None
    methods: frozenset[Method] | None = None
    rules: tuple[str, ...] = ()
    no_rules: tuple[str, ...] = ()
    actions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One test. ``message`` is whole, with CRLF; ``place`` is where it stands, its message is empty.

    ``connector`` "": none in particular. ``time``: seconds UTC, None for now.
    """

    name: str
    place: Fault
    sender: Address | None
    recipients: tuple[Address, ...]
    message: bytes
    connector: str
    time: float | None
    able: Able
    expected: Expected
