"""The kinds of alarms, each with what it means and what to do, in short: for letters to people.

The long form is the table in ``docs/troubleshooting.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["ALARMS", "AlarmWords"]


class AlarmWords(NamedTuple):
    """What an alarm means, and what to do; sentences without their full stop."""

    means: str
    remedy: str


ALARMS: Mapping[str, AlarmWords] = MappingProxyType(
    {
        "body_corrupt": AlarmWords(
            "a stored message is not what was written; it is held and never sent damaged",
            "check the disk, ask the sender to send it again, then `gateway queue cancel`",
        ),
        "certificate": AlarmWords(
            "a new certificate file cannot be used; the old certificate stays in use",
            "mend the file; the alarm ends by itself",
        ),
        "clock": AlarmWords(
            "the clock of the machine cannot be believed: nothing expires until it can",
            "set the clock right; where it is right as it is, `gateway queue clock accept`",
        ),
        "dropped": AlarmWords(
            "mail that could not be delivered had nobody to be reported to (a bounce, a receipt, an automatic reply)",
            "`gateway trace --since 1h` says why; often it is a bounce to a forged sender",
        ),
        "guard_violation": AlarmWords(
            "mail was about to leave over a session that is not safe enough and was stopped: a fault of the gateway",
            "report it, with the log lines of that message",
        ),
        "observe_stage": AlarmWords(
            "a connector is in stage observe: its mail leaves unprotected",
            "set `stage: soft` or `enforce` once you have seen enough",
        ),
        "poison": AlarmWords(
            "a message is held because its worker died three times while it was processed",
            "`gateway queue list --state held`; keep it and report it, then release or cancel it",
        ),
        "reload_failed": AlarmWords(
            "a reload found faults; the old configuration stays in force",
            "`gateway check` names them",
        ),
        "rendering_failed": AlarmWords(
            "what a rule changes in a message could not be done; the message waits",
            "the log says what failed, in which message; correct the rule, or report it",
        ),
        "shredding_overdue": AlarmWords(
            "keys of deleted mail still stand in the write-ahead log after ten minutes",
            "end programs that have queue.db open",
        ),
        "signing_failed": AlarmWords(
            "a message could not be signed (DKIM), by a fault of the gateway; it waits",
            "report it, with the log lines of that message; without keys under `dkim` it leaves unsigned",
        ),
        "soft_refusal": AlarmWords(
            "a connector in stage soft refused for now what stage enforce would refuse for good",
            "look at `reason` and `detail` of the event `refused` in the log, before the client gives up",
        ),
        "space": AlarmWords(
            "there is too little room under data_dir; mail is answered 452 and stays with its senders",
            "make room; the gateway goes on by itself",
        ),
        "store_away": AlarmWords(
            "the database server is out of reach; mail is answered 451 and stays with its senders",
            "look at the server and the way to it; nothing has to be restarted here",
        ),
        "store_failed": AlarmWords(
            "a write or sync failed; nothing more is taken",
            "look at the disk (`dmesg`); on a sound disk restart the gateway",
        ),
        "web_died": AlarmWords(
            "the web process ended that nobody had told to; it is started again, and mail flows meanwhile",
            "`process_died` in the log says how it ended; killed by SIGKILL is often a want of memory (`dmesg`)",
        ),
        "worker_died": AlarmWords(
            "a worker process ended that nobody had told to; it is started again and loses nothing",
            "`process_died` in the log says how it ended; killed by SIGKILL is often a want of memory (`dmesg`)",
        ),
    }
)
