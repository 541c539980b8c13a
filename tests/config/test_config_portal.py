"""The portal's origin: what links are made from and origins are compared with."""

from __future__ import annotations

import pytest

from gateway.config.model import Portal


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        (None, ""),
        ("https://Secure.Clinic.Example", "https://secure.clinic.example"),
        ("https://secure.clinic.example/", "https://secure.clinic.example"),
        ("https://secure.clinic.example:443", "https://secure.clinic.example"),
        ("https://secure.clinic.example:8443", "https://secure.clinic.example:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_the_origin_is_written_as_browsers_do(url: str | None, origin: str) -> None:
    assert Portal(url=url).origin == origin
