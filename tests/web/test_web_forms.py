"""Forms: where they come from, tokens, limits, uploads as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest

from gateway.web import Field, FormLimits, Refused, Upload
from gateway.web.csrf import FormTokens, cross_origin
from gateway.web.forms import Part, parts
from tests.web.stand import KEY, LOOPBACK, Stand, face, stand

OWN = "http://127.0.0.1"


@pytest.fixture
async def web() -> AsyncIterator[Stand]:
    async with stand() as running:
        yield running


async def token_of(web: Stand) -> str:
    text = (await web.client.get("/form")).text
    assert text.startswith('<input type="hidden" name="csrf" value="')
    return text.split('value="')[1].split('"')[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": OWN}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),  # what no-referrer makes of it
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "anything"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, 403),
        ({"Origin": OWN}, 200),
        ({"Origin": "null"}, 200),  # an old browser says nothing: the token decides
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({}, 200),
    ],
)
async def test_where_a_form_comes_from(web: Stand, headers: dict[str, str], status: int) -> None:
    token = await token_of(web)
    answer = await web.client.post("/form", data={"csrf": token, "code": "123456"}, headers=headers)
    assert answer.status_code == status
    if status == 200:
        assert answer.text == "{'code': '123456'}"


async def test_a_token_is_of_one_browser(web: Stand) -> None:
    token = await token_of(web)
    own = web.client.cookies["browser"]
    for cookie, shown in ((own, "0" * 32), (own, ""), ("another", token), ("", token), (own, "\u00e9")):
        web.client.cookies.set("browser", cookie)
        answer = await web.client.post("/form", data={"csrf": shown, "code": "1"})
        assert answer.status_code == 403, (cookie, shown)
    web.client.cookies.set("browser", own)
    assert (await web.client.post("/form", data={"code": "1"})).status_code == 403
    assert (await web.client.post("/form", data={"code": "1", "csrf": token})).status_code == 403  # not the first
    assert (await web.client.post("/form", data={"csrf": token})).status_code == 200


async def test_a_token_outlives_the_server() -> None:
    async with stand() as web:
        token, browser = await token_of(web), web.client.cookies["browser"]
    async with stand() as web:
        web.client.cookies.set("browser", browser)
        assert (await web.client.post("/form", data={"csrf": token})).status_code == 200


async def test_over_https_cookies_are_of_this_host_alone() -> None:
    made = face("https://secure.clinic.example", trusted=LOOPBACK)
    async with stand(made) as web:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
        cookie = (await web.client.get("/form", headers=headers)).headers["set-cookie"]
        assert cookie.startswith("__Host-browser=")
        flags = {each.strip() for each in cookie.split(";")[1:]}
        assert flags == {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"}


async def test_over_http_the_prefix_would_be_refused_by_browsers(web: Stand) -> None:
    cookie = (await web.client.get("/form")).headers["set-cookie"]
    assert cookie.startswith("browser=")
    assert "Secure" not in cookie


def test_nothing_speaks_against_a_request_that_says_nothing() -> None:
    assert cross_origin(None, None, OWN) == ""
    assert cross_origin("cross-site", None, OWN) == "Sec-Fetch-Site is cross-site"


def test_tokens_of_other_keys_do_not_hold() -> None:
    assert FormTokens(KEY).holds("me", FormTokens(KEY).make("me"))
    assert not FormTokens(KEY).holds("me", FormTokens(b"x" * 32).make("me"))
    assert not FormTokens(KEY).holds(None, FormTokens(KEY).make(""))


# -- bodies -----------------------------------------------------------------------------------------------------------


async def test_files_arrive_in_pieces_behind_the_token(web: Stand) -> None:
    token = await token_of(web)
    answer = await web.client.post(
        "/files",
        data={"csrf": token, "text": "Grüße"},
        files=[("file", ("one.pdf", b"1" * 70_000)), ("file", ("zwei ü.txt", b"2" * 30_000))],
    )
    assert answer.text == "text=Grüße one.pdf:70000 zwei ü.txt:30000"


async def test_a_file_too_large_a_form_too_large_and_too_many_parts_are_413(web: Stand) -> None:
    token = await token_of(web)
    web.client.cookies.set("browser", web.client.cookies["browser"])

    async def status(**sent: object) -> int:
        answer = await web.client.post("/files", **sent)  # type: ignore[arg-type]  # as httpx takes it
        return answer.status_code

    assert await status(data={"csrf": token}, files={"file": ("a", b"1" * 100_001)}) == 413
    assert await status(data={"csrf": token}, files={"file": ("a", b"1" * 400_000)}) == 413  # the whole
    assert await status(data={"csrf": token, "text": "x" * 1001}, files={"file": ("a", b"1")}) == 413
    assert await status(data={"csrf": token, **{str(n): "" for n in range(9)}}, files={"file": ("a", b"1")}) == 413
    assert await status(files={"file": ("a", b"1")}) == 403  # no token before the file


async def test_a_body_without_length_is_counted_as_it_comes(web: Stand) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    answer = await web.client.post(
        "/form", content=endless(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 413
    assert (await web.client.get("/who")).status_code == 200


async def test_a_get_has_no_body(web: Stand) -> None:
    assert (await web.client.request("GET", "/who", content=b"x")).status_code == 413


async def test_files_where_none_are_taken_and_what_is_no_form_are_400(web: Stand) -> None:
    token = await token_of(web)
    sent = await web.client.post("/form", data={"csrf": token}, files={"file": ("a", b"1")})
    assert sent.status_code == 400
    for content_type in ("application/json", "multipart/form-data", "", "multipart/form-data; boundary=" + "b" * 300):
        answer = await web.client.post("/form", content=b"{}", headers={"Content-Type": content_type})
        assert answer.status_code == 400, content_type


# -- the parser alone -------------------------------------------------------------------------------------------------


async def read(content_type: str, *pieces: bytes, limits: FormLimits | None = None) -> list[tuple[str, str]]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    found: list[tuple[str, str]] = []

    async def take(part: Part) -> None:
        if isinstance(part, Field):
            found.append((part.name, part.value))
        elif part.name != "skipped":
            found.append((part.name, b"".join([piece async for piece in part.pieces]).decode()))

    async for part in parts(content_type, body(), limits or FormLimits(upload_bytes=1000)):
        await take(part)
    return found


FORM = (
    b"--b\r\nContent-Disposition: form-data; name=text\r\n\r\none\r\ntwo\r\n"
    b'--b\r\nContent-Disposition: form-data; name="skipped"; filename="x"\r\n\r\n' + b"s" * 100 + b"\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a; b.txt"\r\nContent-Type: text/plain\r\n\r\n'
    b"--bx\r\n\r\n--b--\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
async def test_how_a_form_is_cut_into_pieces_means_nothing(size: int) -> None:
    pieces = [FORM[start : start + size] for start in range(0, len(FORM), size)]
    assert await read("multipart/form-data; boundary=b", *pieces) == [("text", "one\r\ntwo"), ("file", "--bx\r\n")]


@pytest.mark.parametrize("cut", range(0, len(FORM) - 8, 3))
async def test_a_form_that_breaks_off_is_none(cut: int) -> None:
    with pytest.raises(Refused) as refused:
        await read("multipart/form-data; boundary=b", FORM[:cut])
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * 5000, 400),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 2000, 400),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nnameless\r\n--b--\r\n", 400),
        ("multipart/form-data; boundary=b", b"no boundary here", 400),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n\r\n--b--',
            400,
        ),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("application/x-www-form-urlencoded", "ä=1".encode(), 400),
        ("application/x-www-form-urlencoded", b"a=1&" * 51, 400),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 70_000, 413),
    ],
)
async def test_what_cannot_be_a_form_is_refused(content_type: str, body: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        await read(content_type, body)
    assert refused.value.status == status


async def test_ten_thousand_parts_do_not_get_far() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\nv\r\n'
    with pytest.raises(Refused) as refused:
        await read("multipart/form-data; boundary=b", part * 10_000)
    assert refused.value.status == 413


async def test_an_urlencoded_form_keeps_order_repeats_and_empty_values() -> None:
    sent = [("a", "1"), ("b", ""), ("a", "ü&=")]
    assert await read("application/x-www-form-urlencoded", urlencode(sent).encode()) == sent


def test_an_upload_is_a_stream() -> None:
    assert "pieces" in Upload.__slots__
