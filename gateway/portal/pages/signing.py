"""Signing in by a code, and signing out.

Who asked, and for what, is kept in cookies of the browser that asked: pages can be loaded anew, and the address that
somebody types is answered the same whether anything lies here for it or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from gateway.portal.codes import LIFE, CodeAsked
from gateway.portal.mailbox import Mailbox
from gateway.portal.pages.frame import ASKED, CAME, SESSION, dress, gone
from gateway.portal.pages.shown import masked
from gateway.web import Access, Refused, Route, Visit

__all__ = ["Signing"]

_MINUTES: Final = int(LIFE // 60)
_LONGEST_ADDRESS: Final = 320


@dataclass(frozen=True, slots=True)
class Signing:
    """Codes and sessions."""

    mailbox: Mailbox

    def routes(self) -> list[Route]:
        """Asking, entering, signing out."""
        public = Access.PUBLIC
        return [
            Route(path="/m/{token}", name="ask", handler=self.ask, access=Access.BROWSER, method="POST"),
            Route(path="/sign-in", name="sign_in", handler=self.sign_in, access=public),
            Route(path="/sign-in", name="ask_address", handler=self.ask_address, access=Access.BROWSER, method="POST"),
            Route(path="/code", name="code", handler=self.code, access=public),
            Route(path="/code", name="enter", handler=self.enter, access=Access.BROWSER, method="POST"),
            Route(path="/sign-out", name="sign_out", handler=self.sign_out, access=Access.BROWSER, method="POST"),
            Route(path="/signed-out", name="signed_out", handler=self.signed_out, access=public),
        ]

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, visit: Visit) -> Response:
        """Mail a code for the message of a link."""
        await visit.fields()
        token = visit.parameter("token")
        deposit = await self.mailbox.landing(token)
        if deposit is None:
            return gone(visit, self.mailbox)
        asked = await self.mailbox.ask_code(deposit, _browser(visit), visit.client.network)
        visit.cookies.set(CAME, token)
        return await self._asked(visit, asked)

    async def sign_in(self, visit: Visit) -> Response:
        """A field for an address."""
        dress(visit, self.mailbox)
        return visit.page("sign_in.html", problem="")

    async def ask_address(self, visit: Visit) -> Response:
        """Mail a code to an address, where anything lies here for it."""
        address = (await visit.fields()).get("address", "").strip()
        if "@" not in address or len(address) > _LONGEST_ADDRESS:
            dress(visit, self.mailbox)
            problem = visit.translate("That is not a mail address. It looks like name@example.com.")
            return visit.page("sign_in.html", status=422, problem=problem)
        asked = await self.mailbox.ask_code_for(address, _browser(visit), visit.client.network)
        visit.cookies.drop(CAME)
        return await self._asked(visit, asked)

    async def _asked(self, visit: Visit, asked: CodeAsked) -> Response:
        if asked.limited:
            problem = visit.translate(
                "Several codes were sent already. Please use the newest one, or wait a quarter of an hour."
            )
            return await self._page(visit, problem, status=429)
        visit.cookies.set(ASKED, asked.reference)
        return visit.redirect("code")

    # -- entering -----------------------------------------------------------------------------------------------------

    async def code(self, visit: Visit) -> Response:
        """A field for the code."""
        if visit.cookies.get(ASKED) is None:
            return visit.redirect("front")
        return await self._page(visit)

    async def enter(self, visit: Visit) -> Response:
        """Sign in. The browser gets a new name with its session: forms and codes of before are void."""
        text = (await visit.fields()).get("code", "")
        before = visit.cookies.get(SESSION)
        signed = await self.mailbox.enter_code(text, _browser(visit), visit.client.network, before)
        if signed is True:
            problem = visit.translate("Too many codes were wrong. Please wait a quarter of an hour.")
            return await self._page(visit, problem, status=429)
        if signed is False:
            problem = visit.translate(
                "That code is wrong, or its time is over. Please compare it with the newest mail: the reference has "
                "to be the same. After five wrong tries only a new code helps."
            )
            return await self._page(visit, problem, status=422)
        visit.cookies.set(SESSION, signed.cookie)
        visit.cookies.drop(ASKED)
        visit.rename_browser()
        if signed.deposit is None:
            return visit.redirect("inbox")
        return visit.redirect("read", id="{}.{}".format(*signed.deposit))

    async def _page(self, visit: Visit, problem: str = "", *, status: int = 200) -> Response:
        token = visit.cookies.get(CAME)
        deposit = None if token is None else await self.mailbox.landing(token)
        dress(visit, self.mailbox, None if deposit is None else self.mailbox.face(deposit))
        return visit.page(
            "code.html",
            status=status,
            problem=problem,
            token="" if deposit is None else token,
            recipient="" if deposit is None else masked(deposit.address),
            reference=visit.cookies.get(ASKED) or "",
            minutes=_MINUTES,
        )

    # -- the end ------------------------------------------------------------------------------------------------------

    async def sign_out(self, visit: Visit) -> Response:
        """End the session, and forget what the browser was here for."""
        await visit.fields()
        cookie = visit.cookies.get(SESSION)
        if cookie is not None:
            await self.mailbox.sign_out(cookie)
        for name in (SESSION, CAME, ASKED):
            visit.cookies.drop(name)
        visit.rename_browser()
        return visit.redirect("signed_out")

    async def signed_out(self, visit: Visit) -> Response:
        """It has ended."""
        dress(visit, self.mailbox)
        return visit.page("signed_out.html")


def _browser(visit: Visit) -> str:
    """The name of the browser, which has just sent a form of ours."""
    if visit.browser is None:
        raise Refused(403, "a browser that shows no cookie of ours")
    return visit.browser
