"""Carrying out edits on a header block, octet by octet: only the fields that are concerned are written anew.

Everything else stays where it is and as it is. New fields go on top, so that a signature which names a field that was
not there, or counts fields of that name from below, still finds what it signed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gateway.mail.edits.changes import ONCE, Change, Edits
from gateway.mail.edits.encoded_words import encode_words, fold_field, is_foldable, text_of
from gateway.mail.edits.subject_tags import without_tags
from gateway.mail.headers import Field, fields

__all__ = ["Edited", "edit_header"]

_SUBJECT = "subject"


@dataclass(frozen=True, slots=True)
class Edited:
    """A header block after edits: the (lower-case) names of fields that differ, and what was done, in words."""

    block: bytes
    changed: frozenset[str] = frozenset()
    changes: tuple[Change, ...] = ()


def edit_header(block: bytes, edits: Edits) -> Edited:
    """The block with all edits but footers; a second time they change nothing. Raises :class:`HeaderError`."""
    before = list(fields(block))
    work = _Work(list(before))
    if edits.strip_tags:
        work.strip_tags(edits.strip_tags)
    for name in sorted(edits.remove_headers):
        work.remove(name)
    work.add(edits.add_headers)
    if edits.replace_subject is not None:
        work.replace_subject(edits.replace_subject)
    if edits.prepend_subject:
        work.prepend_subject(edits.prepend_subject)
    after = work.fields
    old, new = Counter(before), Counter(after)
    changed = {field.name for field in (old - new) + (new - old)}
    if not changed:
        return Edited(block, changes=tuple(work.changes))
    return Edited(b"".join([field.raw for field in after]), frozenset(changed), tuple(work.changes))


class _Work:
    """The fields on their way through the kinds of change."""

    def __init__(self, found: list[Field]) -> None:
        self.fields = found
        self.changes: list[Change] = []

    def strip_tags(self, tags: frozenset[str]) -> None:
        """From every subject there is: which one a reader shows is not known."""
        gone: set[str] = set()
        for index, field in enumerate(self.fields):
            if field.name == _SUBJECT:
                raw, found = without_tags(field.raw, tags)
                self.fields[index] = Field(_SUBJECT, raw)
                gone |= found
        self._did("strip_tag", *sorted(gone))

    def remove(self, name: str) -> None:
        kept = [field for field in self.fields if field.name != name]
        if len(kept) < len(self.fields):
            self.fields = kept
            self._did("remove_header", name)

    def add(self, pairs: tuple[tuple[str, str], ...]) -> None:
        added: list[Field] = []
        for name, value in pairs:
            lower = name.lower()
            field = Field(lower, fold_field(name, value))
            text = value.strip(" \t")
            same = [each for each in (*self.fields, *added) if each.name == lower and _text(each) == text]
            if same and (lower not in ONCE or self._count(lower) == 1):
                continue
            if lower in ONCE:
                self.fields = [each for each in self.fields if each.name != lower]
                added = [each for each in added if each.name != lower]
            added.append(field)
            self._did("add_header", name)
        self.fields = [*added, *self.fields]

    def replace_subject(self, text: str) -> None:
        """In the place of the first one; others go, because they would show what was to be replaced."""
        new = Field(_SUBJECT, fold_field("Subject", text))
        places = [index for index, field in enumerate(self.fields) if field.name == _SUBJECT]
        if not places:
            self._append(new)
        elif len(places) == 1 and _text(self.fields[places[0]]) == text.strip(" \t"):
            return
        else:
            self.fields[places[0]] = new
            self.fields = [each for i, each in enumerate(self.fields) if i not in places[1:]]
        self._did("replace_subject", "")

    def prepend_subject(self, texts: tuple[str, ...]) -> None:
        texts = tuple(text.strip(" \t") for text in texts)
        done: set[str] = set()
        if not self._count(_SUBJECT):
            self._append(Field(_SUBJECT, fold_field("Subject", " ".join(texts))))
            done.update(texts)
        for index, field in enumerate(self.fields):
            if field.name == _SUBJECT:
                missing = _missing(_text(field), texts)
                done.update(missing)
                if missing:
                    self.fields[index] = Field(_SUBJECT, _prefixed(field, " ".join(missing)))
        self._did("prepend_subject", *(text for text in texts if text in done))

    def _append(self, field: Field) -> None:
        if self.fields and not self.fields[-1].raw.endswith(b"\r\n"):
            last = self.fields[-1]
            self.fields[-1] = Field(last.name, last.raw + b"\r\n")
        self.fields.append(field)

    def _count(self, name: str) -> int:
        return sum(field.name == name for field in self.fields)

    def _did(self, action: str, *details: str) -> None:
        self.changes += [Change(action, detail, done=True) for detail in details]


def _text(field: Field) -> str:
    """What a reader sees of a field; lone surrogates for what cannot be decoded."""
    return text_of(field.value.decode("utf-8", "surrogateescape")).strip(" \t")


def _missing(subject: str, texts: tuple[str, ...]) -> list[str]:
    """The texts that are still to go before the subject, so that it begins with all of them."""
    if subject.startswith(" ".join(texts)):
        return []
    missing: list[str] = []
    for text in reversed(texts):
        if missing or not subject.startswith(text):
            missing.insert(0, text)
    return missing


def _prefixed(field: Field, prefix: str) -> bytes:
    """The field with a text and a blank before what stands there, which stays octet for octet where that can be."""
    name, _, rest = field.raw.partition(b":")
    value = rest.removesuffix(b"\r\n").decode("utf-8", "surrogateescape")
    wanted = f"{prefix} {_text(field)}".strip(" \t")
    start = name.decode("ascii") + ": "
    fold = "\r\n " if len(start) + len(prefix) + 1 + len(value.split("\r\n", 1)[0]) > 78 else " "
    if prefix.isascii() and "=?" not in prefix:
        head = prefix
    else:
        # White space between two encoded words is not seen: where there would be, it goes into the first one.
        blank = " " if value.lstrip().startswith("=?") else ""
        head = encode_words(prefix + blank, used=len(start))
    left = value.lstrip(" \t\r\n")
    edited = f"{head}{fold}{left}" if left else head
    if text_of(edited).strip(" \t") != wanted or not is_foldable(edited):
        return fold_field("Subject", wanted)
    return (start + edited + "\r\n").encode("utf-8", "surrogateescape")
