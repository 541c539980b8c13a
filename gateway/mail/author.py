"""The author of a message: exactly one From field with exactly one mailbox, read strictly (RFC 5322 section 3.4).

Whoever shows a From to a person, judges it or signs it must see the same author. Everything that parsers are known
to read in different ways - two fields, lists, groups, routes, comments around the brackets, brackets that do not
close, encoded words that hold an address in the wrong place - has no author here and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.mail.address import Address, AddressError
from gateway.mail.headers import Field

__all__ = ["AuthorError", "author"]

# A display name: quoted strings, and words that hold none of the characters with a meaning. RFC 5322 calls words
# with dots obsolete; "Dr. Who" is everywhere, and no reader takes it for something else. No @: a name that looks
# like an address is quoted by every decent client, and unquoted it is how readers are led astray. Words are told
# apart by white space and by nothing else: were it optional, a long word could be read in exponentially many ways.
_NAME = r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"|[^\s"(),:;<>@\[\]\\\x00-\x1f\x7f]+)'
_SPACE = r"[ \t]*"
_LOCAL = r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"|[^\s"(),:;<>@\[\]\\\x00-\x1f\x7f]+)'
_DOMAIN = r"(?:\[[0-9A-Za-z:.]+\]|[^\s\"(),:;<>@\[\]\\\x00-\x1f\x7f]+)"
_SPEC = rf"(?P<{{}}>{_LOCAL}@{_DOMAIN})"
_MAILBOX = re.compile(
    rf"{_SPACE}(?:(?:{_NAME}(?:[ \t]+{_NAME})*)?{_SPACE}<{_SPACE}{_SPEC.format('angle')}{_SPACE}>"
    rf"|{_SPEC.format('plain')}){_SPACE}\Z"
)
#: Longer ones are not written by people; bounding it keeps the expression cheap.
_MAX_LENGTH = 2000


class AuthorError(ValueError):
    """There is no author that everyone would read alike; the message says why."""


def author(found: Iterable[Field]) -> Address:
    """The one mailbox of the one From field. Raises :class:`AuthorError`."""
    from_fields = [field for field in found if field.name == "from"]
    if not from_fields:
        raise AuthorError("there is no From field")
    if len(from_fields) > 1:
        raise AuthorError("there is more than one From field")
    value = from_fields[0].value
    if len(value) > _MAX_LENGTH:
        raise AuthorError("the From field is too long")
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthorError("the From field is neither ASCII nor UTF-8") from None
    match = _MAILBOX.match(text)
    if match is None:
        raise AuthorError("the From field is not exactly one mailbox")
    try:
        return Address.parse(match.group("angle") or match.group("plain"))
    except AddressError as error:
        raise AuthorError(f"the From field: {error}") from None
