"""Changes to a message: what policy wants, and what that makes of the octets.

1. ``changes``    what is to be changed, as a value: ``Edits``
2. ``header``     header fields octet by octet; ``subject_tags``, ``encoded_words``: what stands in them
3. ``footers``    footers in each text that is shown; ``entities``: where they are; ``transfer``: how they are written
4. ``signatures`` which signatures a change breaks
5. ``rendering``  all of it together, as ``patches`` over the accepted octets
"""

from gateway.mail.edits.changes import NO_EDITS, ONCE, Change, EditError, Edits, Footer, combined

__all__ = ["NO_EDITS", "ONCE", "Change", "EditError", "Edits", "Footer", "combined"]
