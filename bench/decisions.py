"""Decisions a second: ``python -m bench.decisions [--policy FILE ...] [--size 4096] [--seconds 5]``.

What policy does to a message at the door, on one core, without network and store: header, kind and content are read
from the whole message, every rule is evaluated for its recipient. No two messages are alike: plain text, both forms,
HTML with quoted-printable, a small text attachment; some with identifiers in them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gateway.config.source import read_document
from gateway.mail.address import Address
from gateway.policy import Policy, evaluate
from gateway.policy.parse import parse_policy
from gateway.policy.whole import facts_of

__all__ = ["Rate", "main", "measure", "messages"]

_ROOT = Path(__file__).parents[1]
_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "for",
    "on",
    "with",
    "please",
    "find",
    "attached",
    "our",
    "letter",
    "about",
    "your",
    "appointment",
    "next",
    "week",
    "invoice",
    "number",
    "meeting",
    "room",
    "contract",
    "draft",
    "review",
    "comments",
    "until",
    "Friday",
    "order",
    "shipment",
    "tracking",
    "phone",
    "office",
    "best",
    "regards",
    "thank",
    "you",
    "patient",
    "results",
    "laboratory",
    "report",
    "question",
    "answer",
    "document",
    "version",
    "signed",
    "return",
    "copy",
    "department",
]
_SENDER = Address.parse("dr@clinic.example")
_RECIPIENT = (Address.parse("pat@isp.example"),)


@dataclass(frozen=True, slots=True)
class Rate:
    """Decisions a second of processor time, and how the single one was distributed (seconds)."""

    shape: str
    per_second: float
    median: float
    worst: float


def _text(chance: random.Random, size: int) -> str:
    lines, length = [], 0
    while length < size:
        words = [chance.choice(_WORDS) for _ in range(11)]
        if chance.random() < 0.15:
            words[3] = str(chance.randint(1000, 99_999_999))
        line = " ".join(words)
        lines.append(line)
        length += len(line) + 2
    return "\n".join(lines)[:size]


def messages(shape: str, size: int, number: int, seed: int = 1) -> list[bytes]:
    """So many different messages of about this size: ``plain``, ``alternative``, ``html`` or ``attachment``."""
    chance = random.Random(f"{shape}{seed}")
    made = []
    for index in range(number):
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = str(_SENDER), str(_RECIPIENT[0]), f"Letter {index}"
        message["Message-ID"], message["Date"] = f"<{index}@clinic.example>", "Sun, 22 Nov 2026 10:00:00 +0000"
        secret = "\nSSN 536-22-8726, diagnosis E11.9\n" if index % 10 == 0 else ""
        head = 400
        if shape == "plain":
            message.set_content(_text(chance, size - head) + secret)
        elif shape == "html":
            html = "".join(f"<p>{line}</p>\n" for line in _text(chance, size - head - 600).split("\n"))
            message.set_content(f"<html><body>{html}{secret}</body></html>", subtype="html", cte="quoted-printable")
        else:
            half = (size - head) // 2
            message.set_content(_text(chance, half) + secret)
            if shape == "alternative":
                html = "".join(f"<p>{line}</p>\n" for line in _text(chance, half - 300).split("\n"))
                message.add_alternative(f"<html><body>{html}</body></html>", subtype="html")
            else:
                message.add_attachment(_text(chance, half - 200), filename="notes.txt")
        made.append(message.as_bytes())
    return made


def measure(policy: Policy, shape: str, size: int, seconds: float) -> Rate:
    """Judge such messages for so long."""
    mail = messages(shape, size, 200)
    taken: list[float] = []
    started, worked = time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        for message in mail:
            begin = time.perf_counter()
            facts = facts_of(policy, message, sender=_SENDER, recipients=_RECIPIENT, time=time.time())
            evaluate(policy, facts)
            taken.append(time.perf_counter() - begin)
    cost = (time.process_time() - worked) / len(taken)
    taken.sort()
    return Rate(shape, 1 / cost, taken[len(taken) // 2], taken[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.decisions", description=__doc__)
    parser.add_argument("--policy", nargs="+", type=Path, default=[_ROOT / "policies" / "healthcare.yaml"])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args(arguments)
    parsed = parse_policy([read_document(path, str(path)) for path in given.policy])
    for fault in parsed.faults:
        print(fault)
    if parsed.faults:
        return 1
    rules = len(parsed.policy.rules)
    table = Table(title=f"decisions a second on one core, {given.size} octets, {rules} rules")
    for column in ("message", "decisions/s", "median, us", "slowest, us"):
        table.add_column(column, justify="left" if column == "message" else "right")
    for shape in ("plain", "alternative", "html", "attachment"):
        rate = measure(parsed.policy, shape, given.size, given.seconds)
        table.add_row(rate.shape, f"{rate.per_second:.0f}", f"{rate.median * 1e6:.0f}", f"{rate.worst * 1e6:.0f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
