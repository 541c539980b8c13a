"""The store: what we took responsibility for, on disk, sealed.

1. ``schema``, ``migrate`` - the tables and their versions
2. ``database``, ``postgres`` - engines, the settings that durability hangs on, errors in our words, readers
3. ``writer``              - one thread, group commit, events and counters in the same transaction
4. ``turnstile``           - writers of several processes, one behind the other (SQLite)
5. ``sealing``             - AES-256-GCM in chunks
6. ``keyring``, ``bootstrap`` - three layers of keys; the rules for making the first one
7. ``bodies``, ``blobs``, ``blob_objects`` - spool, streams and ranges; files; objects in S3-compatible storage
8. ``incarnation``         - this process as a holder of leases, and who of the others is dead
9. ``shred``               - the checkpoint after which a deleted key is gone from the medium
10. ``space``              - the free-space floor
11. ``counting``, ``whereabouts`` - what several gateways on one database must agree about
12. ``store``              - all of it, opened in order
13. ``backup``, ``hotcopy``, ``backup_lock``, ``manifest`` - a backup while others write
14. ``restore``            - putting one back where no store is
"""
