"""What is known about recipients: where their mail goes, and (later) what they can take.

1. ``resolver``     - the one door to DNS: answers with their security status, or :class:`DnsError`
2. ``dns_cache``    - answers kept for their TTL, within bounds
3. ``mx``           - the hosts of a domain: MX, implicit MX, null MX, ourselves among them
4. ``addresses``    - the addresses of a host that may be connected to
5. ``destinations`` - which addresses found by DNS are refused
6. ``spf``, ``spf_record``, ``dmarc`` - what domains of our own publish about their mail, for ``gateway doctor``
"""

from gateway.directory.addresses import HostAddresses, find_addresses, ipv6_usable
from gateway.directory.destinations import DestinationGuard
from gateway.directory.mx import MxHost, MxSet, find_mx
from gateway.directory.resolver import Answer, DnsError, DnsResolver, Resolver

__all__ = [
    "Answer",
    "DestinationGuard",
    "DnsError",
    "DnsResolver",
    "HostAddresses",
    "MxHost",
    "MxSet",
    "Resolver",
    "find_addresses",
    "find_mx",
    "ipv6_usable",
]
