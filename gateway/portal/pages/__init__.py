"""The portal's pages: what a recipient sees in a browser. Every step that changes something is ``mailbox``'s.

1. ``landing``  - the front page, a typed code, what a link leads to: no side effect
2. ``signing``  - codes: asked for, entered; the end of a session
3. ``inbox``    - what lies there for a reader; access phrases
4. ``reading``  - a message: its page, its text, its files
5. ``replying`` - an answer with files, sealed as it arrives
6. ``gate``     - who is signed in; ``frame``: what all pages say of organisation and reader
7. ``contents`` - messages as they are shown: with what policy changes in them
8. ``colours``  - a style sheet for each organisation's colour; ``shown``: addresses, days, sizes in words

Nothing here needs a script in the browser, and none is sent.
"""

from gateway.portal.pages.face import portal_face

__all__ = ["portal_face"]
