"""Check digits, over ASCII digits as bytes."""

from __future__ import annotations

__all__ = ["aba_ok", "dea_ok", "iban_ok", "luhn_ok"]

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_ZERO = ord("0")


def luhn_ok(digits: bytes, prefix: int = 0) -> bool:
    """ISO/IEC 7812-1 annex B. ``prefix`` is what digits that are not written add (24 for the 80840 of an NPI)."""
    total = prefix
    for position, char in enumerate(reversed(digits)):
        digit = char - _ZERO
        total += _DOUBLED[digit] if position % 2 else digit
    return total % 10 == 0


def aba_ok(digits: bytes) -> bool:
    """Nine digits of a routing number, weights 3-7-1."""
    weights = (3, 7, 1) * 3
    return sum(weight * (char - _ZERO) for weight, char in zip(weights, digits, strict=True)) % 10 == 0


def dea_ok(digits: bytes) -> bool:
    """Seven digits of a DEA registration: odd places once, even places twice, the last digit of the sum."""
    odd = sum(char - _ZERO for char in digits[0:6:2])
    even = sum(char - _ZERO for char in digits[1:6:2])
    return (odd + 2 * even) % 10 == digits[6] - _ZERO


def iban_ok(compact: bytes) -> bool:
    """ISO 13616: upper-case letters and digits, mod 97 is 1."""
    turned = (compact[4:] + compact[:4]).decode("ascii")
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1
