"""Whether a word is almost another one: a slip of the hand away from it."""

from __future__ import annotations

__all__ = ["is_almost"]


def is_almost(word: str, wanted: str) -> bool:
    """One slip away in short words, two from seven letters on, and not the same; the first letters mostly agree.

    A slip is a letter too many, too few, a wrong one, or two in the wrong order (Damerau). Words of three letters and
    less have none: `phi` and `phd` are both words.
    """
    if word == wanted or len(wanted) < 4:
        return False
    allowed = 1 if len(wanted) < 7 else 2
    if abs(len(word) - len(wanted)) > allowed:
        # "encrypted" for "encrypt" is meant as such, too.
        return word.startswith(wanted) and len(word) - len(wanted) <= 3
    return _distance(word, wanted) <= allowed


def _distance(one: str, other: str) -> int:
    """Damerau-Levenshtein, adjacent transpositions only (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, right in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == other[j - 2] and one[i - 2] == right:
                best = min(best, earlier[j - 2] + 1)
            row.append(best)
    return row[-1]
