"""How many connections a site may have, after any course of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.window import FIRST, Window

REST = 45.0
EVENTS = st.lists(st.sampled_from(["success", "away", "unproven", "time"]), max_size=200)


@given(EVENTS, st.integers(1, 50))
def test_it_stays_between_one_and_what_is_allowed(events: list[str], most: int) -> None:
    window, now = Window(), 0.0
    for event in events:
        before = window.size
        if event == "success":
            window.succeeded(most)
            assert before < window.size <= max(before + 1, most) or window.size == most
        elif event == "time":
            now += 10
        else:
            window.failed(now, REST, away=event == "away")
            assert window.size <= before
        assert window.size >= 1
        assert 1 <= window.room(most) <= most
        assert window.dead_until <= now + REST
        if event == "success":
            assert not window.is_dead(window.dead_until)


@given(EVENTS)
def test_a_site_that_answers_but_proves_too_little_is_never_dead(events: list[str]) -> None:
    window = Window()
    for event in events:
        if event == "success":
            window.succeeded(20)
        elif event != "time":
            window.failed(0.0, REST, away=False)
        assert not window.is_dead(0.0)


def test_it_grows_by_one_for_as_many_successes_as_it_holds() -> None:
    window = Window()
    assert window.room(20) == FIRST
    for _ in range(6):  # a little less each time, as it grows
        window.succeeded(20)
    assert window.room(20) == FIRST + 1


def test_one_success_between_failures_keeps_it_alive() -> None:
    window = Window()
    for _ in range(50):
        window.failed(0.0, REST, away=True)
        window.succeeded(20)
    assert not window.is_dead(0.0)


def test_a_window_full_of_failures_is_a_dead_site_and_each_time_it_rests_longer() -> None:
    window, now, rests = Window(), 100.0, []
    for _ in range(4):
        failures = 0
        while not window.is_dead(now):
            window.failed(now, REST, away=True)
            failures += 1
        rests.append((failures, window.dead_until - now))
        now = window.dead_until
    assert [failures for failures, _ in rests] == [5, 1, 1, 1]
    assert [rest for _, rest in rests] == pytest.approx([15, 30, 45, 45])
    window.succeeded(20)
    assert window.room(20) == 2
