"""One build and one installation for all tests of a session: they cost the most."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging import prefix as prefixes
from tests.packaging.dockerfile import read
from tests.packaging.prefix import Prefix

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes: the wheel and the source archive."""
    return build(tmp_path_factory.mktemp("dist"))


def build(target: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, ROOT],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Prefix:
    """The Dockerfile's first stage, built without an engine: an environment that sees itself at /opt/gateway."""
    why = prefixes.missing()
    if why is not None:
        pytest.skip(why)
    place = tmp_path_factory.mktemp("image")
    (place / "src").mkdir()
    (place / "gateway").mkdir(mode=0o755)
    made = Prefix(place / "gateway")
    stage = read(ROOT / "Dockerfile")[0]
    python = prefixes.system_python()
    assert python is not None
    prefixes.replay(stage, prefixes.context(stage, ROOT, place / "src"), made, python)
    return made
