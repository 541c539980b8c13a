"""Policies as a test writes them, and messages for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.config.source import parse_document
from gateway.mail.address import Address
from gateway.policy import MessageFacts, Policy
from gateway.policy.parse import ParsedPolicy, parse_policy

Parse = Callable[..., ParsedPolicy]
Read = Callable[..., Policy]
Facts = Callable[..., MessageFacts]


@pytest.fixture
def parse() -> Parse:
    """Read texts as policy files."""

    def read(*texts: str) -> ParsedPolicy:
        return parse_policy([parse_document(text.encode(), f"p{index}.yaml") for index, text in enumerate(texts)])

    return read


@pytest.fixture
def policy(parse: Parse) -> Read:
    """The policy in texts that must be right; ``version: 1`` is added."""

    def read(*texts: str) -> Policy:
        parsed = parse(*(f"version: 1\n{text}" for text in texts))
        assert parsed.faults == ()
        return parsed.policy

    return read


@pytest.fixture
def facts() -> Facts:
    """A message from dr@clinic.example to pat@isp.example; keywords change it."""

    def make(to: str = "pat@isp.example", sender: str | None = "dr@clinic.example", **given: object) -> MessageFacts:
        given.setdefault("subject", "Hello")
        return MessageFacts(
            sender=None if sender is None else Address.parse(sender),
            recipient=Address.parse(to),
            **given,  # type: ignore[arg-type]  # whatever a test changes is of the field's own type
        )

    return make
