"""A release, rehearsed: what is in it, that it can be built again, and that it takes over what the last one left."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from gateway.testing import free_port
from tests.packaging.conftest import build
from tests.packaging.prefix import Prefix
from tests.packaging.world import world
from tests.peers import swaks
from tests.peers.gateway_process import GatewayProcess, wait_for

# The first one that needs the installation waits until it is made.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
SHARED = ("config", "policies", "systemd")


def files(directory: str) -> set[str]:
    """What belongs to the project there."""
    found = {path for path in (ROOT / directory).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {str(path.relative_to(ROOT)) for path in found}


def only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def contents(wheel: Path) -> dict[str, str]:
    """Digests of the files in a wheel; its own record left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def test_the_wheel_holds_everything_that_an_installation_needs(dist: Path) -> None:
    inside = set(contents(only(dist, "*.whl")))
    assert files("gateway") <= inside
    shared = {name.partition(".data/data/share/secure-email-gateway/")[2] for name in inside}
    assert {name for each in SHARED for name in files(each)} <= shared
    assert not any(name.startswith(("tests/", "bench/")) for name in inside)


def test_the_source_archive_is_what_is_tested(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert files("tests") | files("docs") | files("gateway") | {"Makefile", "Dockerfile"} <= inside


def test_the_same_source_makes_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    for pattern in ("*.whl", "*.tar.gz"):
        assert only(again, pattern).read_bytes() == only(dist, pattern).read_bytes()


@pytest.mark.root
def test_what_goes_to_the_image_is_enough_to_build_the_same_wheel(dist: Path, prefix: Prefix) -> None:
    assert contents(only(prefix.directory.parent / "wheels", "secure_email_gateway-*.whl")) == contents(
        only(dist, "*.whl")
    )


@pytest.mark.root
def test_the_bill_of_materials_lists_what_runs(prefix: Prefix, tmp_path: Path) -> None:
    target = tmp_path / "sbom.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")),
            # `make sbom` has it judged by its schema: that takes twelve seconds.
            *(
                "--of",
                "JSON",
                "--output-reproducible",
                "--no-validate",
                "-o",
                str(target),
                str(prefix.directory / "bin/python"),
            ),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bill: dict[str, Any] = json.loads(target.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert bill["metadata"]["component"]["name"] == project["name"]
    listed = {each["name"].lower().replace("_", "-"): each["version"] for each in bill["components"]}
    for text in project["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(listed[wanted.name.lower()]), wanted
    assert "pytest" not in listed


def previous_commit(target: Path) -> Path:
    """The code before the last commit."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed: that this version takes over the store of the one before was not looked at")
    done = subprocess.run([git, "archive", "HEAD~1"], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip("there is no commit before: that this version takes over its store was not looked at")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")
    return target


@pytest.mark.root
def test_mail_that_waits_passes_through_an_upgrade(prefix: Prefix, tmp_path: Path) -> None:
    """Accepted by the version before, run from its source; delivered by this one, run from its wheel."""
    why = swaks.missing()
    if why is not None:
        pytest.skip(why)
    before = previous_commit(tmp_path / "before")
    with world() as around:
        # At first there is nobody at the port of the recipients' host.
        nobody = {
            "port": free_port("127.0.0.2"),
            "allow_networks": ["127.0.0.0/8"],
            "retry": {"first": "1s", "max": "1s"},
        }
        gateway = GatewayProcess(
            tmp_path, resolver=around.resolver, settings={"delivery": nobody, "tls": {"trust": "roots.pem"}}
        )
        around.ca.write_root(tmp_path / "roots.pem")
        # -P: not what lies in the current folder, which is this version.
        old = "from gateway.cli import main; main()"
        gateway.entry = ("env", f"PYTHONPATH={before}", sys.executable, "-P", "-c", old)
        try:
            gateway.start()
            sent = [text_of(size) for size in (200, 400_000)]  # in a row; in a file
            for text in sent:
                taken = swaks.send(
                    *(gateway.address, gateway.port, text, tmp_path),
                    sender="dr@clinic.example",
                    recipients=["pat@peer.example"],
                    tls=False,
                )
                assert taken.status == 0, taken.transcript
            wait_for("both wait", lambda: gateway.recipients("deferred", "queued") == 2)
            assert gateway.stop() == 0

            new = ("/opt/gateway/bin/gateway",)
            gateway.config.write_text(gateway.config.read_text().replace(str(nobody["port"]), str(around.peer.port)))
            for verb in (("check",), ("store", "migrate")):
                done = prefix.run(*new, *verb, "--config", gateway.config, cwd=Path("/"))
                assert done.returncode == 0, done.stdout + done.stderr
            gateway.entry = tuple(prefix.command(*new))
            gateway.start()
            wait_for("both arrive", lambda: len(around.peer.messages) == 2)
            arrived = {message.raw.partition(b"From: ")[2] for message in around.peer.messages}
            assert arrived == {text.partition(b"From: ")[2] for text in sent}
            wait_for("nothing waits", lambda: gateway.recipients("deferred", "queued", "delivering") == 0)
            assert gateway.stop() == 0
        finally:
            gateway.kill9()


def text_of(size: int) -> bytes:
    body = b"".join(b"%07d %s\r\n" % (number, b"x" * 60) for number in range(size // 70 + 1))
    return b"From: dr@clinic.example\r\nTo: pat@peer.example\r\nSubject: s\r\n\r\n" + body
