"""Transfer encodings of bodies, written: quoted-printable and base64 (RFC 2045 sections 6.7 and 6.8)."""

from __future__ import annotations

import base64
import binascii

__all__ = ["to_base64", "to_quoted_printable"]


def to_base64(body: bytes) -> bytes:
    """In lines of 76 characters, each with CRLF."""
    return base64.encodebytes(body).replace(b"\n", b"\r\n")


def to_quoted_printable(body: bytes) -> bytes:
    """Text with CRLF line ends, which stay; no line is longer than 76 characters."""
    # The line ends of soft breaks are those of the first line: without one they would be bare LF.
    if b"\r\n" in body:
        return binascii.b2a_qp(body, istext=True)
    return binascii.b2a_qp(body + b"\r\n", istext=True).removesuffix(b"\r\n")
