"""What people watching the gateway see.

1. ``log``       - structured events, redacted
2. ``lines``     - whole lines of several processes into one stream
3. ``metrics``   - Prometheus, label values closed or bounded by configuration
   ``alarms``    - the kinds of alarms, what they mean and what to do
4. ``aggregate`` - the metrics of several processes as those of one gateway
5. ``http``      - /metrics, /healthz, /readyz
6. ``service``   - what systemd is told (sd_notify)
"""
