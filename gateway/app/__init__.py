"""The composition root: the processes of one gateway, and the rooms in each worker.

Processes:

1. ``supervisor`` - ``gateway run``: binds, forks, watches, reloads, stops
   ``preloading`` and ``signals`` are its hands
2. ``sockets``    - what listens: made once, handed to the workers; socket activation
3. ``children``   - forking a process that dies with its parent; when one that died starts again
4. ``seat``, ``board`` - what stays of a worker: share, bell, and its last words in shared memory
5. ``channel``    - what supervisor and workers say to each other
6. ``worker``     - one worker; the same clothes for the web process
7. ``web``        - the web process; ``faces`` puts the faces together
8. ``health``     - metrics and health of all
9. ``reloading``  - a reload in every process, or in none

In a worker: settings and policy; store; queue; delivery; then - last - the listeners, so that nothing is accepted
before everything that it needs stands. Stop is the reverse: first no new mail, then what is in delivery ends, then the
store closes. A reload is all or nothing: what is wrong with the new files is logged and nothing changes.

10. ``gateway``   - the rooms of one process: start, prepare and adopt a reload, stop
11. ``current``   - settings, policy and resolver of now: what a reload replaces as one value
12. ``observer``  - turns what the rooms say into metrics and alarms
13. ``watch``     - what is looked at every second: alarms, a renewed certificate
"""

from gateway.app.gateway import Gateway, loop_key

__all__ = ["Gateway", "loop_key"]
