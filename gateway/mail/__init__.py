"""Pure values and functions about mail: no I/O, nothing of ours imported.

1. ``address``    - the one address type, and domains in normal form
2. ``envelope``   - envelope, recipients with DSN parameters, message, kinds
   ``kind``       - which kind a message is, by its header fields
3. ``headers``    - header fields at byte level: scan, unfold, take out
4. ``protection`` - methods, assurance, requirement, decision
   ``edits``      - what is to be changed in a message, and what that makes of it (a package)
5. ``attempt``    - evidence and outcome of one try
6. ``reply``      - SMTP replies with enhanced codes, text of strangers cleaned
7. ``dsn``        - the text of delivery status notifications (RFC 3464)
   ``letter``, ``announcements`` - letters of our own to people, and what they say
8. ``ids``        - UUIDv7
9. ``content``    - what a message says: texts, attachments, what could not be read (a package)
10. ``dkim``      - DKIM signatures, keys and records (a package)
"""
