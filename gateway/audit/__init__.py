"""Evidence: the hash chain over events.

1. ``chain`` - the hashes, and how a stream is verified (pure)

Events are written by the store's transactions (``gateway.store.writer``), in the same transaction as what they record.
"""
