"""What the failures of an attempt mean together: one pure function decides (architecture: "What ends an attempt").

========================  ==================================================================================
definite                  every host fails for good at this assurance: the next method at once
assurance-temporary       one host does, or TLS failed in a way that may pass: the fallback clock runs
ordinary temporary        nothing reached a judgement: ordinary retry, the method stays
final                     a sufficient session refused the mail: bounce, never change the method
========================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.delivery.carried import HostFailure
from gateway.mail.attempt import Failure, Stage, Verdict
from gateway.mail.protection import Capability, Method

__all__ = ["cannot", "combined", "status_of", "summed_up"]

#: RFC 3463 codes for failures that no reply gave one for, by the stage where they happened.
_STATUS = {
    Stage.DNS: "4.4.3",
    Stage.CONNECT: "4.4.1",
    Stage.GREETING: "4.4.2",
    Stage.EHLO: "4.4.2",
    Stage.STARTTLS: "4.7.5",
    Stage.HANDSHAKE: "4.7.5",
    Stage.JUDGE: "4.7.5",
    Stage.AUTH: "4.7.8",
}


def combined(failures: Iterable[Failure]) -> Verdict:
    """The verdict over all hosts of a destination; without any failure it is temporary."""
    verdicts = [failure.verdict for failure in failures]
    if not verdicts:
        return Verdict.TEMPORARY
    if Verdict.FINAL in verdicts:
        return Verdict.FINAL
    if all(verdict is Verdict.DEFINITE for verdict in verdicts):
        return Verdict.DEFINITE
    if Verdict.DEFINITE in verdicts or Verdict.ASSURANCE in verdicts:
        return Verdict.ASSURANCE
    return Verdict.TEMPORARY


def summed_up(failures: Sequence[HostFailure]) -> tuple[Failure, str]:
    """Several hosts, several reasons: one failure with the combined verdict, and the host that decided it."""
    causes = [failed.failure for failed in failures]
    verdict = combined(causes)
    worst = next((failed for failed in reversed(failures) if failed.failure.verdict is verdict), failures[-1])
    texts = list(dict.fromkeys(str(cause) for cause in causes))
    if len(texts) == 1:
        failure = worst.failure
        return Failure(failure.stage, verdict, failure.reason, failure.reply), worst.host
    return Failure(worst.failure.stage, verdict, "; ".join(texts), None), worst.host


def cannot(method: Method, failure: Failure, lasting: str = "for longer than fallback_after") -> Capability:
    """What a failure says against its method: a definite one at once, another one by having lasted."""
    definite = failure.verdict is Verdict.DEFINITE
    reason = str(failure) if definite else f"{failure} ({lasting})"
    return Capability(method, possible=False, reason=reason, definite=definite)


def status_of(failure: Failure, *, permanent: bool, status: str = "") -> str:
    """The enhanced status code to report; the peer's own where it gave one of the right class."""
    wanted = "5" if permanent else "4"
    candidates = ["" if failure.reply is None else failure.reply.enhanced, status, _STATUS.get(failure.stage, "4.0.0")]
    for candidate in candidates:
        if candidate:
            return wanted + candidate[1:]
    return f"{wanted}.0.0"
