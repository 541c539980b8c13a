"""Which parts are shown, and which are offered as files. Every part is one or the other, or another form of one shown.

* ``alternative``: the richest form that can be shown safely - HTML, else plain text; the other texts are left out, all
  else in it is offered (invitations are sent so)
* ``related``: its first part, or the one that ``start`` names; pictures that it refers to are shown in it
* ``signed``: the first part; the signature is a file. ``encrypted``: all of it is files
* everything else: text without a name, one after the other; files
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.portal.reading.parts import Branch, MessageIndex, Node, Part

__all__ = ["BODIES_LIMIT", "BODY_LIMIT", "Plan", "plan_of"]

#: Decoded octets of one text that is shown, and of all.
BODY_LIMIT = 2_000_000
BODIES_LIMIT = 4_000_000
_MAX_BODIES = 20
_TEXTS = frozenset({"text/plain", "text/html"})
#: Forms of the text that hardly any program shows; beside a form that is shown they are left out.
_FORMS = _TEXTS | {"text/x-amp-html", "text/watch-html", "text/enriched", "text/richtext"}


@dataclass(slots=True)
class Plan:
    """``bodies`` are shown in this order, ``files`` offered. ``too_large``: a text that is a file for its size only."""

    bodies: list[Part] = field(default_factory=list)
    files: list[Part] = field(default_factory=list)
    too_large: bool = False
    octets: int = 0


def plan_of(index: MessageIndex) -> Plan:
    """What becomes of each part of the message."""
    plan = Plan()
    _walk(plan, index.root, inside=True)
    plan.files.sort(key=lambda part: part.number)
    return plan


def _walk(plan: Plan, node: Node, *, inside: bool) -> None:
    """``inside``: whether texts are shown here."""
    if isinstance(node, Part):
        _place(plan, node, inside=inside)
        return
    children = node.children
    if node.kind == "alternative" and inside:
        _alternative(plan, children)
        return
    shown = _shown(node) if inside else None
    for child in children:
        _walk(plan, child, inside=inside and (shown is None or child is shown) and node.kind != "encrypted")


def _shown(node: Branch) -> Node | None:
    """The one child that is the text of it all; None where each may be."""
    if node.kind == "related":
        named = [child for child in node.children if isinstance(child, Part) and child.content_id == node.root]
        return named[0] if node.root and named else node.children[0]
    return node.children[0] if node.kind == "signed" else None


def _place(plan: Plan, part: Part, *, inside: bool) -> None:
    if not inside or not _is_text(part):
        plan.files.append(part)
        return
    fits = part.size <= BODY_LIMIT and plan.octets + part.size <= BODIES_LIMIT and len(plan.bodies) < _MAX_BODIES
    if fits:
        plan.octets += part.size
        plan.bodies.append(part)
    else:
        plan.too_large = True
        plan.files.append(part)


def _is_text(part: Part) -> bool:
    return part.media_type in _TEXTS and not part.name and not part.is_attachment


def _alternative(plan: Plan, children: tuple[Node, ...]) -> None:
    best = max(children, key=_richness)  # of equals the first; richer forms stand later (RFC 2046 section 5.1.4)
    if not _richness(best):
        for child in children:
            _walk(plan, child, inside=True)
        return
    for child in children:
        if child is best:
            _walk(plan, child, inside=True)
        else:
            _files_of(plan, child)


def _richness(node: Node) -> int:
    """2: HTML can be shown of it; 1: plain text; 0: nothing."""
    if isinstance(node, Part):
        if not _is_text(node) or node.size > BODY_LIMIT:
            return 0
        return 2 if node.media_type == "text/html" else 1
    shown = _shown(node)
    if node.kind == "encrypted":
        return 0
    return _richness(shown) if shown is not None else max(map(_richness, node.children))


def _files_of(plan: Plan, node: Node) -> None:
    """A form that is not shown: only what is no text in it is offered. One too large to be shown is."""
    if isinstance(node, Branch):
        for child in node.children:
            _files_of(plan, child)
    elif node.media_type not in _FORMS or node.name or node.is_attachment:
        plan.files.append(node)
    elif node.size > BODY_LIMIT:
        plan.too_large = True
        plan.files.append(node)
