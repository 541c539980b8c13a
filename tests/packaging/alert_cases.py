"""What must ring which alert: series as promtool writes them, one sample a minute, and the minute at which it rings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CASES", "HEALTHY", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """``series`` come on top of :data:`HEALTHY` and replace what they name. ``at``: minutes from the start."""

    alert: str
    series: tuple[tuple[str, str], ...]
    at: int


def alarm(kind: str) -> str:
    return f'gateway_alarms_total{{job="gateway", instance="gw", kind="{kind}"}}'


def named(metric: str, labels: str = "") -> str:
    more = f", {labels}" if labels else ""
    return f'{metric}{{job="gateway", instance="gw"{more}}}'


_DAYS = 86400

#: A gateway to which nothing happens; ``N`` stands for how long.
HEALTHY: tuple[tuple[str, str], ...] = (
    (named("up"), "1xN"),
    (named("gateway_ready"), "1xN"),
    *((alarm(kind), "0xN") for kind in ("space", "dropped", "soft_refusal", "store_failed", "worker_died")),
    (named("gateway_clock_in_doubt"), "0xN"),
    (named("gateway_connectors_observing"), "0xN"),
    (named("gateway_queue_recipients", 'state="held"'), "0xN"),
    (named("gateway_queue_recipients", 'state="queued"'), "3xN"),
    (named("gateway_queue_oldest_seconds"), "120xN"),
    (named("gateway_store_free_bytes"), "50000000000-1000xN"),
    (named("gateway_certificate_expiry_timestamp_seconds", 'use="listener"'), f"{90 * _DAYS}xN"),
    (named("gateway_delivery_seconds_count", 'method="tls"'), "0+100xN"),
    (named("gateway_tls_sessions_total", 'version="TLSv1.3", assurance="verified", result="ok"'), "0+100xN"),
    (named("gateway_tls_sessions_total", 'version="none", assurance="none", result="definite"'), "0+2xN"),
    (named("gateway_recipients_total", 'method="tls", outcome="delivered"'), "0+100xN"),
    (named("gateway_recipients_total", 'method="none", outcome="bounced"'), "0+1xN"),
    (named("gateway_fallbacks_total", 'from="tls", to="portal", reason="definite"'), "0+1xN"),
    (named("gateway_possible_duplicates_total"), "0xN"),
    (named("gateway_smtp_refusals_total", 'reason="no_space"'), "0xN"),
    (named("gateway_smtp_refusals_total", 'reason="auth"'), "0xN"),
    (named("gateway_web_requests_total", 'face="portal", route="read", status="200"'), "0+10xN"),
    (named("gateway_web_requests_total", 'face="portal", route="read", status="500"'), "0xN"),
    (named("gateway_store_commit_seconds_bucket", 'le="0.128"'), "0+100xN"),
    (named("gateway_store_commit_seconds_bucket", 'le="1"'), "0+100xN"),
    (named("gateway_store_commit_seconds_bucket", 'le="+Inf"'), "0+100xN"),
)


def rings(alert: str, kind: str, at: int = 12) -> Case:
    """An alarm that rang once, at the tenth minute."""
    return Case(alert, ((alarm(kind), "0x9 1x200"),), at)


CASES: tuple[Case, ...] = (
    Case("GatewayDown", ((named("up"), "1x9 0x20"),), 13),
    Case("GatewayNotReady", ((named("gateway_ready"), "1x9 0x20"),), 13),
    rings("GatewayStoreFailed", "store_failed"),
    rings("GatewayStoreAway", "store_away"),
    rings("GatewayWorkerDied", "worker_died"),
    rings("GatewayWebDied", "web_died"),
    Case(
        "GatewayWebFails",
        ((named("gateway_web_requests_total", 'face="portal", route="read", status="500"'), "0+1x30"),),
        16,
    ),
    Case("GatewayClockInDoubt", ((named("gateway_clock_in_doubt"), "0x9 1x20"),), 16),
    rings("GatewayReloadFailed", "reload_failed"),
    rings("GatewayGuardViolation", "guard_violation"),
    Case("GatewayConnectorObserving", ((named("gateway_connectors_observing"), "1x100"),), 61),
    Case(
        "GatewayTlsSessionsFail",
        ((named("gateway_tls_sessions_total", 'version="none", assurance="none", result="definite"'), "0+50x100"),),
        60,
    ),
    Case(
        "GatewayFallbacks",
        ((named("gateway_fallbacks_total", 'from="tls", to="portal", reason="definite"'), "0+50x100"),),
        60,
    ),
    rings("GatewayShreddingOverdue", "shredding_overdue"),
    Case(
        "GatewayCertificateEnds",
        ((named("gateway_certificate_expiry_timestamp_seconds", 'use="listener"'), f"{20 * _DAYS}x100"),),
        61,
    ),
    Case(
        "GatewayCertificateEndsSoon",
        ((named("gateway_certificate_expiry_timestamp_seconds", 'use="listener"'), f"{2 * _DAYS}x100"),),
        1,
    ),
    rings("GatewayCertificateFile", "certificate"),
    rings("GatewayBodyCorrupt", "body_corrupt"),
    rings("GatewayPoison", "poison"),
    rings("GatewayRenderingFailed", "rendering_failed"),
    rings("GatewaySigningFailed", "signing_failed"),
    Case("GatewayMailHeld", ((named("gateway_queue_recipients", 'state="held"'), "1x100"),), 61),
    Case("GatewayMailOld", ((named("gateway_queue_oldest_seconds"), "14000+60x60"),), 40),
    Case("GatewayMailDueAndNotSent", ((named("gateway_delivery_seconds_count", 'method="tls"'), "500x100"),), 25),
    Case("GatewayBounces", ((named("gateway_recipients_total", 'method="none", outcome="bounced"'), "0+50x100"),), 80),
    rings("GatewayDropped", "dropped"),
    Case("GatewayPossibleDuplicates", ((named("gateway_possible_duplicates_total"), "0+1x100"),), 60),
    Case("GatewayRefusesForOurFault", ((named("gateway_smtp_refusals_total", 'reason="no_space"'), "0x9 1+1x50"),), 20),
    rings("GatewaySoftRefusals", "soft_refusal"),
    Case("GatewayLogInFailures", ((named("gateway_smtp_refusals_total", 'reason="auth"'), "0+10x60"),), 30),
    rings("GatewayNoSpace", "space"),
    Case("GatewaySpaceEnds", ((named("gateway_store_free_bytes"), "1000000000x100"),), 31),
    Case("GatewaySpaceEnds", ((named("gateway_store_free_bytes"), "50000000000-50000000x500"),), 400),
    Case(
        "GatewayCommitsSlow",
        (
            (named("gateway_store_commit_seconds_bucket", 'le="0.128"'), "0+10x100"),
            (named("gateway_store_commit_seconds_bucket", 'le="1"'), "0+100x100"),
        ),
        40,
    ),
    rings("GatewayAlarm", "something_of_a_later_version"),
)
