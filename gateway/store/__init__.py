"""The store: what we took responsibility for, on disk, sealed.

1. ``schema``, ``migrate`` - the tables and their versions
2. ``database``            - engines, pragmas that durability hangs on, errors in our words, readers
3. ``writer``              - one thread, group commit, events and counters in the same transaction
4. ``turnstile``           - writers of several processes, one behind the other
5. ``sealing``             - AES-256-GCM in chunks
6. ``keyring``, ``bootstrap`` - three layers of keys; the rules for making the first one
7. ``bodies``              - spool, files, streams
8. ``incarnation``         - this process as a holder of leases
9. ``shred``               - the checkpoint after which a deleted key is gone from the medium
10. ``space``              - the free-space floor
11. ``store``              - all of it, opened in order
"""
