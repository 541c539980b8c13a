"""How recipients see the organisation behind a sender's domain."""

from collections.abc import Mapping

from pydantic import Field, field_validator

from gateway.config.outbound import RouteDomain
from gateway.config.section import Section
from gateway.config.values import Mailbox

__all__ = ["Organisation", "OrganisationDomain", "luminance", "organisation_of"]

OrganisationDomain = RouteDomain

#: Of white letters on the colour (WCAG 2.2, success criterion 1.4.3).
_CONTRAST = 4.5


class Organisation(Section):
    """How the portal and its mail name the organisation behind a sender's domain."""

    name: str | None = Field(default=None, min_length=1, max_length=80)
    """What recipients know it by, such as `Example Clinic`; default: the domain."""

    sender: Mailbox | None = None
    """The address in the From field of notices and codes, at the organisation's own domain; default: `local.notices` at
    `local.domain`, else `postmaster`."""

    contact: str | None = Field(default=None, min_length=1, max_length=120)
    """How a recipient can check that a notice is genuine, and hear an access phrase: a phone number, or an address that
    is known from elsewhere."""

    language: str = Field(default="en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    """Language of notices and codes; pages follow the reader's browser."""

    colour: str | None = Field(default=None, pattern=r"^#[0-9a-fA-F]{6}$")
    """Colour of buttons and of the line at the top, as `#rrggbb`; dark enough for white letters."""

    @field_validator("colour")
    @classmethod
    def _dark_enough(cls, colour: str | None) -> str | None:
        if colour is not None and 1.05 / (luminance(colour) + 0.05) < _CONTRAST:
            raise ValueError(f"white letters on {colour} cannot be read by everybody: choose a darker colour")
        return colour


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of a colour such as ``#1f4e79``: 0 is black, 1 is white."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def organisation_of(known: Mapping[str, Organisation], domain: str) -> Organisation:
    """The entry for a sender's domain: its own, else that of ``*.parent``, else ``*``, else one that says nothing."""
    if domain in known:
        return known[domain]
    parent = domain
    while "." in parent:
        parent = parent.split(".", 1)[1]
        if f"*.{parent}" in known:
            return known[f"*.{parent}"]
    return known.get("*", Organisation())
