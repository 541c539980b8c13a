"""The doctor looks at object storage by using it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Cli, write_config
from tests.object_server import ObjectServer


@pytest.fixture
def there(tmp_path: Path) -> Cli:
    return Cli(write_config(tmp_path, "127.0.0.1:9", 2525, 2526), {})


def finding(cli: Cli, bucket: str, **s3: str) -> dict[str, Any]:
    settings = yaml.safe_load(cli.config.read_text())
    settings["store"] = {"blobs": f"s3://{bucket}/mail", "s3": s3}
    cli.config.write_text(yaml.safe_dump(settings))
    environment = {name: "" for name in os.environ if name.startswith("AWS_")}
    checks = json.loads(cli.run("doctor", "--json", **environment).stdout)["checks"]
    (found,) = [check for check in checks if check["name"] == "object_storage"]
    return dict(found)


def test_a_bucket_that_works(there: Cli, object_server: ObjectServer) -> None:
    keys = {"access_key": "key", "secret_key": "hush", "region": "us-east-1"}
    found = finding(there, object_server.create_bucket(), endpoint=object_server.endpoint, **keys)
    assert (found["status"], found["remedy"]) == ("ok", "")


def test_a_bucket_that_is_not_there(there: Cli, object_server: ObjectServer) -> None:
    keys = {"access_key": "key", "secret_key": "hush-hush", "region": "us-east-1"}
    found = finding(there, "nowhere", endpoint=object_server.endpoint, **keys)
    assert found["status"] == "bad"
    assert "no such bucket" in found["detail"]
    assert "hush-hush" not in str(found)


def test_nobody_answers(there: Cli) -> None:
    keys = {"access_key": "key", "secret_key": "hush-hush", "region": "us-east-1"}
    found = finding(there, "bucket", endpoint="http://127.0.0.1:9", **keys)
    assert found["status"] == "bad"
    assert "object storage" in found["detail"]
    assert "hush-hush" not in str(found)
