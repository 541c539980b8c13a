"""``gateway demo``: the real gateway among neighbours of every kind, and what became of each recipient, and why.

1. ``neighbours`` - resolver, authority and recipients' hosts, good and bad, out of :mod:`gateway.testing`
2. ``stage``      - the directory with ``policy.yaml`` and a configuration, and the daemon, held by ``leash``
3. ``client``     - plays Microsoft 365, which hands the mail over
4. ``script``     - what is sent, and what must become of it
5. ``record``     - what became of it: the data of ``gateway trace``, as values
6. ``words``      - that in words: the cells of a table, and why
7. ``screen``     - a live table on a terminal, plain lines elsewhere
8. ``tour``       - from the first word to the last; ``stopping``: told to end before, it leaves nothing behind
9. ``picture``    - two tables of it as the picture in README.md

Nothing here says what the gateway did but the gateway: the hosts are played, the outcome is read from its store, the
bounces from the mailbox that they reached. Everything stays on loopback. The daemon never imports this package.
"""
