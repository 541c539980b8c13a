"""What people watching the gateway see.

1. ``log``     - structured events, redacted
2. ``metrics`` - Prometheus, label values closed or bounded by configuration
3. ``http``    - /metrics, /healthz, /readyz
4. ``service`` - what systemd is told (sd_notify)
"""
