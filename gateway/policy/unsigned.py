"""Which connectors' mail loses its own DKIM signatures to what rules change, without a key of ours to sign it anew.

Such mail leaves unsigned: DMARC then rests on SPF alone, and fails where it is forwarded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.inbound import Connector, Stage
from gateway.config.model import Settings
from gateway.config.source import PathInFile
from gateway.mail.dkim.signing import CLOSED, CLOSED_WHERE_PRESENT
from gateway.mail.edits import Edits
from gateway.policy.rules import Policy

__all__ = ["breaking", "unsigned_changes"]

#: What the large systems sign by default, whether it is there or not.
_USUALLY_SIGNED = frozenset(CLOSED + CLOSED_WHERE_PRESENT)
#: As many rules are named as a reader takes in.
_NAMED = 3


def breaking(edits: Edits) -> tuple[str, ...]:
    """The kinds of change in here that usually break the signature of the sender's system, in their order."""
    return (
        *(("strip_tag",) if edits.strip_tags else ()),
        *(("remove_header",) if edits.remove_headers & _USUALLY_SIGNED else ()),
        *(("add_header",) if any(name.lower() in _USUALLY_SIGNED for name, _ in edits.add_headers) else ()),
        *(("replace_subject",) if edits.replace_subject is not None else ()),
        *(("prepend_subject",) if edits.prepend_subject else ()),
        *(("footer",) if edits.footers else ()),
    )


def unsigned_changes(policy: Policy, settings: Settings) -> Iterator[tuple[PathInFile, str]]:
    """For each connector whose mail may end up unsigned: the path in the configuration, and what to know."""
    acting = {rule.name: found for rule in policy.rules if (found := breaking(rule.actions.edits))}
    if not acting:
        return
    for index, connector in enumerate(settings.connectors):
        if connector.stage is Stage.OBSERVE:
            continue  # policy is not applied to it
        without = [pattern for pattern in connector.senders if not _has_key(pattern, settings)]
        if without:
            yield _place(index, connector), _words(without, acting)


def _has_key(pattern: str, settings: Settings) -> bool:
    """Whether there is a key for a domain that the pattern speaks of; which others have mail is not known."""
    signed = [domain for domain, keys in settings.dkim.items() if keys]
    if pattern == "*":
        return bool(signed)
    if pattern.startswith("*."):
        parent = pattern[2:]
        return any(domain == parent or domain.endswith(pattern[1:]) for domain in signed)
    return pattern in signed


def _place(index: int, connector: Connector) -> PathInFile:
    path: PathInFile = ("connectors", index)
    return (*path, "senders") if "senders" in connector.model_fields_set else path


def _words(without: list[str], acting: Mapping[str, tuple[str, ...]]) -> str:
    kinds = ", ".join(dict.fromkeys(kind for found in acting.values() for kind in found))
    names = ", ".join(sorted(acting)[:_NAMED]) + (", ..." if len(acting) > _NAMED else "")
    return (
        f"there is no key under `dkim` for {', '.join(without)}: mail that a rule changes ({names}: {kinds}) loses the"
        " DKIM signature of its own system and leaves without one"
    )
