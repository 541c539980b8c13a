"""Message ids sort by time and tell nothing else."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.ids import uuid7

TIMES = st.floats(min_value=0, max_value=2**37)  # until the year 6300


@given(TIMES, st.binary(min_size=10, max_size=10))
def test_it_is_a_version_7_uuid_of_that_millisecond(when: float, randomness: bytes) -> None:
    found = uuid.UUID(uuid7(when, randomness))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == int(when * 1000)


@given(TIMES, TIMES, st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_ids_sort_by_time(first: float, second: float, one: bytes, two: bytes) -> None:
    if int(first * 1000) < int(second * 1000):
        assert uuid7(first, one) < uuid7(second, two)


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_74_random_bits_reach_the_id(one: bytes, two: bytes) -> None:
    mask = (1 << 80) - 1 & ~(0xF << 76) & ~(0x3 << 62)
    same = int.from_bytes(one, "big") & mask == int.from_bytes(two, "big") & mask
    assert (uuid7(1.0, one) == uuid7(1.0, two)) is same
