"""Words of health that are strong by themselves, from ``data/health.txt``."""

from __future__ import annotations

from functools import cache
from importlib import resources

from gateway.policy.detect.engine import Program, Spans, View, accepted, token

__all__ = ["health_terms", "load_lexicon"]


def health_terms(view: View) -> Spans:
    """Diagnoses, procedures, drugs and words of care, as whole words in any case."""
    return accepted(load_lexicon(), _judge, view)


def _judge(plain: bytes, start: int, end: int, last: int) -> int:  # noqa: ARG001  # a judge's face
    return end


@cache
def load_lexicon() -> Program:
    """The pattern of all terms. A ``*`` at the end of one stands for further letters."""
    text = resources.files(__package__).joinpath("data", "health.txt").read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    terms = sorted({line for line in lines if line})
    return token("(?i:" + "|".join(map(_pattern, terms)) + ")")


def _pattern(term: str) -> str:
    stem = term.removesuffix("*")
    assert all(char.isalnum() or char in " -'" for char in stem), term
    return stem.replace(" ", "[ -]") + ("[a-zß-öø-ÿ]*" if stem != term else "")
