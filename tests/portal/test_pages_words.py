"""Colours, addresses, days and sizes of the portal's pages."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import gateway.portal
from gateway.config.organisations import luminance
from gateway.portal.pages.colours import lightened, sheet
from gateway.portal.pages.shown import day, masked, moment, size
from gateway.web.pages import Language

ENGLISH = Language("en")
STYLES = (Path(gateway.portal.__file__).parent / "assets" / "portal.css").read_text("utf-8")


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", ["#1f4e79", "#000000", "#8b0000", "#00008b", "#1c6b52", "#767676"])
def test_an_organisations_colour_can_be_read_in_the_dark(colour: str) -> None:
    light = lightened(colour)
    for ground in ("#171c23", "#0e1217"):
        assert ground in STYLES
        assert contrast(light, ground) >= 4.5
    assert colour in sheet(colour)
    assert light in sheet(colour)


@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("#535f6e", "#f3f5f8"),
        ("#a61b1b", "#fdf0ef"),
        ("#1c2430", "#eef4fb"),
        ("#a3afbd", "#171c23"),
        ("#ff9d94", "#35191a"),
        ("#e4e9ef", "#1b2735"),
    ],
)
def test_text_of_the_portal_can_be_read(ink: str, ground: str) -> None:
    assert ink in STYLES
    assert ground in STYLES
    assert contrast(ink, ground) >= 4.5


def test_words_for_addresses_days_and_sizes() -> None:
    assert masked("pat@isp.example") == "p••@isp.example"
    assert masked('"a@b"@isp.example') == '"••@isp.example'
    assert day(1_767_607_200, ENGLISH) == "5 January 2026"
    assert moment(datetime(2026, 1, 5, 10, 0, tzinfo=UTC), ENGLISH) == "5 January 2026, 10:00 UTC"
    assert day(1_767_607_200, Language("de")) == "5. Januar 2026"
    assert [size(octets, ENGLISH) for octets in (999, 1500, 25_000_000)] == ["999 B", "1.5 KB", "25 MB"]
