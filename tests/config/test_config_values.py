"""Single settings: what they take, and how they say no."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.model import Endpoint, KeySource, Secret, Settings, Stage, Surroundings
from gateway.config.values import parse_duration, parse_size


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"hostname": "gw.clinic.example", "postmaster": "ops@clinic.example", **given})


def connector(**given: Any) -> Any:
    return settings(connectors=[{"name": "c", **given}]).connectors[0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("4h", 14400), ("5d", 432000), ("250ms", 0.25), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes", "-5m", "5M", "1e9s", "5m ", "٥m", "999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("25MB", 25_000_000), ("16KiB", 16384), ("1GiB", 2**30), ("0.5MB", 500_000), ("12B", 12)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "25", "25mb", "25 mega", "-1MB", "MB", "9999999TiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(text)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size, Endpoint.parse, KeySource.parse):
        with suppress(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("[::1]:0", ("::1", 0)),
        ("[2001:DB8::1]:465", ("2001:db8::1", 465)),
        ("MX.Clinic.Example:25", ("mx.clinic.example", 25)),
    ],
)
def test_endpoints_and_back(text: str, endpoint: tuple[str, int]) -> None:
    parsed = Endpoint.parse(text)
    assert (parsed.host, parsed.port) == endpoint
    assert Endpoint.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", ":25", "host", "::1:25", "host:65536", "host:x", "[::1]", "a b:25", "[host:25"])
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Endpoint.parse(text)


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    secret = connector(accept={"header": {"name": "X-R", "value": "opensesame"}}).accept.header.values[0]
    assert secret.reveal() == b"opensesame"
    assert "opensesame" not in f"{secret} {secret!r} {settings(connectors=[])!r}"
    assert secret == Secret(b"opensesame") != Secret(b"opensesamE")


def test_secrets_from_file_environment_and_credential(tmp_path: Path) -> None:
    (tmp_path / "relay.secret").write_bytes(b"from-a-file\n")
    (tmp_path / "windows").write_bytes(b"two lines\r\nare kept\r\n")
    (tmp_path / "cred").write_bytes(b"from-systemd")
    surroundings = Surroundings(tmp_path, {"RELAY": "from-environment", "CREDENTIALS_DIRECTORY": str(tmp_path)})
    values = ["file:relay.secret", "file:windows", "${RELAY}", "credential:cred", "itself"]
    model = Settings.model_validate(
        {
            "hostname": "gw.clinic.example",
            "postmaster": "ops@clinic.example",
            "connectors": [{"name": "c", "accept": {"header": {"name": "X-R", "values": values}}}],
        },
        context=surroundings,
    )
    header = model.connectors[0].accept.header
    assert header is not None
    assert [value.reveal() for value in header.values] == [
        b"from-a-file",
        b"two lines\r\nare kept",
        b"from-environment",
        b"from-systemd",
        b"itself",
    ]


def test_a_file_may_be_a_credential(tmp_path: Path) -> None:
    surroundings = Surroundings(tmp_path / "etc", {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
    needed = {"hostname": "gw.clinic.example", "postmaster": "ops@clinic.example"}
    tls = {"certificate": "tls.crt", "key": "credential:tls.key"}
    model = Settings.model_validate({**needed, "tls": tls}, context=surroundings)
    assert model.tls.certificate == tmp_path / "etc/tls.crt"
    assert model.tls.key == tmp_path / "credentials/tls.key"
    with pytest.raises(ValidationError, match="LoadCredential"):
        Settings.model_validate({**needed, "tls": tls}, context=Surroundings(tmp_path, {}))


def test_key_sources_keep_where_they_come_from(tmp_path: Path) -> None:
    sources = settings(store={"keys": ["file:kek.key", "${KEK}", "credential:kek"]}).store.keys
    assert [(source.kind, source.name) for source in sources] == [
        ("file", "kek.key"),
        ("env", "KEK"),
        ("credential", "kek"),
    ]
    assert sources[0].path(tmp_path) == tmp_path / "kek.key"
    assert sources[0].read(tmp_path, {}) is None
    assert sources[1].read(tmp_path, {"KEK": "k"}) == b"k"
    assert sources[2].read(tmp_path, {}) is None
    (tmp_path / "kek").write_bytes(b"c")
    assert sources[2].read(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == b"c"


def test_a_key_that_cannot_be_read_is_not_a_key_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "kek.key").mkdir()
    with pytest.raises(IsADirectoryError):
        KeySource("file", "kek.key").read(tmp_path, {})


def test_a_key_itself_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        settings(store={"keys": ["c2VjcmV0LWtleS1tYXRlcmlhbA=="]})
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("accept", "stage"),
    [
        ({"networks": ["microsoft365"]}, Stage.SOFT),
        ({"networks": ["10.0.0.0/8", "google"]}, Stage.SOFT),
        ({"networks": "google"}, Stage.SOFT),
        ({"networks": ["10.0.0.0/8"]}, Stage.ENFORCE),
        ({}, Stage.ENFORCE),
    ],
)
def test_the_stage_follows_the_networks(accept: dict[str, Any], stage: Stage) -> None:
    assert connector(accept=accept).stage is stage
    assert connector(accept=accept, stage="observe").stage is Stage.OBSERVE


@pytest.mark.parametrize(
    ("accept", "senders"),
    [
        ({"tenant": {"domains": ["Clinic.Example", "lab.example"]}}, ("clinic.example", "lab.example")),
        ({"tenant": "clinic.example", "dkim": ["other.example"]}, ("clinic.example",)),
        ({"tenant": "6f0e2b1c-1111-2222-3333-444455556666", "dkim": "clinic.example"}, ("clinic.example",)),
        ({"header": {"name": "X-R", "value": "x"}}, ()),
    ],
)
def test_senders_follow_the_factors(accept: dict[str, Any], senders: tuple[str, ...]) -> None:
    assert connector(accept=accept).senders == senders


def test_lock_factors_tie_to_an_owner() -> None:
    accept = {
        "networks": ["microsoft365", "192.0.2.0/24"],
        "tenant": "clinic.example",
        "header": {"name": "X-R", "value": "x"},
        "client_certificate": "spki:" + "AB" * 32,
    }
    made = connector(accept=accept)
    assert made.is_cloud
    assert made.lock_factors == {"tenant", "header", "client_certificate"}
    assert made.accept.client_certificate == "spki:" + "ab" * 32
    assert made.accept.networks == ("microsoft365", ipaddress.ip_network("192.0.2.0/24"))


def test_routes_in_short_and_long_form() -> None:
    routes = settings(
        delivery={
            "routes": {
                "Partner.Example": "relay.partner.example:587",
                "v6.example": "[2001:db8::1]:25",
                "bare.example": "mx.bare.example",
                "*": {"host": "smart.example", "tls": "verified", "final": False},
            }
        }
    ).delivery.routes
    assert {domain: (route.host, route.port) for domain, route in routes.items()} == {
        "partner.example": ("relay.partner.example", 587),
        "v6.example": ("2001:db8::1", 25),
        "bare.example": ("mx.bare.example", 25),
        "*": ("smart.example", 25),
    }


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        settings().hostname = "other.example"  # type: ignore[misc]  # that is the point
