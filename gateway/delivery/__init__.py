"""Delivery: the SMTP client side, where protection is enforced on the very connection that carries the mail.

1. ``scheduler``    - takes what is due, each claim in a task
2. ``deliver``      - one claim, from decision to outcome (its docstring is the numbered list)
3. ``nexthop``      - where mail goes and what a session there must show
4. ``sites``        - workers that own a connection each
5. ``session``, ``protocol``, ``target``, ``contexts`` - connect, EHLO, STARTTLS, the guard
6. ``judge``, ``trust``, ``names``, ``peer`` - what a TLS session proves (pure)
7. ``transaction``, ``wire`` - MAIL, RCPT, DATA, body; every octet checked
   ``rendered`` - the message with what policy wants changed in it; ``signing`` - DKIM, the last change
8. ``progress``, ``verdict`` - what failures mean for a recipient (pure)
9. ``trace_fields`` - what is put in front of the accepted bytes
   ``waiting_facts``, ``redecide`` - what policy of now makes of mail that waits: at its next claim, or because an
   operator asks
10. ``probe`` - what a delivery would meet at a domain, seen without sending: ``probed`` (values), ``outlook`` (what it
    means for each demand), ``advice``, ``probe_report``; more facts by ``witness``, ``groups``, ``certificate_facts``
11. ``prospects`` - what was last seen of each host (``sighting``), for previews only

What both a delivery and a probe ask: ``candidates`` (addresses of a host), ``shortfall`` (what a session attained).
Nothing that decides about mail imports 10 and 11.
"""
