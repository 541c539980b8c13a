"""The restore drill with a gateway under load, and backups and a change of key that are killed beside one.

What was answered 250 before the backup arrives, though the disk is lost: it had arrived already, or it is released
after the restore. What arrives twice was counted.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.crash.ledger import Load
from tests.crash.scene import Scene, budget, scene
from tests.crash.test_crash_ledger import marks, recipients
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(900)]

_ROOT = Path(__file__).parents[2]


def done(stage: Scene, *words: str) -> str:
    """A verb that must not fail; what it said."""
    result = stage.gateway.command(*words, seconds=120)
    assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
    return result.stdout


def disk_lost(stage: Scene) -> None:
    """Everything but the key, which is kept elsewhere."""
    key = (stage.gateway.data_dir / "kek.key").read_bytes()
    shutil.rmtree(stage.gateway.data_dir)
    stage.gateway.data_dir.mkdir(mode=0o700)
    (stage.gateway.data_dir / "kek.key").write_bytes(key)


def test_the_drill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(budget("SEED", 20260301))
    with scene(tmp_path, share=0.4, seed=seed, settings={"workers": 2}) as stage:
        stage.gateway.start()
        load = Load(stage.gateway.address, stage.gateway.port, clients=3, large_share=0.2, pace=0.02, seed=seed)
        load.start()
        try:
            wait_for("some mail is there", lambda: load.count() > 60)
            before = dict(load.accepted)
            stage.gate.touch()  # from here on nothing is delivered: the backup finds a queue
            wait_for("some mail waits", lambda: load.count() > len(before) + 60)
            waiting = dict(load.accepted)
            done(stage, "store", "backup", str(tmp_path / "backup"))
            stage.gate.unlink()
            wait_for("more mail came", lambda: load.count() > len(waiting) + 30)
        finally:
            load.stop()
        stage.gateway.kill9()
        arrived_before = stage.record.tokens()
        disk_lost(stage)
        done(stage, "store", "restore", str(tmp_path / "backup"))
        held = stage.gateway.queue_list()
        assert {row["hold_reason"] for row in held} <= {"restored", "restored; poison"}
        assert len(held) >= 60, "the backup held no queue to speak of"
        stage.gateway.start()
        done(stage, "queue", "release", "--state", "held", "--yes", "--reason", "drill")
        wait_for("what was released has ended", lambda: not stage.gateway.queue_list(), seconds=120)
        deliveries = stage.record.deliveries()
        told = recipients(stage)
        stage.gateway.stop()
    arrived = Counter(token for token, _ in deliveries)
    twice = {token for token, copies in arrived.items() if copies > 1}
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\ndrill: {len(waiting)} answered 250 before the backup, {len(held)} held after the restore, "
            f"{len(load.accepted) - len(waiting)} answered 250 behind it, {len(twice)} arrived twice"
        )
    assert set(waiting) - set(arrived) == set(), "answered 250 before the backup, and lost"
    assert [token for token, digest in deliveries if load.accepted.get(token, digest) != digest] == [], "not whole"
    assert {token for token in twice if not marks(told[token])} == set(), "arrived twice, and nobody counted it"
    assert arrived_before <= set(arrived)


def test_a_backup_killed_at_any_moment_is_none_and_hurts_nobody(tmp_path: Path) -> None:
    chance = random.Random(7)
    moment = threading.Event()  # never set: its wait is the time until the kill
    with scene(tmp_path, seed=7, settings={"workers": 2}) as stage:
        stage.gateway.start()
        load = Load(stage.gateway.address, stage.gateway.port, clients=2, large_share=0.3, pace=0.02, seed=7)
        load.start()
        try:
            wait_for("some mail is there", lambda: load.count() > 20)
            target = tmp_path / "backup"
            for _ in range(6):
                command = ["store", "backup", str(target), "--rate", "300KB", "--config", str(stage.gateway.config)]
                entry = [sys.executable, "-c", "from gateway.cli import main; main()", *command]
                process = subprocess.Popen(entry, cwd=_ROOT, stderr=subprocess.DEVNULL)
                work = target.with_name("backup.partial")
                wait_for("it has begun", lambda work=work: work.exists(), seconds=60)  # type: ignore[misc]  # bound at once
                moment.wait(chance.uniform(0.0, 1.5))
                process.send_signal(signal.SIGKILL)
                process.wait()
                assert not target.exists()
            before = load.count()
            wait_for("mail is taken all the same", lambda: load.count() > before + 20)
            done(stage, "store", "backup", str(target))
        finally:
            load.stop()
        accepted = set(load.accepted)
        wait_for("everything arrives", lambda: accepted <= stage.record.tokens(), seconds=120)
        stage.gateway.stop()
        assert (target / "manifest.json").exists()


def test_the_key_changes_while_mail_comes_and_goes(tmp_path: Path) -> None:
    with scene(tmp_path, seed=3, settings={"workers": 2}) as stage:
        gateway = stage.gateway
        gateway.start()

        def use(*names: str) -> None:
            settings = yaml.safe_load(gateway.config.read_text())
            settings["store"] = {"keys": [f"file:{name}" for name in names]}
            gateway.config.write_text(yaml.safe_dump(settings))
            begin = gateway.log_path.stat().st_size
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGHUP)
            wait_for("the reload", lambda: [e for e in gateway.events(begin) if e.get("event") == "reloaded"])

        load = Load(gateway.address, gateway.port, clients=2, large_share=0.2, pace=0.02, seed=3)
        load.start()
        try:
            wait_for("some mail is there", lambda: load.count() > 20)
            (gateway.data_dir / "new.key").write_text("33" * 32)
            use("new.key", "kek.key")
            done(stage, "store", "rotate-key")
            use("new.key")
            (gateway.data_dir / "kek.key").unlink()
            before = load.count()
            wait_for("mail comes all the same", lambda: load.count() > before + 20)
            gateway.kill_worker(1)
            wait_for("a new worker opens the store", lambda: gateway.probe("/readyz") == 200, seconds=60)
        finally:
            load.stop()
        gateway.kill9()
        gateway.start()
        accepted = set(load.accepted)
        wait_for("everything arrives", lambda: accepted <= stage.record.tokens(), seconds=120)
        gateway.stop()
