"""What happens to every request: headers, errors, access, HEAD, methods, the log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog

from gateway.web import PAGE_POLICY, Access, Route, app_of, listed
from tests.web.stand import ROUTES, Counts, Stand, face, front, route, stand

ALWAYS = {
    "content-security-policy": PAGE_POLICY,
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


@pytest.fixture
async def web() -> AsyncIterator[Stand]:
    async with stand() as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/static/0000000000000000/web.css", 404),
        ("GET", "/static/0000000000000000/..%2f__init__.py", 404),
        ("DELETE", "/", 405),
        ("OPTIONS", "/", 405),
        ("TRACE", "/form", 405),
        ("POST", "/form", 400),
        ("GET", "/known", 403),
        ("GET", "/broken", 500),
        ("GET", "/wait", 429),
    ],
)
async def test_every_answer_has_the_headers_and_its_status(web: Stand, method: str, path: str, status: int) -> None:
    answer = await web.client.request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert "permissions-policy" in answer.headers
    assert "strict-transport-security" not in answer.headers  # this face is on http
    assert "server" not in answer.headers
    if method == "HEAD":
        assert answer.content == b""
    else:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<!doctype html>" in answer.text


async def test_an_error_page_tells_a_reference_and_nothing_of_the_fault(web: Stand) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await web.client.get("/broken")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    (failed,) = [line for line in logs if line["event"] == "web_failed"]
    assert failed["reference"] in answer.text
    (line,) = [line for line in logs if line["event"] == "web_request"]
    assert (line["status"], line["route"], line["reference"]) == (500, "broken", failed["reference"])


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(web: Stand) -> None:
    answer = await web.say(b"GET /half HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"one half" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_what_is_not_there_and_what_was_never_there_look_alike(web: Stand) -> None:
    def without_reference(text: str) -> str:
        return "".join(line for line in text.splitlines() if "Reference" not in line)

    one = await web.client.get("/nowhere")
    web.client.cookies.set("browser", "somebody")
    web.client.cookies.set("level", "low")
    other = await web.client.get("/deep/token-that-exists")
    assert without_reference(one.text) == without_reference(other.text)
    assert one.status_code == other.status_code == 404


async def test_a_method_that_is_not_there_names_those_that_are(web: Stand) -> None:
    assert (await web.client.put("/form")).headers["allow"] == "GET, HEAD, POST"
    assert (await web.client.get("/files")).headers["allow"] == "POST"


async def test_too_many_tries_say_when_to_come_again(web: Stand) -> None:
    assert (await web.client.get("/wait")).headers["retry-after"] == "30"


async def test_a_route_may_have_a_policy_of_its_own_but_its_errors_do_not(web: Stand) -> None:
    answer = await web.client.get("/framed")
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'self'; sandbox"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    refused = await web.client.post("/framed")
    assert refused.headers["content-security-policy"] == PAGE_POLICY


async def test_a_session_route_asks_the_gate(web: Stand) -> None:
    assert (await web.client.get("/inside")).status_code == 403  # no browser of ours
    web.client.cookies.set("browser", "somebody")
    redirected = await web.client.get("/inside")
    assert (redirected.status_code, redirected.headers["location"]) == (303, "/")
    web.client.cookies.set("level", "low")
    assert (await web.client.get("/inside")).text == "low"
    assert (await web.client.get("/deep/x")).status_code == 404
    web.client.cookies.set("level", "high")
    assert (await web.client.get("/deep/x")).text == "high"


async def test_the_line_in_the_log_and_the_metrics_name_the_route_and_never_the_path(web: Stand) -> None:
    with structlog.testing.capture_logs() as logs:
        await web.client.get("/deep/s3cr3t-token?code=123456", headers={"Cookie": "browser=who; level=high"})
        await web.client.get("/s3cr3t-token")
    lines = [line for line in logs if line["event"] == "web_request"]
    assert [(line["route"], line["status"], line["face"]) for line in lines] == [
        ("deep", 200, "test"),
        ("none", 404, "test"),
    ]
    assert lines[0]["network"] == "127.0.0.0/24"
    assert "s3cr3t" not in json.dumps(lines, default=str)
    assert "123456" not in json.dumps(lines, default=str)
    assert web.counts.visits == [("test", "deep", 200), ("test", "none", 404)]


async def test_a_strange_method_is_no_label(web: Stand) -> None:
    with structlog.testing.capture_logs() as logs:
        assert (await web.client.request("BREW", "/")).status_code == 405
    assert [line["method"] for line in logs if line["event"] == "web_request"] == ["other"]


async def test_static_files_are_kept_for_ever_under_an_address_that_tells_their_content(web: Stand) -> None:
    page = await web.client.get("/")
    address = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = await web.client.get(address)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "set-cookie" not in answer.headers


async def test_a_get_sets_no_cookie_where_it_needs_none(web: Stand) -> None:
    assert "set-cookie" not in (await web.client.get("/")).headers


# -- what cannot be built ---------------------------------------------------------------------------------------------


def test_a_route_without_a_word_about_access_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="access"):
        Route(path="/", name="open", handler=front)  # type: ignore[call-arg]  # that is the point


def test_faces_that_are_not_sound_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="does not say who may come in"):
        app_of(face(routes=[route("/", front, access="public")]), Counts())
    with pytest.raises(ValueError, match="has no gate"):
        app_of(replace(face(routes=[route("/", front, access=Access.session())]), gate=None), Counts())
    with pytest.raises(ValueError, match="the name front"):
        app_of(face(routes=[route("/", front), route("/other", front)]), Counts())
    with pytest.raises(ValueError, match="the place GET /"):
        app_of(face(routes=[route("/", front), route("/", front, name="again")]), Counts())


def test_a_sweep_finds_all_routes_with_who_may_come_in() -> None:
    found = {(each.method, each.path): str(each.access) for each in listed(ROUTES)}
    assert found["GET", "/deep/{token}"] == "session:high"
    assert found["POST", "/form"] == "public"
    assert any(each.name == "static" for each in face().listed())


# -- https ------------------------------------------------------------------------------------------------------------


async def test_a_face_on_https_tells_browsers_to_insist_and_serves_nothing_in_clear() -> None:
    async with stand(face("https://secure.clinic.example")) as web:
        answer = await web.client.get("/")
        assert answer.status_code == 400
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        with structlog.testing.capture_logs() as logs:
            claimed = await web.client.get("/", headers={"X-Forwarded-Proto": "https"})
        assert claimed.status_code == 400  # anybody can say so
        assert logs[-1]["reason"].startswith("not by https")
