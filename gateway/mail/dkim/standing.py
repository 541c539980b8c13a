"""Whether a message carries a signature that speaks for its author's domain already: then it needs none of ours.

Nothing is verified - there is no network where mail leaves - but only what most verifiers would count counts: RSA with
SHA-256 (many do not know Ed25519), the whole body, From signed, not about to end.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from gateway.mail.address import AddressError, normal_domain
from gateway.mail.dkim.records import is_selector
from gateway.mail.dkim.taglist import DkimError, tags
from gateway.mail.headers import Field

__all__ = ["standing_signature"]

#: Verifiers look at a few only (RFC 6376 section 6.1).
_MAX_LOOKED_AT = 20
#: Seconds that a signature with an end must still last: the message is on its way for a while.
_LASTING = 86400.0


def standing_signature(found: Iterable[Field], domain: str, now: float) -> str | None:
    """The selector of such a signature; None where there is none. ``domain``: the author's, in normal form.

    ``d=`` must be that very domain: this aligns whatever the domain's DMARC record says (RFC 7489 section 3.1.1).
    """
    fields = (field for field in found if field.name == "dkim-signature")
    for field in islice(fields, _MAX_LOOKED_AT):
        try:
            said = tags(field.value)
        except DkimError:
            continue
        if _counts(said, domain, now):
            return said["s"]
    return None


def _counts(said: dict[str, str], domain: str, now: float) -> bool:
    signed = {name.strip().lower() for name in said.get("h", "").split(":")}
    return (
        said.get("v") == "1"
        and said.get("a", "").lower() == "rsa-sha256"
        and "l" not in said
        and "from" in signed
        and bool(said.get("b") and said.get("bh"))
        and is_selector(said.get("s", ""))
        and _is(said.get("d", ""), domain)
        and _lasts(said.get("x"), now)
    )


def _is(written: str, domain: str) -> bool:
    try:
        return normal_domain(written) == domain
    except AddressError:
        return False


def _lasts(end: str | None, now: float) -> bool:
    if end is None:
        return True
    return end.isascii() and end.isdigit() and len(end) <= 12 and int(end) > now + _LASTING
