"""One recipient's way through attempts: what each failure leads to, and that its clock never turns back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.carried import Carried, HostFailure
from gateway.delivery.progress import Circumstances, Progress
from gateway.delivery.transaction import RecipientResult, TransactionResult
from gateway.delivery.verdict import summed_up
from gateway.mail.address import Address
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.dsn import Action
from gateway.mail.envelope import Recipient
from gateway.mail.protection import Assurance, Disposition, Method, Requirement
from gateway.mail.reply import Reply
from gateway.queue.records import ClaimedRecipient
from gateway.queue.retry import RetrySchedule
from gateway.queue.states import StateEvent

NOW = 1_767_225_600.0
BOTH = frozenset({Method.TLS, Method.PLAIN})
TO = Recipient(Address.parse("pat@good.example"))


def recipient(**changes: Any) -> ClaimedRecipient:
    claimed = ClaimedRecipient(1, TO, Requirement(), 1, NOW + 86400, None, False, frozenset())  # noqa: FBT003  a row
    return replace(claimed, **changes)


def progress(requirement: Requirement | None = None, **changes: Any) -> Progress:
    claimed = recipient(**changes)
    entry = Progress(claimed, requirement or Requirement(methods=BOTH), False, unsure_since=claimed.unsure_since)  # noqa: FBT003
    entry.choose()
    return entry


def around(now: float = NOW, received: float = NOW - 60, chance: float = 0.5) -> Circumstances:
    return Circumstances(now, received, chance, RetrySchedule())


def failed(verdict: Verdict, stage: Stage = Stage.STARTTLS, reply: Reply | None = None) -> HostFailure:
    return HostFailure("mx1.good.example", "192.0.2.1", Failure(stage, verdict, f"it was {verdict}", reply))


def carried(
    failure: Failure | None, *, before: tuple[HostFailure, ...] = (), unknown: bool = False
) -> tuple[Carried, RecipientResult]:
    result = RecipientResult(TO, None if failure is None else failure.reply, failure)
    whole = TransactionResult((result,), None, unknown, dsn=True)
    return Carried("mx1.good.example", "192.0.2.1", None, Assurance.ENCRYPTED, whole, before), result


def test_definite_leaves_the_next_method_and_starts_no_clock() -> None:
    entry = progress()
    entry.not_carried(Method.TLS, [failed(Verdict.DEFINITE)], around())
    assert (entry.outcome, entry.unsure_since) == (None, None)
    assert entry.choose() is Method.PLAIN
    entry.not_carried(Method.PLAIN, [failed(Verdict.DEFINITE)], around())
    assert entry.choose() is None
    assert entry.outcome is not None
    assert entry.outcome.event is StateEvent.FAIL
    assert entry.outcome.error.startswith("5.7.10 ")
    assert entry.notice is not None
    assert (entry.notice[0], entry.notice[1].status) == (Action.FAILED, "5.7.10")


def test_assurance_defers_until_its_clock_is_over() -> None:
    entry = progress(Requirement(methods=BOTH, fallback_after=900))
    entry.not_carried(Method.TLS, [failed(Verdict.ASSURANCE)], around())
    assert entry.outcome is not None
    assert (entry.outcome.event, entry.outcome.unsure_since) == (StateEvent.DEFER, NOW)
    later = progress(Requirement(methods=BOTH, fallback_after=900), unsure_since=NOW)
    later.not_carried(Method.TLS, [failed(Verdict.ASSURANCE)], around(NOW + 900))
    assert later.outcome is None
    assert later.choose() is Method.PLAIN


@given(st.floats(0, 4e9), st.floats(0.001, 1e6))
def test_an_attempt_put_off_to_the_end_of_the_clock_finds_it_ended(start: float, after: float) -> None:
    requirement = Requirement(methods=BOTH, fallback_after=after)
    first = progress(requirement, expires=start + 1e7)
    first.not_carried(Method.TLS, [failed(Verdict.ASSURANCE)], around(start, start))
    assert first.outcome is not None
    end = start + after
    assert first.outcome.next_attempt is not None
    if first.outcome.next_attempt < end:
        return
    second = progress(requirement, unsure_since=first.outcome.unsure_since, expires=start + 1e7)
    second.not_carried(Method.TLS, [failed(Verdict.ASSURANCE)], around(end, start))
    assert second.choose() is Method.PLAIN


steps = st.lists(
    st.tuples(
        st.sampled_from([Verdict.ASSURANCE, Verdict.TEMPORARY, Verdict.DEFINITE]),
        st.floats(0, 5000),
    ),
    min_size=1,
    max_size=12,
)


@given(steps)
def test_over_any_history_the_clock_starts_once_and_plain_comes_only_after_it_or_at_once(
    history: list[tuple[Verdict, float]],
) -> None:
    requirement = Requirement(methods=BOTH, fallback_after=900)
    unsure: float | None = None
    now = NOW
    for verdict, wait in history:
        now += wait
        entry = progress(requirement, unsure_since=unsure)
        entry.not_carried(Method.TLS, [failed(verdict)], around(now))
        moved_on = entry.outcome is None
        if verdict is Verdict.ASSURANCE:
            assert entry.unsure_since == (now if unsure is None else unsure)
            assert entry.unsure_since is not None
            assert moved_on == (now >= entry.unsure_since + 900)
        else:
            assert entry.unsure_since == unsure
            assert moved_on == (verdict is Verdict.DEFINITE)
        unsure = entry.unsure_since


def test_final_bounces_though_another_method_is_left() -> None:
    entry = progress()
    refusal = Failure(Stage.RCPT, Verdict.FINAL, "refused", Reply(550, "5.1.1", "no such user"))
    entry.carried(Method.TLS, *carried(refusal), around())
    assert entry.outcome is not None
    assert (entry.outcome.event, entry.outcome.method) == (StateEvent.FAIL, "tls")
    assert entry.notice is not None
    assert (entry.notice[1].status, entry.notice[1].remote) == ("5.1.1", "mx1.good.example")


def test_a_deferral_behind_a_host_that_fell_short_starts_the_clock() -> None:
    entry = progress()
    busy = Failure(Stage.RCPT, Verdict.TEMPORARY, "busy", Reply(450, "4.2.0", "later"))
    entry.carried(Method.TLS, *carried(busy, before=(failed(Verdict.DEFINITE),)), around())
    assert entry.outcome is not None
    assert (entry.outcome.event, entry.outcome.unsure_since) == (StateEvent.DEFER, NOW)


@pytest.mark.parametrize(("stage", "unknown"), [(Stage.DOT, True), (Stage.RCPT, False), (Stage.BODY, False)])
def test_only_what_was_lost_behind_the_dot_may_arrive_twice(stage: Stage, *, unknown: bool) -> None:
    entry = progress()
    entry.carried(Method.TLS, *carried(Failure(stage, Verdict.TEMPORARY, "lost"), unknown=True), around())
    assert entry.outcome is not None
    assert entry.outcome.possible_duplicate is unknown
    assert entry.outcome.attempts[-1].unknown is unknown


def test_at_the_end_of_its_time_it_expires() -> None:
    entry = progress(expires=NOW)
    entry.not_carried(Method.TLS, [failed(Verdict.TEMPORARY, Stage.CONNECT)], around())
    assert entry.outcome is not None
    assert entry.outcome.event is StateEvent.EXPIRE
    assert entry.notice is not None
    assert entry.notice[1].status == "5.4.7"


@pytest.mark.parametrize(
    ("age", "told", "notified"), [(14399, False, False), (14400, True, False), (99999, False, True)]
)
def test_a_delay_is_told_once(age: float, *, told: bool, notified: bool) -> None:
    entry = progress(delay_notified=notified)
    entry.not_carried(Method.TLS, [failed(Verdict.TEMPORARY, Stage.CONNECT)], around(received=NOW - age))
    assert entry.outcome is not None
    assert (entry.notice is not None, entry.outcome.delay_notified) == (told, True if told else None)


def test_what_is_held_or_rejected_is_not_sent() -> None:
    for disposition, event in ((Disposition.HOLD, StateEvent.HOLD), (Disposition.REJECT, StateEvent.REJECT)):
        entry = Progress(recipient(), Requirement(disposition=disposition, reason="why"), True)  # noqa: FBT003
        entry.stop_where_not_to_send(NOW, 5 * 86400)
        assert entry.outcome is not None
        assert entry.outcome.event is event
        assert (entry.notice is not None) == (event is StateEvent.REJECT)


def test_a_message_whose_form_is_the_only_obstacle_is_not_called_unprotected() -> None:
    entry = progress()
    for method in (Method.TLS, Method.PLAIN):
        entry.not_carried(method, [failed(Verdict.DEFINITE, Stage.MAIL)], around(), "5.6.3")
        entry.choose()
    assert entry.notice is not None
    assert entry.notice[1].status == "5.6.3"
    mixed = progress()
    mixed.not_carried(Method.TLS, [failed(Verdict.DEFINITE)], around())
    mixed.choose()
    mixed.not_carried(Method.PLAIN, [failed(Verdict.DEFINITE, Stage.MAIL)], around(), "5.6.3")
    mixed.choose()
    assert mixed.notice is not None
    assert mixed.notice[1].status == "5.7.10"


def test_several_hosts_are_summed_up_in_words_with_the_one_that_decided() -> None:
    down, stripped = failed(Verdict.TEMPORARY, Stage.CONNECT), failed(Verdict.DEFINITE)
    failure, host = summed_up([down, replace(stripped, host="mx2.good.example")])
    assert failure.verdict is Verdict.ASSURANCE
    assert failure.reason == "it was temporary; it was definite"
    assert host in {"mx1.good.example", "mx2.good.example"}
    same, _ = summed_up([down, down])
    assert same.reason == "it was temporary"


def test_while_the_clock_is_in_doubt_nothing_expires_and_no_delay_is_told() -> None:
    entry = progress(expires=NOW - 86400)
    doubt = Circumstances(NOW, NOW - 6 * 86400, 0.5, RetrySchedule(), ageless=True)
    entry.not_carried(Method.TLS, [failed(Verdict.TEMPORARY, Stage.CONNECT)], doubt)
    assert entry.outcome is not None
    assert (entry.outcome.event, entry.outcome.next_attempt) == (StateEvent.DEFER, NOW + 60)
    assert entry.notice is None
