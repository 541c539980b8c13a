"""What a face answers to: each route names its handler and, without a default, who may come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from starlette.responses import Response

from gateway.web.headers import PAGE_POLICY

if TYPE_CHECKING:
    from gateway.web.visit import Visit

__all__ = ["Access", "Handler", "Listed", "Route", "listed", "require_sound"]

Handler = Callable[["Visit"], Awaitable[Response]]

#: Bytes of a form without uploads: some long texts.
FORM_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in.

    ``PUBLIC``: anybody, a scanner too. ``BROWSER``: a browser that has shown the cookie which we gave it.
    :meth:`session`: who the face's gate lets in, at ``level`` (the face's own word, such as a TLS assurance).
    """

    kind: Literal["public", "browser", "session"]
    level: str = ""

    PUBLIC: ClassVar[Access]
    BROWSER: ClassVar[Access]

    @classmethod
    def session(cls, level: str = "") -> Access:
        """A session that has reached this level; "" any."""
        return cls("session", level)

    def __str__(self) -> str:
        return f"{self.kind}:{self.level}" if self.level else self.kind


Access.PUBLIC = Access("public")
Access.BROWSER = Access("browser")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method at one path.

    ``name`` stands in log and metrics in place of the path, which may hold a token; it is unique in its face.
    A GET answers HEAD too and changes nothing. A POST is from our own pages only: the frame looks where it comes from
    before the handler runs, and its fields cannot be read without a valid form token (:meth:`Visit.fields`).
    ``body``: most bytes of a request. ``policy``: the Content-Security-Policy of every answer.
    """

    path: str
    name: str
    handler: Handler
    access: Access
    method: Literal["GET", "POST"] = "GET"
    body: int = FORM_BYTES
    policy: str = PAGE_POLICY

    @property
    def most_bytes(self) -> int:
        """Most bytes of a request: a GET has no body."""
        return self.body if self.method == "POST" else 0


class Listed(NamedTuple):
    """A route as a sweep over all of them wants it."""

    method: str
    path: str
    name: str
    access: Access


def listed(routes: Sequence[Route]) -> list[Listed]:
    """All routes with who may come in, for tests that try each."""
    return [Listed(each.method, each.path, each.name, each.access) for each in routes]


def require_sound(routes: Sequence[Route], *, has_gate: bool) -> None:
    """Raise ``ValueError`` where a name or place is given twice, or nobody could judge a session."""
    for what, found in (
        ("name", Counter(each.name for each in routes)),
        ("place", Counter(f"{each.method} {each.path}" for each in routes)),
    ):
        twice = sorted(key for key, count in found.items() if count > 1)
        if twice:
            raise ValueError(f"two routes have the {what} {', '.join(twice)}")
    for each in routes:
        if not isinstance(each.access, Access):
            raise ValueError(f"the route {each.name} does not say who may come in")  # noqa: TRY004  all faults alike
        if each.access.kind == "session" and not has_gate:
            raise ValueError(f"the route {each.name} needs a session, and the face has no gate")
