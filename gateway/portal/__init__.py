"""The portal: where a message lies, sealed, that no other allowed method can carry - and how its recipient reads it.

1. ``names``     - the link's token, the code that can be typed instead, the address for bounces: derived, never kept
2. ``deposits``  - what lies there: the rows, and every change of state that the portal makes, within transactions
3. ``depositor`` - a delivery's step: the deposit and its notice, in the transaction that ends the attempt
4. ``letters``   - what is mailed: notices, reminders, sign-in codes, access phrases for the sender
5. ``aftermath`` - how a notice or a code fared: what its session attained, whether it came back
6. ``phrases``   - four words that the sender tells, where the way of a code was too weak
7. ``keeper``    - the clockwork: expiry, reminders, what is over
8. ``counts``, ``codes``, ``sessions`` - limits that survive restarts; sign-in; who reads
9. ``mailbox``   - all of it, as the pages see it
10. ``operate``  - what operators do: list, show, recall, restore, extend
11. ``reading``  - a message as something to look at in a browser: parts, document, downloads (pure)
12. ``pages``    - what recipients see: handlers, templates, style sheets
"""
