"""The whole way through the portal's pages, as a browser without JavaScript goes it."""

from __future__ import annotations

import re

from tests.scenario.conftest import Build
from tests.scenario.pages_world import opened_site
from tests.scenario.portal_world import mails, text_of
from tests.scenario.world import BODY, HOME, SENDER, SUBJECT


async def test_from_the_notice_to_the_reply(build: Build) -> None:
    async with opened_site(build) as site:
        browser = await site.browser()
        link = await site.deposited()
        page = await site.sign_in(browser, link)
        assert page.path.startswith("/read/")
        assert SUBJECT.decode() in page.text
        (frame,) = page.frames
        assert "allow-scripts" not in frame["sandbox"]
        assert "allow-same-origin" not in frame["sandbox"]
        body = await browser.get(frame["src"])
        assert BODY.decode() in body.text
        assert "sandbox" in body.answer.headers["content-security-policy"]
        (reply,) = [path for path in page.links if path.endswith("/reply")]
        form = (await browser.get(reply)).form("/reply")
        done = await browser.submit(form, [("röntgen.pdf", b"x" * 100_000)], text="Thank you,\nsee you then.")
        assert done.path.endswith("/replied"), done.text
        assert SENDER in done.text
        (mail,) = await mails(site.world, HOME, about="see you then")
        assert mail["In-Reply-To"] == "<m1@clinic.example>"
        assert mail["Subject"] == f"Re: {SUBJECT.decode()}"
        assert mail["Reply-To"] == "pat@good.example"
        (attached,) = mail.iter_attachments()
        assert attached.get_filename() == "röntgen.pdf"
        assert attached.get_content() == b"x" * 100_000
        assert page.scripts == 0


MANY = (
    b"From: dr@clinic.example\r\nTo: pat@good.example\r\nSubject: [secret] plan\r\nX-Internal: ward 7\r\n"
    b"Message-ID: <m2@clinic.example>\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n'
    b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="a b.pdf"\r\n\r\n'
    + b"\r\n".join([b"QUJDREVGR0hJSktM" * 4] * 40)
    + b"\r\n--b--\r\n"
)
FILE = b"ABCDEFGHIJKL" * 160


async def test_files_come_whole_and_in_ranges(build: Build) -> None:
    async with opened_site(build) as site:
        browser = await site.browser()
        page = await site.sign_in(browser, await site.deposited(raw=MANY))
        (path,) = [link for link in page.links if "/part/" in link]
        whole = (await browser.get(path)).answer
        assert whole.content == FILE
        assert whole.headers["content-disposition"].startswith("attachment;")
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in whole.headers["content-security-policy"]
        some = (await browser.get(path, Range="bytes=100-299")).answer
        assert (some.status_code, some.content) == (206, FILE[100:300])
        assert (await browser.get(path, Range="bytes=99999-")).status == 416
        assert (await browser.request("HEAD", path)).answer.headers["content-length"] == str(len(FILE))
        saved = (await browser.get(f"{page.path}/message")).answer
        assert saved.content.endswith(MANY)
        assert (await browser.get(f"{page.path}/part/99")).status == 404
        told = await site.world.trace(page.path.removeprefix("/read/").partition(".")[0])
        assert str(told).count("'downloaded'") == 2, told  # a range that goes on is the same download


async def test_what_policy_changes_is_changed_in_all_that_is_shown(build: Build) -> None:
    changes = [{"strip_tag": "secret"}, {"remove_header": "X-Internal"}]
    rule = {"name": "tidy", "when": {"recipient": "*"}, "do": changes}
    async with opened_site(build, rules=[rule]) as site:
        browser = await site.browser()
        page = await site.sign_in(browser, await site.deposited(raw=MANY))
        assert ">plan<" in page.text
        saved = (await browser.get(f"{page.path}/message")).answer.content
        assert b"Subject: plan\r\n" in saved
        for kept_inside in (b"secret", b"ward 7"):
            assert kept_inside not in saved
        assert saved.endswith(MANY[MANY.index(b"\r\n\r\n") :])
        (path,) = [link for link in page.links if "/part/" in link]
        assert (await browser.get(path)).answer.content == FILE
        assert "plan" in (await browser.get("/inbox")).text
        assert "secret" not in (await browser.get("/inbox")).text


async def test_a_reply_that_is_not_taken_keeps_its_text_and_sends_nothing(build: Build) -> None:
    async with opened_site(build) as site:
        browser = await site.browser()
        page = await site.sign_in(browser, await site.deposited())
        form = (await browser.get(f"{page.path}/reply")).form("/reply")
        empty = await browser.submit(form, text=" \r\n ")
        assert empty.status == 422
        assert "nothing to send yet" in empty.text
        half = b"\0" * 13_000_000
        large = await browser.submit(form, [("a.bin", half), ("b.bin", half)], text="precious words")
        assert large.status == 413
        assert "too large together" in large.text
        assert large.form("/reply").values["text"] == "precious words"
        many = await browser.submit(form, [(f"{number}.txt", b"x") for number in range(21)], text="x")
        assert many.status == 413
        assert (await browser.submit(form, [("huge.bin", b"\0" * 41_000_000)], text="x")).status == 413
        await browser.submit(form, text="the only one")
        (mail,) = await mails(site.world, HOME, about="the only one")
        assert not list(mail.iter_attachments())
        assert len(site.world.peers[HOME].messages) == 1
        spool = [path for path in (site.world.directory / "data").rglob("*") if path.stat().st_size > 1_000_000]
        assert [path for path in spool if "gateway" not in path.name] == []


async def test_a_typed_code_leads_to_the_page_of_its_link(build: Build) -> None:
    async with opened_site(build) as site:
        link = await site.deposited()
        notice = (await mails(site.world, about="secure message"))[-1]
        typed = re.search(r"\b([2-9A-Z]{4}-[2-9A-Z]{4})\b", text_of(notice))
        assert typed is not None
        browser = await site.browser()
        form = (await browser.get("/")).form("/find")
        wrong = await browser.submit(form, typed="AAAA-AAAA")
        assert wrong.status == 404
        found = await browser.submit(form, typed=f" {typed[1].lower()} ")
        assert found.path == link
        for _ in range(20):
            last = await browser.submit(form, typed="AAAA-AAAB")
        assert last.text.replace("AAAA-AAAB", "AAAA-AAAA") == wrong.text
        assert (await browser.submit(form, typed=typed[1])).status == 404  # this network has tried too often


async def test_who_is_signed_in_goes_on_without_another_code(build: Build) -> None:
    async with opened_site(build) as site:
        browser = await site.browser()
        await site.sign_in(browser, await site.deposited())
        landing = await browser.get(await site.deposited())
        assert not any("/m/" in form.action for form in landing.forms)
        (read,) = [link for link in landing.links if link.startswith("/read/")]
        assert SUBJECT.decode() in (await browser.get(read)).text
        inbox = await browser.get("/inbox")
        assert len([link for link in inbox.links if link.startswith("/read/")]) == 2


async def test_pages_show_their_organisation_and_its_colour(build: Build) -> None:
    async with opened_site(build) as site:
        page = await (await site.browser()).get(await site.deposited())
        assert "Example Clinic" in page.text
        sheet = await (await site.browser()).get("/colour/1c6b52.css")
        assert "/colour/1c6b52.css" in page.styles
        assert "--brand: #1c6b52" in sheet.text
        assert sheet.answer.headers["content-type"].startswith("text/css")
        assert (await (await site.browser()).get("/colour/nocolour.css")).status == 404


async def test_a_store_that_takes_nothing_shows_nothing_and_says_later(build: Build) -> None:
    async with opened_site(build) as site:
        browser = await site.browser()
        page = await site.sign_in(browser, await site.deposited())
        reply = (await browser.get(f"{page.path}/reply")).form("/reply")
        landing = await browser.get(await site.deposited())
        ask = (await (stranger := await site.browser()).get(landing.path)).form("/m/")
        site.world.gateway._store.writer.fail("for the test")
        seen = await browser.get(page.path)
        assert seen.status == 503  # that it is read cannot be written down
        assert SUBJECT.decode() not in seen.text
        assert (await stranger.submit(ask)).status == 503
        kept = await browser.submit(reply, text="still here")
        assert kept.status == 503
        assert kept.form("/reply").values["text"] == "still here"
