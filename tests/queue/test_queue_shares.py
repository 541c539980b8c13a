"""The slots for delivery: never all with one, always used where one is alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.queue.shares import Shares

WISHES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 150)), max_size=80)


def fill(shares: Shares, origin: int, domain: str, wanted: int = 1000) -> int:
    """As many as may begin, a hundred at a time."""
    total = 0
    while (number := min(shares.left_at(origin, domain), wanted - total, 100)) > 0:
        shares.take(origin, domain, number)
        total += number
    return total


@given(WISHES)
def test_whoever_comes_next_finds_a_slot(wishes: list[tuple[int, int, int]]) -> None:
    shares = Shares(400, 100)
    for origin, domain, wanted in wishes:
        fill(shares, origin, f"d{domain}.example", wanted)
        assert shares.taken <= 400
        assert shares.free + shares.taken == 400
        if shares.free:
            assert shares.left_at(99, "another.example") >= 1


@given(WISHES)
def test_what_is_given_back_is_as_if_it_had_never_been(wishes: list[tuple[int, int, int]]) -> None:
    shares = Shares(400, 100)
    taken = [(origin, f"d{domain}.example", number) for origin, domain, number in wishes]
    for entry in taken:
        shares.take(*entry)
    for entry in taken:
        shares.give_back(*entry)
    assert (shares.taken, shares.free, shares.domains, shares.left_for(0)) == (0, 400, 0, 300)


def test_a_bulk_job_alone_has_three_quarters_and_the_next_sender_room_at_once() -> None:
    shares = Shares(400, 100)
    bulk = sum(fill(shares, 1, f"d{number}.example") for number in range(50))
    assert 290 <= bulk <= 300
    assert fill(shares, 2, "d0.example", 1) == 0  # that domain has its hundred
    assert fill(shares, 2, "letter.example", 20) == 20


def test_dead_domains_of_one_sender_leave_it_room_for_one_that_lives() -> None:
    shares = Shares(400, 100)
    for number in range(6):
        fill(shares, 1, f"dead{number}.example")
    assert shares.taken >= 250
    assert fill(shares, 1, "alive.example", 1) == 1


def test_one_domain_never_has_more_than_its_hundred() -> None:
    shares = Shares(400, 100)
    assert sum(fill(shares, origin, "big.example") for origin in range(10)) == 100
