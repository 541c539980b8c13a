"""What rules do to a message beside protecting it: edits, copies, notifications.

Actions run in a fixed order of kinds, then by rule name. A value that there can be only one of (the subject's
replacement, a field's value) must be the same in all rules that can match together: that is looked at when the files
are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.mail.edits import NO_EDITS, Edits

__all__ = ["Actions", "clashes"]


@dataclass(frozen=True, slots=True)
class Actions:
    """The ``do`` of one rule. ``copy_to`` and ``notify``: addresses."""

    edits: Edits = NO_EDITS
    copy_to: frozenset[str] = frozenset()
    notify: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.edits or self.copy_to or self.notify)

    def words(self) -> Iterator[str]:
        """What is done, an effect each, for trace and explain."""
        yield from (f"{change.action} {change.detail}".rstrip() for change in self.edits.planned())
        yield from (f"copy_to {address}" for address in sorted(self.copy_to))
        yield from (f"notify {address}" for address in sorted(self.notify))

    def canonical(self) -> Any:
        """A plain form for the digest."""
        return {"edits": self.edits.as_json(), "copy_to": sorted(self.copy_to), "notify": sorted(self.notify)}


def clashes(one: Edits, other: Edits) -> Iterator[str]:
    """What both set to different values, in words; two rules that can match together must not."""
    if None not in {one.replace_subject, other.replace_subject} and one.replace_subject != other.replace_subject:
        yield "replace_subject"
    values = {name.casefold(): value for name, value in one.add_headers}
    for name, value in other.add_headers:
        if values.get(name.casefold(), value) != value:
            yield f"add_header {name}"
    for adding, removing in ((one, other), (other, one)):
        for name, _ in adding.add_headers:
            if name.casefold() in removing.remove_headers:
                yield f"remove_header and add_header {name}"
