"""The unit files, read: what systemd makes of them, and that their numbers are those of the code."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.app import supervisor
from gateway.app.gateway import DRAIN

UNITS = Path(__file__).parents[2] / "systemd"
MOST = 2.0
NO_SYSTEMD = "systemd-analyze is not installed: the unit files were not judged"


def analyze(*arguments: str | Path) -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip(NO_SYSTEMD)
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def service() -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as documented: keys keep their case
    unit.read(UNITS / "gateway.service")
    return unit["Service"]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def exposure(unit: Path) -> float:
    text = analyze("security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    if found is None and "offline" in text:
        pytest.skip("this systemd-analyze judges running units only: the unit files were not judged")
    assert found is not None, text
    return float(found.group(1))


@pytest.mark.peer
def test_the_service_is_hardly_exposed() -> None:
    assert exposure(UNITS / "gateway.service") <= MOST


@pytest.mark.peer
def test_the_backup_is_exposed_even_less() -> None:
    assert exposure(UNITS / "gateway-backup.service") < exposure(UNITS / "gateway.service")


@pytest.mark.peer
def test_with_the_socket_unit_it_is_exposed_no_more(tmp_path: Path) -> None:
    unit = tmp_path / "gateway.service"
    drop_in = (UNITS / "gateway.service.d/socket.conf").read_text()
    unit.write_text((UNITS / "gateway.service").read_text() + drop_in)
    assert exposure(unit) <= exposure(UNITS / "gateway.service")


@pytest.mark.peer
def test_systemd_knows_every_line(tmp_path: Path) -> None:
    names = [path.name for path in UNITS.iterdir() if path.is_file()]
    for name in names:
        # The program stands where it is not installed: another one, so that nothing but the unit is judged.
        (tmp_path / name).write_text((UNITS / name).read_text().replace("/opt/gateway/bin/gateway", "/bin/true"))
    said = analyze("verify", "--man=no", *(tmp_path / name for name in names))
    assert "gateway" not in said, said


def test_a_stop_gets_the_time_that_it_takes() -> None:
    most = DRAIN + 3 * supervisor._GRACE  # the workers' drain, their end, that of the health process
    assert seconds(service()["TimeoutStopSec"]) >= most
    assert seconds(service()["TimeoutStartSec"]) >= supervisor._START


def test_no_right_is_left_but_the_one_for_port_25() -> None:
    assert service()["CapabilityBoundingSet"] == service()["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    drop_in = (UNITS / "gateway.service.d/socket.conf").read_text()
    assert "CapabilityBoundingSet=\n" in drop_in
    assert "AmbientCapabilities=\n" in drop_in
