"""Metrics: the names and labels of the contract, and nothing that grows with the mail."""

from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest

from gateway.observe.metrics import ALARMS, Metrics, QueueCollector, QueueGauges

#: Those of the interface contract that this version has, with their labels. More may be there.
CONTRACT = {
    "gateway_messages_received_total": {"connector", "result"},
    "gateway_recipients_total": {"method", "outcome"},
    "gateway_delivery_seconds": {"method"},
    "gateway_queue_recipients": {"state"},
    "gateway_queue_oldest_seconds": set(),
    "gateway_policy_rule_matches_total": {"rule"},
    "gateway_policy_seconds": set(),
    "gateway_tls_sessions_total": {"version", "assurance", "result"},
    "gateway_method_passed_over_total": {"method", "reason"},
    "gateway_fallbacks_total": {"from", "to", "reason"},
    "gateway_smtp_connections": {"listener"},
    "gateway_store_commit_seconds": set(),
    "gateway_store_batch_size": set(),
    "gateway_store_free_bytes": set(),
    "gateway_certificate_expiry_timestamp_seconds": {"use"},
    "gateway_build_info": {"version"},
}


@pytest.fixture
def metrics() -> Metrics:
    """Every metric touched once."""
    made = Metrics("1.2.3")
    made.messages_received.labels("m365", "accepted").inc()
    made.recipients.labels("tls", "delivered").inc()
    made.delivery_seconds.labels("tls").observe(0.2)
    made.rule_matches.labels("phi").inc()
    made.policy_seconds.observe(0.001)
    made.tls_sessions.labels("TLSv1.3", "verified", "ok").inc()
    made.passed_over.labels("tls", "definite").inc()
    made.fallbacks.labels("tls", "portal", "definite").inc()
    made.connections.labels("0.0.0.0:25").inc()
    made.certificate_expiry.labels("listener").set(2e9)
    made.committed(0.004, 3)
    made.registry.register(QueueCollector(QueueGauges({"queued": 4, "held": 1}, 12.5, 10**9)))
    return made


def test_names_and_labels_of_the_contract(metrics: Metrics) -> None:
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            name = sample.name
            for suffix in ("_bucket", "_count", "_sum"):
                name = name.removesuffix(suffix) if family.type == "histogram" else name
            found.setdefault(name, set()).update(set(sample.labels) - {"le"})
    for name, labels in CONTRACT.items():
        assert found.get(name) == labels, name


def test_the_queue_is_read_at_the_scrape(metrics: Metrics) -> None:
    text = generate_latest(metrics.registry).decode()
    assert 'gateway_queue_recipients{state="queued"} 4.0' in text
    assert "gateway_queue_oldest_seconds 12.5" in text
    assert "gateway_store_free_bytes 1e+09" in text
    assert 'gateway_build_info{version="1.2.3"} 1.0' in text


def test_every_alarm_is_there_before_it_rings(metrics: Metrics) -> None:
    """A counter that appears only with its first alarm cannot be alerted on by its rate."""
    text = generate_latest(metrics.registry).decode()
    for kind in ALARMS:
        assert f'gateway_alarms_total{{kind="{kind}"}} 0.0' in text


def test_two_gateways_in_one_process_do_not_share_metrics(metrics: Metrics) -> None:
    other = Metrics("1.2.3")
    assert 'gateway_messages_received_total{connector="m365"' not in generate_latest(other.registry).decode()
