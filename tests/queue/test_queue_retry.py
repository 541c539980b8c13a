"""When to try again: bounded, doubling, spread, and never behind the end."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.queue.retry import RetrySchedule

SCHEDULE = st.builds(
    lambda first, factor: RetrySchedule(first=first, max=first * factor),
    st.floats(min_value=1, max_value=3600),
    st.floats(min_value=1, max_value=1000),
)
CHANCE = st.floats(min_value=0, max_value=1, exclude_max=True)
NOW = st.floats(min_value=0, max_value=4e9)


@given(SCHEDULE, st.integers(-1, 100_000), CHANCE)
def test_a_wait_is_bounded_whatever_happened(schedule: RetrySchedule, attempts: int, chance: float) -> None:
    wait = schedule.wait(attempts, chance)
    assert schedule.first * 0.8 * 0.999 <= wait <= schedule.max * 1.2 * 1.001


@given(SCHEDULE, st.integers(1, 30), CHANCE)
def test_it_doubles_until_it_is_at_the_longest(schedule: RetrySchedule, attempts: int, chance: float) -> None:
    one, two = schedule.wait(attempts, chance), schedule.wait(attempts + 1, chance)
    assert one <= two
    if schedule.first * 2**attempts <= schedule.max:
        assert abs(two - 2 * one) < 1e-6 * two
    assert schedule.wait(60, 0.5) == schedule.max


@given(SCHEDULE, st.integers(1, 30), CHANCE, CHANCE)
def test_jitter_spreads_by_a_fifth_either_way(schedule: RetrySchedule, attempts: int, one: float, other: float) -> None:
    middle = schedule.wait(attempts, 0.5)
    assert abs(schedule.wait(attempts, one) - middle) <= middle * 0.2 * 1.001
    if one < other:
        assert schedule.wait(attempts, one) <= schedule.wait(attempts, other)


@given(SCHEDULE, NOW, st.integers(1, 50), CHANCE, st.floats(min_value=-1e6, max_value=1e6))
def test_the_last_try_is_at_the_end_and_none_is_behind_it(
    schedule: RetrySchedule, now: float, attempts: int, chance: float, left: float
) -> None:
    when = schedule.next_attempt(now, attempts, chance, expires=now + left)
    assert now <= when <= max(now, now + left)


@given(SCHEDULE, NOW, st.integers(1, 50), CHANCE, st.floats(min_value=-1e4, max_value=1e6))
def test_the_end_of_the_fallback_clock_is_not_slept_through(
    schedule: RetrySchedule, now: float, attempts: int, chance: float, ends_in: float
) -> None:
    expires, fallback_at = now + 432000.0, now + ends_in
    assume(fallback_at != now)
    plain = schedule.next_attempt(now, attempts, chance, expires=expires)
    when = schedule.next_attempt(now, attempts, chance, expires=expires, fallback_at=fallback_at)
    assert when == (fallback_at if now < fallback_at < plain else plain)


def test_the_defaults_are_those_of_the_contract() -> None:
    schedule = RetrySchedule()
    assert [round(schedule.wait(n, 0.5)) for n in range(1, 11)] == [
        60,
        120,
        240,
        480,
        960,
        1920,
        3840,
        7680,
        14400,
        14400,
    ]
    assert (schedule.expire, schedule.delay_notice) == (5 * 86400.0, 4 * 3600.0)
