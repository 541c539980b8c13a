"""Those who wait for one site take turns: a model, and what a single letter waits for behind a bulk job."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.turns import TurnLine

STEPS = st.lists(st.one_of(st.integers(0, 4), st.just("pop"), st.just("discard")), max_size=120)


@given(STEPS, st.randoms())
def test_first_in_first_out_for_each_and_nobody_twice_while_another_waits(
    steps: list[int | str], chance: random.Random
) -> None:
    line: TurnLine[tuple[int, int]] = TurnLine()
    model: dict[int, list[tuple[int, int]]] = {origin: [] for origin in range(5)}
    waited: dict[int, int] = dict.fromkeys(range(5), 0)
    for number, step in enumerate(steps):
        waiting = [origin for origin, items in model.items() if items]
        if isinstance(step, int):
            line.push(step, (step, number))
            model[step].append((step, number))
        elif step == "pop" and waiting:
            origin, _ = taken = line.pop()
            assert taken == model[origin].pop(0)
            for other in waiting:
                waited[other] = 0 if other == origin else waited[other] + 1
                assert waited[other] <= 4  # each of the others had one turn at most
        elif step == "discard" and waiting:
            origin = chance.choice(waiting)
            item = chance.choice(model[origin])
            line.discard(origin, item)
            model[origin].remove(item)
            if not model[origin]:
                waited[origin] = 0
        assert len(line) == sum(map(len, model.values()))
        assert bool(line) is any(model.values())


def test_a_letter_behind_a_bulk_job_is_second() -> None:
    line: TurnLine[str] = TurnLine()
    for number in range(1000):
        line.push(1, f"bulk {number}")
    line.push(2, "letter")
    assert [line.pop() for _ in range(3)] == ["bulk 0", "letter", "bulk 1"]


def test_what_is_not_there_cannot_be_taken_out() -> None:
    line: TurnLine[str] = TurnLine()
    line.push(1, "a")
    line.discard(1, "b")
    line.discard(2, "a")
    assert len(line) == 1
