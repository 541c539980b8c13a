"""The whole way through the portal's pages, as a browser without JavaScript goes it."""

from __future__ import annotations

from tests.scenario.conftest import Build
from tests.scenario.pages_world import opened_site
from tests.scenario.portal_world import mails
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
