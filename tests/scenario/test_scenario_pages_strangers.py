"""Who is not the reader: link scanners, other recipients, guessers. They reveal, consume and lock nothing."""

from __future__ import annotations

import re

import pytest

from gateway.portal.codes import LIFE
from gateway.portal.deposits import by_id, recall
from gateway.portal.sessions import ABSOLUTE, IDLE
from gateway.web import Listed
from tests.scenario.conftest import Build
from tests.scenario.pages_world import Browser, Page, Site, opened_site
from tests.scenario.portal_world import mails, phrase
from tests.scenario.world import BODY, MX, SENDER, SUBJECT, Host

OTHER = "eve@good.example"
UNSIGNED = {"accept": "text/html", "user-agent": "LinkScanner/1.0"}


async def scan(site: Site, browser: Browser, link: str) -> list[Page]:
    """All that a scanner does with what it finds from a link on: every method, every form, three rounds."""
    seen: set[str] = set()
    pages: list[Page] = []
    todo = [link, "/", "/sign-in", "/code", "/inbox"]
    while todo and len(seen) < 60:
        path = todo.pop()
        if path in seen or not path.startswith("/"):
            continue
        seen.add(path)
        for method in ("HEAD", "OPTIONS", "GET"):
            page = await browser.request(method, path, UNSIGNED)
            pages.append(page)
        todo += [*page.links, *page.frames_from(), *page.styles]
        for form in page.forms:
            form.values = {name: value or "123456" for name, value in form.values.items()}
            pages.append(await browser.submit(form))
            todo += pages[-1].links
            pages += [await browser.submit(each) for each in pages[-1].forms]
    return pages


async def revealed(pages: list[Page]) -> list[str]:
    return [page.path for page in pages for secret in (SUBJECT, BODY) if secret in page.answer.content]


async def test_a_link_scanner_reveals_consumes_and_locks_nothing(build: Build) -> None:
    async with opened_site(build) as site:
        link = await site.deposited()
        reader = await site.browser()
        asked = await reader.submit((await reader.get(link)).form("/m/"))
        for number in range(2):
            scanner = await site.browser()
            pages = await scan(site, scanner, link)
            assert len(pages) > 10
            assert await revealed(pages) == []
            assert {page.status for page in pages} <= {200, 403, 404, 405, 422, 429}, number
            assert all(page.scripts == 0 for page in pages)
        page = await reader.submit(asked.form("/code"), code=await site.code(asked))
        assert page.path.startswith("/read/")
        assert SUBJECT.decode() in page.text


async def test_forms_that_another_browser_got_are_nothing_here(build: Build) -> None:
    async with opened_site(build) as site:
        link = await site.deposited()
        reader, other = await site.browser(), await site.browser()
        form = (await reader.get(link)).form("/m/")
        assert (await other.submit(form)).status == 403  # without a cookie
        await other.get("/")
        assert (await other.submit(form)).status == 403  # with one of its own
        without = await reader.submit(form, csrf="")
        assert without.status == 403
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            assert (await reader.submit(form, headers=headers)).status == 403
        asked = await reader.submit(form)
        code = await site.code(asked)
        stolen = await other.get("/sign-in")
        strange = await other.submit(stolen.form("/sign-in"), address="pat@good.example")
        taken = await other.submit(strange.form("/code"), code=code)
        assert taken.status == 422  # a code works in the browser that asked for it
        assert SUBJECT.decode() in (await reader.submit(asked.form("/code"), code=code)).text


def filled(route: Listed, entry: str, link: str) -> str:
    path = route.path.replace("{id}", entry).replace("{token}", link.removeprefix("/m/"))
    return re.sub(r"\{(\w+)(:\w+)?\}", "1", path)


async def test_no_route_gives_anything_to_who_is_not_its_reader(build: Build) -> None:
    async with opened_site(build) as site:
        link = await site.deposited()
        others = await site.deposited(OTHER)
        pat, eve, nobody = await site.browser(), await site.browser(), await site.browser()
        page = await site.sign_in(pat, link)
        entry = page.path.removeprefix("/read/")
        foreign = (await site.sign_in(eve, others)).path.removeprefix("/read/")
        assert foreign != entry
        unknown = f"{entry.removesuffix('.1')[:-5]}00000.1"
        routes = [route for route in site.face.listed() if str(route.access).startswith("session")]
        assert len(routes) >= 10
        gets = [route for route in routes if "{id}" in route.path]
        for route in gets:
            at = {who: filled(route, who, link) for who in (entry, foreign, unknown)}
            if route.method == "GET":
                mine = await eve.get(at[entry])
                none = await eve.get(at[unknown])
                assert (mine.status, none.status) == (404, 404), route
                assert mine.text == none.text, route
                assert (await nobody.get(at[entry])).status == 403, route
            else:
                form = (await eve.get("/inbox")).form("/sign-out")
                form.action, answers = at[entry], []
                answers.append(await eve.submit(form))
                form.action = at[unknown]
                answers.append(await eve.submit(form))
                assert [answer.status for answer in answers] == [404, 404], route
                assert answers[0].text == answers[1].text
                assert (await nobody.submit(form)).status == 403, route
        for route in routes:
            answer = await nobody.get(filled(route, entry, link))
            assert answer.status in {403, 405}, route
            assert SENDER not in answer.text
        inbox = await eve.get("/inbox")
        assert entry not in inbox.text
        assert foreign in inbox.text


async def test_unknown_expired_and_recalled_links_are_one_page(build: Build) -> None:
    async with opened_site(build) as site:
        link, other = await site.deposited(), await site.deposited(OTHER)
        browser = await site.browser()
        await browser.get("/")
        unknown = await browser.get("/m/" + "a" * 26)
        deposit = await site.mailbox.landing(other.removeprefix("/m/"))
        assert deposit is not None
        await site.world.gateway._store.write(lambda work: recall(work, deposit.message, deposit.n, {}))
        recalled = await browser.get(other)
        site.world.jump(40 * 86400.0)
        expired = await browser.get(link)
        assert [page.status for page in (unknown, recalled, expired)] == [404, 404, 404]
        assert unknown.text == recalled.text == expired.text


async def test_an_address_is_answered_alike_whether_anything_lies_there(build: Build) -> None:
    async with opened_site(build) as site:
        await site.deposited()
        pages = []
        for address in ("pat@good.example", "nobody@good.example"):
            browser = await site.browser()
            form = (await browser.get("/sign-in")).form("/sign-in")
            asked = await browser.submit(form, address=address)
            wrong = await browser.submit(asked.form("/code"), code="000000")
            pages.append(
                [re.sub(r"[A-Z][0-9]-[A-Z][0-9]|value=\"[0-9a-f]{32}\"", "", page.text) for page in (asked, wrong)]
            )
        assert pages[0] == pages[1]
        (mail,) = await mails(site.world, MX, about="Your code for")
        assert mail["To"] == "pat@good.example"


async def test_looking_without_reading_opens_nothing(build: Build) -> None:
    async with opened_site(build) as site:
        first = await site.deposited()
        second = await site.deposited(raw=b"From: dr@clinic.example\r\nSubject: second\r\n\r\nanother\r\n")
        browser = await site.browser()
        await site.sign_in(browser, first)
        landing = await browser.get(second)
        (read,) = [path for path in landing.links if path.startswith("/read/")]
        message, _, n = read.removeprefix("/read/").rpartition(".")

        async def opened() -> float | None:
            found = await site.world.gateway._store.read(lambda connection: by_id(connection, message, int(n)))
            assert found is not None
            return found.opened

        assert (await browser.request("HEAD", read)).status == 200
        assert (await browser.get(read, **{"Sec-Purpose": "prefetch;prerender"})).status == 503
        for path in ("/body", "/part/1", "/message", "/reply"):
            assert (await browser.get(read + path)).status == 404, path
        inbox = await browser.get("/inbox")
        assert "second" not in inbox.text
        assert await opened() is None
        assert "second" in (await browser.get(read)).text
        assert await opened() is not None
        assert "another" in (await browser.get(f"{read}/body")).text
        assert "second" in (await browser.get("/inbox")).text


async def test_a_session_ends_idle_absolutely_and_by_its_button(build: Build) -> None:
    async with opened_site(build) as site:
        link = await site.deposited()
        browser = await site.browser()
        page = await site.sign_in(browser, link)
        site.world.jump(IDLE - 60)
        assert (await browser.get(page.path)).status == 200
        site.world.jump(IDLE - 60)
        assert (await browser.get(page.path)).status == 200
        site.world.jump(IDLE + 1)
        over = await browser.get(page.path)
        assert over.status == 403
        assert "not signed in any more" in over.text
        assert link in over.links
        page = await site.sign_in(browser, link)
        for _ in range(int(ABSOLUTE // 1000) + 1):
            site.world.jump(1000)
            last = await browser.get(page.path)
        assert last.status == 403
        page = await site.sign_in(browser, link)
        stolen = browser.client.cookies.get("session")
        gone = await browser.submit(page.form("/sign-out"))
        assert gone.path == "/signed-out"
        assert (await browser.get(page.path)).status == 403
        browser.client.cookies.set("session", stolen or "")
        assert (await browser.get(page.path)).status == 403


async def test_limits_on_codes_survive_a_restart(build: Build) -> None:
    async with opened_site(build) as site:
        link = await site.deposited()
        browser = await site.browser()
        asked = await browser.submit((await browser.get(link)).form("/m/"))
        right = await site.code(asked)
        for _ in range(5):
            answer = await browser.submit(asked.form("/code"), code="999999" if right != "999999" else "000000")
            assert answer.status == 422
        await site.restart()
        assert (await browser.submit(asked.form("/code"), code=right)).status == 422  # it is void
        statuses = [(await browser.submit((await browser.get(link)).form("/m/"))).status for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429]
        await site.restart()
        limited = await browser.submit((await browser.get(link)).form("/m/"))
        assert limited.status == 429
        assert "Several codes were sent already" in limited.text
        site.world.jump(LIFE * 2)
        assert (await browser.submit((await browser.get(link)).form("/m/"))).status == 200


@pytest.mark.parametrize("typed_right", [True, False])
async def test_where_mail_travels_bare_words_are_asked_for(build: Build, typed_right: bool) -> None:  # noqa: FBT001
    async with opened_site(build, hosts={MX: Host(certificate=None)}) as site:
        link = await site.deposited()
        browser = await site.browser()
        page = await site.sign_in(browser, link)
        assert page.path.startswith("/phrase/")
        assert SENDER in page.text
        assert SUBJECT.decode() not in page.text
        entry = page.path.removeprefix("/phrase/")
        assert (await browser.get(f"/read/{entry}/body")).status == 404
        assert SUBJECT.decode() not in (await browser.get("/inbox")).text
        words = await phrase(site.world)
        if typed_right:
            page = await browser.submit(page.form("/phrase/"), phrase=f"  {words.upper()} ")
            assert page.path == f"/read/{entry}"
            assert SUBJECT.decode() in page.text
            return
        for _ in range(5):
            assert (await browser.submit(page.form("/phrase/"), phrase="one two three four")).status == 422
        assert (await browser.submit(page.form("/phrase/"), phrase=words)).status == 429
