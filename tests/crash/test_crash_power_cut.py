"""P1 over a power cut: the disk is copied at the moment of a 250, recovered, and a gateway started on the copy.

The data directory is an ext4 file system of its own. Clients hand over small messages (in rows) and large ones (in
files), two workers take them, and the peer puts nearly all of them off, so that they wait. At the moment of a 250, and
at moments of chance between, all processes are stopped and what the disk holds by then is copied: that is all that a
power cut would have left. Each copy is recovered, by the kernel's replay of the journal or by ``e2fsck``; then every
message answered 250 before the copy was taken must leave from it, whole.

``GATEWAY_CRASH_CUTS`` takes more copies.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.disk import Disk, why_not, without_power
from tests.crash.ledger import Client, Load, message
from tests.crash.scene import Scene, budget, scene
from tests.peers.gateway_process import wait_for

pytestmark = [
    *(pytest.mark.peer, pytest.mark.slow, pytest.mark.root),
    *(pytest.mark.xdist_group("crash"), pytest.mark.timeout(3600)),
]

MEGABYTES = 96
#: Two workers; and the floor of free space out of the way, because the disk is a small one.
SETTINGS = {"workers": 2, "limits": {"free_space": "1MiB"}}


@dataclass(frozen=True)
class Cut:
    """What the disk held at one moment, and what had been answered 250 until then."""

    name: str
    disk: Disk
    accepted: dict[str, str]
    gone_out: set[str]
    unknown: set[str]


def test_what_was_answered_250_survives_a_power_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (why := why_not(tmp_path)) is not None:
        pytest.skip(why)
    wanted, seed = int(budget("CUTS", 3)), int(budget("SEED", 20260229))
    disk = Disk.make(tmp_path / "disk.img", MEGABYTES)
    cuts: list[Cut] = []
    own: dict[str, str] = {}
    with scene(tmp_path / "before", share=1.8, seed=seed, settings=SETTINGS) as stage:
        stage.gateway.data_dir.mkdir()
        stage.gateway.start(prefix=disk.mounted_at(stage.gateway.data_dir), seconds=120)
        load = Load(stage.gateway.address, stage.gateway.port, clients=2, large_share=0.25, pace=0.05, seed=seed)
        load.start()
        try:
            chance = random.Random(seed)
            cuts += [cut(stage, load, own, disk, number, chance) for number in range(wanted)]
        finally:
            load.stop()
    recovered = [recover(one, tmp_path / one.name, by_kernel=number % 2 == 0) for number, one in enumerate(cuts)]
    with capsys.disabled():
        print(  # noqa: T201 - these figures are what the run is for
            f"\npower cuts: {len(cuts)}, messages answered 250 before each {[len(one.accepted) for one in cuts]}, "
            f"of these gone out before {[len(one.gone_out) for one in cuts]}, delivered from each copy {recovered}"
        )


def cut(stage: Scene, load: Load, own: dict[str, str], disk: Disk, number: int, chance: random.Random) -> Cut:
    """One copy: at the 250 of a message of our ``own``, small and large by turns; each third at a moment of chance."""
    wait_for("mail flows", lambda: load.count() > 5 * (number + 1), seconds=60)
    pids = stage.gateway.pids()
    if number % 3 == 2:
        threading.Event().wait(chance.uniform(0.0, 1.0))  # never set: the moment is what is wanted
    else:
        one = message(f"cut{number}", large=number % 2 == 1)
        client = Client(stage.gateway.address, stage.gateway.port)
        try:
            assert client.send(one).accepted
        finally:
            client.close()
        own[one.token] = one.digest
    with without_power(pids):
        # In this order: what is between question and answer now may be counted twice, and never not at all.
        unknown, accepted, gone_out = set(load.unknown), load.accepted | own, stage.record.tokens()
        copy = disk.copied_to(disk.image.with_name(f"cut{number}.img"))
    return Cut(f"cut{number}", copy, accepted, gone_out, unknown)


def recover(one: Cut, directory: Path, *, by_kernel: bool) -> int:
    """Let a new gateway run on the copy; how many messages it delivered."""
    if not by_kernel:
        one.disk.check("-p")
    with scene(directory, settings=SETTINGS) as stage:
        stage.gateway.data_dir.mkdir()
        stage.gateway.start(prefix=one.disk.mounted_at(stage.gateway.data_dir), seconds=120)
        wanted = set(one.accepted) - one.gone_out
        wait_for("what was answered 250 arrives", lambda: wanted <= stage.record.tokens(), seconds=120)
        assert stage.gateway.stop() == 0
        deliveries = stage.record.deliveries()
    assert [token for token, digest in deliveries if one.accepted.get(token, digest) != digest] == []
    assert {token for token, _ in deliveries} - set(one.accepted) - one.unknown == set()
    one.disk.check("-fn")
    one.disk.image.unlink()
    return len({token for token, _ in deliveries})
