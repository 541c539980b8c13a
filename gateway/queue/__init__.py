"""The durable queue.

1. ``accept``    - one transaction makes a message, its requirement and its first claims durable; then 250
2. ``claims``    - claim before connect: attempt counted, next attempt moved, lease taken
3. ``outcomes``  - how an attempt ended: state, evidence, notices, shredding - one transaction
4. ``states``    - the table that alone changes states
5. ``retry``     - when to try again (pure)
6. ``recovery``, ``flights`` - what a dead worker had
7. ``notices``   - DSNs as messages of our own
8. ``queue``     - the queue as the other rooms see it
9. ``operate``, ``views`` - what operators do, and what they see
"""
