"""Secure email gateway: an SMTP relay that enforces protection per recipient and proves what it did.

The way of a message, and the room that each step lives in:

1. ``ingress``   - SMTP server; connectors prove who they are; markers are stripped; bytes go into a sealed spool
2. ``policy``    - judges the message: a ``Requirement`` for each recipient
3. ``queue``     - one transaction makes it durable, then we answer 250; later: claim, outcome, schedule, recovery
4. ``directory`` - what is known about a recipient: DNS, MX hosts, addresses
5. ``protect``   - chooses a method out of what is required and what is possible
6. ``delivery``  - SMTP client: TLS is judged on the session itself before a byte of the message is sent

Beneath them: ``store`` (database, sealing, blobs), ``audit`` (the hash chain), ``observe`` (metrics, logs,
health), ``config`` (settings), ``mail`` (pure values). Above them: ``app`` (composition root) and ``cli``.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
