"""swaks as the sending application: its own SMTP and TLS, none of our code."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Sent", "missing", "send"]


@dataclass(frozen=True, slots=True)
class Sent:
    """How it ended: swaks' exit status (0: the message was taken) and the whole transcript."""

    status: int
    transcript: str


def missing() -> str | None:
    """Why swaks cannot be used here; ``None``: it can."""
    return None if shutil.which("swaks") else "swaks is not installed"


def send(
    address: str, port: int, message: bytes, directory: Path, *, sender: str, recipients: list[str], tls: bool
) -> Sent:
    """Hand over ``message`` exactly as given (lines end in CRLF); with ``tls``, STARTTLS or nothing."""
    data = directory / "swaks.eml"
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in message.split(b"\r\n"))
    data.write_bytes(stuffed + b".")  # -ndf: swaks adds only the line end behind it
    done = subprocess.run(
        [
            "swaks",
            *("--server", address, "--port", str(port), "--helo", "app.sender.example"),
            *("--from", sender, "--to", ",".join(recipients)),
            *("--data", f"@{data}", "--no-data-fixup", "--timeout", "30"),
            *(["--tls"] if tls else []),
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    return Sent(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))
