"""Networks and endpoints as settings."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainValidator
from pydantic_core import CoreSchema, core_schema

from gateway.config.names import parse_host_name
from gateway.config.written import one_or_many, shown, text_of

__all__ = [
    "CLOUD_NETWORKS",
    "Endpoint",
    "Network",
    "NetworkName",
    "NetworkNames",
    "Networks",
    "ResolverEndpoint",
]

CLOUD_NETWORKS = frozenset({"microsoft365", "google"})
"""Networks whose lists we ship. All tenants of these services share them: alone they say nothing about who sends."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NetworkName = Network | Literal["microsoft365", "google"]


def _network(value: object) -> Network:
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    text = text_of(value, "a network such as 192.0.2.0/24 or 2001:db8::/32")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            wanted = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"{shown(text)} is not a network: did you mean {wanted}?") from None
        raise ValueError(f"expected a network such as 192.0.2.0/24 or 2001:db8::/32, found {shown(text)}") from None


def _network_name(value: object) -> object:
    if isinstance(value, str) and value in CLOUD_NETWORKS:
        return value
    if isinstance(value, str) and value and "." not in value and ":" not in value:
        raise ValueError(f"expected a network such as 192.0.2.0/24, microsoft365 or google, found {shown(value)}")
    return _network(value)


Networks = Annotated[tuple[Annotated[Network, PlainValidator(_network)], ...], BeforeValidator(one_or_many)]
NetworkNames = Annotated[
    tuple[Annotated[NetworkName, PlainValidator(_network_name)], ...], BeforeValidator(one_or_many)
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; ``str()`` gives ``host:port``, with brackets around an IPv6 address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> "Endpoint":
        """The endpoint in ``host:port`` or ``[2001:db8::1]:port``; raises ``ValueError``.

        Port 0 asks the system for a free port. Without ``default_port`` the port must be given.
        """
        match = re.match(r"(\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?\Z", text)
        if match is None:
            raise ValueError(f'expected "host:port" (an IPv6 address in brackets), found {shown(text)}')
        host = parse_host_name(match.group(1))
        if match.group(2) is None and default_port is None:
            raise ValueError(f'expected "host:port", found {shown(text)} without a port')
        port = int(match.group(2)) if match.group(2) is not None else (default_port or 0)
        if port > 65535:
            raise ValueError(f"expected a port up to 65535, found {port}")
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_endpoint)


def _endpoint(value: object) -> Endpoint:
    return value if isinstance(value, Endpoint) else Endpoint.parse(text_of(value, '"host:port"'))


def _resolver(value: object) -> Endpoint:
    if isinstance(value, Endpoint):
        return value
    text = text_of(value, 'a resolver as "address:port"')
    try:
        return Endpoint(str(ipaddress.ip_address(text)), 53)
    except ValueError:
        endpoint = Endpoint.parse(text, 53)
    try:
        ipaddress.ip_address(endpoint.host)
    except ValueError:
        raise ValueError(f"expected the IP address of a resolver, found the name {shown(text)}") from None
    return endpoint


ResolverEndpoint = Annotated[Endpoint, PlainValidator(_resolver)]
"""An address and port of a DNS resolver; the port may be left out."""
