"""HTML of a stranger as HTML that only shows: nothing runs, nothing is fetched, nothing is sent.

Two layers, one behind the other:

1. ``_Draft`` reads the text with a tokenizer and writes simple HTML anew: known tags, properly nested, known attributes
   with values of a strict grammar, every quote escaped. It bounds what comes next - an HTML parser may take time and
   memory that grow with the square of depth, of attributes, or of formatting that is never closed - and leaves nothing
   that two parsers could read in different ways.
2. nh3 (ammonia: the parser of the HTML standard, a list of what is allowed) parses that as a browser does and has the
   last word. All pictures pass through it as numbers; only those that we know get an address, and it is ``data:``.

Behind both stands the response itself: see ``document``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Final

import nh3

from gateway.mail.content.html_tags import ATTRIBUTE, COMMENT_END, SPACE, TAG, unescaped
from gateway.portal.reading.links import SCHEMES, link_text, safe_link
from gateway.portal.reading.pictures import Pictures
from gateway.portal.reading.styles import COLOUR, PROPERTIES, safe_style

__all__ = ["TooMuch", "safe_html"]

#: Start tags - of tags, comments and stray brackets in all twice as many - and character references: a parser takes
#: microseconds for each, and for what stands in a table outside of its cells time that grows with the square. Beyond
#: this the text alone is shown.
_MAX_TAGS: Final = 40_000
_MAX_REFERENCES: Final = 100_000
_MAX_DEPTH: Final = 120
#: Formatting that is open at the same time: a parser opens all of it again in each paragraph.
_MAX_FORMATTING: Final = 10
_MAX_ATTRIBUTES: Final = 60
_MAX_TEXT_ATTRIBUTE: Final = 1000
_MAX_KNOWN: Final = 2000

_FORMATTING: Final = frozenset(
    {"a", "b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u"}
)
_INLINE: Final = _FORMATTING | frozenset(
    {
        "abbr",
        "acronym",
        "bdi",
        "bdo",
        "cite",
        "del",
        "dfn",
        "ins",
        "kbd",
        "mark",
        "q",
        "samp",
        "span",
        "sub",
        "sup",
        "var",
    }
)
_BLOCKS: Final = frozenset(
    {
        "address",
        "article",
        "aside",
        "blockquote",
        "center",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "footer",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "ul",
    }
)
_ROWS: Final = frozenset({"tbody", "thead", "tfoot", "tr"})
_CELLS: Final = frozenset({"td", "th", "caption"})
_STRUCTURE: Final = _ROWS | _CELLS | {"colgroup"}
_VOID: Final = frozenset({"br", "col", "hr", "img", "wbr"})
TAGS: Final = _INLINE | _BLOCKS | _STRUCTURE | _VOID
#: These go with what is in them; of all other unknown elements the content stays.
_GONE: Final = frozenset(
    {"script", "style", "title", "svg", "math", "template", "iframe", "textarea", "select", "datalist", "noembed"}
    | {"noframes", "dialog", "frameset", "portal", "xml"}
)
#: What the opening of an element closes, where it was left open: end tags that HTML lets be left out.
_CLOSES: Final[dict[str, tuple[str, ...]]] = {
    "a": ("a",),
    "dd": ("dd", "dt"),
    "dt": ("dd", "dt"),
    "li": ("li",),
}
_LISTS: Final = frozenset({"ul", "ol", "dl", "table", *_CELLS})

_WORD: Final = re.compile(r"[a-zA-Z-]{1,20}")
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_LENGTH: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{0,4})?%?")
_SPAN: Final = re.compile(r"[0-9]{1,3}")
_SIZE: Final = re.compile(r"[+-]?[0-9]{1,2}")
_FONTS: Final = re.compile(r"[\w ,'.-]{1,200}")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,4}")
_DIRECTION: Final = re.compile(r"ltr|rtl|auto", re.IGNORECASE)

#: Attributes whose value has a grammar.
_GRAMMARS: Final[dict[str, re.Pattern[str]]] = {
    "align": _WORD,
    "bgcolor": COLOUR,
    "border": _NUMBER,
    "cellpadding": _NUMBER,
    "cellspacing": _NUMBER,
    "color": COLOUR,
    "colspan": _SPAN,
    "dir": _DIRECTION,
    "face": _FONTS,
    "height": _LENGTH,
    "hspace": _NUMBER,
    "lang": _LANGUAGE,
    "nowrap": re.compile(r"(?:nowrap)?", re.IGNORECASE),
    "rowspan": _SPAN,
    "size": _SIZE,
    "span": _SPAN,
    "start": _NUMBER,
    "type": re.compile(r"[1aAiI]|disc|circle|square", re.IGNORECASE),
    "valign": _WORD,
    "value": _NUMBER,
    "vspace": _NUMBER,
    "width": _LENGTH,
}
_EVERYWHERE: Final = frozenset({"align", "dir", "lang", "style"})
_CELL_ATTRIBUTES: Final = frozenset({"bgcolor", "height", "nowrap", "valign", "width"})
_ATTRIBUTES: Final[dict[str, frozenset[str]]] = {
    "a": frozenset({"href"}),
    "abbr": frozenset({"title"}),
    "acronym": frozenset({"title"}),
    "col": frozenset({"span", "valign", "width"}),
    "colgroup": frozenset({"span", "valign", "width"}),
    "font": frozenset({"color", "face", "size"}),
    "hr": frozenset({"color", "size", "width"}),
    "img": frozenset({"alt", "border", "height", "hspace", "src", "vspace", "width"}),
    "li": frozenset({"type", "value"}),
    "ol": frozenset({"start", "type"}),
    "table": frozenset({"bgcolor", "border", "cellpadding", "cellspacing", "height", "width"}),
    "tbody": frozenset({"bgcolor", "valign"}),
    "td": _CELL_ATTRIBUTES | {"colspan", "rowspan"},
    "tfoot": frozenset({"bgcolor", "valign"}),
    "th": _CELL_ATTRIBUTES | {"colspan", "rowspan"},
    "thead": frozenset({"bgcolor", "valign"}),
    "tr": frozenset({"bgcolor", "valign"}),
    "ul": frozenset({"type"}),
}
_TITLED: Final = {"a": frozenset({"title"})}
_ALLOWED: Final = {
    tag: set(_EVERYWHERE | _ATTRIBUTES.get(tag, frozenset()) | _TITLED.get(tag, frozenset())) for tag in TAGS
}
_END: Final = {name: re.compile(rf"</{name}(?=[{SPACE}/>])", re.IGNORECASE) for name in _GONE}


class TooMuch(Exception):
    """There is more markup than a parser should be given. Show the text without it."""


def safe_html(html: str, pictures: Pictures) -> str:
    """The content of a body that may be shown. Linear in time and memory; raises :class:`TooMuch`."""
    draft = _Draft(pictures).write(html)
    return nh3.clean(
        draft.encode("utf-8", "replace").decode("utf-8"),  # half characters would raise
        tags=set(TAGS),
        clean_content_tags=set(_GONE),
        attributes=_ALLOWED,
        attribute_filter=_with_pictures(pictures.addresses()),
        strip_comments=True,
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        url_schemes=set(SCHEMES) | {"cid"},
        filter_style_properties=set(PROPERTIES),
        url_relative="deny",
    )


def _with_pictures(addresses: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    """For nh3, which keeps a value as it is where this raises: so it must not."""

    def keep(tag: str, attribute: str, value: str) -> str | None:
        if attribute == "src":
            return addresses.get(value) if tag == "img" else None
        if attribute == "href" and value[:4].lower() == "cid:":
            return None
        return value

    return keep


class _Open:
    """An element that is open. ``shown`` is False where it was left out, but its end tag will come."""

    __slots__ = ("name", "shown")

    def __init__(self, name: str, *, shown: bool) -> None:
        self.name = name
        self.shown = shown


class _Draft:
    """The first layer: one document, written anew."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._out: list[str] = []
        self._stack: list[_Open] = []
        # How often each element is open since the innermost table or cell began: an end tag reaches no further.
        self._counts: list[dict[str, int]] = [{}]
        self._depth = 0
        self._formatting = 0
        self._tags = 0
        self._elements = 0
        self._unclosed: set[str] = set()
        self._known: dict[tuple[str, str], str] = {}

    def write(self, html: str) -> str:
        if html.count("&") > _MAX_REFERENCES:
            raise TooMuch
        html = _body_as_block(html)
        find = html.find
        position = 0
        while (start := find("<", position)) >= 0:
            if start > position:
                self._text(html[position:start])
            position = self._markup(html, start)
        self._text(html[position:])
        while self._stack:
            self._pop()
        return "".join(self._out)

    def _text(self, text: str) -> None:
        self._out.append(text)  # references stay as they are: nh3 reads them, and writes what they stand for

    def _markup(self, html: str, start: int) -> int:
        """Whatever begins with the bracket at ``start``. Where to go on."""
        self._tags += 1
        if self._tags > _MAX_TAGS * 2:
            raise TooMuch
        match = TAG.match(html, start)
        if match is None:
            return self._declaration(html, start)
        closing, name, attributes, _ = match.groups()
        name = name.lower()
        position = match.end()
        if closing:
            if name == "br":
                self._out.append("<br>")
            elif name in TAGS:
                self._close(name)
            return position
        self._elements += 1
        if self._elements > _MAX_TAGS:
            raise TooMuch
        if name in _GONE:
            return self._skip(html, name, position)
        if name == "image":  # what parsers make of it
            name = "img"
        if name in TAGS:
            self._start(name, attributes)
        return position

    def _declaration(self, html: str, start: int) -> int:
        """A comment or declaration is left out; a bracket that begins nothing is a character."""
        if html.startswith("<!--", start):
            if html.startswith((">", "->"), start + 4):
                return html.index(">", start) + 1
            end = COMMENT_END.search(html, start + 4)
            return len(html) if end is None else end.end()
        if html.startswith(("<!", "<?", "</"), start):
            bracket = html.find(">", start)
            return len(html) if bracket < 0 else bracket + 1
        self._out.append("&lt;")
        return start + 1

    def _skip(self, html: str, name: str, position: int) -> int:
        """Over an element that goes with its content. One that never ends: its tag goes."""
        if name in self._unclosed:
            return position
        match = _END[name].search(html, position)
        if match is None:
            self._unclosed.add(name)
            return len(html) if name in {"script", "style"} else position
        end = html.find(">", match.end())
        return len(html) if end < 0 else end + 1

    # -- elements -----------------------------------------------------------------------------------------------------

    def _start(self, name: str, attributes: str) -> None:
        self._make_room(name)
        written = self._written(name, attributes)
        if name in _VOID:
            if written:
                self._out.append(written)
            return
        formatting = name in _FORMATTING
        shown = self._depth < _MAX_DEPTH and not (formatting and self._formatting >= _MAX_FORMATTING)
        self._stack.append(_Open(name, shown=shown))
        counts = self._counts[-1]
        counts[name] = counts.get(name, 0) + 1
        if name == "table" or name in _CELLS:
            self._counts.append({})
        if shown:
            self._depth += 1
            self._formatting += formatting
            self._out.append(written)

    def _make_room(self, name: str) -> None:
        """Close what the opening of this element closes."""
        if name in _BLOCKS and self._counts[-1].get("p"):
            self._close("p")
        if name in _ROWS or name in _CELLS:
            for other in ("td", "th", "caption", "tr", "tbody", "thead", "tfoot"):
                if other in _CELLS or (name in _ROWS and (other == "tr" or name != "tr")):
                    self._close(other)
        for other in _CLOSES.get(name, ()):
            if other == "a" or self._is_near(other):
                self._close(other)

    def _is_near(self, name: str) -> bool:
        """Whether the element is open within the innermost list."""
        for element in reversed(self._stack[-30:]):
            if element.name == name:
                return True
            if element.name in _LISTS:
                return False
        return False

    def _close(self, name: str) -> None:
        """Close the innermost element of this name and all in it, where an end tag reaches it; else nothing."""
        reach = len(self._counts) if name == "table" else 2 if name in _STRUCTURE else 1
        if name in _STRUCTURE and len(self._counts) > 1 and self._owner() == "table":
            reach = 1
        for counts in self._counts[: -reach - 1 : -1]:
            if counts.get(name):
                break
        else:
            return
        while self._pop() != name:
            pass

    def _owner(self) -> str:
        """The innermost open table or cell."""
        for element in reversed(self._stack):
            if element.name == "table" or element.name in _CELLS:
                return element.name
        return ""

    def _pop(self) -> str:
        element = self._stack.pop()
        name = element.name
        if name == "table" or name in _CELLS:
            self._counts.pop()
        self._counts[-1][name] -= 1
        if element.shown:
            self._depth -= 1
            self._formatting -= name in _FORMATTING
            self._out.append(f"</{name}>")
        return name

    # -- attributes ---------------------------------------------------------------------------------------------------

    def _written(self, name: str, attributes: str) -> str:
        """The start tag as it is written; letters repeat themselves, so that each is made once."""
        if not attributes or attributes.isspace():
            return f"<{name}>" if name != "img" else ""
        known = self._known.get((name, attributes))
        if known is None:
            known = self._tag(name, attributes)
            if name != "img" and len(self._known) < _MAX_KNOWN:
                self._known[name, attributes] = known
        return known

    def _tag(self, name: str, attributes: str) -> str:
        wanted = _ATTRIBUTES.get(name, frozenset()) | _EVERYWHERE
        found: dict[str, str] = {}
        for count, match in enumerate(ATTRIBUTE.finditer(attributes)):
            key = match[1].lower()
            if count >= _MAX_ATTRIBUTES:
                break
            if name == "img" and key == "srcset":
                found.setdefault("src", "https:")  # a picture from elsewhere, told as such
            if key in wanted and key not in found:
                found[key] = unescaped(match[2] or match[3] or match[4] or "")
        pieces = [name]
        for key, value in found.items():
            pieces += self._attribute(key, value)
        return f"<{' '.join(pieces)}>"

    def _attribute(self, key: str, value: str) -> list[str]:
        if key == "style":
            value = safe_style(value)
        elif key == "href":
            link = safe_link(value)
            return [] if link is None else [_pair("href", link), _pair("title", link_text(link))]
        elif key == "src":
            value = self._pictures.place(value)
        elif key in {"alt", "title"}:
            return [_pair(key, value[:_MAX_TEXT_ATTRIBUTE])]
        else:
            grammar = _GRAMMARS.get(key)
            value = value.strip()
            if grammar is None or grammar.fullmatch(value) is None:
                return []
            return [_pair(key, value)]
        return [_pair(key, value)] if value else []


def _pair(key: str, value: str) -> str:
    return f'{key}="{escape(value)}"'


_BODY: Final = re.compile(rf"<body(?=[{SPACE}/>])([^<>]{{0,4000}})>", re.IGNORECASE)


def _body_as_block(html: str) -> str:
    """The colours of ``body`` go to a block: a letter may be written in white on black."""
    match = _BODY.search(html)
    if match is None:
        return html
    colours: dict[str, str] = {}
    for attribute in ATTRIBUTE.finditer(match[1]):
        name = {"bgcolor": "background-color", "text": "color"}.get(attribute[1].lower())
        value = (attribute[2] or attribute[3] or attribute[4] or "").strip()
        if name is not None and COLOUR.fullmatch(value):
            colours.setdefault(name, value)
    style = ";".join(f"{name}:{value}" for name, value in colours.items())
    outer = f'<div style="{style}">' if style else ""
    return f"{html[: match.start()]}{outer}<div{match[1]}>{html[match.end() :]}"
