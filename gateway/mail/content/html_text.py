"""HTML as a reader sees it, as text - and what is hidden from the reader's eye too.

A tokenizer after the HTML standard (section 13.2.5), and no tree: trees cost many times the size of what they hold,
and the fast parsers take a minute for 400 KB of nested ``<div>``. One pass, linear, whatever the text.

Elements that flow in the line join without a blank; blocks, line breaks and table cells separate. Comments vanish
from between the letters and are judged apart, as are attributes that people read and the addresses of links. What is
hidden (``display:none`` and the like) is text. Where it stands within a word the reader sees the word without it: both
are given. The same holds for what Outlook alone shows (conditional comments), for cells and floating blocks that stand
side by side, for text that a table throws out before itself ("foster parenting"), and for writing from right to left.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from gateway.mail.content.html_tags import ATTRIBUTE, COMMENT_END, SPACE, TAG, unescaped

__all__ = ["HtmlText", "html_text"]


class HtmlText(NamedTuple):
    """The readings, the fullest first; ``data`` are the contents of ``data:`` addresses, raw; ``fault`` or ""."""

    texts: tuple[str, ...]
    data: tuple[str, ...]
    fault: str


#: More tags than any letter has; the rest is read roughly and is in doubt.
_MAX_TOKENS = 250_000
_MAX_REFERENCES = 150_000
_MAX_DATA = 200
_MAX_KNOWN = 1000
_FLUSH = 8192

_ROUGH_TAG = re.compile(r"<[^<>]*>")

_BLOCK_NAMES = (
    "address article aside blockquote body br caption center col colgroup dd details dialog dir div dl dt fieldset "
    "figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li link listing "
    "main menu meta nav ol optgroup option p plaintext pre search section select summary table tbody textarea tfoot "
    "thead title tr ul xmp"
)
_VOID_NAMES = "area base br col embed hr img input link meta param source track wbr"
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_VOID = frozenset(_VOID_NAMES.split())
_CELLS = frozenset({"td", "th"})
_RAW = frozenset({"script", "style"})
_NEVER_SHOWN = frozenset({"template", "dialog", "datalist"})
_FOSTERING = frozenset({"table", "tbody", "thead", "tfoot", "tr", "colgroup"})
_SPECIAL = frozenset({*_RAW, *_NEVER_SHOWN, *_FOSTERING, *_CELLS, "caption", "math", "svg", "bdo"})

_READ = frozenset(
    {"alt", "title", "aria-label", "aria-description", "aria-roledescription", "placeholder", "value", "label"}
    | {"summary", "content", "standby", "abbr", "cite", "action", "download", "srcdoc"}
)
_ADDRESSES = frozenset({"href", "src", "background", "data", "poster", "xlink:href"})
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0*(?:\.0*)?(?:[a-z%]|\s*[;!]|\s*\Z)|mso-hide\s*:\s*all"
    r"|opacity\s*:\s*0*(?:\.0*)?(?:\s*[;!]|\s*\Z)|(?<![a-z-])(?:max-)?(?:width|height)\s*:\s*0+(?:[a-z%]|\s*[;!]|\s*\Z)",
    re.IGNORECASE,
)
_HIDING_WORDS = ("display", "hid", "font-size", "opacity", "width", "height")
_IN_LINE = re.compile(r"display\s*:\s*(?:inline|table-cell|contents)|float\s*:\s*(?:left|right)", re.IGNORECASE)
_AS_BLOCK = re.compile(r"display\s*:\s*(?:block|table|list-item|flex|grid)", re.IGNORECASE)
_HIDING_CLASS = re.compile(
    r"\.([\w-]{1,80}+)[^{}]{0,200}+\{[^}]{0,500}?(?:display\s*:\s*none|font-size\s*:\s*0)", re.IGNORECASE
)
_MAX_STYLE = 65_536

# Marks within the text while it is put together. The text itself holds none: control characters were taken out.
_CELL = "\x00"  # the end of a table cell
_SIDE = "\x01"  # the end of a block that stands beside the next
_HIDE = "\x02"
_SHOW = "\x03"
_MARKS = re.compile("[\x00-\x03]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f]+")

_HIDDEN_RANGE = re.compile(f"{_HIDE}[^{_SHOW}]*{_SHOW}*")
_HIDDEN_IN_WORD = re.compile(rf"[^\s{_CELL}-{_SHOW}]{_HIDE}")
_SIDE_BY_SIDE = re.compile(rf"\S{_SIDE}|[0-9]\s*+{_CELL}[{_CELL}\s]*+-|-\s*+{_CELL}[{_CELL}\s]*+[0-9]")
_CELL_BREAK = re.compile(rf"(?<!\s)\s*+{_CELL}[{_CELL}\s]*+")


def html_text(html: str) -> HtmlText:
    """The readings of ``html``. Never raises; linear in its length."""
    if _CELL in html or _SIDE in html or _HIDE in html or _SHOW in html:
        html = _CONTROLS.sub("", html)
    return _Reading().read(html)


def _separators() -> dict[str, str]:
    """What a tag without attributes and without rules of its own leaves in the text, closing tags with their slash."""
    inline = "a abbr acronym b big cite code del em font i ins kbd mark q s small span strike strong sub sup tt u var"
    names = dict.fromkeys(inline.split(), "") | dict.fromkeys(_BLOCKS - _SPECIAL, "\n")
    names |= {name.upper(): separator for name, separator in names.items()}
    return names | {f"/{name}": separator for name, separator in names.items()}


_SIMPLE = re.compile(r"([^<]*+)<(/?[a-zA-Z][a-zA-Z0-9]*+)>")
_SEPARATORS = _separators()


class _Reading:
    """One document on its way to text."""

    def __init__(self) -> None:
        self._chunks: list[str] = []
        self._pieces: list[str] = []
        self._aside: list[str] = []
        self._fostered: list[str] = []
        self._data: list[str] = []
        self._fostering = False
        self._foreign = False
        self._reversed = False
        self._tokens = 0
        self._hidden = ""  # the name of the outermost hidden element
        self._hidden_depth = 0
        self._hiding_classes: set[str] = set()
        self._style_left = _MAX_STYLE
        self._known: dict[tuple[str, str], tuple[str, bool]] = {}
        self._dull: set[str] = {""}  # attributes that say nothing
        self._muted = 0
        self._decode = True
        self._closings: dict[str, list[str]] = {}
        self._fault = ""

    def read(self, html: str) -> HtmlText:
        if html.count("&") > _MAX_REFERENCES:
            self._decode, self._fault = False, "more character references than are read"
        self._parse(html, 0)
        self._flush()
        self._chunks += [f"\n{text}" for text in self._aside]
        marked = "".join(self._chunks)
        self._chunks = []
        texts = [_settled(marked)]
        if _HIDE in marked and _HIDDEN_IN_WORD.search(marked):
            texts.append(_settled(_HIDDEN_RANGE.sub("", marked)))
        if (_CELL in marked or _SIDE in marked) and _SIDE_BY_SIDE.search(marked):
            texts.append(_settled(_CELL_BREAK.sub("", marked).replace(_SIDE, "")))
        if any(not piece.isspace() for piece in self._fostered):
            texts.append("".join(self._fostered))
        if self._reversed:
            texts.append(texts[0][::-1])
        return HtmlText(tuple(dict.fromkeys(texts)), tuple(self._data), self._fault)

    def _flush(self) -> None:
        self._chunks.append("".join(self._pieces))
        self._pieces.clear()

    def _text(self, text: str) -> None:
        if self._decode:
            text = _unescaped(text)
        self._pieces.append(text)
        if self._fostering:
            self._fostered.append(text)

    def _parse(self, html: str, depth: int) -> None:
        """Text and tags in turn. ``depth``: of comments within comments."""
        find, match_simple, separators, pieces = html.find, _SIMPLE.match, _SEPARATORS, self._pieces
        position = 0
        while True:
            match = match_simple(html, position)
            separator = None if match is None or self._hidden or self._closings else separators.get(match[2])
            if match is not None and separator is not None:  # what most tags are
                text = match[1]
                if text:
                    if "&" in text or self._fostering:
                        self._text(text)
                    else:
                        pieces.append(text)
                if separator:
                    pieces.append(separator)
                position = match.end()
            else:
                start = find("<", position)
                if start < 0:
                    break
                if start > position:
                    self._text(html[position:start])
                position = self._tag(html, start, depth)
            self._tokens += 1
            if self._tokens > _MAX_TOKENS:
                self._fault = "more tags than are read"
                self._text(_ROUGH_TAG.sub("", html[position:]))
                return
            if len(pieces) > _FLUSH:
                self._flush()
        if position < len(html):
            self._text(html[position:])

    def _tag(self, html: str, start: int, depth: int) -> int:
        """Whatever begins with the bracket at ``start``. Where to go on."""
        match = TAG.match(html, start)
        if match is None:
            return self._declaration(html, start, depth)
        closing, name, attributes, end = match.groups()
        name = name.lower()
        if attributes and ("<" in attributes or not end):
            self._odd_tag(attributes)
        plain = not self._hidden and not self._closings and name not in _SPECIAL
        if plain and (closing or attributes in self._dull):
            if name in _BLOCKS:
                self._pieces.append("\n")
            return match.end()
        return self._element(html, match, name, attributes, match.end())

    def _odd_tag(self, attributes: str) -> None:
        """A tag that holds tags, or never ends: another reader sees text where we see attributes."""
        self._tokens += len(attributes) // 8
        self._note(_ROUGH_TAG.sub("", attributes))

    def _declaration(self, html: str, start: int, depth: int) -> int:
        """At a ``<`` that begins no tag: a comment, a declaration, or only the character. Where to go on."""
        if html.startswith("<!--", start):
            return self._comment(html, start + 4, depth)
        if html.startswith("<![CDATA[", start):  # text within svg; elsewhere a comment up to the next bracket
            end = html.find(">", start)
            end = len(html) if end < 0 else end
            self._mute()
            self._text(html[start + 9 : end].removesuffix("]]"))
            self._unmute()
            return end + 1
        if html.startswith(("<!", "<?", "</"), start):
            end = html.find(">", start)
            end = len(html) if end < 0 else end
            content = html[start + 2 : end]
            if content and not content[:7].lower().startswith("doctype"):
                self._note(content)
            return end + 1
        self._text("<")
        return start + 1

    def _comment(self, html: str, start: int, depth: int) -> int:
        if html.startswith(">", start) or html.startswith("->", start):
            return html.index(">", start) + 1
        end = COMMENT_END.search(html, start)
        stop, after = (len(html), len(html)) if end is None else end.span()
        content = html[start:stop]
        if content.lstrip().startswith("[if") and depth < 2:  # Outlook reads on, nobody else does
            self._mute()
            self._parse(content.partition("]>")[2], depth + 1)
            self._unmute()
        elif content:
            self._note(_ROUGH_TAG.sub("", content) if "<" in content else content)
        return after

    def _note(self, text: str) -> None:
        """Something to be judged that does not stand in the line."""
        text = (_unescaped(text) if self._decode else text).strip()
        if text:
            self._aside.append(text)
            if len(self._aside) > _FLUSH:
                self._aside = ["\n".join(self._aside)]

    def _element(self, html: str, match: re.Match[str], name: str, attributes: str, position: int) -> int:
        """A tag that asks for more than a line break. Where to go on: after the content, for scripts and styles."""
        opening = not match[1]
        separator = _CELL if name in _CELLS else "\n" if name in _BLOCKS else ""
        hides = name in _NEVER_SHOWN
        if name in _SPECIAL:
            self._structure(name, opening=opening)
            if opening and name in _RAW:
                return self._raw(html, name, position)
        if opening:
            style, hiding = self._attributes_once(name, attributes) if attributes else ("", False)
            hides = hides or hiding
            if style:
                separator = self._styled(name, style, separator)
            elif name in self._closings and name not in _VOID:
                self._closings[name].append(separator)
        elif self._closings.get(name):
            separator = self._closings[name].pop()
            if not self._closings[name]:
                del self._closings[name]
        self._hide(name, separator, opening=opening, hides=hides)
        return position

    def _structure(self, name: str, *, opening: bool) -> None:
        """Whether text at this place is thrown out of a table, and what else has rules of its own."""
        if name in _FOSTERING:
            self._fostering = opening or name != "table"
        elif name in _CELLS or name == "caption":
            self._fostering = not opening
        elif name in {"svg", "math"}:
            self._foreign = True
        elif name == "bdo":
            self._reversed = True

    def _styled(self, name: str, style: str, separator: str) -> str:
        """What stands between this element and its neighbours, if ``style`` says otherwise than its name."""
        normal = separator
        if separator and _IN_LINE.search(style) is not None:
            separator = _SIDE
        elif not separator and _AS_BLOCK.search(style) is not None:
            separator = "\n"
        if (separator != normal or name in self._closings) and name not in _VOID:
            self._closings.setdefault(name, []).append(separator)
        return separator

    def _hide(self, name: str, separator: str, *, opening: bool, hides: bool) -> None:
        """Keep track of the outermost hidden element; the separator stands outside of it."""
        pieces = self._pieces
        if self._hidden:
            if separator:
                pieces.append(separator)
            if name == self._hidden and name not in _VOID:
                self._hidden_depth += 1 if opening else -1
                if not self._hidden_depth:
                    self._hidden = ""
                    self._unmute()
            return
        if hides and opening and name not in _VOID:
            self._hidden, self._hidden_depth = name, 1
            self._mute()  # what is hidden separates nothing: its own line break is hidden with it
        if separator and not (hides and name in _VOID):
            pieces.append(separator)

    def _mute(self) -> None:
        if not self._muted:
            self._pieces.append(_HIDE)
        self._muted += 1

    def _unmute(self) -> None:
        self._muted -= 1
        if not self._muted:
            self._pieces.append(_SHOW)

    def _raw(self, html: str, name: str, position: int) -> int:
        """A script or style up to its end. It is no text; but where it holds tags, another reader may see text."""
        end = _end_of_raw(html, name, position)
        content = html[position:end]
        if name == "style" and self._style_left > 0:
            self._hiding_classes.update(_HIDING_CLASS.findall(content[: self._style_left]))
            self._style_left -= len(content)
            self._dull = {""}
            self._known.clear()
        bare = content.replace("<!--", "").replace("-->", "")
        if self._foreign or "<" in bare:
            self._note(_ROUGH_TAG.sub("", bare))
        return end

    def _attributes_once(self, name: str, attributes: str) -> tuple[str, bool]:
        """The same attributes come again and again in a letter: what they say is noted once."""
        known = self._known.get((name, attributes))
        if known is None:
            self._tokens += 4  # what it costs beside a simple tag
            known = self._attributes(name, attributes)
            if known == ("", False) and "<" not in attributes and len(self._dull) < _MAX_KNOWN:
                self._dull.add(attributes)
            elif len(self._known) < _MAX_KNOWN:
                self._known[name, attributes] = known
        else:
            self._tokens += 1
        return known

    def _attributes(self, name: str, attributes: str) -> tuple[str, bool]:
        """Note what people read in attributes. The style, and whether the element is hidden."""
        style, hidden = "", False
        for match in ATTRIBUTE.finditer(attributes):
            key = match[1].lower()
            value = match[2] or match[3] or match[4] or ""
            if key == "style":
                style = _unescaped(value).lower()
                if any(word in style for word in _HIDING_WORDS):
                    hidden = hidden or _HIDING.search(style) is not None
            elif key == "hidden":
                hidden = True
            elif key == "class" and self._hiding_classes:
                hidden = hidden or not self._hiding_classes.isdisjoint(value.split())
            elif key == "dir" and "rtl" in value.lower() and name == "bdo":
                self._reversed = True
            elif key in _READ or key in _ADDRESSES:
                self._attribute(key, _unescaped(value).strip())
        if "display" in style or "float" in style:
            return style, hidden
        return "", hidden

    def _attribute(self, key: str, value: str) -> None:
        if value[:5].lower() == "data:":
            if len(self._data) < _MAX_DATA:
                self._data.append(value)
            else:
                self._fault = "more data: addresses than are read"
        elif key in _READ or key in {"href", "xlink:href"}:
            self._note(value)
            if "%" in value:
                self._note(unquote(value, errors="replace"))
            if key == "srcdoc":
                self._note(_ROUGH_TAG.sub("", value))


def _end_of_raw(html: str, name: str, position: int) -> int:
    """Where ``</name`` stands, in any case and followed by what ends a name; or the end."""
    match = (_END_SCRIPT if name == "script" else _END_STYLE).search(html, position)
    return len(html) if match is None else match.start()


_END_SCRIPT = re.compile(rf"</script(?=[{SPACE}/>])", re.IGNORECASE)
_END_STYLE = re.compile(rf"</style(?=[{SPACE}/>])", re.IGNORECASE)


def _unescaped(text: str) -> str:
    """Character references decoded, our own marks not among them."""
    if "&" not in text:
        return text
    text = unescaped(text)
    return text if _MARKS.search(text) is None else _CONTROLS.sub("", text)


def _settled(marked: str) -> str:
    """The text without its marks."""
    for mark, text in ((_CELL, "\n"), (_SIDE, "\n"), (_HIDE, ""), (_SHOW, "")):
        if mark in marked:
            marked = marked.replace(mark, text)
    return marked
