"""Tags and character references of HTML, taken apart as the standard's tokenizer does it (section 13.2.5)."""

from __future__ import annotations

import re
from html import unescape

__all__ = ["ATTRIBUTE", "COMMENT_END", "SPACE", "TAG", "unescaped"]

SPACE = r"\t\n\f\r "
_NAME = rf"[a-zA-Z][^{SPACE}/>]*+"
# One attribute, or the white space and slashes between two. A quoted value that never ends is taken as unquoted: the
# standard drops all that follows, we read it.
_VALUE = rf"[{SPACE}]*+=[{SPACE}]*+(?:\"[^\"]*+\"|'[^']*+'|(?=>)|[^{SPACE}>\"'][^{SPACE}>]*+)"
_INSIDE = rf"(?:[{SPACE}/]++|(?:=[^{SPACE}/>=]*+|[^{SPACE}/>=]++)(?:{_VALUE})?+){{0,400}}+"
TAG = re.compile(rf"<(/?)({_NAME})({_INSIDE})(>?)")
ATTRIBUTE = re.compile(rf"([^{SPACE}/>=]++)[{SPACE}]*+(?:=[{SPACE}]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^{SPACE}>]++)))?+")
#: Either of the two in one search: looking for each alone would go to the end of the text for every comment.
COMMENT_END = re.compile(r"--!?>")
_LONG_REFERENCE = re.compile(r"&#(?:0*+([0-9]++)|[xX]0*+([0-9a-fA-F]++));?")
_HAS_LONG_REFERENCE = re.compile(r"&#(?:[0-9]{8}|[xX][0-9a-fA-F]{8})")


def unescaped(text: str) -> str:
    """Character references decoded. Python's own decoder raises for numbers of thousands of digits."""
    if "&#" in text and _HAS_LONG_REFERENCE.search(text) is not None:
        text = _LONG_REFERENCE.sub(_reference, text)
    return unescape(text)


def _reference(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    if len(digits) > 8:
        return "\ufffd"
    return f"&#{digits};" if match[1] else f"&#x{digits};"
