"""What goes wrong, as a stranger may hear it: the same page for every cause of a status, with a reference for the log.

Raise :class:`Refused` anywhere in a handler. Why stands in the log, beside the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["WORDS", "Refused", "Words"]


def _(text: str) -> str:
    """Marks a text for the catalogues; it is translated where the page is made."""
    return text


class Words(NamedTuple):
    """Title and text of an error page, in English."""

    title: str
    text: str


WORDS: Mapping[int, Words] = MappingProxyType(
    {
        400: Words(_("This request cannot be read"), _("Please go back and try again.")),
        403: Words(
            _("This cannot be done from here"),
            _("Please open the page again and send the form from there. Cookies have to be allowed for this site."),
        ),
        404: Words(_("There is nothing here"), _("The link may be incomplete, or it is not valid any more.")),
        405: Words(_("This cannot be done here"), _("Please go back and try again.")),
        413: Words(_("This is too large"), _("Please send less at once.")),
        429: Words(_("Too many tries"), _("Please wait a while and try again.")),
        431: Words(_("This request is too large"), _("Please delete the cookies of this site and try again.")),
        500: Words(_("Something went wrong here"), _("It is our fault. Please try again in a few minutes.")),
        503: Words(_("This is not possible at the moment"), _("Please try again in a few minutes.")),
    }
)


class Refused(Exception):
    """The visit ends with this status, one of :data:`WORDS`. ``reason`` is for the log alone.

    ``wait``: seconds after which trying again makes sense (``Retry-After``).
    """

    def __init__(self, status: int, reason: str, *, wait: int | None = None) -> None:
        super().__init__(reason)
        if status not in WORDS:
            raise ValueError(f"there is no page for status {status}")
        self.status = status
        self.reason = reason
        self.wait = wait
