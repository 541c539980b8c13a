"""What edits make of a message: patches over its accepted bytes, which themselves never change.

1. footers, in the parts that are shown as text (``footers``); of a message that is in memory as a whole only
2. edits of the header block (``header``)
3. signatures that this has broken go (``signatures``)

A pure function of the message and the edits: a retry renders the same again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.mail.edits.changes import Change, Edits
from gateway.mail.edits.footers import MAX_SIZE, Footed, add_footers
from gateway.mail.edits.header import edit_header
from gateway.mail.edits.patches import Patch, growth
from gateway.mail.edits.signatures import without_broken
from gateway.mail.headers import Field, fields, split_message

__all__ = ["Rendering", "render", "render_header", "without_broken_signatures"]


@dataclass(frozen=True, slots=True)
class Rendering:
    """``patches`` are in order and do not overlap; none where nothing comes out different."""

    patches: tuple[Patch, ...]
    changes: tuple[Change, ...]

    @property
    def growth(self) -> int:
        """How many octets more than the accepted ones it has."""
        return growth(self.patches)

    @property
    def eight_bit(self) -> bool:
        """Whether an octet above 127 may be new in it."""
        return not all(patch.new.isascii() for patch in self.patches)


def render_header(block: bytes, edits: Edits, *, footer_note: str = "the body is not at hand") -> Rendering:
    """The rendering of a message of which only the header block is at hand: footers are left out, which is noted.

    Raises :class:`gateway.mail.headers.HeaderError`.
    """
    found = tuple(fields(block))
    notes = (footer_note,) if edits.footers else ()
    return _rendering(block, found, edits, Footed(found, notes=notes))


def render(message: bytes, edits: Edits) -> Rendering:
    """The rendering of a whole message; where it is larger than 25 MB footers are left out.

    Takes time in proportion to the size, where there are footers. Raises :class:`gateway.mail.headers.HeaderError`.
    """
    block, _ = split_message(message)
    if len(message) > MAX_SIZE or not edits.footers:
        return render_header(block, edits, footer_note=f"the message is larger than {MAX_SIZE // 1_000_000} MB")
    return _rendering(block, tuple(fields(block)), edits, add_footers(message, edits.footers))


def _rendering(block: bytes, found: Sequence[Field], edits: Edits, footed: Footed) -> Rendering:
    with_types = footed.fields or found
    edited = edit_header(b"".join([field.raw for field in with_types]), edits)
    changes = list(edited.changes)
    new = edited.block
    if new != block or footed.patches:
        after = list(fields(new))
        left = without_broken(found, after, body_changed=bool(footed.patches))
        kept = {id(field) for field in left}
        gone = {field.name for field in after if id(field) not in kept}
        changes += [Change("signature", f"{name}: it covered what was changed", done=True) for name in sorted(gone)]
        new = b"".join([field.raw for field in left])
    if footed.placed:
        changes += [change.carried_out() for change in Edits(footers=edits.footers).planned()]
    changes += [Change("footer", f"left out: {note}", done=False) for note in footed.notes]
    header = () if new == block else (Patch(0, len(block), new),)
    return Rendering((*header, *footed.patches), tuple(changes))


def without_broken_signatures(original: bytes, changed: bytes) -> bytes:
    """A message whose body was encoded anew, less the signatures that this has broken.

    Raises :class:`gateway.mail.headers.HeaderError`.
    """
    before, _ = split_message(original)
    block, rest = split_message(changed)
    left = without_broken(list(fields(before)), list(fields(block)), body_changed=True)
    return b"".join([field.raw for field in left]) + rest
