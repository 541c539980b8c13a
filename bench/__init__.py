"""How fast and how small: generator, sink, and what relays between them. See README.md here for how it is measured.

1. ``loop``      - many connections in one thread, cheaply: generator and sink share the cores with the relay
2. ``sink``      - a process that takes mail as fast as it can, and counts
3. ``generator`` - a process that hands mail in, so many connections, so many messages on each
4. ``relays``    - what stands between: nothing, Postfix, the gateway
5. ``processes`` - which processes a relay consists of, and how long they have worked
6. ``memory``    - what they hold while something passes
7. ``report``    - the table for people, the JSON for later
8. ``__main__``  - the scenarios, and the order in which they run
"""
