"""The reference and the commented sample, made from the model: what the code does and what is written cannot differ.

``python -m gateway.config.docs`` writes ``docs/reference/config.md`` and ``config/gateway.yaml`` under the current
directory.
"""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from gateway.config.describe import bare, bare_origin, kind, written
from gateway.config.faults import section_in
from gateway.config.model import Settings
from gateway.config.rooms import WITHOUT_EFFECT
from gateway.config.section import Section

__all__ = ["reference_markdown", "sample_yaml"]

REFERENCE = Path("docs/reference/config.md")
SAMPLE = Path("config/gateway.yaml")

_WIDTH = 110
_NO_EFFECT = "*No effect yet in this version.*"

# Values that a default cannot show: what must be given, and entries of lists and mappings.
_EXAMPLES: Mapping[str, str] = types.MappingProxyType(
    {
        "hostname": "gw.clinic.example",
        "postmaster": "postmaster@clinic.example",
        "tls.certificate": "/etc/gateway/tls.crt",
        "tls.key": "/etc/gateway/tls.key",
        "listeners": '\n  - {address: "0.0.0.0:25", tls: required, client_certificates: ignore}',
        "connectors": textwrap.indent(
            textwrap.dedent("""
            - name: m365
              stage: soft
              accept:
                networks: [microsoft365]
                tenant: {id: 6f0e2b1c-1111-2222-3333-444455556666, domains: [clinic.example]}
                header: {name: X-Clinic-Relay, values: ["file:relay.secret"]}
              system_mail: tenant
              foreign_from: refuse
              senders: [clinic.example, "*.clinic.example"]
              return_route: {host: clinic-example.mail.protection.outlook.com, port: 25, tls: verified}
              limits: {message_size: 150MB, recipients: 1000, connections: 200, messages_per_minute: 6000}"""),
            "  ",
        ),
        "dns.resolvers": '["127.0.0.1:53"]',
        "delivery.routes": "\n    partner.example: {host: relay.partner.example, port: 587, tls: verified}",
        "delivery.pins": "\n    payer.example: {hosts: [mx1.payer.example]}",
        "policies": '["../policies/*.yaml"]',
        "dkim": '\n  clinic.example: [{selector: s1, key: "file:dkim/s1.pem"}]',
        "portal.url": "https://secure.clinic.example",
        "notify.alerts": "[ops@clinic.example]",
        "notify.reviewers": "[privacy@clinic.example]",
    }
)
_UNBUILT = WITHOUT_EFFECT | {"delivery.source_addresses"}

# Defaults that come from other settings.
_DERIVED: Mapping[str, str] = types.MappingProxyType(
    {
        "listeners[].name": "the address",
        "connectors[].stage": "`soft` or `enforce`",
        "connectors[].senders": "from `accept`",
        "notify.reviewers": "`alerts`",
    }
)


# -- the reference ----------------------------------------------------------------------------------------------------


def reference_markdown() -> str:
    """``docs/reference/config.md``: every key with its type, default and meaning."""
    head = """\
# Configuration

Made from the settings model by `python -m gateway.config.docs`; change the model, not this file.

One YAML file, by default `/etc/gateway/gateway.yaml`. `gateway check` tells every fault at once as
`FILE:LINE:COL: message`; an unknown key is a fault. SIGHUP reads the files again: all of it is taken, or nothing.

- **Durations** are written `90s`, `15m`, `4h`, `5d` (also `ms` and `w`).
- **Sizes** are written `25MB` (millions of bytes; `KB`, `MB`, `GB`) or `64KiB` (powers of two; `KiB`, `MiB`, `GiB`).
- **Secrets** are text, `${VARIABLE}`, `file:PATH` or `credential:NAME` (systemd). One line end at the end of a file
  does not count.
- **Paths** that are relative start at the directory of the configuration file.
- **Lists** with a single entry may be written without brackets.
"""
    parts = [head, *_sections(Settings, ""), ""]
    return "\n".join(parts).rstrip() + "\n"


def _sections(section: type[Section], prefix: str) -> Iterator[str]:
    title = f"## `{prefix}`" if prefix else "## Top level"
    yield title
    yield ""
    if prefix:
        yield _doc(section.__doc__)
        yield ""
    if prefix in _UNBUILT:
        yield _NO_EFFECT
        yield ""
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    nested: list[tuple[type[Section], str]] = []
    for name, field in section.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        inner, between = section_in(field.annotation)
        place = _between(path, field.annotation) if between else path
        if inner is not None:
            nested.append((inner, place))
        value = _link(place) if inner is not None else kind(field)
        if inner is not None and between:
            value = f"{'by domain' if bare_origin(field.annotation) is dict else 'list'}: {value}"
        meaning = _doc(field.description).replace("|", "\\|")
        if path in _UNBUILT:
            meaning += f" {_NO_EFFECT}"
        default = _DERIVED.get(path, _default_shown(field, inner))
        yield f"| `{name}` | {value} | {default} | {meaning} |"
    yield ""
    for inner, place in nested:
        if place.endswith(("return_route", "client_certificate")):
            continue  # the same keys as in delivery.routes, shown there
        yield from _sections(inner, place)


def _between(path: str, annotation: Any) -> str:
    origin = bare_origin(annotation)
    if origin is dict:
        key = "DOMAIN"
        inner = [part for part in typing.get_args(bare(annotation)) if part is not Ellipsis][-1]
        return f"{path}.{key}" + ("[]" if bare_origin(inner) is tuple else "")
    return f"{path}[]" if origin is tuple else path


def _link(place: str) -> str:
    if place.endswith("return_route"):
        return '`"host:port"`, or as in `delivery.routes.DOMAIN`'
    if place.endswith("client_certificate"):
        return "`{certificate: PATH, key: PATH}`"
    return f"see `{place}`"


def _default_shown(field: FieldInfo, inner: type[Section] | None) -> str:
    if field.is_required():
        return "**needed**"
    if inner is not None and isinstance(field.default, Section):
        return ""
    return f"`{written(field, field.default)}`"


def _doc(text: str | None) -> str:
    return " ".join((text or "").split())


# -- the sample -------------------------------------------------------------------------------------------------------


def sample_yaml() -> str:
    """``config/gateway.yaml``: what must be given; every other key commented out, with its default or an example."""
    lines = [
        "# A sample of every setting, made from the settings model by `python -m gateway.config.docs`.",
        "# `hostname` and `postmaster` are needed. To use another setting, take away the # that its line begins with,",
        "# and of the section's that it stands in. They show the default, or an example where the text says so.",
        "# `gateway check --config FILE` tells every fault with its place.",
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", *(["# No effect yet in this version."] if name in _UNBUILT else [])]
        lines += _sample_field(name, field, name, "")
    return "\n".join(lines) + "\n"


def _sample_field(name: str, field: FieldInfo, path: str, indent: str) -> Iterator[str]:
    """The meaning of a key, then the key: commented out by a # in the first column, so that the rest is in place."""
    example = _EXAMPLES.get(path)
    described = _doc(field.description) + (" Example:" if example is not None and not field.is_required() else "")
    for line in textwrap.wrap(described, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False):
        yield f"{indent}# {line}"
    inner, between = section_in(field.annotation)
    if field.is_required():
        yield f"{name}: {example}"
    elif example is not None:
        gap = "" if example.startswith("\n") else " "
        yield from (f"#{line}" for line in f"{indent}{name}:{gap}{example}".splitlines())
    elif inner is not None and not between and isinstance(field.default, Section):
        yield f"#{indent}{name}:"
        for key, below in inner.model_fields.items():
            yield from _sample_field(key, below, f"{path}.{key}", indent + "  ")
    else:
        yield f"#{indent}{name}: {written(field, field.default)}"


def main() -> None:
    """Write both files under the current directory."""
    for path, text in ((REFERENCE, reference_markdown()), (SAMPLE, sample_yaml())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
