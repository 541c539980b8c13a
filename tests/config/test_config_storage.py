"""Which database: its URL in every way of writing it, its password never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load_settings, read_settings
from gateway.config.model import Store
from gateway.config.storage import SQLITE, DatabaseUrl
from gateway.config.values import Secret

BASE = "hostname: gw.clinic.example\npostmaster: p@clinic.example\n"


def store_of(tmp_path: Path, section: str, **environ: str) -> Store:
    path = tmp_path / "gateway.yaml"
    path.write_text(f"{BASE}data_dir: var\nstore: {section}\n")
    return load_settings(path, environ=environ).store


@pytest.mark.parametrize(
    ("url", "database", "shown"),
    [
        (
            "postgresql://gw@db.example/mail",
            "postgresql://gw:p%40%2Fs@db.example/mail",
            "postgresql://gw@db.example/mail",
        ),
        (
            "postgres://gw@[::1]:5433/mail",
            "postgresql://gw:p%40%2Fs@[::1]:5433/mail",
            "postgresql://gw@[::1]:5433/mail",
        ),
        ("postgresql:///mail?host=/run/pg", "postgresql://:p%40%2Fs@/mail?host=/run/pg", "postgresql:///mail"),
    ],
)
def test_the_password_goes_into_the_url_for_the_driver_alone(
    tmp_path: Path, url: str, database: str, shown: str
) -> None:
    (tmp_path / "pg.secret").write_text("p@/s\n")
    store = store_of(tmp_path, f"{{url: '{url}', password: 'file:pg.secret'}}")
    assert store.database == database
    assert str(store.url) == shown
    assert "p@/s" not in repr(store) + str(store)
    assert "p%40%2Fs" not in repr(store) + str(store)


@pytest.mark.parametrize("section", ["{url: '${URL}'}", "{url: 'file:url.secret'}"])
def test_the_whole_url_may_be_a_secret(tmp_path: Path, section: str) -> None:
    url = "postgresql://gw:hush-hush@db.example/mail?sslmode=verify-full"
    (tmp_path / "url.secret").write_text(url + "\n")
    store = store_of(tmp_path, section, URL=url)
    assert store.database == url
    assert store.url.has_password
    assert "hush" not in repr(store) + str(store.url)


def test_sqlite_is_the_default() -> None:
    assert Store().database == "sqlite"
    assert str(SQLITE) == "sqlite"
    assert DatabaseUrl.parse("sqlite") == SQLITE
    assert SQLITE.reveal(Secret(b"x")) == "sqlite"


@pytest.mark.parametrize(
    ("url", "noted"),
    [
        ("postgresql://gw@db.example/mail", True),
        ("postgresql://gw@db.example/mail?sslmode=require", True),
        ("postgresql://gw@db.example/mail?sslmode=verify-full", False),
        ("postgresql://gw@127.0.0.1/mail", False),
        ("postgresql:///mail?host=/run/postgresql", False),
        ("postgresql:///mail?host=db.example", True),
        ("postgresql:///mail", False),
    ],
)
def test_a_server_elsewhere_should_prove_who_it_is(tmp_path: Path, url: str, *, noted: bool) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(f"{BASE}data_dir: var\nstore: {{url: '{url}'}}\n")
    reading = read_settings(path)
    assert not reading.faults
    assert any("not verified" in note.message for note in reading.notices) is noted
