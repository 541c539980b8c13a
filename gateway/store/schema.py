"""The tables, as SQLAlchemy Core sees them; migrations under ``migrations/versions`` make them.

Times are seconds since the epoch (UTC, double). A recipient's key is (message, n); people see it as ``MESSAGE.N``.
Bodies stand in a table of their own so that a state change never rewrites a body. The wrapped data key does not stand
beside its body: deleting rows makes SQLite merge pages, and what it moves stays behind, readable, in the unused middle
of the old page - ``secure_delete`` does not reach it (measured). Rows of ``messages`` are only appended and shrunk, so
a key that is set to NULL there has no second copy.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "ENDING",
    "HELD",
    "LIVE_MESSAGES",
    "READY",
    "WAITING",
    "bodies",
    "counters",
    "deposit_keys",
    "deposits",
    "events",
    "idempotency",
    "incarnations",
    "messages",
    "meta",
    "metadata",
    "portal_codes",
    "portal_counts",
    "portal_sessions",
    "recipients",
    "ring_keys",
    "signature_uses",
    "streams",
    "tellings",
    "untold",
]

#: Conditions of the partial indexes below, as text: with bound values instead SQLite would not see that they fit.
#: A recipient stands in at most one of the indexes that belong to its state, so that each change of state costs one
#: entry less and one more; what is claimed as it is accepted never was in that of what is ready or waits.
#: What is due: it waits for its turn only.
READY = text("state = 'queued'")
#: What waits for its time.
WAITING = text("state = 'deferred'")
#: What waits for a person.
HELD = text("state = 'held'")
#: Messages with a recipient that is in the queue.
LIVE_MESSAGES = text("live > 0")

#: Deposits whose content is still there.
ENDING = text("ends IS NOT NULL")

#: SQLite's INTEGER has 64 bits; PostgreSQL tells them apart.
_LONG = BigInteger().with_variant(Integer(), "sqlite")
#: In the order of its code points, as SQLite and Python see it, whatever the locale of the database (``queue.turns``).
_ORDERED = String(255).with_variant(String(255, collation="C"), "postgresql")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: Small facts about the store itself: wrapped loop secret, schema notes.
meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

#: The middle layer of keys: wrapped by a key-encryption key, wraps data keys. A new one each quarter.
ring_keys = Table(
    "ring_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", Double, nullable=False),
    Column("kek", String(32), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
)

#: One row per process that ever wrote; a lease belongs to one of these.
incarnations = Table(
    "incarnations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", Double, nullable=False),
    Column("heartbeat", Double, nullable=False),
    Column("ended", Double),
    Column("place", String(64)),  # which directory holds its lock file, on which boot of which machine
    Column("lease", Double),  # seconds; NULL: the default
)

messages = Table(
    "messages",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("received", Double, nullable=False),
    Column("connector", String(255), nullable=False),
    Column("client", String(64), nullable=False),
    Column("sender", String(320)),  # NULL: the null sender
    Column("size", _LONG, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("observed", Boolean, nullable=False),  # taken by a connector in stage observe
    Column("system", Boolean, nullable=False),  # mail of our own, outside policy
    Column("parent", String(36)),  # the message that a DSN of ours is about
    Column("envelope", Text, nullable=False),  # JSON: the rest of the envelope
    Column("live", Integer, nullable=False),  # recipients in the queue: not terminal, and not in the portal
    Column("ring_key", Integer, ForeignKey("ring_keys.id")),  # NULL with the key
    Column("data_key", LargeBinary),  # wrapped; NULL once it was shredded, or only the portal needs the body
    Index("ix_messages_received", "received"),
    Index("ix_messages_live", "id", sqlite_where=LIVE_MESSAGES, postgresql_where=LIVE_MESSAGES),
    Index(
        "ix_messages_parent",
        "parent",
        sqlite_where=text("parent IS NOT NULL"),
        postgresql_where=text("parent IS NOT NULL"),
    ),
    Index(
        "ix_messages_ring_key",
        "ring_key",
        sqlite_where=text("ring_key IS NOT NULL"),
        postgresql_where=text("ring_key IS NOT NULL"),
    ),
)

bodies = Table(
    "bodies",
    metadata,
    Column("message", String(36), ForeignKey("messages.id"), primary_key=True),
    Column("inline", LargeBinary),  # sealed, up to 128 KiB of plain bytes
    Column("blob", String(255)),  # else the name of a sealed file or object
)

recipients = Table(
    "recipients",
    metadata,
    Column("message", String(36), ForeignKey("messages.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("address", String(320), nullable=False),
    Column("key", String(320), nullable=False),
    Column("domain", _ORDERED, nullable=False),
    Column("origin", BigInteger, nullable=False),  # whose turn it is: see ``gateway.queue.turns``
    Column("notify", String(64), nullable=False),
    Column("orcpt", String(512), nullable=False),
    Column("state", String(16), nullable=False),
    Column("since", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("claimed_by", String(36)),
    Column("losses", Integer, nullable=False),
    Column("unsure_since", Double),  # start of the fallback clock
    Column("delay_notified", Boolean, nullable=False),
    Column("requirement", Text, nullable=False),  # JSON of Requirement
    Column("decision", Text),  # JSON of the last decision
    Column("method", String(16)),
    Column("last_error", Text),
    Column("hold_reason", Text),
    Column("hold_until", Double),
    Column("approvals", Text, nullable=False),  # JSON list of rule names released from hold
    Index(
        "ix_recipients_ready",
        "origin",
        "domain",
        "next_attempt",
        sqlite_where=READY,
        postgresql_where=READY,
    ),
    Index(
        "ix_recipients_waiting",
        "next_attempt",
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    ),
    Index(
        "ix_recipients_claimed_by",
        "claimed_by",
        sqlite_where=text("claimed_by IS NOT NULL"),
        postgresql_where=text("claimed_by IS NOT NULL"),
    ),
    Index(
        "ix_recipients_hold_until",
        "hold_until",
        sqlite_where=HELD,
        postgresql_where=HELD,
    ),
    Index("ix_recipients_key", "key", "message"),
    sqlite_with_rowid=False,
)

#: Hash-chained records, one chain a stream; a stream belongs to one incarnation of a writer (``gateway.audit.chain``).
events = Table(
    "events",
    metadata,
    Column("stream", String(36), primary_key=True),
    Column("seq", _LONG, primary_key=True),
    Column("time", Double, nullable=False),
    Column("message", String(36)),
    Column("kinds", Text, nullable=False),  # of the events in the record, between blanks
    Column("data", Text, nullable=False),  # canonical JSON: [[kind, n, {...}], ...]
    Column("hash", LargeBinary, nullable=False),
    Index(
        "ix_events_message",
        "message",
        sqlite_where=text("message IS NOT NULL"),
        postgresql_where=text("message IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

#: The head of each chain, kept in the same transactions; a new stream links the heads that nobody linked yet.
streams = Table(
    "streams",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("seq", _LONG, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("linked_by", String(36)),
)

#: Gauges are read from here, never counted: ``recipients.STATE``. A value is the sum over its writers: on SQLite there
#: is one (""), on PostgreSQL one a gateway, so that nobody's commit waits for another's (see ``counting``).
counters = Table(
    "counters",
    metadata,
    Column("name", String(64)),
    Column("writer", String(36)),
    Column("value", _LONG, nullable=False),
    PrimaryKeyConstraint("name", "writer", name="pk_counters_by_writer"),
)

#: How often one DKIM signature opened the door (replay, see the ``dkim`` factor).
signature_uses = Table(
    "signature_uses",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("first", Double, nullable=False, index=True),
    Column("uses", Integer, nullable=False),
)

#: X-Gateway-Idempotency-Key within 24 hours.
idempotency = Table(
    "idempotency",
    metadata,
    Column("scope", LargeBinary, primary_key=True),  # digest of connector, sender and key
    Column("content", LargeBinary, nullable=False),  # digest of recipients and message
    Column("message", String(36), nullable=False),
    Column("created", Double, nullable=False, index=True),
)

#: What somebody was told of within the last hour, and what is therefore only counted (see ``gateway.queue.telling``).
tellings = Table(
    "tellings",
    metadata,
    Column("key", String(64), primary_key=True),  # digest of whom and what about
    Column("told", Double, nullable=False, index=True),
    Column("about", Text, nullable=False),  # JSON: what the summary has to know
)

#: What came since: a row for each process that counts, so that nobody's commit waits for another's.
untold = Table(
    "untold",
    metadata,
    Column("key", String(64)),
    Column("writer", String(36)),
    Column("number", Integer, nullable=False),
    Column("first", Double, nullable=False),
    Column("last", Double, nullable=False),
    Column("sample", Text, nullable=False),  # JSON: the first few of them
    PrimaryKeyConstraint("key", "writer", name="pk_untold"),
)

#: What lies in the portal for one recipient, and what became of it. Rows stay when the content is gone. The link in
#: the notice and the code that can be typed instead are derived from a secret of the store: here is what finds them.
deposits = Table(
    "deposits",
    metadata,
    Column("message", String(36), ForeignKey("messages.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("handle", LargeBinary, nullable=False),  # digest of the token in the link
    Column("typed", String(16), nullable=False),  # the code that can be typed instead
    Column("verp", String(32), nullable=False),  # where bounces of its notices come back
    Column("key", String(320), nullable=False),  # the recipient's address, as it is compared
    Column("made", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("ends", Double),  # when the content goes: at its end, or soon after a recall; NULL: it is gone
    Column("needs", String(16), nullable=False),  # the assurance that a code's session must have reached
    Column("notice", String(36)),  # our message that tells of it; NULL once we know what became of that
    Column("noticed", Double),
    Column("notice_tls", String(16)),
    Column("phrase", LargeBinary),  # keyed digest of the access phrase
    Column("opened", Double),
    Column("recalled", Double),
    Column("reminded", Integer, nullable=False),
    Index("ix_deposits_handle", "handle"),
    Index("ix_deposits_typed", "typed"),
    Index("ix_deposits_verp", "verp"),
    Index("ix_deposits_key", "key", "message"),
    Index("ix_deposits_ends", "ends", sqlite_where=ENDING, postgresql_where=ENDING),
    Index("ix_deposits_there", "message", sqlite_where=ENDING, postgresql_where=ENDING),
    Index(
        "ix_deposits_notice",
        "notice",
        sqlite_where=text("notice IS NOT NULL"),
        postgresql_where=text("notice IS NOT NULL"),
    ),
)

#: The key of a deposit, wrapped for its recipient. In a table of its own, whose rows are only appended and shrunk (see
#: above): a key that is set to NULL here has no second copy.
deposit_keys = Table(
    "deposit_keys",
    metadata,
    Column("id", _LONG, primary_key=True, autoincrement=True),
    Column("message", String(36), ForeignKey("messages.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("ring_key", Integer, ForeignKey("ring_keys.id")),  # NULL with the key
    Column("data_key", LargeBinary),
    Index("ix_deposit_keys_message", "message", "n"),
    Index(
        "ix_deposit_keys_ring_key",
        "ring_key",
        sqlite_where=text("ring_key IS NOT NULL"),
        postgresql_where=text("ring_key IS NOT NULL"),
    ),
)

#: Sign-in codes that were mailed and are not over. ``assurance`` is that of the session which carried the mail.
portal_codes = Table(
    "portal_codes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(320), nullable=False),
    Column("address", String(320), nullable=False),
    Column("browser", LargeBinary, nullable=False),  # digest of the cookie of the browser that asked
    Column("message", String(36)),  # the deposit whose page asked
    Column("n", Integer),
    Column("reference", String(8), nullable=False),  # shown on the page and in the mail
    Column("code", LargeBinary, nullable=False),  # keyed digest
    Column("made", Double, nullable=False),
    Column("expires", Double, nullable=False, index=True),
    Column("tries", Integer, nullable=False),
    Column("mail", String(36), nullable=False, index=True),
    Column("assurance", String(16)),  # NULL: the mail is not delivered yet
    Index("ix_portal_codes_browser", "browser"),
)

portal_sessions = Table(
    "portal_sessions",
    metadata,
    Column("id", LargeBinary, primary_key=True),  # digest of the cookie
    Column("key", String(320), nullable=False),
    Column("address", String(320), nullable=False),
    Column("level", String(16), nullable=False),
    Column("told", Text, nullable=False),  # JSON: deposits whose access phrase was entered
    Column("made", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("ends", Double, nullable=False, index=True),
)

#: How often something was asked for or tried within a window of time; survives restarts.
portal_counts = Table(
    "portal_counts",
    metadata,
    Column("key", LargeBinary, primary_key=True),  # digest of what is counted, and whose
    Column("number", Integer, nullable=False),
    Column("ends", Double, nullable=False, index=True),
)
