"""The image: what its Dockerfile promises, and - without an engine - its steps and its command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.testing import free_port
from tests.packaging.dockerfile import Stage, command_of, environment, read
from tests.packaging.prefix import Prefix
from tests.packaging.world import World, world
from tests.peers import swaks
from tests.peers.gateway_process import wait_for

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "config/container"
UID = 10025

#: $0: memory for what the image adds, $1: the installation, $2: configuration, $3: the store. Then the command.
#: A root that nothing can be written to, as with `read_only: true`; an overlay without an upper layer is that.
_CONTAIN = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$0"
mkdir -p "$0/layer/opt/gateway" "$0/layer/etc/gateway" "$0/layer/var/lib/gateway" "$0/root"
mount -t overlay overlay -o "lowerdir=$0/layer:/" "$0/root"
cd "$0/root"
mount --bind "$1" opt/gateway
mount -o remount,ro,bind opt/gateway
mount --bind "$2" etc/gateway
mount -o remount,ro,bind etc/gateway
mount --bind "$3" var/lib/gateway
mount -t tmpfs -o mode=1777,size=64m,noexec,nosuid,nodev tmpfs tmp
mount -t proc proc proc
shift 3
exec chroot . "$@"
"""
_WITHOUT_RIGHTS = (
    "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs", "--inh-caps=-all",
    "--bounding-set=-all",
)  # fmt: skip


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read(ROOT / "Dockerfile")


def test_the_image_runs_without_root_and_says_whether_it_takes_mail(stages: list[Stage]) -> None:
    build, final = stages
    assert final.only("USER") == f"{UID}:{UID}"
    assert build.base.partition(" AS ")[0] == final.base
    assert not final.base.endswith(":latest")
    assert ":" in final.base
    assert final.only("STOPSIGNAL") == "SIGTERM"
    assert final.only("VOLUME") == "/var/lib/gateway"
    assert "/readyz" in final.only("HEALTHCHECK")
    assert "curl" not in final.only("HEALTHCHECK")
    assert [each.flags for each in final.of("COPY")] == [("--from=build",)]


def test_only_what_the_image_is_built_from_goes_to_the_builder(stages: list[Stage]) -> None:
    copied = {source.removeprefix("./") for each in stages[0].of("COPY") for source in each.words.split()[:-1]}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert "*" in lines


def test_compose_takes_every_right_away(stages: list[Stage]) -> None:
    (one,) = yaml.safe_load((CONTAINER / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["user"] == stages[1].only("USER")
    assert any(each.endswith(f":{stages[1].only('VOLUME')}") for each in one["volumes"])
    assert one["ports"][0].partition(":")[2] in stages[1].only("EXPOSE").split()
    assert {"cap_add", "privileged"}.isdisjoint(one)


def test_kubernetes_takes_every_right_away(stages: list[Stage]) -> None:
    stateful, service = yaml.safe_load_all((CONTAINER / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod: dict[str, Any] = stateful["spec"]["template"]["spec"]
    (one,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == stages[1].only("USER")
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {str(each["containerPort"]) for each in one["ports"]} == set(stages[1].only("EXPOSE").split())
    assert {each["mountPath"] for each in one["volumeMounts"]} >= {stages[1].only("VOLUME"), "/tmp", "/etc/gateway"}
    assert one["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert one["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert service["spec"]["externalTrafficPolicy"] == "Local"


@pytest.mark.peer
def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("hadolint is not installed: the Dockerfile was not linted")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Container:
    """The image's command, as an engine would run it with `read_only: true` and all capabilities dropped."""

    def __init__(self, final: Stage, prefix: Prefix, directory: Path, health: str) -> None:
        self._environment = {
            **environment(final, "/usr/bin:/bin:/usr/sbin:/sbin"),
            "GATEWAY_HEALTH": f"http://{health}",
        }
        self._final = final
        (directory / "memory").mkdir()
        places = [str(directory / "memory"), str(prefix.directory), str(directory / "config"), str(directory / "store")]
        words = command_of(final.only("ENTRYPOINT")) + command_of(final.only("CMD"))
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                    *("sh", "-c", _CONTAIN, *places, *_WITHOUT_RIGHTS, *words),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    @property
    def pid(self) -> int:
        """Of process 1, as seen from outside."""
        return self.children()[0]

    def children(self) -> list[int]:
        own = self.process.pid
        return [int(each) for each in Path(f"/proc/{own}/task/{own}/children").read_text().split()]

    def healthy(self) -> bool:
        """What HEALTHCHECK finds. Raises ``RuntimeError`` where the container has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended with {self.process.returncode}\n{self.log.read_text()}")
        if not self.children():
            return False
        return self.run(*command_of(self._final.only("HEALTHCHECK"))).returncode == 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``docker exec``."""
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--root", "--wd=/", *_WITHOUT_RIGHTS, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@contextmanager
def contained(final: Stage, prefix: Prefix, directory: Path, settings: dict[str, Any]) -> Iterator[Container]:
    (directory / "config").mkdir()
    (directory / "config/gateway.yaml").write_text(yaml.safe_dump(settings))
    (directory / "store").mkdir(mode=0o700)
    os.chown(directory / "store", UID, UID)
    container = Container(final, prefix, directory, settings["metrics"]["listen"])
    try:
        yield container
    finally:
        container.process.kill()
        container.process.wait()


def configuration(around: World, port: int) -> dict[str, Any]:
    return {
        "hostname": "gw.clinic.example",
        "postmaster": "postmaster@clinic.example",
        "listeners": [{"address": f"127.0.0.1:{port}", "tls": "none"}],
        "connectors": [{"name": "a", "stage": "enforce", "accept": {"networks": ["127.0.0.0/8"]}, "senders": ["*"]}],
        "dns": {"resolvers": [around.resolver]},
        "delivery": {"port": around.peer.port, "allow_networks": ["127.0.0.0/8"]},
        "metrics": {"listen": f"127.0.0.1:{free_port('127.0.0.1')}"},
    }


@pytest.mark.peer
@pytest.mark.root
@pytest.mark.timeout(400)  # the installation may have to be made first
def test_the_command_runs_as_process_1_on_a_root_that_cannot_be_written(
    stages: list[Stage], prefix: Prefix, tmp_path: Path
) -> None:
    why = swaks.missing()
    if why is not None:
        pytest.skip(why)
    with world() as around:
        port = free_port("127.0.0.1")
        with contained(stages[1], prefix, tmp_path, configuration(around, port)) as container:
            wait_for("HEALTHCHECK says yes", container.healthy)
            message = b"From: dr@clinic.example\r\nTo: pat@peer.example\r\nSubject: s\r\n\r\nHello.\r\n"
            sent = swaks.send(
                "127.0.0.1",
                port,
                message,
                tmp_path,
                sender="d@clinic.example",
                recipients=["p@peer.example"],
                tls=False,
            )
            assert sent.status == 0, sent.transcript
            wait_for("it arrives", lambda: around.peer.messages)
            assert container.run("gateway", "queue", "list").stdout == "Nothing waits.\n"
            assert "Read-only file system" in container.run("touch", "/x").stderr
            rights = Path(f"/proc/{container.pid}/status").read_text()
            assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}" in rights
            assert "CapEff:\t0000000000000000" in rights
            os.kill(container.pid, 15)  # STOPSIGNAL
            assert container.process.wait(40) == 0
            events = [json.loads(line) for line in container.log.read_text().splitlines() if line.startswith("{")]
            assert events[-1]["event"] == "stopped"
