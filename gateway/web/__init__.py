"""What all web faces share: the server, the frame around every answer, forms, pages. No face of its own, no store.

A face - the portal, later API and console - is a :class:`Face`: routes with handlers, a gate, folders of templates. It
is put together in ``gateway.app.web`` and served there by the web process. On the way of a request:

1. ``server``   - connections: limits, patience, TLS, the end
2. ``face``     - the frame: what happens to every request, in which order
3. ``client``   - who asks, behind which proxies
4. ``routes``   - what there is, and who may come in: a route that does not say so cannot be made
5. ``csrf``     - whether a form comes from our own page
6. ``visit``    - a request as handlers see it; ``Gate``, which judges sessions
7. ``forms``    - fields and uploads, bounded, as they arrive
8. ``cookies``  - ``__Host-`` names
9. ``pages``    - templates, catalogues, the reader's language
10. ``static``  - style sheets and the like, under addresses that change with their content
11. ``errors``  - ``Refused``: the same plain page for each status
12. ``headers`` - on every answer

A handler::

    async def landing(visit: Visit) -> Response:
        return visit.page("landing.html", sender=...)

    Route(path="/m/{token}", name="landing", handler=landing, access=Access.PUBLIC)

Forms begin with ``{{ form_token() }}``; the handler of the POST reads ``await visit.fields()`` or, with files,
``async for part in visit.parts(limits)``. GET changes nothing. Links are made with ``url("name", token=...)``.
"""

from gateway.web.client import Client
from gateway.web.errors import Refused
from gateway.web.face import Face, PublicUrl, WebMetrics, app_of
from gateway.web.forms import Field, Fields, FormLimits, Part, Upload
from gateway.web.headers import PAGE_POLICY
from gateway.web.routes import Access, Listed, Route, listed
from gateway.web.server import ServerLimits, WebServer
from gateway.web.visit import Gate, Visit

__all__ = [
    "PAGE_POLICY",
    "Access",
    "Client",
    "Face",
    "Field",
    "Fields",
    "FormLimits",
    "Gate",
    "Listed",
    "Part",
    "PublicUrl",
    "Refused",
    "Route",
    "ServerLimits",
    "Upload",
    "Visit",
    "WebMetrics",
    "WebServer",
    "app_of",
    "listed",
]
