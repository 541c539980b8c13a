"""What the demo sends, and what must become of it: a promise to whoever watches, and checked by ``--once``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.demo.record import Fate
from gateway.queue.states import State

__all__ = ["HELD", "LETTERS", "PATIENT_NUMBER", "TAGGED", "Expected", "Letter", "differences"]

PATIENT_NUMBER = "536-22-8726"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How a recipient must end. ``because`` stands somewhere in what the trace gives as reason; ``tries``: at least."""

    state: State = State.DELIVERED
    method: str | None = "tls"
    assurance: str | None = None
    because: str = ""
    tries: int = 0


def _over(assurance: str, *, tries: int = 0) -> Expected:
    return Expected(assurance=assurance, tries=tries)


def _bounced(because: str) -> Expected:
    return Expected(state=State.BOUNCED, method=None, because=because)


def _portal(because: str) -> Expected:
    return Expected(state=State.DEPOSITED, method="portal", because=because)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message, and what must become of it at each recipient. ``about``: what to look at, for who watches."""

    title: str
    about: str
    subject: str
    body: str
    to: dict[str, Expected]


LETTERS = (
    Letter(
        "One message, nine recipients",
        "No rule asks for more, so the first lines of the policy hold: TLS, whoever made the certificate, and nothing "
        "in the clear. Only village.example is excepted. Where TLS is not to be had, the message stays here, sealed, "
        "and its recipient is told.",
        "Meeting on Tuesday",
        "Can we meet on Tuesday at ten? The room is on the second floor.\n",
        {
            "ann@hospital.example": _over("authenticated"),
            "bob@lab.example": _over("verified"),
            "dan@selfsigned.example": _over("encrypted"),
            "eve@greylist.example": _over("verified", tries=2),
            "finn@slow.example": _over("verified"),
            "hall@village.example": Expected(method="plain"),
            "carl@notls.example": _portal("STARTTLS is not offered"),
            "gone@hospital.example": _bounced("550 5.1.1"),
            "ida@nomail.example": _bounced("null MX"),
        },
    ),
    Letter(
        "The same hosts, but now it is about a patient",
        "The gateway reads the text and finds a number of a person together with words of health. Now encryption is "
        "not enough: the host must prove its name.",
        "Your visit",
        f"Jane Sample, SSN {PATIENT_NUMBER}\nDiagnosis: E11.9, type 2 diabetes. The biopsy was negative.\n",
        {
            "bob@lab.example": _over("verified"),
            "dan@selfsigned.example": _portal("self-signed"),
            "gil@wrongname.example": _portal("another name"),
            "fay@expired.example": _portal("expired"),
            "hall@village.example": _portal("STARTTLS is not offered"),
        },
    ),
)

TAGGED = Letter(
    "A tag for the gateway",
    "People ask for protection by a word in the subject. It is for the gateway: the recipient does not see it.",
    "[secure] Invoice 2041",
    "Please find the amount below. Thank you.\n",
    {"ann@hospital.example": _over("authenticated")},
)
HELD = Letter(
    "A tag with a slip of the pen",
    "Somebody wanted protection and would not have got it. The message waits for a person.",
    "[secrue] Contract",
    "The draft, as promised.\n",
    {"bob@lab.example": Expected(state=State.HELD, method=None, because="a misspelt tag")},
)


def differences(letter: Letter, fates: Sequence[Fate]) -> list[str]:
    """What did not end as told, a line each."""
    found = {fate.recipient: fate for fate in fates}
    lines = []
    for recipient, expected in letter.to.items():
        if (fate := found.get(recipient)) is None:
            lines.append(f"{recipient}: never came in")
            continue
        lines += [
            f"{recipient}: {name} is {seen or 'none'}, but should be {wanted or 'none'}"
            for name, seen, wanted in _compared(fate, expected)
        ]
    return lines


def _compared(fate: Fate, expected: Expected) -> list[tuple[str, object, object]]:
    used = fate.method if fate.state in {State.DELIVERED, State.DEPOSITED} else None
    carried = used is not None and fate.state is State.DELIVERED
    level = fate.last.tls.assurance if carried and fate.last is not None and fate.last.tls is not None else None
    pairs: list[tuple[str, object, object]] = [
        ("state", str(fate.state), str(expected.state)),
        ("method", used, expected.method),
        ("assurance", level, expected.assurance),
    ]
    unequal = [pair for pair in pairs if pair[1] != pair[2]]
    if not unequal and fate.tries < expected.tries:
        unequal.append(("number of tries", fate.tries, expected.tries))
    reason = fate.hold_reason or fate.error or "; ".join(words for _, words in fate.passed_over)
    if not unequal and expected.because not in reason:
        unequal.append(("reason", repr(reason), repr(expected.because)))
    return unequal
