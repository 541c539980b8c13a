"""The alerts for Prometheus: made of metrics that exist, each with its way out, each seen to ring by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.observe.alarms import ALARMS
from tests.packaging.alert_cases import CASES, HEALTHY, Case
from tests.packaging.exposition import exposed, named_in, selectors

ROOT = Path(__file__).parents[2]
FILE = ROOT / "config/prometheus/alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
NO_PROMTOOL = "promtool is not installed (Debian: prometheus): that the alerts ring was not looked at"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    known = exposed()
    assert named_in(rule["expr"]) <= known.keys()
    for name, label in selectors(rule["expr"]):
        assert label in known[name], f"{name}{{{label}}}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_how_bad_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert not anchor or anchor in anchors


def test_an_alert_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_every_alarm_rings_one_alert_and_no_alert_waits_for_an_alarm_that_never_comes() -> None:
    (rest,) = [rule["expr"] for rule in RULES if rule["alert"] == "GatewayAlarm"]
    own = {kind for rule in RULES for kind in re.findall(r'gateway_alarms_total\{kind="(\w+)"\}', rule["expr"])}
    (written,) = re.findall(r'kind!~"([\w|]+)"', rest)
    excepted = set(written.split("|"))
    assert own | excepted <= set(ALARMS)
    # These two have an alert on the state itself, which lasts as long as it does.
    assert excepted - own == {"clock", "observe_stage"}
    assert own <= excepted


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {rule["alert"] for rule in RULES}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(NO_PROMTOOL)
    return subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def firing(names: set[str]) -> list[dict[str, Any]]:
    """What promtool expects of a count by name."""
    return [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]


def healthy(minutes: int) -> dict[str, str]:
    return {name: values.replace("N", str(minutes)) for name, values in HEALTHY}


def unit(case: Case) -> dict[str, Any]:
    """The case as a unit test: this alert rings, and of the others none that is not said to."""
    series = healthy(case.at) | dict(case.series)
    asked = f'count by (alertname) (ALERTS{{alertstate="firing", alertname="{case.alert}"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": asked, "eval_time": f"{case.at}m", "exp_samples": firing({case.alert})}],
    }


@pytest.mark.peer
def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint-fatal", FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.peer
def test_each_alert_rings_for_its_cause_and_none_on_a_quiet_day(tmp_path: Path) -> None:
    quiet = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in healthy(700).items()],
        "promql_expr_test": [
            {"expr": "count by (alertname) (ALERTS)", "eval_time": f"{minute}m", "exp_samples": []}
            for minute in (1, 15, 90, 700)
        ],
    }
    path = tmp_path / "alerts_test.yaml"
    path.write_text(
        yaml.safe_dump(
            {"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": [quiet, *map(unit, CASES)]},
            sort_keys=False,
        )
    )
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
