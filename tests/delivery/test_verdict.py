"""What the failures of all hosts mean together: every combination, against the words of the architecture."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.verdict import combined, status_of
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.reply import Reply

BAD = [Verdict.DEFINITE, Verdict.ASSURANCE, Verdict.TEMPORARY, Verdict.FINAL]
failures = st.builds(Failure, st.sampled_from(Stage), st.sampled_from(BAD), st.just("because"))


@given(st.lists(failures, min_size=1, max_size=6))
def test_the_verdict_over_a_set_of_hosts(found: list[Failure]) -> None:
    verdicts = {failure.verdict for failure in found}
    verdict = combined(found)
    if Verdict.FINAL in verdicts:
        assert verdict is Verdict.FINAL
    elif verdicts == {Verdict.DEFINITE}:
        assert verdict is Verdict.DEFINITE
    elif verdicts == {Verdict.TEMPORARY}:
        assert verdict is Verdict.TEMPORARY
    else:
        assert verdict is Verdict.ASSURANCE


@given(st.lists(failures, min_size=1, max_size=6), st.randoms())
def test_the_order_of_hosts_means_nothing(found: list[Failure], chance: object) -> None:
    assert combined(found) is combined(list(reversed(found)))


@given(st.lists(failures, min_size=1, max_size=5), failures)
def test_one_more_host_never_makes_a_temporary_failure_definite(found: list[Failure], more: Failure) -> None:
    if combined(found) in {Verdict.TEMPORARY, Verdict.ASSURANCE}:
        assert combined([*found, more]) is not Verdict.DEFINITE


def test_nothing_known_is_temporary() -> None:
    assert combined([]) is Verdict.TEMPORARY


@given(failures, st.booleans(), st.sampled_from(["", "5.6.7", "4.4.3"]), st.sampled_from(["", "4.2.2", "5.1.1"]))
def test_a_status_is_of_the_class_that_is_reported(
    failure: Failure,
    permanent: bool,  # noqa: FBT001  hypothesis gives it
    status: str,
    enhanced: str,
) -> None:
    reply = Reply(550 if enhanced.startswith("5") else 450, enhanced, "text")
    for each in (failure, Failure(failure.stage, failure.verdict, failure.reason, reply)):
        found = status_of(each, permanent=permanent, status=status)
        assert found[0] == ("5" if permanent else "4")
        assert len(found.split(".")) == 3


def test_the_peers_own_status_comes_first() -> None:
    failure = Failure(Stage.RCPT, Verdict.FINAL, "refused", Reply(550, "5.1.1", "no such user"))
    assert status_of(failure, permanent=True, status="5.6.7") == "5.1.1"
    assert status_of(Failure(Stage.RCPT, Verdict.FINAL, "x"), permanent=True, status="5.6.7") == "5.6.7"
