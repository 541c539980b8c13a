r"""Shipped fakes with real sockets, real TLS and real packets: for our tests, for yours, and for ``gateway demo``.

1. ``clock`` - :class:`FakeClock`: time that passes when told to
2. ``ca``    - :class:`CA`, :func:`self_signed`: certificates, good and bad in every way that a peer's may be
3. ``dns``   - :class:`DnsServer`: UDP and TCP, from zone text, with faults by name
4. ``smtp``  - :class:`SmtpPeer`: a recipient's MX host, scripted by :class:`Behaviour`, that records everything
5. ``net``   - :func:`free_port`, :func:`poll`, :func:`read_until`, :func:`wait_port`
6. ``postgres`` - :class:`PostgresServer`: a real server out of the installed programs, for as long as a test lasts

A world of two domains, one of which lost its TLS::

    port, ca = free_port("127.0.0.2", "127.0.0.3"), CA()
    zone = "good.example. MX 10 mx1.good.example.\nmx1.good.example. A 127.0.0.2\n" ...
    async with (
        DnsServer(zone) as resolver,
        SmtpPeer("127.0.0.2", port, certificate=ca.issue("mx1.good.example")) as good,
        SmtpPeer("127.0.0.3", port, behaviour=Behaviour(ehlo=[OK, drop()])) as bad,
    ):
        ...  # run the gateway with dns.resolvers [resolver.resolver], delivery.port, tls.trust from ca.write_root()
        (message,) = await good.wait_messages(1)
        assert message.tls_version == "TLSv1.3" and b"Subject" not in bad.received

Everything listens on loopback only. The daemon never imports this package.
"""

from gateway.testing.ca import CA, Certificate, self_signed
from gateway.testing.clock import FakeClock
from gateway.testing.dns import DnsServer, Flag, Query
from gateway.testing.net import free_port, poll, read_until, wait_port
from gateway.testing.postgres import PostgresServer, postgres_programs
from gateway.testing.smtp import (
    OK,
    Action,
    Behaviour,
    ByAddress,
    Command,
    Message,
    PerSession,
    Recipient,
    Session,
    Share,
    SmtpPeer,
    Tls,
    TlsFacts,
    delay,
    drip,
    drop,
    drop_after,
    endless,
    garbage,
    reply,
    stall,
)

__all__ = [
    "CA",
    "OK",
    "Action",
    "Behaviour",
    "ByAddress",
    "Certificate",
    "Command",
    "DnsServer",
    "FakeClock",
    "Flag",
    "Message",
    "PerSession",
    "PostgresServer",
    "Query",
    "Recipient",
    "Session",
    "Share",
    "SmtpPeer",
    "Tls",
    "TlsFacts",
    "delay",
    "drip",
    "drop",
    "drop_after",
    "endless",
    "free_port",
    "garbage",
    "poll",
    "postgres_programs",
    "read_until",
    "reply",
    "self_signed",
    "stall",
    "wait_port",
]
