"""The durable queue.

1. ``accept``    - one transaction makes a message, its requirement and its first claims durable; then 250
2. ``turns``, ``shares`` - whose turn it is among what is due: fair between senders, nothing walks the backlog
3. ``claims``    - claim before connect: attempt counted, next attempt moved, lease taken
4. ``outcomes``  - how an attempt ended: state, evidence, notices, shredding - one transaction
5. ``states``    - the table that alone changes states
6. ``retry``     - when to try again (pure)
7. ``recovery``, ``flights`` - what a dead worker had
8. ``notices``, ``system_mail`` - DSNs and letters as messages of our own
   ``announce``, ``telling`` - who is told of holds, matched rules and alarms: once an hour, the rest counted
9. ``queue``     - the queue as the other rooms see it
10. ``timekeeping`` - whether the clock can be believed; nothing expires while it cannot
11. ``operate``, ``views`` - what operators do, and what they see
"""
