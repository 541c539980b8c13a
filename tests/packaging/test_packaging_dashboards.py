"""The dashboards for Grafana: made of metrics that exist, on any data source, and laid out without overlaps."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.exposition import exposed, named_in, selectors

FILES = sorted((Path(__file__).parents[2] / "config/grafana").glob("*.json"))
NO_PROMTOOL = "promtool is not installed (Debian: prometheus): the expressions of the dashboards were not parsed"
Json = dict[str, Any]


def load(path: Path) -> Json:
    board: Json = json.loads(path.read_text(encoding="utf-8"))
    return board


def every(node: Any, key: str) -> Iterator[Any]:
    """The values of a key, wherever it stands."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from every(value, key)


def expressions(board: Json) -> list[str]:
    return [*every(board, "expr"), *every(board["templating"], "definition")]


def test_there_is_an_overview() -> None:
    assert "overview.json" in {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dashboard_names_metrics_and_labels_that_exist(path: Path) -> None:
    known = exposed()
    for expression in expressions(load(path)):
        names = named_in(expression)
        assert names, expression
        assert names <= known.keys(), expression
        for name, label in selectors(expression):
            assert label in known[name], expression
        for inside in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {each.strip() for each in inside.split(",")} <= frozenset().union(*(known[name] for name in names))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dashboard_works_on_any_data_source(path: Path) -> None:
    board = load(path)
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for source in every(board, "datasource"):
        assert source == {"type": "prometheus", "uid": "${datasource}"}
    assert board["schemaVersion"] >= 36
    assert not {"id", "__inputs"} & board.keys(), "exported from one server"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dashboard_is_laid_out_and_explains_itself(path: Path) -> None:
    board = load(path)
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and (panel["type"] == "row" or panel["description"]) for panel in panels)
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@pytest.mark.peer
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_promtool_parses_every_expression(path: Path, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip(NO_PROMTOOL)
    written = [
        each.replace("$__rate_interval", "5m").replace("$instance", ".*")
        for each in every(load(path)["panels"], "expr")
    ]
    rules = [{"record": f"dashboard:{number}", "expr": each} for number, each in enumerate(written)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
