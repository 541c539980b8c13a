"""How fast and how small: generator, sink, and what relays between them. See README.md here for how it is measured.

1. ``sink``      - a process that takes mail over TLS as fast as it can, and counts
2. ``generator`` - a process that hands mail in over TLS, so many connections, so many messages on each
3. ``relays``    - what stands between: nothing, Postfix, the gateway
4. ``memory``    - what a relay's processes hold while something passes
5. ``report``    - the table for people, the JSON for later
6. ``__main__``  - the scenarios, and the order in which they run
"""
