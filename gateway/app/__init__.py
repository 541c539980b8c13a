"""The composition root: builds the rooms from the settings, starts them, reloads them, stops them.

Start: settings and policy; store; queue; delivery; health; then - last - the listeners, so that nothing is accepted
before everything that it needs stands. Stop is the reverse: first no new mail, then what is in delivery ends, then
the store closes. A reload is all or nothing: what is wrong with the new files is logged and nothing changes.

1. ``gateway``  - one running gateway: start, serve, reload, stop
2. ``current``  - settings, policy and resolver of now: what a reload replaces as one value
3. ``observer`` - turns what the rooms say into metrics and alarms
4. ``watch``    - what is looked at every second: gauges, alarms, a renewed certificate
"""

from gateway.app.gateway import Gateway, loop_key

__all__ = ["Gateway", "loop_key"]
