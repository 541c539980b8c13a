"""How ``data/icd10cm.zlib`` was made, and is made again when an edition follows.

Source: ICD-10-CM, the April 2026 release of fiscal year 2026, a work of the US government (National Center for Health
Statistics and Centers for Medicare and Medicaid Services), as the list of codes that the package ``simple-icd-10-cm``
1.5.0 (MIT licence) carries in ``data/code-list-April-2026.txt``: one item a line, codes without dots. Only the codes
are taken, none of the package's text or code. Chapters and blocks are left out.

    python -m gateway.policy.detect.build_icd10 code-list-April-2026.txt

A code is a header where another one begins with it, else billable. New editions come in October and in April.
"""

from __future__ import annotations

import re
import sys
import zlib
from pathlib import Path

from gateway.policy.detect.icd10 import WIDTH

__all__ = ["pack"]

_CODE = re.compile(r"[A-Z][0-9][0-9A-Z]{1,5}")


def pack(lines: list[str]) -> bytes:
    """The data file for these lines."""
    codes = sorted({code for line in lines if (code := _code(line))})
    headers = {code[:length] for code in codes for length in range(3, len(code))}
    entries = (code.ljust(WIDTH - 1) + ("h" if code in headers else "b") for code in codes)
    return zlib.compress("".join(entries).encode("ascii"), 9)


def _code(line: str) -> str | None:
    found = _CODE.fullmatch(line.strip().replace(".", ""))
    return found[0] if found else None


if __name__ == "__main__":
    target = Path(__file__).parent / "data" / "icd10cm.zlib"
    target.write_bytes(pack(Path(sys.argv[1]).read_text(encoding="ascii").splitlines()))
