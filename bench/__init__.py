"""How fast and how small: generator, sink, and what relays between them. See README.md here for how it is measured.

1. ``loop``      - many connections in one thread, cheaply: generator and sink share the cores with the relay
2. ``sink``      - a process that takes mail as fast as it can, and counts
3. ``client``    - the client's side of SMTP, for the two that follow
4. ``generator`` - a process that hands mail in: so many connections, so many messages on each
5. ``crowd``     - a process with many connections that do next to nothing
6. ``relays``    - what stands between: nothing, Postfix, the gateway
7. ``processes`` - which processes a relay consists of, and how long they have worked; ``memory``: what they hold
8. ``scenarios`` - what can be run, by name; ``measure``: one of them through one relay
9. ``report``    - the tables for people, the JSON for later; ``plot``: the bars
10. ``__main__`` - the order in which they run
11. ``profile``  - where the gateway's time goes; ``stages``: how a stack is told to be of a stage
"""
