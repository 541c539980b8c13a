"""Making a message so that it may leave.

1. ``choose``   - which method, out of what is required and what is possible (pure)
2. ``sevenbit`` - 8-bit mail for a peer without 8BITMIME
"""
