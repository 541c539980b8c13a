"""The front door: an SMTP server that knows who may hand us mail, and lets nothing ambiguous through.

The way of a connection, and where each step lives:

1. ``server``       - listeners, accepting, reload, draining; ``limits`` says how many
2. ``certificates`` - our own certificate; ``client_tls`` asks clients for theirs and lets every one through,
   ``client_certificate`` judges it afterwards
3. ``session``      - commands and replies, timers, STARTTLS; ``reader`` gives it lines and chunks,
   ``parameters`` reads MAIL and RCPT
4. ``connectors``   - which connectors a connection, an envelope and a message satisfy (pure);
   ``networks`` and ``spf`` know the clouds' addresses, ``author`` reads From
5. ``data``         - finds the end of the message and takes the stuffing out (pure)
6. ``reception``    - what happens to a message while its bytes arrive: ``markers`` takes fields out, ``loop``
   counts passes, ``dkim`` verifies a signature, the rest goes sealed into a spool
7. ``seams``        - the intake that makes it durable, supplied by ``intake`` and ``app``

Every answer other than success is made in ``refusals``.
"""
