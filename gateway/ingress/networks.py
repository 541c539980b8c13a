"""The addresses of the clouds: lists shipped with the program, refreshed copies in ``data_dir/networks`` before them.

``networks`` is what the service's SPF record names. ``forwarding`` is where it sends auto-forwarded mail from that
failed authentication: not in SPF, and taken only by connectors with ``foreign_from: forward``.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from gateway.config.model import CLOUD_NETWORKS, Connector, ForeignFrom
from gateway.errors import GatewayError
from gateway.ingress.connectors import Network

__all__ = ["CloudNetworks", "NetworkList", "NetworksError", "load_networks", "read_shipped", "refreshed", "save"]


class NetworksError(GatewayError, ValueError):
    """A list of networks cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class NetworkList:
    """One cloud's addresses. ``records``: the names whose SPF records make up ``networks``.

    ``source`` is ``shipped`` or the path of the file that it came from.
    """

    name: str
    records: tuple[str, ...]
    networks: tuple[Network, ...]
    forwarding: tuple[Network, ...] = ()
    source: str = "shipped"


@dataclass(frozen=True, slots=True)
class CloudNetworks:
    """All lists, by name; a :data:`gateway.ingress.connectors.Networks`."""

    lists: Mapping[str, NetworkList]

    def __call__(self, connector: Connector) -> Sequence[Network]:
        """The networks that this connector names, shipped lists filled in."""
        found: list[Network] = []
        for named in connector.accept.networks:
            if not isinstance(named, str):
                found.append(named)
                continue
            found += self.lists[named].networks
            if connector.foreign_from is ForeignFrom.FORWARD:
                found += self.lists[named].forwarding
        return found


def load_networks(data_dir: Path | None) -> tuple[CloudNetworks, tuple[str, ...]]:
    """All lists, refreshed copies first, and what was wrong with copies that could not be used."""
    lists: dict[str, NetworkList] = {}
    faults: list[str] = []
    for name in sorted(CLOUD_NETWORKS):
        lists[name] = read_shipped(name)
        if data_dir is None:
            continue
        path = _copy(data_dir, name)
        try:
            lists[name] = _parse(name, path.read_bytes(), str(path))
        except FileNotFoundError:
            continue
        except (OSError, NetworksError) as error:
            faults.append(f"{path}: {error}")
    return CloudNetworks(lists), tuple(faults)


def read_shipped(name: str) -> NetworkList:
    """The list as it was when this version was made."""
    file = resources.files("gateway.ingress") / "shipped_networks" / f"{name}.json"
    return _parse(name, file.read_bytes(), "shipped")


def refreshed(old: NetworkList, found: Iterable[Network]) -> NetworkList:
    """``old`` with what its SPF records say now.

    Raises :class:`NetworksError` where that shrinks it to nothing or grows it tenfold, in networks or in addresses:
    that is a broken or taken-over record rather than news, and a person has to look.
    """
    fresh = tuple(sorted(_collapsed(found), key=lambda net: (net.version, int(net.network_address), net.prefixlen)))
    if not fresh:
        raise NetworksError(f"{old.name}: the SPF records name no networks; the list stays as it was")
    for version in (4, 6):
        before, after = _addresses(old.networks, version), _addresses(fresh, version)
        if before and after >= 10 * before:
            raise NetworksError(f"{old.name}: ten times as many IPv{version} addresses; the list stays as it was")
        if before and not after:
            raise NetworksError(f"{old.name}: no IPv{version} network is left; the list stays as it was")
    if len(fresh) >= 10 * len(old.networks):
        raise NetworksError(f"{old.name}: ten times as many networks; the list stays as it was")
    return replace(old, networks=fresh)


def save(data_dir: Path, fresh: NetworkList) -> Path:
    """Write the list for the next start or reload, in one step; its path."""
    path = _copy(data_dir, fresh.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {
            "records": list(fresh.records),
            "networks": [str(net) for net in fresh.networks],
            "forwarding": [str(net) for net in fresh.forwarding],
        },
        indent=2,
    )
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with draft.open("w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return path


def _copy(data_dir: Path, name: str) -> Path:
    return data_dir / "networks" / f"{name}.json"


def _parse(name: str, data: bytes, source: str) -> NetworkList:
    try:
        content: Any = json.loads(data)
        networks, forwarding = (
            tuple(ipaddress.ip_network(text) for text in content[key]) for key in ("networks", "forwarding")
        )
        records = tuple(str(record) for record in content["records"])
    except (ValueError, KeyError, TypeError) as error:
        raise NetworksError(f"not a list of networks: {error}") from None
    if not networks:
        raise NetworksError("the list is empty")
    return NetworkList(name, records, networks, forwarding, source)


def _collapsed(found: Iterable[Network]) -> list[Network]:
    networks = list(found)
    four = [net for net in networks if isinstance(net, ipaddress.IPv4Network)]
    six = [net for net in networks if isinstance(net, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def _addresses(networks: Iterable[Network], version: int) -> int:
    return sum(net.num_addresses for net in networks if net.version == version)
