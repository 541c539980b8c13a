"""The front door: an SMTP server that knows who may hand us mail, and lets nothing ambiguous through.

The way of a connection, and where each step lives:

1. ``server``       - listeners, accepting, reload, draining; ``limits`` says how many; ``terms`` is the configuration
   ``proxied`` stands before sessions behind a load balancer, ``proxy_protocol`` reads what it says (pure)
2. ``certificates`` - our own certificate; ``client_tls`` asks clients for theirs and lets every one through,
   ``client_certificate`` judges it afterwards
3. ``connection``   - transport, deadlines, STARTTLS; ``reader`` gives it lines and chunks, ``pace`` measures slowness
4. ``session``      - commands and replies; ``parameters`` reads MAIL and RCPT, ``transaction`` is what they build
   ``authentication`` is AUTH: ``sasl`` reads it, ``passwords`` verifies
5. ``connectors``   - which connectors a connection, an envelope and a message satisfy (pure);
   ``networks`` and ``spf`` know the clouds' addresses, ``author`` reads From
6. ``content``      - a message's octets from the first to the answer: by DATA, where ``data`` finds the end and takes
   the stuffing out, or chunk by chunk by BDAT (``chunking``); both pure. ``memory`` bounds what all of them hold
7. ``reception``    - what happens to a message while its bytes arrive: ``markers`` takes fields out, ``loop`` counts
   passes, ``dkim_check`` has a signature verified (``dkim``), the rest goes sealed into a spool
8. ``intake``       - judges and makes it durable, behind the seam in ``seams``

Every answer other than success is made in ``refusals``, whose labels are a closed set.
"""
