"""DKIM (RFC 6376, RFC 8301, RFC 8463): what the verifier at the front door and the signer at the way out share.

1. ``canonical`` - what white space counts for: the body hash, chunk by chunk, and the header fields under a signature
2. ``taglist``   - tag lists, which signatures and key records are written in
3. ``records``   - key records: what a domain publishes in DNS
4. ``keys``      - private keys: read, made, and the record that belongs to one
5. ``signing``   - which fields are signed, and the DKIM-Signature field itself
6. ``standing``  - whether a message carries a signature of its author's domain already

The rules of the front door stand in ``ingress/dkim``, those for what we sign in ``delivery/signing``.
"""
