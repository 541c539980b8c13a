"""``gateway queue clock``, and the real daemon that starts eight days after its last event."""

from __future__ import annotations

import json
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any

from tests.peers.gateway_process import GatewayProcess, dns_server, wait_for


def readyz(gateway: GatewayProcess) -> dict[str, Any]:
    """The answer, which has to be that it is ready."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/readyz", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def sample(gateway: GatewayProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def test_a_start_eight_days_after_the_last_event_expires_nothing_until_accepted(tmp_path: Path) -> None:
    with dns_server("sender.example. 300 IN A 127.0.0.51\n") as resolver:
        gateway = GatewayProcess(tmp_path, resolver=resolver)
        try:
            gateway.start()
            assert gateway.command("queue", "clock", "show").returncode == 0
            refused = gateway.command("queue", "clock", "accept")
            assert (refused.returncode, refused.stderr) == (
                1,
                "gateway: the clock is not in doubt: there is nothing to accept\n",
            )
            gateway.stop()
            with sqlite3.connect(gateway.data_dir / "queue.db") as store:
                store.execute("update events set time = time - 8 * 86400")
            store.close()

            gateway.start()
            answer = readyz(gateway)
            assert answer["ready"] is True
            assert "more than a week from the last event" in answer["warnings"][0]
            assert "gateway queue clock accept" in answer["warnings"][0]
            wait_for("the alarm", lambda: sample(gateway, 'gateway_alarms_total{kind="clock"}') == 1)
            assert sample(gateway, "gateway_clock_in_doubt") == 1
            shown = gateway.command("queue", "clock", "show")
            assert (shown.returncode, shown.stdout) == (
                1,
                "The clock is in doubt: the gateway started more than a week from its last event.\n",
            )
            gateway.stop()
            gateway.start()
            assert readyz(gateway)["warnings"]  # a restart does not take it away

            accepted = gateway.command("queue", "clock", "accept", "--reason", "moved house", "--json")
            assert json.loads(accepted.stdout) == {"doubt": None}
            wait_for("the daemon to hear of it", lambda: not readyz(gateway)["warnings"], seconds=10)
            assert json.loads(gateway.command("queue", "clock", "show", "--json").stdout)["doubt"] is None
            gateway.stop()
            with sqlite3.connect(gateway.data_dir / "queue.db") as store:
                (data,) = store.execute("select data from events where kinds like '%clock_accepted%'").fetchone()
            store.close()
            assert "moved house" in data
            assert "operator" in data
            gateway.start()
            assert readyz(gateway)["warnings"] == []
            gateway.stop()
        finally:
            gateway.kill9()
