"""The documents say what the code says: every link leads somewhere, every label is explained, every command exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from gateway.cli import VERBS, gateway
from gateway.config.load import load_settings
from gateway.config.users import make_hash
from gateway.ingress.refusals import Reason
from gateway.observe.metrics import ALARMS, Metrics
from gateway.queue.states import State
from gateway.testing import CA

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("bench/*.md")])
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(page: Path) -> set[str]:
    """What a heading is linked by, as GitHub makes it."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{page.name} links to {target}"


def intake_reasons() -> set[str]:
    """Labels that rooms behind the door give: they are literals where they are raised."""
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for room in ("ingress", "queue", "store")
        for path in (ROOT / "gateway" / room).glob("*.py")
    )
    return set(re.findall(r'reason="([a-z_]+)"', text)) - {"contradiction"}


@pytest.mark.parametrize("reason", sorted({str(reason) for reason in Reason} | intake_reasons()))
def test_every_refusal_is_explained(reason: str) -> None:
    refusals = TROUBLESHOOTING.partition("\n## Refusals")[2].partition("\n## Undelivered")[0]
    rows = [line for line in refusals.splitlines() if line.startswith(f"| `{reason}` |")]
    assert len(rows) == 1
    assert all(cell.strip() for cell in rows[0].strip("|").split("|"))


@pytest.mark.parametrize("kind", ALARMS)
def test_every_alarm_is_explained(kind: str) -> None:
    alarms = TROUBLESHOOTING.partition("\n## Alarms")[2].partition("\n## It does not start")[0]
    assert len([line for line in alarms.splitlines() if line.startswith(f"| `{kind}` |")]) == 1


def test_no_alarm_is_explained_that_never_rings() -> None:
    alarms = TROUBLESHOOTING.partition("\n## Alarms")[2].partition("\n## It does not start")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", alarms, flags=re.MULTILINE)) == set(ALARMS)


def test_every_state_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("## States of a recipient")[2].partition("## Processes")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    first_cells = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert first_cells == {str(state) for state in State}


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "gateway").glob("*/__init__.py")}
    for name in rooms:
        assert f"| `gateway/{name}` |" in text, name
    for named in re.findall(
        r"`((?:gateway|ingress|queue|store|delivery|directory|policy|protect|config)/\w+\.py)`", text
    ):
        assert (ROOT / named).exists() or (ROOT / "gateway" / named).exists(), named


def commands(text: str) -> list[list[str]]:
    """The words behind each ``gateway`` in the code of a page that is meant as a command."""
    code = re.findall(r"```.*?```", text, flags=re.DOTALL)
    code += re.findall(r"^    .*$", text, flags=re.MULTILINE)
    code += re.findall(r"`[^`\n]+`", without_blocks(text))
    found = []
    for line in "\n".join(code).splitlines():
        for match in re.finditer(r"(?:^|[\s`/])gateway ((?:[a-z]+)(?: [a-z]+(?:-[a-z]+)*)?)", line.partition("#")[0]):
            words = match.group(1).split()
            if words[0] in KNOWN_VERBS:
                found.append(words)
    return found


def without_blocks(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


KNOWN_VERBS = set(VERBS) | {"demo", "explain", "probe", "audit", "keys", "policy"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_gateway_command_exists(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        context = click.Context(gateway)
        command = gateway.get_command(context, words[0])
        assert command is not None, f"{page.name}: gateway {words[0]}"
        if isinstance(command, click.Group) and words[1:]:
            assert command.get_command(context, words[1]) is not None, f"{page.name}: gateway {' '.join(words)}"


def test_the_commands_of_the_quick_start_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Quick start")[2].partition("\n## ")[0]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"^    make (\w+)", text, flags=re.MULTILINE)
    assert named == ["demo", "test", "run"]
    assert set(named) <= targets
    settings = yaml.safe_load((ROOT / "config/quickstart.yaml").read_text(encoding="utf-8"))
    assert text.count(settings["listeners"][0]["address"]) >= 2
    assert "--config config/quickstart.yaml" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_metric_that_is_named_exists(page: Path) -> None:
    made = Metrics("0")
    names = {family.name for family in made.registry.collect()}
    later = {"gateway_ready", "gateway_queue_recipients", "gateway_queue_oldest_seconds", "gateway_store_free_bytes"}
    for name in re.findall(r"`[^`\n]*?(gateway_[a-z_]+)", page.read_text(encoding="utf-8")):
        assert name.removesuffix("_total") in names | later, f"{page.name}: {name}"


WITH_EXAMPLES = ("getting-started", "connectors", "connect-microsoft-365", "connect-google-workspace")


@pytest.mark.parametrize("page", [ROOT / f"docs/{name}.md" for name in WITH_EXAMPLES], ids=lambda p: p.name)
def test_every_example_configuration_loads(page: Path, tmp_path: Path) -> None:
    certificate, key = CA().issue("gw.clinic.example").write(tmp_path, "tls")
    for name in ("relay.secret", "relay.secret.new"):
        (tmp_path / name).write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "users.yaml").write_text(f'scanner-3: "{make_hash("secret")}"\n')
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        text = f"connectors:\n{block}" if block.startswith("  - ") else block
        settings = yaml.safe_load(text)
        settings.setdefault("hostname", "gw.clinic.example")
        settings.setdefault("postmaster", "postmaster@clinic.example")
        settings["tls"] = {"certificate": str(certificate), "key": str(key)}
        path = tmp_path / "gateway.yaml"
        path.write_text(yaml.safe_dump(settings))
        load_settings(path)


def test_nothing_here_is_about_one_machine() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(?:work|tmp|root|home/\w+)/", text), page.name
