"""P8 and P6: a sync that fails is never called good; a full disk is told as such, heals, and loses nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash import tracer
from tests.crash.ledger import send
from tests.crash.scene import Scene, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(180)]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    if (why := tracer.missing()) is not None:
        pytest.skip(why)
    with scene(tmp_path) as made:
        made.gateway.start()
        yield made


def arrived(stage: Scene, *tokens: str) -> None:
    wait_for(f"{', '.join(tokens)} arrive", lambda: set(tokens) <= stage.record.tokens(), seconds=30)


@pytest.mark.parametrize("large", [False, True], ids=["small", "200 KB"])
def test_a_sync_that_fails_closes_the_store_until_it_is_started_again(stage: Scene, *, large: bool) -> None:
    assert send(stage, "before", large=large).accepted
    arrived(stage, "before")
    options = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")
    with tracer.attached(stage.gateway.pids(), stage.gateway.directory / "strace.log", *options):
        answer = send(stage, "during", large=large)
        assert (answer.code, answer.text[:5]) == (451, "4.3.0"), answer
        wait_for("not ready", lambda: stage.gateway.probe("/readyz") == 503)
    # The disk is well again, but what it lost nobody knows: until a restart nothing is called good.
    assert stage.gateway.probe("/healthz") == 200
    assert stage.gateway.probe("/readyz") == 503
    assert send(stage, "after").code in {421, 451}
    assert stage.gateway.alive()

    stage.gateway.kill9()
    stage.gateway.start()
    wait_for("ready", lambda: stage.gateway.probe("/readyz") == 200)
    assert send(stage, "again", large=large).accepted
    arrived(stage, "before", "again")
    assert "after" not in stage.record.tokens()


def test_a_sync_that_fails_in_one_worker_closes_the_store_for_all(tmp_path: Path) -> None:
    if (why := tracer.missing()) is not None:
        pytest.skip(why)
    with scene(tmp_path, settings={"workers": 2}) as stage:
        stage.gateway.start()
        options = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")
        with tracer.attached([stage.gateway.worker(1)], stage.gateway.directory / "strace.log", *options):
            tokens = iter(range(1000))
            wait_for("one meets the fault", lambda: send(stage, f"during-{next(tokens)}").code == 451)

        def closed() -> bool:
            problems = stage.gateway.ask("/readyz")
            return all(f"worker {number}: " in problems for number in (1, 2))

        wait_for("no worker takes mail", closed)
        assert {send(stage, f"after-{number}").code for number in range(6)} <= {421, 451}
        # A successor opens the same doubtful store, and is told so.
        before = stage.gateway.kill_worker(2)
        wait_for("another one sits there", lambda: stage.gateway.worker(2) != before)
        wait_for("it takes no mail either", lambda: "worker 2: " in stage.gateway.ask("/readyz"))
        assert {send(stage, f"later-{number}").code for number in range(6)} <= {421, 451}


def test_a_log_that_cannot_grow_answers_452_and_heals(stage: Scene) -> None:
    assert send(stage, "before").accepted
    arrived(stage, "before")
    (log,) = list(stage.gateway.data_dir.rglob("*-wal"))
    options = ("-P", str(log), "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC")
    with tracer.attached(stage.gateway.pids(), stage.gateway.directory / "strace.log", *options):
        answer = send(stage, "during")
        assert (answer.code, answer.text[:5]) == (452, "4.3.1"), answer
        assert stage.gateway.alive()
    taken = [send(stage, f"after-{number}") for number in range(3)]
    assert taken[-1].accepted, taken
    arrived(stage, "before", "after-2")


class TestSmallDisk:
    """A file system of 64 MB of the gateway's own, seen from outside through its process; two workers."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Scene]:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("a small file system needs root and unshare")
        trial = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs "$0"', str(tmp_path))
        if subprocess.run(trial, capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine does not let root mount a tmpfs")
        # The floor out of the way: here the disk itself says no.
        with scene(tmp_path, settings={"workers": 2, "limits": {"free_space": "1KiB"}}) as made:
            made.gateway.data_dir.mkdir()
            script = 'mount -t tmpfs -o size=64m,mode=0700 tmpfs "$0" && exec "$@"'
            made.gateway.start(prefix=("unshare", "-m", "sh", "-c", script, str(made.gateway.data_dir)))
            yield made

    def filler(self, stage: Scene) -> Path:
        assert stage.gateway.process is not None
        return Path(f"/proc/{stage.gateway.process.pid}/root{stage.gateway.data_dir}/filler")

    def fill(self, path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            block = bytes(1 << 16)
            while block:
                try:
                    file.write(block)
                except OSError:
                    block = block[: len(block) // 2]

    @pytest.mark.parametrize("large", [False, True], ids=["small", "200 KB"])
    def test_a_full_disk_answers_452_and_heals_without_a_restart(self, small: Scene, *, large: bool) -> None:
        assert send(small, "before", large=large).accepted
        arrived(small, "before")
        path = self.filler(small)
        self.fill(path)
        answers = [send(small, f"during-{number}", large=large) for number in range(4)]
        refused = [answer for answer in answers if not answer.accepted]
        assert refused, "the disk was full, and all was taken"
        assert {(answer.code, answer.text[:5]) for answer in refused} == {(452, "4.3.1")}
        assert small.gateway.alive()
        path.unlink()
        wait_for("mail is taken again", lambda: send(small, "after", large=large).accepted, seconds=30)
        kept = [f"during-{number}" for number, answer in enumerate(answers) if answer.accepted]
        arrived(small, "before", "after", *kept)
        wait_for("ready", lambda: small.gateway.probe("/readyz") == 200)

    def test_what_was_delivered_is_not_forgotten_for_want_of_room(self, small: Scene) -> None:
        small.gate.touch()
        tokens = {f"told-{number}" for number in range(6)}
        for number, token in enumerate(sorted(tokens)):
            assert send(small, token, large=number % 3 == 0).accepted
        wait_for("they are on their way", lambda: waiting(small, "delivering") == len(tokens))
        path = self.filler(small)
        self.fill(path)
        small.gate.unlink()
        wait_for("outcomes wait for room", lambda: named(small, "outcome_waits"), seconds=60)
        path.unlink()
        wait_for("all has ended", lambda: waiting(small, "delivering", "queued", "deferred", "held") == 0, seconds=60)
        assert small.record.tokens() == tokens
        assert small.record.duplicates() == 0
        assert small.gateway.metric("gateway_recipients_total", method="tls", outcome="delivered") == len(tokens)
        assert named(small, "process_died") == []

    def test_a_worker_that_dies_on_a_full_disk_comes_again_when_there_is_room(self, small: Scene) -> None:
        assert send(small, "before").accepted
        arrived(small, "before")
        path = self.filler(small)
        self.fill(path)
        pid = small.gateway.kill_worker(1)
        wait_for("it died, and its successor found no room", lambda: len(named(small, "process_died")) >= 2, seconds=60)
        assert small.gateway.alive()
        path.unlink()
        wait_for("another one sits there", lambda: small.gateway.worker(1) != pid, seconds=60)
        wait_for("ready", lambda: small.gateway.probe("/readyz") == 200)
        assert send(small, "after").accepted
        arrived(small, "before", "after")


def named(stage: Scene, event: str) -> list[dict[str, Any]]:
    return [each for each in stage.gateway.events(stage.gateway.begin) if each.get("event") == event]


def waiting(stage: Scene, *states: str) -> int:
    """How many recipients are in one of these states."""
    return stage.gateway.recipients(*states)
