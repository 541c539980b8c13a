"""Style attributes: of each declaration only what a strict grammar knows, put together anew.

No property and no value that names a resource (``url()``, ``image-set()``, fonts), that lifts something out of the flow
(``position``, ``transform``, negative margins - with these a letter could draw over itself what it likes), that is
taken for more important than our own rules (``!important``), or that a reader of CSS might take for something else
(escapes, comments, functions other than colours).
"""

from __future__ import annotations

import re

__all__ = ["COLOUR", "PROPERTIES", "safe_style"]

_SIDES = ("", "-top", "-right", "-bottom", "-left")
_PLAIN = (
    "border-collapse border-spacing border-radius box-sizing caption-side clear direction display empty-cells float "
    "font font-family font-size font-style font-variant font-weight height letter-spacing line-height list-style "
    "list-style-position list-style-type max-height max-width min-height min-width overflow overflow-wrap "
    "table-layout text-align text-decoration text-decoration-color text-decoration-line text-decoration-style "
    "text-indent text-transform vertical-align visibility white-space width word-break word-spacing word-wrap"
)
_COLOURS = frozenset({"color", "background-color", "background"})
#: Every property that may stay.
PROPERTIES = frozenset(
    {*_PLAIN.split(), *_COLOURS}
    | {f"{name}{side}" for name in ("margin", "padding", "border") for side in _SIDES}
    | {f"border{side}-{what}" for side in _SIDES for what in ("color", "style", "width")}
)
_NUMBER = r"\+?(?:[0-9]{1,5}(?:\.[0-9]{0,8})?|\.[0-9]{1,8})(?:px|pt|pc|em|rem|ex|ch|in|cm|mm|vw|vh|%)?"
_WORD = r"-?[a-zA-Z][a-zA-Z-]{0,40}"
_HEX = r"#[0-9a-fA-F]{3,8}"
_FUNCTION = (
    r"(?:rgb|hsl)a?\([ ]{0,3}[0-9.]{1,12}(?:deg)?%?(?:[ ]{0,3}[,/][ ]{0,3}[0-9.]{1,12}%?|[ ]{1,3}[0-9.]{1,12}%?){2,3}"
    r"[ ]{0,3}\)"
)
_STRING = r"(?:\"[\w .-]{0,60}\"|'[\w .-]{0,60}')"
#: A colour and nothing else.
COLOUR = re.compile(rf"(?:{_HEX}|{_FUNCTION}|[a-zA-Z]{{3,30}})", re.IGNORECASE)
_TERM = rf"(?:{_HEX}|{_FUNCTION}|{_STRING}|{_NUMBER}|{_WORD})"
_VALUE = re.compile(rf"{_TERM}(?:(?:[ ]{{1,3}}|[ ]{{0,3}}[,/][ ]{{0,3}}){_TERM}){{0,20}}")
_IMPORTANT = re.compile(r"!\s{0,3}important\s{0,3}\Z", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")
_MAX_LENGTH = 4000
_MAX_VALUE = 300
_MAX_DECLARATIONS = 60
#: Words that mean a way out of the flow where a property in the list takes them.
_REFUSED = {"overflow": frozenset({"visible"}), "display": frozenset({"contents"})}


def safe_style(style: str) -> str:
    """What remains of the contents of a ``style`` attribute: "" where nothing does. Never raises, linear."""
    kept: list[str] = []
    for declaration in style[:_MAX_LENGTH].split(";", _MAX_DECLARATIONS)[:_MAX_DECLARATIONS]:
        name, colon, value = declaration.partition(":")
        name = name.strip().lower()
        if not colon or name not in PROPERTIES or len(value) > _MAX_VALUE:
            continue
        value = _IMPORTANT.sub("", _BLANKS.sub(" ", value)).strip()
        grammar = COLOUR if name in _COLOURS else _VALUE
        if grammar.fullmatch(value) and value.lower() not in _REFUSED.get(name, ()):
            kept.append(f"{name}:{value}")
    return ";".join(kept)
