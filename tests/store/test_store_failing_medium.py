"""When the medium fails, nothing is called good any more; when it is only full, it heals.

A file-size limit makes the kernel refuse real writes: a body that grows beyond it is ``EFBIG``, which is "no room";
a write-ahead log that cannot grow is an input/output error for SQLite, which is a failed medium.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.store_world import opened, read_body, stream_faults

pytestmark = pytest.mark.sqlite

SCRIPT = """
import asyncio, json, resource, sys
from pathlib import Path
from gateway.errors import StoreError
from gateway.store.store import Store
from gateway.testing import FakeClock
from tests.store.store_world import body_files, keep, settings, spooled

async def attempt(work):
    try:
        body = await work
    except StoreError as error:
        return type(error).__name__
    return body.message

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(data_dir):
    store = Store.open(settings(data_dir), FakeClock(), environ={})
    told = {"before": await attempt(keep(store, b"kept")), "log": []}
    limit(1_000_000)
    spool = store.spool("019b76da-a800-7000-8000-000000000000")
    async def large():
        for _ in range(20):
            await spool.write(bytes(200_000))
        return await spool.finish()
    told["large"] = await attempt(large())
    await spool.abort()
    told["left"] = [str(path) for path in body_files(data_dir)]
    told["after large"] = await attempt(keep(store, b"still works"))
    limit((data_dir / "queue.db-wal").stat().st_size + 150_000)
    for number in range(12):
        told["log"].append(await attempt(keep(store, bytes(8000))))
    limit(resource.RLIM_INFINITY)
    told["healed"] = await attempt(keep(store, b"too late"))
    told["failed"] = store.writer.failed
    await store.close()
    print(json.dumps(told))

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_full_heals_and_a_failed_write_of_the_log_does_not(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    data_dir = tmp_path / "data"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(script), str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["large"] == "StoreFull"
    assert told["left"] == []
    kept = [told["before"], told["after large"]]
    assert all(len(message) == 36 for message in kept)
    failed = told["log"].index("StoreFailed")
    kept += told["log"][:failed]
    assert all(len(message) == 36 for message in kept)
    assert set(told["log"][failed:]) == {"StoreFailed"}
    assert told["healed"] == "StoreFailed"
    assert told["failed"]
    async with opened(data_dir) as store:  # what was called good is there; a restart takes mail again
        for message in kept:
            assert await read_body(store, message)
        assert set((await stream_faults(store)).values()) == {""}
