"""Address patterns of rules: ``user@dom``, ``*@dom``, ``dom``, ``*.dom``, ``*``, and ``<>`` for the null sender."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.mail.address import Address, AddressError, normal_domain

__all__ = ["AddressPattern", "DomainPattern"]


@dataclass(frozen=True, slots=True, order=True)
class DomainPattern:
    """``dom`` (exactly it), ``*.dom`` (anything below it, not itself) or ``*`` (every domain)."""

    text: str

    @classmethod
    def parse(cls, text: str) -> DomainPattern:
        """The pattern in ``text``, its domain in A-labels; raises ``ValueError``."""
        if text == "*":
            return cls(text)
        try:
            return cls("*." + normal_domain(text[2:]) if text.startswith("*.") else normal_domain(text))
        except AddressError as error:
            raise ValueError(f'expected a domain, "*.domain" or "*", found {text!r}: {error}') from None

    def matches(self, domain: str) -> bool:
        """Whether this normal domain is meant."""
        if self.text == "*":
            return True
        return domain.endswith(self.text[1:]) if self.text.startswith("*.") else domain == self.text


@dataclass(frozen=True, slots=True, order=True)
class AddressPattern:
    """A mailbox (compared without case), all mailboxes of a domain pattern, or the null sender.

    ``local`` is case-folded; ``*`` stands for every local part. ``domain`` is ``None`` for the null sender ``<>``.
    The pattern ``*`` means everything, the null sender included.
    """

    local: str
    domain: DomainPattern | None

    @classmethod
    def parse(cls, text: str) -> AddressPattern:
        """The pattern in ``text``; raises ``ValueError``."""
        if text == "<>":
            return cls("", None)
        local, at, domain = text.rpartition("@")
        if not at or local == "*":
            return cls("*", DomainPattern.parse(domain))
        try:
            # The local part alone decides here; the domain may be a pattern, which an address cannot hold.
            parsed = Address.parse(f"{local}@pattern.invalid")
        except AddressError as error:
            raise ValueError(f"expected an address, a domain or a pattern, found {text!r}: {error}") from None
        return cls(parsed.local.casefold(), DomainPattern.parse(domain))

    @property
    def text(self) -> str:
        """The pattern as one string; equal patterns have equal texts."""
        return "<>" if self.domain is None else f"{self.local}@{self.domain.text}"

    def matches(self, address: Address | None) -> bool:
        """Whether this address is meant; ``None`` is the null sender."""
        if address is None:
            return self.domain is None or (self.local == "*" and self.domain.text == "*")
        if self.domain is None or not self.domain.matches(address.domain):
            return False
        return self.local in {"*", address.local.casefold()}
